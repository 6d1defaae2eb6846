//! What became of a step or a segment: done, not done, or not known. Nothing else exists.
//!
//! Agents journal and report these; the leader folds them; people read them as verdicts.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::StepId;

/// The kind of a failure that says: not as planned any more.
pub const DRIFT: &str = "drift";

/// Why something failed, for a person at three in the morning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Failure {
    /// Stable word for the kind: `drift`, `refused`, `timeout`, `noProgress`, `require`, `notFound`,
    /// `identity`, `policy`, `unavailable`, `invalid`, `paused`, `unreachable`, `soak`.
    pub kind: String,
    /// One sentence: what failed, on what.
    pub cause: String,
    /// Facts that show it, one a line: the pod, its reason, its last log lines.
    #[serde(default)]
    pub evidence: Vec<String>,
    /// What the operator can do, when it is more than trying again.
    #[serde(default)]
    pub hint: Option<String>,
}

impl Failure {
    /// A failure with a cause and nothing more.
    pub fn new(kind: &str, cause: impl Into<String>) -> Self {
        Self {
            kind: kind.to_owned(),
            cause: cause.into(),
            evidence: Vec::new(),
            hint: None,
        }
    }

    /// The same with evidence.
    #[must_use]
    pub fn with_evidence(mut self, evidence: Vec<String>) -> Self {
        self.evidence = evidence;
        self
    }

    /// The same with a way forward.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.cause)
    }
}

/// What is known of one step of one target.
///
/// ```text
/// NotStarted ─▶ Running ─▶ Succeeded ─▶ Undone | UndoFailed | Abandoned
///      │           ├─▶ Failed{applied}  ─▶ Undone | UndoFailed (where something was applied)
///      └▶ Skipped  └─▶ Unknown ─▶ any of the above, by observation or an operator
/// ```
///
/// When the way back is over, what it went past is `Passed`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum StepState {
    /// Not reached.
    NotStarted,
    /// Its intent is journalled, or it reads.
    Running {
        /// Tries so far, this one included.
        tries: u32,
    },
    /// Done, and seen to be done.
    Succeeded {
        /// What the action declares as outputs.
        outputs: Value,
        /// Whether it changed anything.
        changed: bool,
    },
    /// Not done, or done in part.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether an effect began.
        applied: bool,
    },
    /// An effect may or may not have happened.
    Unknown {
        /// What was seen.
        evidence: Vec<String>,
    },
    /// Left out by its `if`.
    Skipped {
        /// The condition that did not hold.
        why: String,
    },
    /// Reversed, and seen to be reversed.
    Undone,
    /// The way back went past it, since the runbook says so or it only read: what it did stands.
    Passed,
    /// Could not be reversed.
    UndoFailed {
        /// Why.
        failure: Failure,
    },
    /// An operator let it stand as it is.
    Abandoned {
        /// Their reason.
        why: String,
    },
}

/// A step that cannot go from one state to another: a bug of ours or a report that came too late.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a step cannot go from {from:?} to {to:?}")]
pub struct IllegalStep {
    /// The state it is in.
    pub from: StepState,
    /// The state it was told to take.
    pub to: StepState,
}

impl StepState {
    /// The only place where a step changes. A repeat of the same state is legal and changes nothing.
    pub fn next(self, to: StepState) -> Result<StepState, IllegalStep> {
        use StepState as S;
        let legal = match (&self, &to) {
            (from, to) if from == to => true,
            (S::NotStarted, S::Running { .. } | S::Skipped { .. }) => true,
            // The journal of an agent that was cut off reports the end without the way there.
            (S::NotStarted, S::Succeeded { .. } | S::Failed { .. } | S::Unknown { .. }) => true,
            (S::Running { tries: seen }, S::Running { tries }) => tries > seen,
            (S::Running { .. }, S::Succeeded { .. } | S::Failed { .. } | S::Unknown { .. }) => true,
            // A crash between the effect and its record: observed, and found not begun.
            (S::Running { .. } | S::Unknown { .. }, S::NotStarted) => true,
            (S::Succeeded { .. }, S::Undone | S::UndoFailed { .. } | S::Abandoned { .. }) => true,
            (S::Failed { .. }, S::Undone | S::UndoFailed { .. } | S::Abandoned { .. }) => true,
            // A new attempt of a segment runs a failed step again.
            (S::Failed { .. }, S::Running { .. } | S::Succeeded { .. }) => true,
            (
                S::Unknown { .. },
                S::Succeeded { .. }
                | S::Failed { .. }
                | S::Unknown { .. }
                | S::Undone
                | S::UndoFailed { .. }
                | S::Abandoned { .. },
            ) => true,
            (S::UndoFailed { .. }, S::Undone | S::UndoFailed { .. } | S::Abandoned { .. }) => true,
            _ => false,
        };
        if legal {
            Ok(to)
        } else {
            Err(IllegalStep { from: self, to })
        }
    }

    /// Whether the step after it may begin.
    pub fn is_done(&self) -> bool {
        matches!(self, Self::Succeeded { .. } | Self::Skipped { .. })
    }

    /// Whether something may stand in the cluster because of this step that a way back goes over.
    pub fn may_have_effect(&self) -> bool {
        match self {
            Self::NotStarted | Self::Skipped { .. } | Self::Undone | Self::Passed => false,
            Self::Succeeded { changed, .. } => *changed,
            Self::Failed { applied, .. } => *applied,
            Self::Running { .. }
            | Self::Unknown { .. }
            | Self::UndoFailed { .. }
            | Self::Abandoned { .. } => true,
        }
    }
}

/// How an attempt of a segment ended, by the agent's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum SegmentOutcome {
    /// Every step succeeded or was skipped.
    Succeeded,
    /// A step failed; what stood before it is still in place.
    Failed {
        /// Which.
        step: StepId,
        /// Why.
        failure: Failure,
    },
    /// Cancelled at a safe point.
    Stopped {
        /// The last step that ran; none = nothing of this attempt ever started.
        after: Option<StepId>,
    },
    /// Nobody can say whether the step's effect happened.
    Unknown {
        /// Which.
        step: StepId,
        /// What was seen.
        evidence: Vec<String>,
    },
    /// Everything of the target was put back, and seen to be back.
    Undone,
    /// A step could not be put back.
    Stuck {
        /// Which.
        step: StepId,
        /// Why, naming who changed it where that is known.
        failure: Failure,
    },
}

#[cfg(test)]
mod tests {
    use super::*;

    fn succeeded() -> StepState {
        StepState::Succeeded {
            outputs: Value::Null,
            changed: true,
        }
    }

    #[test]
    fn what_succeeded_never_becomes_failed() {
        let failed = StepState::Failed {
            failure: Failure::new("timeout", "late"),
            applied: false,
        };
        assert!(succeeded().next(failed).is_err());
    }

    #[test]
    fn an_unknown_step_may_still_turn_out_either_way() {
        let unknown = StepState::Unknown { evidence: vec![] };
        assert_eq!(unknown.clone().next(succeeded()), Ok(succeeded()));
        assert_eq!(
            unknown.next(StepState::NotStarted),
            Ok(StepState::NotStarted)
        );
    }

    #[test]
    fn only_a_change_leaves_an_effect() {
        assert!(succeeded().may_have_effect());
        assert!(
            !StepState::Succeeded {
                outputs: Value::Null,
                changed: false
            }
            .may_have_effect()
        );
        assert!(StepState::Running { tries: 1 }.may_have_effect());
    }
}
