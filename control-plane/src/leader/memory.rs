//! What a leader knows and has not committed: answers of agents, and what it is asking.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aldis_core::ids::{Fence, JobId, TargetName, Timestamp};
use aldis_core::inventory::Presence;
use aldis_core::plan::TargetPart;
use aldis_core::soak::{SoakProgress, SoakReading};

use super::merge::Came;
use crate::agents::AskError;
use crate::presence::Known;

/// Lost with the leader, asked again by the next.
#[derive(Default)]
pub(super) struct Memory {
    /// By job: what agents found when asked whether their part still holds.
    pub(super) drift: BTreeMap<JobId, BTreeMap<TargetName, Option<String>>>,
    /// By job: the soak as counted so far.
    pub(super) soak: BTreeMap<JobId, Soaking>,
    /// By job that waits for an operator: with how many open questions it last let go of its locks.
    pub(super) let_go: BTreeMap<JobId, usize>,
    /// Since when agents that are connected may not be given work.
    pub(super) withheld: BTreeMap<TargetName, Timestamp>,
    /// Jobs of which a write may be on its way still.
    pub(super) unsure: BTreeSet<JobId>,
    /// Questions under way, so that none is asked twice at once.
    pub(super) asking: BTreeSet<Asking>,
    /// When a question that failed may be asked again, on the boot clock.
    pub(super) again_at: BTreeMap<Asking, Duration>,
    /// By what it is about: what was complained of last, so that it is not said again each second.
    pub(super) said: BTreeMap<String, String>,
}

/// A soak under way.
pub(super) struct Soaking {
    pub(super) progress: SoakProgress,
    /// When the last round ended, on the boot clock.
    pub(super) last_round: Duration,
}

/// A question, by what it is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Asking {
    Drift(JobId, TargetName),
    Plan(JobId, TargetName),
    Soak(JobId),
    Attempts(TargetName, u64),
}

/// An answer on its way back to the loop.
pub(super) enum Answered {
    Drift {
        job: JobId,
        target: TargetName,
        answer: Result<Option<String>, AskError>,
    },
    Plan {
        job: JobId,
        target: TargetName,
        answer: Result<Box<TargetPart>, AskError>,
    },
    Soak {
        job: JobId,
        wave: usize,
        round: BTreeMap<TargetName, SoakReading>,
    },
    Attempts(Came),
}

impl Memory {
    /// True when this was not the last that was said of it.
    pub(super) fn is_news(&mut self, about: &str, said: &str) -> bool {
        let before = self.said.insert(about.to_owned(), said.to_owned());
        before.as_deref() != Some(said)
    }

    pub(super) fn forget(&mut self, job: &JobId) {
        self.drift.remove(job);
        self.soak.remove(job);
        self.let_go.remove(job);
        self.unsure.remove(job);
    }

    /// Notes which agents are connected and may not be given work.
    pub(super) fn watch(
        &mut self,
        fleet: &BTreeMap<TargetName, Known>,
        fence: Fence,
        now: Timestamp,
    ) {
        self.withheld.retain(|target, _| fleet.contains_key(target));
        for (target, known) in fleet {
            match known.presence(fence) {
                Presence::NotMerged | Presence::Contested { .. } | Presence::Held { .. } => {
                    self.withheld.entry(target.clone()).or_insert(now);
                }
                Presence::Live { .. } | Presence::Absent { .. } => {
                    self.withheld.remove(target);
                }
            }
        }
    }

    /// True once for a question that is not under way and may be asked now.
    pub(super) fn begin(&mut self, asking: &Asking, boot_now: Duration) -> bool {
        let waits = self.again_at.get(asking).is_some_and(|at| boot_now < *at);
        if waits || self.asking.contains(asking) {
            return false;
        }
        self.again_at.remove(asking);
        self.asking.insert(asking.clone())
    }

    /// The question was answered.
    pub(super) fn end(&mut self, asking: &Asking) {
        self.asking.remove(asking);
    }

    /// The question failed; it is asked again after a while.
    pub(super) fn postpone(&mut self, asking: Asking, until: Duration) {
        self.asking.remove(&asking);
        self.again_at.insert(asking, until);
    }
}
