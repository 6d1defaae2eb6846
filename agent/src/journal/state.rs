//! What the journal's entries add up to: which attempts this agent knows, and what it may still accept.
//!
//! Pure: built from the entries of an open, kept up to date by applying each entry *after* its append returned. It
//! decides nothing about the world (that is the runner's); it answers three questions:
//!
//! - [`Attempts::list`]: what the control plane must hear at registration;
//! - [`Attempts::may_accept`]: whether an assignment is work, a repeat, or too late;
//! - [`Attempts::open_intents`]: which effects may have begun and must be observed before anything else.
//!
//! Any sequence of entries is taken as it is. The order is the runner's duty, and a journal that was set aside in the
//! middle must still be readable.

use std::collections::BTreeMap;

use serde_json::Value;

use super::RETENTION;
use super::entry::{AttemptKey, Entry, Half};

/// The highest token that this agent has seen.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Fence {
    /// Rises when an operator restores the control plane's store.
    pub incarnation: u64,
    /// Number of the leader's term, counted within an incarnation.
    pub epoch: u64,
    /// The highest revision of the store. After a restore it may lawfully fall with the incarnation's rise.
    pub store_revision: u64,
}

impl Fence {
    /// The highest of all fences in `entries`.
    pub fn highest<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Option<Self> {
        entries.into_iter().filter_map(Self::of).reduce(Self::max)
    }

    /// Whether a message that carries this token and epoch may be acted on.
    pub fn admits(&self, incarnation: u64, epoch: u64) -> bool {
        (incarnation, epoch) >= (self.incarnation, self.epoch)
    }

    /// The higher of both: incarnation and epoch together, and the revision within one incarnation.
    pub fn max(self, other: Self) -> Self {
        let (high, low) = if self.admits(other.incarnation, other.epoch) {
            (other, self)
        } else {
            (self, other)
        };
        let same_store = high.incarnation == low.incarnation;
        let store_revision = if same_store {
            high.store_revision.max(low.store_revision)
        } else {
            high.store_revision
        };
        Self {
            store_revision,
            ..high
        }
    }

    fn of(entry: &Entry) -> Option<Self> {
        match entry {
            Entry::Fence {
                incarnation,
                epoch,
                store_revision,
            } => Some(Self {
                incarnation: *incarnation,
                epoch: *epoch,
                store_revision: *store_revision,
            }),
            _ => None,
        }
    }
}

impl From<Fence> for Entry {
    fn from(fence: Fence) -> Self {
        let Fence {
            incarnation,
            epoch,
            store_revision,
        } = fence;
        Self::Fence {
            incarnation,
            epoch,
            store_revision,
        }
    }
}

/// Everything known, by attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempts {
    by_key: BTreeMap<AttemptKey, Attempt>,
    fence: Fence,
}

/// What is known of one attempt.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Attempt {
    /// The assignment, once accepted.
    pub accepted: Option<Noted>,
    /// Steps by path, each half apart.
    pub steps: BTreeMap<(String, Half), Vec<Try>>,
    /// How the segment ended.
    pub outcome: Option<Noted>,
    /// The answer that closed it for ever.
    pub tombstone: Option<Noted>,
    /// When the control plane confirmed its end.
    pub acked_at: Option<u64>,
}

/// Something written down, and when.
#[derive(Clone, Debug, PartialEq)]
pub struct Noted {
    /// What, in the form of core's types.
    pub value: Value,
    /// Wall-clock milliseconds.
    pub at: u64,
}

/// One try of one half of a step.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Try {
    /// From 1; 0 for an outcome without an intent, as of a step that only reads.
    pub number: u32,
    /// Prior state and time; absent without an intent.
    pub intent: Option<Noted>,
    /// What was learned while the outcome was open.
    pub evidence: Vec<Value>,
    /// How it ended.
    pub outcome: Option<Noted>,
}

impl Try {
    /// An effect may have begun, and nobody wrote down how it ended.
    pub fn is_open(&self) -> bool {
        self.intent.is_some() && self.outcome.is_none()
    }
}

impl Attempt {
    /// Neither ended nor closed: its steps may still run.
    pub fn is_running(&self) -> bool {
        self.accepted.is_some() && self.outcome.is_none() && self.tombstone.is_none()
    }

    fn is_listed(&self, now_ms: u64) -> bool {
        let cutoff = now_ms.saturating_sub(RETENTION.as_millis() as u64);
        self.acked_at.is_none_or(|at| at >= cutoff)
    }

    /// The try that an entry about this half of the step belongs to.
    fn open_try(&mut self, step: &str, half: Half) -> &mut Try {
        let tries = self.steps.entry((step.to_owned(), half)).or_default();
        if tries.last().is_none_or(|last| last.outcome.is_some()) {
            tries.push(Try::default());
        }
        let last = tries.len() - 1;
        &mut tries[last]
    }
}

/// Whether an assignment may be taken.
#[derive(Clone, Debug, PartialEq)]
pub enum Verdict<'a> {
    /// Unknown so far, and nothing stands against it.
    Accept,
    /// Known: the answer is in the journal, and nothing is run because of the repeat.
    Repeat(&'a Attempt),
    /// It must not start here, ever.
    Refuse(TooLate),
}

/// Why an attempt must not start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TooLate {
    /// A later attempt of the same job and target is known here.
    #[error("attempt {newest} of this job is known here already")]
    NewerKnown {
        /// The highest number known.
        newest: u32,
    },
    /// A later attempt was closed, and with it all before it.
    #[error("attempt {closed} of this job was closed here, and all before it with it")]
    Closed {
        /// The highest number closed.
        closed: u32,
    },
    /// The attempt before it may still act. It needs an outcome or a tombstone first.
    #[error("attempt {open} of this job has neither an outcome nor a tombstone here")]
    EarlierOpen {
        /// The number of the open one.
        open: u32,
    },
}

/// An effect that may have begun.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct OpenIntent<'a> {
    /// Of which attempt.
    pub attempt: &'a AttemptKey,
    /// Of which step.
    pub step: &'a str,
    /// The step, or its undo.
    pub half: Half,
    /// What was written down.
    pub last_try: &'a Try,
}

impl Attempts {
    /// What `entries` add up to.
    pub fn replay<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut attempts = Self::default();
        entries.into_iter().for_each(|entry| attempts.apply(entry));
        attempts
    }

    /// Adds one entry, which is on disk.
    pub fn apply(&mut self, entry: &Entry) {
        if let Some(fence) = Fence::of(entry) {
            self.fence = self.fence.max(fence);
        }
        let Some(key) = entry.attempt() else { return };
        let attempt = self.by_key.entry(key.clone()).or_default();
        match entry {
            Entry::Fence { .. } => {}
            Entry::Accepted { assignment, at, .. } => attempt.accepted = noted(assignment, *at),
            Entry::StepIntent {
                step,
                half,
                try_number,
                before,
                at,
                ..
            } => {
                let tries = attempt.steps.entry((step.clone(), *half)).or_default();
                tries.push(Try {
                    number: *try_number,
                    intent: noted(before, *at),
                    ..Try::default()
                });
            }
            Entry::Evidence {
                step, half, data, ..
            } => attempt.open_try(step, *half).evidence.push(data.clone()),
            Entry::StepOutcome {
                step,
                half,
                outcome,
                at,
                ..
            } => {
                attempt.open_try(step, *half).outcome = noted(outcome, *at);
            }
            Entry::SegmentOutcome { outcome, at, .. } => attempt.outcome = noted(outcome, *at),
            Entry::Acked { at, .. } => attempt.acked_at = Some(*at),
            Entry::Tombstone { answer, at, .. } => attempt.tombstone = noted(answer, *at),
        }
    }

    /// The highest token seen.
    pub fn fence(&self) -> Fence {
        self.fence
    }

    /// One attempt.
    pub fn attempt(&self, key: &AttemptKey) -> Option<&Attempt> {
        self.by_key.get(key)
    }

    /// Forgets what [`super::Journal::compact`] with the same `now_ms` drops. Tombstones stay.
    pub fn forget(&mut self, now_ms: u64) {
        self.by_key
            .retain(|_, attempt| attempt.tombstone.is_some() || attempt.is_listed(now_ms));
    }

    /// For registration: every attempt that is not acknowledged, or was in the last seven days.
    pub fn list(&self, now_ms: u64) -> impl Iterator<Item = (&AttemptKey, &Attempt)> {
        self.by_key
            .iter()
            .filter(move |(_, attempt)| attempt.is_listed(now_ms))
    }

    /// Whether the assignment of `key` is work, a repeat, or too late.
    pub fn may_accept(&self, key: &AttemptKey) -> Verdict<'_> {
        let siblings = || self.siblings(key);
        if let Some(known) = self
            .by_key
            .get(key)
            .filter(|known| known.accepted.is_some() || known.tombstone.is_some())
        {
            return Verdict::Repeat(known);
        }
        let closed = siblings()
            .filter(|(_, a)| a.tombstone.is_some())
            .map(|(k, _)| k.number)
            .max();
        if let Some(closed) = closed.filter(|closed| *closed > key.number) {
            return Verdict::Refuse(TooLate::Closed { closed });
        }
        let newest = siblings().map(|(k, _)| k.number).max();
        if let Some(newest) = newest.filter(|newest| *newest > key.number) {
            return Verdict::Refuse(TooLate::NewerKnown { newest });
        }
        match siblings().find(|(_, attempt)| attempt.is_running()) {
            Some((open, _)) => Verdict::Refuse(TooLate::EarlierOpen { open: open.number }),
            None => Verdict::Accept,
        }
    }

    /// Effects that may have begun and whose end is not written down, in order of attempt and step.
    pub fn open_intents(&self) -> impl Iterator<Item = OpenIntent<'_>> {
        self.by_key.iter().flat_map(|(attempt, known)| {
            known.steps.iter().filter_map(move |((step, half), tries)| {
                let last_try = tries.last().filter(|last| last.is_open())?;
                Some(OpenIntent {
                    attempt,
                    step,
                    half: *half,
                    last_try,
                })
            })
        })
    }

    /// All attempts of one job on one target, by number.
    pub fn of_job(
        &self,
        job: &str,
        target: &str,
    ) -> impl DoubleEndedIterator<Item = (&AttemptKey, &Attempt)> + use<'_> {
        let numbered = |number| AttemptKey {
            job: job.to_owned(),
            target: target.to_owned(),
            number,
        };
        self.by_key.range(numbered(0)..=numbered(u32::MAX))
    }

    /// All attempts of the same job on the same target.
    fn siblings(
        &self,
        key: &AttemptKey,
    ) -> impl Iterator<Item = (&AttemptKey, &Attempt)> + use<'_> {
        self.of_job(&key.job, &key.target)
    }
}

fn noted(value: &Value, at: u64) -> Option<Noted> {
    Some(Noted {
        value: value.clone(),
        at,
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    const DAY: u64 = 24 * 60 * 60 * 1000;

    fn key(number: u32) -> AttemptKey {
        AttemptKey {
            job: "j-1".into(),
            target: "eu-west/prod-1".into(),
            number,
        }
    }

    fn accepted(number: u32) -> Entry {
        Entry::Accepted {
            attempt: key(number),
            assignment: json!({"n": number}),
            at: 1,
        }
    }

    fn intent(number: u32, step: &str, half: Half) -> Entry {
        let step = step.to_owned();
        Entry::StepIntent {
            attempt: key(number),
            step,
            half,
            try_number: 1,
            before: json!("before"),
            at: 2,
        }
    }

    fn outcome(number: u32, step: &str, half: Half) -> Entry {
        Entry::StepOutcome {
            attempt: key(number),
            step: step.into(),
            half,
            outcome: json!("done"),
            at: 3,
        }
    }

    fn ended(number: u32) -> Entry {
        Entry::SegmentOutcome {
            attempt: key(number),
            outcome: json!("done"),
            at: 4,
        }
    }

    fn tombstone(number: u32) -> Entry {
        Entry::Tombstone {
            attempt: key(number),
            answer: json!("notStarted"),
            at: 5,
        }
    }

    fn acked(number: u32, at: u64) -> Entry {
        Entry::Acked {
            attempt: key(number),
            at,
        }
    }

    #[test]
    fn a_repeat_is_answered_from_the_journal() {
        let attempts = Attempts::replay(&[accepted(1), ended(1)]);
        let Verdict::Repeat(known) = attempts.may_accept(&key(1)) else {
            panic!("a repeat")
        };
        assert_eq!(
            known.outcome.as_ref().map(|o| &o.value),
            Some(&json!("done"))
        );
    }

    #[test]
    fn a_tombstone_answers_for_its_attempt_and_closes_those_before() {
        let attempts = Attempts::replay(&[tombstone(3)]);
        assert!(
            matches!(attempts.may_accept(&key(3)), Verdict::Repeat(known) if known.tombstone.is_some())
        );
        assert_eq!(
            attempts.may_accept(&key(2)),
            Verdict::Refuse(TooLate::Closed { closed: 3 })
        );
        assert_eq!(attempts.may_accept(&key(4)), Verdict::Accept);
    }

    #[test]
    fn a_late_attempt_is_refused() {
        let attempts = Attempts::replay(&[accepted(4), ended(4)]);
        assert_eq!(
            attempts.may_accept(&key(3)),
            Verdict::Refuse(TooLate::NewerKnown { newest: 4 })
        );
        let elsewhere = AttemptKey {
            target: "eu-west/prod-2".into(),
            ..key(3)
        };
        assert_eq!(
            attempts.may_accept(&elsewhere),
            Verdict::Accept,
            "another target counts for itself"
        );
    }

    #[test]
    fn the_next_attempt_waits_for_the_end_or_the_tombstone_of_the_one_before() {
        let mut attempts = Attempts::replay(&[accepted(1)]);
        assert_eq!(
            attempts.may_accept(&key(2)),
            Verdict::Refuse(TooLate::EarlierOpen { open: 1 })
        );
        attempts.apply(&tombstone(1));
        assert_eq!(attempts.may_accept(&key(2)), Verdict::Accept);
    }

    #[test]
    fn an_intent_is_open_until_its_own_half_has_an_outcome() {
        let mut attempts = Attempts::replay(&[
            accepted(1),
            intent(1, "s", Half::Apply),
            outcome(1, "s", Half::Apply),
        ]);
        assert_eq!(attempts.open_intents().count(), 0);
        attempts.apply(&intent(1, "s", Half::Undo));
        attempts.apply(&outcome(1, "s", Half::Apply));
        let open: Vec<_> = attempts
            .open_intents()
            .map(|open| (open.step, open.half))
            .collect();
        assert_eq!(open, [("s", Half::Undo)]);
    }

    #[test]
    fn a_second_try_leaves_the_first_as_it_was() {
        let retry = Entry::StepIntent {
            attempt: key(1),
            step: "s".into(),
            half: Half::Apply,
            try_number: 2,
            before: json!("between"),
            at: 9,
        };
        let attempts = Attempts::replay(&[
            accepted(1),
            intent(1, "s", Half::Apply),
            outcome(1, "s", Half::Apply),
            retry,
        ]);
        let tries =
            &attempts.attempt(&key(1)).expect("known").steps[&("s".to_owned(), Half::Apply)];
        assert_eq!(
            tries
                .iter()
                .map(|t| (t.number, t.is_open()))
                .collect::<Vec<_>>(),
            [(1, false), (2, true)]
        );
    }

    #[test]
    fn the_list_holds_what_is_open_or_was_acknowledged_within_seven_days() {
        let attempts = Attempts::replay(&[
            accepted(1),
            acked(1, 0),
            accepted(2),
            acked(2, 2 * DAY),
            accepted(3),
        ]);
        let listed = |now| {
            attempts
                .list(now)
                .map(|(k, _)| k.number)
                .collect::<Vec<_>>()
        };
        assert_eq!(listed(7 * DAY), [1, 2, 3]);
        assert_eq!(listed(7 * DAY + 1), [2, 3]);
        assert_eq!(listed(99 * DAY), [3]);
    }

    #[test]
    fn a_fence_rises_and_never_falls() {
        let fence = |incarnation, epoch, store_revision| Fence {
            incarnation,
            epoch,
            store_revision,
        };
        assert_eq!(fence(1, 5, 90).max(fence(1, 4, 100)), fence(1, 5, 100));
        assert_eq!(
            fence(1, 5, 90).max(fence(2, 1, 10)),
            fence(2, 1, 10),
            "a restored store begins lower"
        );
        assert_eq!(fence(2, 1, 10).max(fence(1, 5, 90)), fence(2, 1, 10));
        assert!(!fence(1, 5, 0).admits(1, 4));
        assert!(fence(1, 5, 0).admits(1, 5));
    }
}
