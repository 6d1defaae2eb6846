//! A job that stops or unwinds: nothing forward is opened; what is under way goes to a safe point.

use super::forward::not_helped;
use super::{Round, WaitingOn};
use crate::job::{Job, Rest, Target, TargetEvent, TargetState};

impl Round<'_> {
    /// Lets every target rest where it stands.
    pub(super) fn stopping(&mut self) {
        for (name, target) in &self.job.targets {
            match &target.state {
                TargetState::Deferred { .. } | TargetState::NotStarted => {
                    self.emit(
                        name,
                        TargetEvent::Settled {
                            rest: Rest::Untouched,
                        },
                    );
                }
                TargetState::AtBarrier { .. }
                | TargetState::Failed { .. }
                | TargetState::Stopped { .. } => {
                    let rest = if target.may_have_effect() {
                        half_way(target)
                    } else {
                        Rest::Untouched
                    };
                    self.emit(name, TargetEvent::Settled { rest });
                }
                TargetState::Assigned { .. }
                | TargetState::Running { .. }
                | TargetState::UndoAssigned
                | TargetState::Undoing
                | TargetState::Unknown { .. }
                | TargetState::Stuck { .. }
                | TargetState::Rest(_) => {}
            }
        }
        self.work_in_progress();
        if self.out.events.is_empty() && everyone_rests(self.job) {
            self.end();
        }
    }

    /// Goes back, last wave first. A wave is gone back over when every later one is done with, except
    /// for targets whose outcome is unknown: those wait for their resolution and hold nobody up.
    pub(super) fn unwinding(&mut self) {
        let waves = self.job.plan.phase().waves.len();
        let in_work = (0..waves).rev().find(|wave| !self.unwind_wave(*wave));
        if let Some(wave) = in_work.filter(|wave| *wave > 0) {
            self.wait(WaitingOn::EarlierWaves { wave });
        }
        self.work_in_progress();
        // A target whose agent is away rests as changed, and is still to be put back.
        if in_work.is_none() && self.out.events.is_empty() && everyone_rests(self.job) {
            self.end();
        }
    }

    /// True when nothing of the wave is left to go back over.
    fn unwind_wave(&mut self, wave: usize) -> bool {
        let slots = self.job.plan.phase().waves[wave].max_parallel;
        let participants = self.job.participants(wave).into_iter();
        let targets: Vec<Target> = participants
            .filter_map(|name| self.job.targets.get(name).cloned())
            .collect();
        let mut taken = targets
            .iter()
            .filter(|t| t.state.in_work().is_some())
            .count();
        let mut left = taken;
        for target in &targets {
            match wants_undo(target) {
                Wants::Nothing => {}
                Wants::Rest => {
                    self.emit(
                        &target.name,
                        TargetEvent::Settled {
                            rest: Rest::Untouched,
                        },
                    );
                }
                Wants::Undo => {
                    left += 1;
                    if taken < slots {
                        taken += 1;
                        self.open_undo(&target.name, target);
                    }
                }
            }
        }
        left == 0
    }
}

enum Wants {
    Nothing,
    Rest,
    Undo,
}

fn wants_undo(target: &Target) -> Wants {
    use TargetState as T;
    match &target.state {
        T::NotStarted | T::Deferred { .. } => Wants::Rest,
        T::AtBarrier { .. } | T::Failed { .. } | T::Stopped { .. } => {
            if target.may_have_effect() {
                Wants::Undo
            } else {
                Wants::Rest
            }
        }
        T::Rest(Rest::Changed) => Wants::Undo,
        // Left half way by a stop that an operator then turned into an unwind.
        T::Rest(Rest::NeedsOperator { .. }) if target.may_have_effect() && !abandoned(target) => {
            Wants::Undo
        }
        T::Assigned { .. }
        | T::Running { .. }
        | T::UndoAssigned
        | T::Undoing
        | T::Unknown { .. }
        | T::Stuck { .. }
        | T::Rest(_) => Wants::Nothing,
    }
}

fn abandoned(target: &Target) -> bool {
    use crate::outcome::StepState;
    target
        .steps
        .values()
        .any(|step| matches!(step, StepState::Abandoned { .. }))
}

fn half_way(target: &Target) -> Rest {
    match &target.failure {
        Some(_) => not_helped(target),
        None => Rest::NeedsOperator {
            why: "stopped half way; what was changed stands".into(),
        },
    }
}

/// Whether anything that was changed is still to be put back.
pub(super) fn is_left_to_go_back(job: &Job) -> bool {
    let wants = |target| matches!(wants_undo(target), Wants::Undo);
    job.targets.values().any(wants)
}

/// Every target with a record is at rest; one without was never touched.
pub(super) fn everyone_rests(job: &Job) -> bool {
    job.targets.values().all(Target::is_at_rest)
}
