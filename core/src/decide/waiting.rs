//! Why nothing happens now, in words that name who is waited for and what an operator can type.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, TargetName, Timestamp};
use crate::inventory::Presence;
use crate::job::Direction;
use crate::plan::ObjectRef;

/// A named reason.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum WaitingOn {
    /// Other jobs stand before it in the queue.
    Turn,
    /// As many jobs run as may.
    RunningJobs {
        /// The bound.
        bound: usize,
    },
    /// Another job holds an object that this one writes.
    Lock {
        /// The object.
        object: ObjectRef,
        /// Where.
        target: TargetName,
        /// Who holds it.
        by: JobId,
    },
    /// Agents are asked whether the plan still holds.
    DriftCheck {
        /// How many have not answered.
        targets: usize,
    },
    /// An agent works on it.
    Agent {
        /// Whose.
        target: TargetName,
        /// Which segment.
        segment: usize,
        /// Which way.
        direction: Direction,
        /// True while it rests at a safe point.
        parked: bool,
    },
    /// An agent is away.
    AgentAbsent {
        /// Whose.
        target: TargetName,
        /// Since when.
        since: Timestamp,
    },
    /// An agent is back and its attempts are being compared.
    AgentNotMerged {
        /// Whose.
        target: TargetName,
    },
    /// Two processes use one agent's identity.
    AgentContested {
        /// Whose.
        target: TargetName,
        /// What is known.
        why: String,
    },
    /// An agent is held apart.
    AgentHeld {
        /// Whose.
        target: TargetName,
        /// Why.
        why: String,
    },
    /// An agent will not take its order, which is sent again.
    OrderRefused {
        /// Whose.
        target: TargetName,
        /// In its words.
        why: String,
    },
    /// The store went back in time; nothing is dispatched to anybody.
    DispatchHalted {
        /// What proved it.
        why: String,
    },
    /// Targets of the wave have not reached the barrier.
    Barrier {
        /// The segment that ends there.
        segment: usize,
        /// How many.
        targets: usize,
    },
    /// `maxParallel` is used up.
    Slot {
        /// How many targets wait.
        targets: usize,
        /// The bound.
        max_parallel: usize,
    },
    /// The wait after a wave.
    Soak {
        /// Which wave.
        wave: usize,
        /// Time left if all goes well.
        left: Duration,
        /// Targets that could not be read in the last round: their time does not count.
        unread: BTreeMap<TargetName, String>,
    },
    /// A deferred target is away.
    Deferred {
        /// Which.
        target: TargetName,
        /// Since when.
        since: Timestamp,
    },
    /// A deferred target is back and plans its part.
    LatePlan {
        /// Which.
        target: TargetName,
    },
    /// Later waves are put back first.
    EarlierWaves {
        /// The wave in work.
        wave: usize,
    },
    /// An operator paused the job.
    Paused,
    /// A target rests as unknown or stuck.
    Operator {
        /// Which.
        target: TargetName,
    },
}

impl WaitingOn {
    /// The reason that an agent's presence gives.
    pub fn from_presence(target: &TargetName, presence: &Presence) -> Self {
        let target = target.clone();
        match presence {
            Presence::Absent { since } => Self::AgentAbsent {
                target,
                since: *since,
            },
            Presence::Contested { why } => Self::AgentContested {
                target,
                why: why.clone(),
            },
            Presence::Held { why } => Self::AgentHeld {
                target,
                why: why.clone(),
            },
            Presence::NotMerged | Presence::Live { .. } => Self::AgentNotMerged { target },
        }
    }

    /// What an operator can type to end the wait, where it is theirs to end.
    pub fn next_command(&self, job: &JobId) -> Option<String> {
        let job = job.short();
        match self {
            Self::Lock { by, .. } => Some(format!("aldis watch {}", by.short())),
            Self::AgentAbsent { target, .. }
            | Self::AgentContested { target, .. }
            | Self::AgentHeld { target, .. }
            | Self::OrderRefused { target, .. }
            | Self::Deferred { target, .. } => Some(format!("aldis agents show {target}")),
            Self::DispatchHalted { .. } => {
                Some("aldis-control-plane raise-incarnation --reason ...".to_owned())
            }
            Self::Paused => Some(format!("aldis resume {job}")),
            Self::Operator { target } => Some(format!(
                "aldis resolve {job} --target {target} --step ... --as done|not-done"
            )),
            Self::Turn
            | Self::RunningJobs { .. }
            | Self::DriftCheck { .. }
            | Self::Agent { .. }
            | Self::AgentNotMerged { .. }
            | Self::Barrier { .. }
            | Self::Slot { .. }
            | Self::Soak { .. }
            | Self::LatePlan { .. }
            | Self::EarlierWaves { .. } => None,
        }
    }
}

impl std::fmt::Display for WaitingOn {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Turn => f.write_str("its turn: other jobs stand before it"),
            Self::RunningJobs { bound } => write!(f, "its turn: {bound} jobs run, as many as may"),
            Self::Lock { object, target, by } => {
                write!(f, "{object} on {target}, held by job {}", by.short())
            }
            Self::DriftCheck { targets } => {
                write!(
                    f,
                    "{targets} agents to confirm that nothing changed since the plan"
                )
            }
            Self::Agent {
                target,
                parked: true,
                ..
            } => {
                write!(f, "{target}, at rest at a safe point")
            }
            Self::Agent {
                target,
                direction: Direction::Forward,
                ..
            } => {
                write!(f, "{target}, at work")
            }
            Self::Agent {
                target,
                direction: Direction::Undo,
                ..
            } => {
                write!(f, "{target}, going back")
            }
            Self::AgentAbsent {
                target,
                since: Timestamp(0),
            } => {
                write!(f, "the agent of {target}, never seen")
            }
            Self::AgentAbsent { target, .. } => write!(f, "the agent of {target}, absent"),
            Self::AgentNotMerged { target } => {
                write!(f, "the agent of {target}, to say what it has in hand")
            }
            Self::AgentContested { target, why } | Self::AgentHeld { target, why } => {
                write!(f, "the agent of {target}: {why}")
            }
            Self::OrderRefused { target, why } => {
                write!(f, "the agent of {target}, which refuses its order: {why}")
            }
            Self::DispatchHalted { why } => write!(f, "all dispatch, stopped: {why}"),
            Self::Barrier { targets, .. } => write!(f, "{targets} targets to reach the barrier"),
            Self::Slot {
                targets,
                max_parallel,
            } => {
                write!(
                    f,
                    "a slot for {targets} targets (maxParallel {max_parallel})"
                )
            }
            Self::Soak { left, unread, .. } if unread.is_empty() => {
                write!(f, "soak, {} s left", left.as_secs())
            }
            Self::Soak { unread, .. } => {
                let names: Vec<_> = unread.keys().map(ToString::to_string).collect();
                write!(
                    f,
                    "soak, not counted while {} cannot be read",
                    names.join(", ")
                )
            }
            Self::Deferred { target, .. } => {
                write!(f, "{target}, deferred until its agent returns")
            }
            Self::LatePlan { target } => write!(f, "{target}, back and planning its part"),
            Self::EarlierWaves { wave } => write!(f, "wave {} to be put back first", wave + 1),
            Self::Paused => f.write_str("an operator, who paused it"),
            Self::Operator { target } => write!(f, "an operator, to settle {target}"),
        }
    }
}
