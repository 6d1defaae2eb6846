//! What the runner writes into the journal's open fields, and how it is read back.
//!
//! The journal keeps JSON and never looks inside. These are the forms; a field that is added later must have a default,
//! since an upgraded agent reads what the one before it wrote.

use std::collections::BTreeMap;

use aldis_core::assignments::{Assignment, Order};
use aldis_core::ids::{self, JobId, StepId};
use aldis_core::job::Direction;
use aldis_core::outcome::{SegmentOutcome, StepState};
use aldis_core::reconcile::Listed;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::journal::state::{Attempt, Try};
use crate::journal::{AttemptKey, Half};

/// How one try of a step ended.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StepNote {
    /// What the step is after it. `Running` where it is to be tried again, `NotStarted` where the try never counted.
    pub state: StepState,
    /// What the effect left, for its undo.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Value>,
}

/// What an attempt was closed with.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Answer {
    /// What the control plane was told.
    pub outcome: SegmentOutcome,
    /// Which way the attempt would have gone.
    pub direction: Direction,
    /// Which segment it was of.
    pub segment: usize,
}

/// An effect that may stand, as the journal knows it.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The attempt that made it.
    pub attempt: ids::Attempt,
    /// What stood there before.
    pub before: Value,
    /// What it left, where that was recorded.
    pub after: Option<Value>,
}

/// The key of an order's attempt.
pub fn key(order: &Order) -> AttemptKey {
    AttemptKey {
        job: order.job.to_string(),
        target: order.target.to_string(),
        number: order.attempt.0,
    }
}

/// The assignment that was accepted; none where it was not, or a later version wrote it.
pub fn assignment(attempt: &Attempt) -> Option<Assignment> {
    let accepted = attempt.accepted.as_ref()?;
    serde_json::from_value(accepted.value.clone()).ok()
}

/// How an attempt ended: by the answer that closed it, else by its outcome. An attempt that has both ended as unknown,
/// and was closed when it was seen what had become of it.
pub fn outcome(attempt: &Attempt) -> Option<SegmentOutcome> {
    let ended = || serde_json::from_value(attempt.outcome.as_ref()?.value.clone()).ok();
    answer(attempt).map(|answer| answer.outcome).or_else(ended)
}

fn answer(attempt: &Attempt) -> Option<Answer> {
    let closed = attempt.tombstone.as_ref()?;
    serde_json::from_value(closed.value.clone()).ok()
}

/// What is journalled of an attempt's steps.
pub fn steps(attempt: &Attempt) -> BTreeMap<StepId, StepState> {
    let mut steps = BTreeMap::new();
    for ((step, half), tries) in &attempt.steps {
        let Some(state) = tries
            .last()
            .and_then(|last| state(last, *half, tries.len()))
        else {
            continue;
        };
        // A step that was put back is what its undo says.
        if *half == Half::Undo || !steps.contains_key(&StepId::from(step.as_str())) {
            steps.insert(StepId::from(step.as_str()), state);
        }
    }
    steps
}

fn state(last: &Try, half: Half, tries: usize) -> Option<StepState> {
    match (&last.outcome, half) {
        (Some(noted), _) => note(&noted.value).map(|note| note.state),
        (None, Half::Apply) => last.intent.is_some().then(|| StepState::Running {
            tries: u32::try_from(tries).unwrap_or(u32::MAX),
        }),
        // An undo under way leaves the step as it was until it is decided.
        (None, Half::Undo) => None,
    }
}

/// Reads a step's note.
pub fn note(value: &Value) -> Option<StepNote> {
    serde_json::from_value(value.clone()).ok()
}

/// One line of the list that a leader merges.
pub fn listed(key: &AttemptKey, attempt: &Attempt) -> Option<Listed> {
    let (direction, segment) = whereabouts(attempt)?;
    Some(Listed {
        job: JobId::new(key.job.clone()),
        attempt: ids::Attempt(key.number),
        direction,
        segment,
        steps: steps(attempt),
        outcome: outcome(attempt),
        acknowledged: attempt.acked_at.is_some(),
    })
}

fn whereabouts(attempt: &Attempt) -> Option<(Direction, usize)> {
    let order = attempt.accepted.as_ref().and_then(|accepted| {
        serde_json::from_value::<Order>(accepted.value.get("order")?.clone()).ok()
    });
    match order {
        Some(order) => Some((order.direction, order.segment)),
        None => answer(attempt).map(|answer| (answer.direction, answer.segment)),
    }
}

/// The effect of a step that may stand, newest first: of all attempts of one job here, with those of a later number
/// before those of an earlier one.
pub fn effect<'a>(
    attempts: impl DoubleEndedIterator<Item = (&'a AttemptKey, &'a Attempt)>,
    step: &StepId,
) -> Option<Effect> {
    let of_step = (step.as_str().to_owned(), Half::Apply);
    attempts.rev().find_map(|(key, attempt)| {
        let mut found_later = None;
        for one in attempt.steps.get(&of_step)?.iter().rev() {
            let own = || note(&one.outcome.as_ref()?.value);
            let last = found_later.take().or_else(own);
            let Some(intent) = &one.intent else {
                // What was seen afterwards of the try before it.
                found_later = last;
                continue;
            };
            if last.as_ref().is_none_or(|note| may_stand(&note.state)) {
                return Some(Effect {
                    attempt: ids::Attempt(key.number),
                    before: intent.value.clone(),
                    after: last.and_then(|note| note.after),
                });
            }
        }
        None
    })
}

/// Whether a try that was noted so may have left something.
fn may_stand(state: &StepState) -> bool {
    match state {
        // The try was decided: nothing was sent, and the step goes on.
        StepState::Running { .. } => false,
        other => other.may_have_effect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::Entry;
    use crate::journal::state::Attempts;
    use aldis_core::outcome::Failure;
    use serde_json::json;

    fn key(number: u32) -> AttemptKey {
        AttemptKey {
            job: "j-1".into(),
            target: "eu/a".into(),
            number,
        }
    }

    fn intent(number: u32, try_number: u32, before: &str) -> Entry {
        Entry::StepIntent {
            attempt: key(number),
            step: "set".into(),
            half: Half::Apply,
            try_number,
            before: json!(before),
            at: 1,
        }
    }

    fn outcome(number: u32, half: Half, state: StepState, after: Option<Value>) -> Entry {
        Entry::StepOutcome {
            attempt: key(number),
            step: "set".into(),
            half,
            outcome: serde_json::to_value(StepNote { state, after }).unwrap(),
            at: 2,
        }
    }

    fn succeeded() -> StepState {
        StepState::Succeeded {
            outputs: json!({}),
            changed: true,
        }
    }

    fn found(entries: &[Entry]) -> Option<Effect> {
        let attempts = Attempts::replay(entries);
        effect(attempts.of_job("j-1", "eu/a"), &"set".into())
    }

    #[test]
    fn an_undo_finds_what_stood_before_the_newest_effect_that_may_stand() {
        let nothing_sent = StepState::Running { tries: 1 };
        let entries = [
            intent(1, 1, "first"),
            outcome(1, Half::Apply, nothing_sent, None),
            intent(1, 2, "second"),
            outcome(1, Half::Apply, succeeded(), Some(json!({"hash": "h"}))),
            intent(3, 1, "refused"),
            outcome(
                3,
                Half::Apply,
                StepState::Failed {
                    failure: Failure::new("drift", "x"),
                    applied: false,
                },
                None,
            ),
        ];
        let effect = found(&entries).unwrap();
        assert_eq!((effect.attempt.0, effect.before), (1, json!("second")));
        assert_eq!(effect.after, Some(json!({"hash": "h"})));
    }

    #[test]
    fn what_was_seen_after_an_unknown_end_counts() {
        let unknown = StepState::Unknown { evidence: vec![] };
        let in_doubt = [intent(1, 1, "b"), outcome(1, Half::Apply, unknown, None)];
        assert_eq!(found(&in_doubt).unwrap().after, None);
        let seen = outcome(1, Half::Apply, succeeded(), Some(json!({"hash": "h"})));
        let there = [in_doubt.to_vec(), vec![seen]].concat();
        let effect = found(&there).unwrap();
        assert_eq!(
            (effect.before, effect.after),
            (json!("b"), Some(json!({"hash": "h"})))
        );
        let gone = outcome(1, Half::Apply, StepState::NotStarted, None);
        assert_eq!(found(&[in_doubt.to_vec(), vec![gone]].concat()), None);
    }

    #[test]
    fn an_effect_whose_end_was_never_recorded_may_stand() {
        assert_eq!(found(&[intent(2, 1, "b")]).unwrap().attempt.0, 2);
        assert_eq!(found(&[]), None);
    }

    #[test]
    fn a_step_that_was_put_back_is_listed_so_and_one_on_its_way_back_as_it_was() {
        let forward = Attempts::replay(&[
            intent(1, 1, "b"),
            outcome(1, Half::Apply, succeeded(), None),
        ]);
        assert_eq!(
            steps(forward.attempt(&key(1)).unwrap())[&"set".into()],
            succeeded()
        );
        let mut undo = intent(2, 1, "b");
        if let Entry::StepIntent { half, .. } = &mut undo {
            *half = Half::Undo;
        }
        let on_its_way = Attempts::replay([&undo]);
        assert!(steps(on_its_way.attempt(&key(2)).unwrap()).is_empty());
        let back = Attempts::replay(&[undo, outcome(2, Half::Undo, StepState::Undone, None)]);
        assert_eq!(
            steps(back.attempt(&key(2)).unwrap())[&"set".into()],
            StepState::Undone
        );
    }
}
