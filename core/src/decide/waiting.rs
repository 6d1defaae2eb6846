//! Why nothing happens now, in words that name who is waited for and what an operator can type.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::ids::{JobId, StepId, TargetName, Timestamp};
use crate::inventory::{Presence, Turn};
use crate::job::Direction;
use crate::plan::ObjectRef;

/// A named reason.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
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
        /// The first of them.
        #[serde(default)]
        names: Vec<TargetName>,
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
        /// The step in doubt.
        #[serde(default)]
        step: Option<StepId>,
    },
}

/// Names that a reason shows of many.
pub(super) const NAMES: usize = 3;

impl WaitingOn {
    /// The reason that a place in the queue gives; none for whoever's turn it is.
    pub fn from_turn(turn: &Turn) -> Option<Self> {
        match turn.clone() {
            Turn::Yes => None,
            Turn::NotYet => Some(Self::Turn),
            Turn::Full { running } => Some(Self::RunningJobs { bound: running }),
            Turn::Locked { object, target, by } => Some(Self::Lock { object, target, by }),
        }
    }

    /// The target that it names, if it names one.
    pub fn target(&self) -> Option<&TargetName> {
        match self {
            Self::Lock { target, .. }
            | Self::Agent { target, .. }
            | Self::AgentAbsent { target, .. }
            | Self::AgentNotMerged { target }
            | Self::AgentContested { target, .. }
            | Self::AgentHeld { target, .. }
            | Self::OrderRefused { target, .. }
            | Self::Deferred { target, .. }
            | Self::LatePlan { target }
            | Self::Operator { target, .. } => Some(target),
            Self::Turn
            | Self::RunningJobs { .. }
            | Self::DriftCheck { .. }
            | Self::DispatchHalted { .. }
            | Self::Barrier { .. }
            | Self::Slot { .. }
            | Self::Soak { .. }
            | Self::EarlierWaves { .. }
            | Self::Paused => None,
        }
    }

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
            Self::Operator { target, step } => {
                let step = step.as_ref().map_or("...", |step| step.as_str());
                Some(format!(
                    "aldis resolve {job} --target {target} --step {step} --as done|not-done|abandon --reason TEXT"
                ))
            }
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
            Self::RunningJobs { bound: 1 } => f.write_str("its turn: a job runs, and only one may"),
            Self::RunningJobs { bound } => write!(f, "its turn: {bound} jobs run, as many as may"),
            Self::Lock { object, target, by } => {
                write!(f, "{object} on {target}, held by job {}", by.short())
            }
            Self::DriftCheck { targets, names } => {
                write!(
                    f,
                    "{} to confirm that nothing changed since the plan{}",
                    many(*targets, "agent"),
                    among(*targets, names)
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
            Self::Barrier { targets, .. } => {
                write!(f, "{} to reach the barrier", many(*targets, "target"))
            }
            Self::Slot {
                targets,
                max_parallel,
            } => {
                write!(
                    f,
                    "a slot for {} (maxParallel {max_parallel})",
                    many(*targets, "target")
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
            Self::Operator {
                target,
                step: Some(step),
            } => write!(f, "an operator, to settle `{step}` on {target}"),
            Self::Operator { target, step: None } => {
                write!(f, "an operator, to settle {target}")
            }
        }
    }
}

/// Such as "1 target" and "3 targets".
fn many(count: usize, one: &str) -> String {
    match count {
        1 => format!("1 {one}"),
        _ => format!("{count} {one}s"),
    }
}

/// Some of many, in parentheses.
fn among(count: usize, names: &[TargetName]) -> String {
    if names.is_empty() {
        return String::new();
    }
    let shown: Vec<_> = names.iter().map(ToString::to_string).collect();
    match count.saturating_sub(names.len()) {
        0 => format!(" ({})", shown.join(", ")),
        more => format!(" ({} and {more} more)", shown.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_is_not_told_as_many() {
        let says = |on: WaitingOn, words: &str| assert_eq!(on.to_string(), words);
        let barrier = |targets| WaitingOn::Barrier {
            segment: 0,
            targets,
        };
        says(barrier(1), "1 target to reach the barrier");
        says(barrier(2), "2 targets to reach the barrier");
        let slot = |targets| WaitingOn::Slot {
            targets,
            max_parallel: 4,
        };
        says(slot(1), "a slot for 1 target (maxParallel 4)");
        says(slot(3), "a slot for 3 targets (maxParallel 4)");
        let check = WaitingOn::DriftCheck {
            targets: 1,
            names: Vec::new(),
        };
        says(
            check,
            "1 agent to confirm that nothing changed since the plan",
        );
        let full = WaitingOn::RunningJobs { bound: 1 };
        says(full, "its turn: a job runs, and only one may");
    }
}
