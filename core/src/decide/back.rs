//! A job that stops or unwinds: nothing forward is opened; what is under way goes to a safe point.

use std::sync::Arc;

use super::forward::not_helped;
use super::{Round, WaitingOn};
use crate::ids::Timestamp;
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
    /// for targets whose outcome is unknown, and for those whose agents stay away: those rest by name
    /// and hold nobody up.
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
        let targets: Vec<Arc<Target>> = participants
            .filter_map(|name| self.job.targets.get(name).cloned())
            .collect();
        let mut taken = targets
            .iter()
            .filter(|t| t.state.in_work().is_some())
            .count();
        let mut left = taken;
        for target in &targets {
            match self.back_of(target) {
                Back::Nothing => {}
                Back::Rest(rest) => {
                    self.emit(&target.name, TargetEvent::Settled { rest });
                }
                Back::Open => {
                    left += 1;
                    if taken < slots {
                        taken += 1;
                        self.open_undo(&target.name, target);
                    }
                }
                Back::Wait { until } => {
                    left += 1;
                    self.wait_for_agent(&target.name, until);
                }
            }
        }
        left == 0
    }

    /// What the way back is to do with a target now.
    pub(super) fn back_of(&self, target: &Target) -> Back {
        match wants_undo(target) {
            Wants::Nothing => return Back::Nothing,
            Wants::Rest => return Back::Rest(Rest::Untouched),
            Wants::Undo => {}
        }
        let name = &target.name;
        if self.inventory.live(name).is_some() {
            return Back::Open;
        }
        if matches!(target.state, TargetState::Rest(Rest::NeedsOperator { .. })) {
            // It was waited for already. Should its agent return in time, it goes back all the same.
            return Back::Nothing;
        }
        let Some(since) = self.inventory.away_since(name) else {
            return Back::Wait { until: None };
        };
        let until = self.given_up_at(since);
        if self.now < until {
            return Back::Wait { until: Some(until) };
        }
        let why = format!("not put back: {}", self.away(name, since));
        Back::Rest(Rest::NeedsOperator { why })
    }

    /// When a target with nothing under way is not waited for any longer: its agent is away for as long as
    /// one at work would have been given.
    pub(super) fn given_up_at(&self, since: Timestamp) -> Timestamp {
        since.plus(self.job.longest_way_back() + self.inventory.limits.permit)
    }
}

/// What the way back is to do with a target.
pub(super) enum Back {
    /// Nothing of it is to be put back, or nobody can do it.
    Nothing,
    /// It is let rest: nothing of the job stands there, or its agent stays away.
    Rest(Rest),
    /// Its way back may be opened.
    Open,
    /// Its agent is waited for.
    Wait {
        /// Until then, where that is known.
        until: Option<Timestamp>,
    },
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

/// Every target with a record is at rest; one without was never touched.
pub(super) fn everyone_rests(job: &Job) -> bool {
    job.targets.values().all(|target| target.is_at_rest())
}
