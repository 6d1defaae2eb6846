//! What the leader knows of the fleet when it decides: passed in, never fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use crate::ids::{Fence, JobId, JournalId, TargetName, Timestamp};
use crate::job::Request;
use crate::plan::ObjectRef;
use crate::soak::SoakProgress;

/// Everything beside the job that a decision depends on.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Under which every decision is committed.
    pub fence: Fence,
    /// Agents by target. A target without entry never had an agent.
    pub agents: BTreeMap<TargetName, Presence>,
    /// Operators' requests to this job, oldest first.
    pub requests: Vec<Request>,
    /// What agents found when asked whether their part of the plan still holds: `None` = it does.
    pub drift: BTreeMap<TargetName, Option<String>>,
    /// Since when this leader leads: what it has asked, it has not asked before.
    pub led_since: Timestamp,
    /// Agents that are connected and may not be given work, with the time since when this leader has
    /// seen them so. Those that are absent say it themselves.
    pub withheld: BTreeMap<TargetName, Timestamp>,
    /// Deferred targets whose plan waits for another job's lock, which that job holds still.
    pub late_locks: BTreeSet<TargetName>,
    /// The soak as counted so far by this leader.
    pub soak: Option<SoakProgress>,
    /// Whether the job may leave the queue.
    pub turn: Turn,
    /// Times that configuration sets.
    pub limits: Limits,
    /// Set when nothing at all may be dispatched: the store went back in time.
    pub halted: Option<String>,
    /// Agents that will not take this job's order, in their words. It is sent again.
    pub refused: BTreeMap<TargetName, String>,
}

/// What is known of an agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Presence {
    /// Connected, its list of attempts merged under this leader.
    Live {
        /// The journal it writes to.
        journal: JournalId,
    },
    /// Connected; its list is not merged yet.
    NotMerged,
    /// Two processes use its identity.
    Contested {
        /// What is known of them.
        why: String,
    },
    /// Connected, and held apart with an alarm.
    Held {
        /// Why.
        why: String,
    },
    /// Not connected.
    Absent {
        /// Since when, as far as this control plane knows.
        since: Timestamp,
    },
}

/// Whether a queued job may start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Turn {
    /// Its turn came and its locks are held.
    Yes,
    /// So many jobs stand before it.
    #[default]
    NotYet,
    /// The bound on running jobs is reached.
    Full {
        /// The bound.
        running: usize,
    },
    /// Another job holds an object.
    Locked {
        /// Which object.
        object: ObjectRef,
        /// On which target.
        target: TargetName,
        /// Which job.
        by: JobId,
    },
}

/// Times that decisions depend on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of a permit (30 s): what a cut-off agent may still begin in.
    pub permit: Duration,
    /// How long an agent may be away, or owe an answer, before `whenUnreachable` applies (30 s).
    pub unreachable_after: Duration,
    /// How long a deferred target is waited for (24 h).
    pub defer_for: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            permit: Duration::from_secs(30),
            unreachable_after: Duration::from_secs(30),
            defer_for: Duration::from_secs(24 * 60 * 60),
        }
    }
}

impl Inventory {
    /// What is known of a target's agent.
    pub fn presence(&self, target: &TargetName) -> Presence {
        self.agents
            .get(target)
            .cloned()
            .unwrap_or(Presence::Absent {
                since: Timestamp(0),
            })
    }

    /// Since when an agent may not be given work, as far as is known; none where it may.
    pub fn away_since(&self, target: &TargetName) -> Option<Timestamp> {
        match self.presence(target) {
            Presence::Live { .. } => None,
            Presence::Absent { since } => Some(since),
            Presence::NotMerged | Presence::Contested { .. } | Presence::Held { .. } => {
                self.withheld.get(target).copied()
            }
        }
    }

    /// The journal of an agent that may be given work.
    pub fn live(&self, target: &TargetName) -> Option<&JournalId> {
        match self.agents.get(target) {
            Some(Presence::Live { journal }) => Some(journal),
            Some(
                Presence::NotMerged
                | Presence::Contested { .. }
                | Presence::Held { .. }
                | Presence::Absent { .. },
            )
            | None => None,
        }
    }
}
