//! The word that a job ends with, once every target rests.

use super::back::{Back, everyone_rests};
use super::{Round, WaitingOn};
use crate::inventory::Turn;
use crate::job::{Job, JobState, Rest, StopCause, TargetState};

impl Round<'_> {
    /// Ends the job, or names the question that keeps it open.
    pub(super) fn end(&mut self) {
        let end = ending(self.job, &self.job.header.state);
        if self.has_open_question() {
            return self.move_to(JobState::NeedsOperator {
                after: Box::new(self.job.header.state.clone()),
            });
        }
        self.move_to(end);
    }

    /// Waits for operators or late reports. Whoever an answer leaves half way is taken on from there at
    /// once, whatever other questions are open; what was let go of meanwhile is locked again before.
    pub(super) fn needs_operator(&mut self, after: &JobState) {
        self.work_in_progress();
        let goes_back = matches!(after, JobState::Unwinding { .. }) && self.is_left_to_go_back();
        if goes_back || !everyone_rests(self.job) {
            self.go_on(going_on(after));
        } else if !self.has_open_question() {
            self.move_to(ending(self.job, after));
        }
    }

    fn go_on(&mut self, to: JobState) {
        match self.inventory.turn.clone() {
            // Who only stops touches nothing more.
            Turn::Locked { object, target, by } if !matches!(to, JobState::Stopping { .. }) => {
                self.wait(WaitingOn::Lock { object, target, by });
            }
            _ => self.move_to(to),
        }
    }

    fn has_open_question(&self) -> bool {
        let mut targets = self.job.targets.values();
        targets.any(|target| target.is_open_question())
    }

    fn is_left_to_go_back(&self) -> bool {
        let mut targets = self.job.targets.values();
        targets.any(|target| !matches!(self.back_of(target), Back::Nothing))
    }
}

fn going_on(after: &JobState) -> JobState {
    match after {
        JobState::Unwinding { .. } | JobState::Stopping { .. } => after.clone(),
        _ => JobState::Running,
    }
}

/// What the states of the targets amount to, for a job that was going this way.
fn ending(job: &Job, going: &JobState) -> JobState {
    match going {
        JobState::Unwinding {
            cause: cause @ StopCause::Cancelled { .. },
        }
        | JobState::Stopping {
            cause: cause @ StopCause::Cancelled { .. },
        } => JobState::Cancelled {
            cause: cause.clone(),
        },
        JobState::Unwinding {
            cause: StopCause::Undoes { .. },
        } if everything_is_back(job) && nothing_failed(job) => JobState::Succeeded,
        JobState::Unwinding {
            cause: StopCause::Undoes { .. },
        } => JobState::PartlyDone,
        JobState::Unwinding { cause } if everything_is_back(job) => JobState::Undone {
            cause: cause.clone(),
        },
        JobState::Unwinding { cause } => JobState::Failed {
            cause: cause.clone(),
        },
        JobState::Stopping { cause } => JobState::Failed {
            cause: cause.clone(),
        },
        _ if left_behind(job) => JobState::PartlyDone,
        _ => JobState::Succeeded,
    }
}

fn everything_is_back(job: &Job) -> bool {
    job.targets.values().all(|target| match &target.state {
        TargetState::Rest(Rest::Restored | Rest::Untouched) => true,
        TargetState::Rest(Rest::Changed | Rest::NeedsOperator { .. }) => false,
        _ => false,
    })
}

fn nothing_failed(job: &Job) -> bool {
    job.targets.values().all(|target| target.failure.is_none())
}

/// Somebody was not helped: failed, put back alone, or left out.
fn left_behind(job: &Job) -> bool {
    job.targets.values().any(|target| {
        target.failure.is_some()
            || matches!(
                target.state,
                TargetState::Rest(Rest::NeedsOperator { .. } | Rest::Restored)
            )
    })
}
