//! What operators ask of a job: whether it would change anything, and where it leads.
//!
//! | asked | of a job that | leads to |
//! |---|---|---|
//! | cancel | is queued | cancelled |
//! | cancel | runs, is paused, goes back | stopping: every target rests where it stands |
//! | cancel | waits for an operator | the same; what is in doubt is abandoned by who cancels |
//! | cancel and undo | runs, is paused, stops | unwinding |
//! | cancel and undo | waits for an operator | the same, once its locks are held again |
//! | pause | runs | paused |
//! | resume | is paused | running |
//! | resolve | has that step in doubt | what it was |
//!
//! So a cancel without undo ends every job in the end, whatever its agents do: one that waits for
//! nobody but agents comes to rest in bounded time, and one that waits for an operator hears one.
//! What is not in the table would change nothing. Whoever takes a wish refuses it then; the leader,
//! who may hear of it later, passes over it.

use serde::{Deserialize, Serialize};

use super::{Direction, Job, JobState, StopCause, Target, TargetState, Verdict};
use crate::ids::{RequestId, StepId, TargetName, Timestamp};
use crate::outcome::StepState;
use crate::plan::SegmentStep;
use crate::segment::is_passed_over;

/// What an operator asks of a job. Created once, folded in by the leader.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Request {
    /// Layout of this record.
    pub format: u32,
    /// Named by the caller, so that a repeat is the same request.
    pub id: RequestId,
    /// Identity that asked.
    pub by: String,
    /// Why.
    pub reason: String,
    /// What.
    pub wish: Wish,
    /// When it was received.
    pub at: Timestamp,
}

/// What can be asked of a job.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Wish {
    /// Stop at the next safe points; with `undo`, put back what was changed.
    Cancel {
        /// Whether to go back.
        undo: bool,
    },
    /// Rest at the next safe points.
    Pause,
    /// Go on.
    Resume,
    /// End an unknown.
    Resolve {
        /// On which target.
        target: TargetName,
        /// Of which step.
        step: StepId,
        /// What the operator says.
        verdict: Verdict,
    },
}

/// Why a wish would change nothing.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Pointless {
    /// Nothing happens to it any more.
    #[error("it has ended: {word}")]
    Ended {
        /// The word it ended with.
        word: &'static str,
    },
    /// It opens nothing more as it is.
    #[error("it stops already: {cause}")]
    Stops {
        /// Why.
        cause: StopCause,
    },
    /// It puts back what was changed as it is.
    #[error("it goes back already: {cause}")]
    GoesBack {
        /// Why.
        cause: StopCause,
    },
    /// Only a running job can be paused.
    #[error("it is {word}: there is nothing to pause")]
    NothingToPause {
        /// What it is.
        word: &'static str,
    },
    /// Only a paused job can go on.
    #[error("it is {word}, not paused")]
    NotPaused {
        /// What it is.
        word: &'static str,
    },
    /// The plan does not select it.
    #[error("it has no target {target}")]
    NoTarget {
        /// Which.
        target: TargetName,
    },
    /// The runbook does not have it.
    #[error("the runbook has no step `{step}`")]
    NoStep {
        /// Which.
        step: StepId,
        /// Those that it has.
        steps: Vec<StepId>,
    },
    /// What became of this target is known.
    #[error("nothing on {target} is in doubt")]
    NothingInDoubt {
        /// Which.
        target: TargetName,
    },
    /// What is known of a step is not an operator's to change.
    #[error("`{step}` on {target} is not in doubt, `{open}` is")]
    OtherInDoubt {
        /// Which target.
        target: TargetName,
        /// The step that was named.
        step: StepId,
        /// The one to name.
        open: StepId,
    },
}

impl Pointless {
    /// Whether what was named does not exist, rather than being in another state.
    pub fn is_not_found(&self) -> bool {
        matches!(self, Self::NoTarget { .. } | Self::NoStep { .. })
    }

    /// What to type instead, for a job of this short id.
    pub fn hint(&self, job: &str) -> String {
        match self {
            Self::Ended { .. } => {
                format!("`aldis undo {job}` or `aldis retry {job}` make another job")
            }
            Self::Stops { .. } => {
                format!("`aldis cancel {job} --undo` also puts back what was changed")
            }
            Self::GoesBack { .. } => {
                format!("`aldis cancel {job}` ends it where it stands, without going back further")
            }
            Self::NothingToPause { .. } | Self::NotPaused { .. } | Self::NoTarget { .. } => {
                format!("see `aldis status {job}`")
            }
            Self::NoStep { steps, .. } => {
                let steps: Vec<&str> = steps.iter().map(StepId::as_str).collect();
                format!("its steps: {}", steps.join(", "))
            }
            Self::NothingInDoubt { .. } => {
                format!("`aldis status {job}` shows what job {job} waits for")
            }
            Self::OtherInDoubt { open, .. } => format!("say `--step {open}`"),
        }
    }
}

impl Job {
    /// Whether the wish would change anything now; if not, why not.
    pub fn makes_sense(&self, wish: &Wish) -> Result<(), Pointless> {
        self.leads_to(wish, "", "").map(|_| ())
    }

    /// The state that a wish leads to; none = the job goes on as it was.
    pub(crate) fn leads_to(
        &self,
        wish: &Wish,
        by: &str,
        reason: &str,
    ) -> Result<Option<JobState>, Pointless> {
        use JobState as S;
        let (by, reason) = (by.to_owned(), reason.to_owned());
        let cause = StopCause::Cancelled { by, reason };
        let state = &self.header.state;
        let word = state.word();
        match (wish, state) {
            (_, ended) if ended.is_ended() => Err(Pointless::Ended { word }),
            (Wish::Resolve { target, step, .. }, _) => {
                self.is_in_doubt(target, step).map(|()| None)
            }
            (Wish::Cancel { .. }, S::Queued) => Ok(Some(S::Cancelled { cause })),
            (Wish::Cancel { undo: true }, S::Running | S::Paused | S::Stopping { .. }) => {
                Ok(Some(S::Unwinding { cause }))
            }
            (Wish::Cancel { undo: true }, S::Unwinding { cause }) => goes_back(cause),
            (Wish::Cancel { undo: true }, S::NeedsOperator { after }) => match &**after {
                S::Unwinding { cause } => goes_back(cause),
                _ => {
                    let after = Box::new(S::Unwinding { cause });
                    Ok(Some(S::NeedsOperator { after }))
                }
            },
            (Wish::Cancel { undo: false }, S::Stopping { cause }) => {
                let cause = cause.clone();
                Err(Pointless::Stops { cause })
            }
            (Wish::Cancel { .. }, _) => Ok(Some(S::Stopping { cause })),
            (Wish::Pause, S::Running) => Ok(Some(S::Paused)),
            (Wish::Pause, _) => Err(Pointless::NothingToPause { word }),
            (Wish::Resume, S::Paused) => Ok(Some(S::Running)),
            (Wish::Resume, _) => Err(Pointless::NotPaused { word }),
        }
    }

    fn is_in_doubt(&self, target: &TargetName, step: &StepId) -> Result<(), Pointless> {
        let (target, step) = (target.clone(), step.clone());
        if !self.plan.scope.selection.contains_key(&target) {
            return Err(Pointless::NoTarget { target });
        }
        let steps: Vec<StepId> = self
            .steps()
            .map(|planned| planned.step.id.clone())
            .collect();
        if !steps.contains(&step) {
            return Err(Pointless::NoStep { step, steps });
        }
        match self.in_doubt(&target).cloned() {
            Some(open) if open == step => Ok(()),
            Some(open) => Err(Pointless::OtherInDoubt { target, step, open }),
            None => Err(Pointless::NothingInDoubt { target }),
        }
    }

    /// The step of an open question that an operator may settle: the first that is not known to be done,
    /// or on the way back the last that is not known to be undone. Where every step is known and only
    /// the end of the attempt is not, it is the one that was reached last.
    pub fn in_doubt(&self, name: &TargetName) -> Option<&StepId> {
        let target = self.targets.get(name)?;
        let (direction, segment) = target.question()?;
        match direction {
            Direction::Forward => {
                let steps = &self.plan.phase().segments.get(segment)?.steps;
                let open = steps.iter().find(|step| !known(target, step).is_done());
                open.or(steps.last())
            }
            Direction::Undo => self.in_doubt_going_back(target),
        }
        .map(|planned| &planned.step.id)
    }

    fn in_doubt_going_back(&self, target: &Target) -> Option<&SegmentStep> {
        if let TargetState::Stuck {
            step: Some(stuck), ..
        } = &target.state
        {
            return self.steps().find(|planned| planned.step.id == *stuck);
        }
        let stands = |step: &&SegmentStep| {
            known(target, step).may_have_effect() && !is_passed_over(&step.step)
        };
        let gone_over = |step: &&SegmentStep| *known(target, step) == StepState::Undone;
        let open = self.steps().rev().find(stands);
        open.or_else(|| self.steps().find(gone_over))
            .or_else(|| self.steps().next())
    }

    fn steps(&self) -> impl DoubleEndedIterator<Item = &SegmentStep> {
        let segments = self.plan.phase().segments.iter();
        segments.flat_map(|segment| &segment.steps)
    }
}

fn goes_back(cause: &StopCause) -> Result<Option<JobState>, Pointless> {
    let cause = cause.clone();
    Err(Pointless::GoesBack { cause })
}

fn known<'a>(target: &'a Target, planned: &SegmentStep) -> &'a StepState {
    let known = target.steps.get(&planned.step.id);
    known.unwrap_or(&StepState::NotStarted)
}
