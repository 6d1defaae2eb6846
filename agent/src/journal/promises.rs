//! Room that is kept free for what must still be written.
//!
//! An intent that is on disk obliges us to write its outcome, also when the disk has filled up meanwhile. So an intent
//! takes room for the outcome with it, and fails where there is none: then no effect begins. The same holds for an
//! accepted attempt and its end. Nothing else may use that room; evidence, which may be long, fails instead.

use std::collections::{BTreeMap, BTreeSet};

use super::entry::{AttemptKey, Entry, Half};
use super::frame;

/// An outcome up to this long always fits. Reports are cut to a quarter of it before they travel.
pub const OUTCOME_ROOM: u64 = 64 << 10;
/// An acknowledgement holds the attempt's names and a time.
const ACKED_ROOM: u64 = 1 << 10;

/// What the journal owes.
#[derive(Clone, Debug, Default)]
pub(super) struct Promises {
    open: BTreeMap<AttemptKey, Owed>,
    bytes: u64,
}

#[derive(Clone, Debug, Default)]
struct Owed {
    outcomes: BTreeSet<(String, Half)>,
    end: bool,
    acked: bool,
}

impl Owed {
    fn bytes(&self) -> u64 {
        let outcomes = self.outcomes.len() as u64 + u64::from(self.end);
        outcomes * (OUTCOME_ROOM + frame::OVERHEAD)
            + u64::from(self.acked) * (ACKED_ROOM + frame::OVERHEAD)
    }
}

impl Promises {
    /// What is owed after `entries`.
    pub(super) fn after<'a>(entries: impl IntoIterator<Item = &'a Entry>) -> Self {
        let mut promises = Self::default();
        entries.into_iter().for_each(|entry| promises.apply(entry));
        promises
    }

    /// The room to keep free.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Adds what `entry` promises and takes off what it settles.
    pub(super) fn apply(&mut self, entry: &Entry) {
        let Some(attempt) = entry.attempt() else {
            return;
        };
        let mut owed = self.open.remove(attempt).unwrap_or_default();
        self.bytes -= owed.bytes();
        match entry {
            Entry::Fence { .. } | Entry::Evidence { .. } => {}
            Entry::Accepted { .. } => {
                owed.end = true;
                owed.acked = true;
            }
            Entry::StepIntent { step, half, .. } => {
                owed.outcomes.insert((step.clone(), *half));
            }
            Entry::StepOutcome { step, half, .. } => {
                owed.outcomes.remove(&(step.clone(), *half));
            }
            Entry::SegmentOutcome { .. } | Entry::Tombstone { .. } => owed.end = false,
            // An intent that is still open keeps its room: its outcome is welcome also after the end.
            Entry::Acked { .. } => {
                owed.end = false;
                owed.acked = false;
            }
        }
        self.bytes += owed.bytes();
        if owed.bytes() > 0 {
            self.open.insert(attempt.clone(), owed);
        }
    }
}
