//! A running job: drift check, budget, the wave in work and its soak.

use std::collections::BTreeSet;
use std::sync::Arc;

use super::back::{Back, everyone_rests};
use super::barriers::Barriers;
use super::waiting::NAMES;
use super::{Round, SoakWanted, WaitingOn};
use crate::ids::{JobId, TargetName, Timestamp};
use crate::inventory::Presence;
use crate::job::{
    Event, HeaderEvent, JobState, Link, Rest, StopCause, Target, TargetEvent, TargetState,
};
use crate::outcome::{DRIFT, Failure};
use crate::plan::Disposition;
use crate::runbook::{Drift, OnFailure, WhenUnreachable};
use crate::soak::{COMMIT_EVERY, SoakProgress, Verdict};

impl Round<'_> {
    pub(super) fn forward(&mut self) {
        if self.over_budget() {
            return;
        }
        if !self.job.header.drift_checked {
            return self.check_drift();
        }
        if let Some(Link::Undoes { job }) = &self.job.header.link {
            return self.take_over(job);
        }
        self.settle_failed();
        self.wave();
        self.open_nothing_beside_what_spends();
        self.work_in_progress();
    }

    /// Also what was opened before it turned out that this round spends of the budget waits: what is left
    /// of it is known when that is committed.
    fn open_nothing_beside_what_spends(&mut self) {
        if self.spends {
            let opens =
                |event: &Event| matches!(event, Event::Target(_, TargetEvent::Opened { .. }));
            self.out.events.retain(|event| !opens(event));
        }
    }

    /// FLEET-BRAKE: stops opening targets once failures plus unknowns exceed the budget.
    fn over_budget(&mut self) -> bool {
        let spent = self.job.spent();
        let budget = self.job.plan.phase().budget;
        if spent.total() <= budget {
            return false;
        }
        let cause = StopCause::Budget {
            failed: spent.failed,
            unknown: spent.unknown,
            budget,
        };
        self.stop(cause);
        true
    }

    /// What a halt leads to is the runbook's policy.
    fn stop(&mut self, cause: StopCause) {
        let state = match self.on_failure() {
            OnFailure::Undo => JobState::Unwinding { cause },
            OnFailure::Halt | OnFailure::Continue => JobState::Stopping { cause },
        };
        self.move_to(state);
    }

    /// Asks every reachable agent whether its part still holds, before any target is touched. Who owes
    /// an answer for as long as an agent may be away counts as away: it finds out itself before it acts.
    fn check_drift(&mut self) {
        let began = self.job.header.started_at.unwrap_or_default();
        let asked_at = began.max(self.inventory.led_since);
        let over_at = asked_at.plus(self.inventory.limits.unreachable_after);
        let mut missing = BTreeSet::new();
        for target in self.job.plan.runs() {
            let left_out = self.job.record(target).state != TargetState::NotStarted;
            if left_out || self.now >= over_at || self.inventory.drift.contains_key(target) {
                continue;
            }
            match self.inventory.presence(target) {
                Presence::Absent { since } if self.is_unreachable(since) => continue,
                Presence::Live { .. } => {}
                other => self.wait(WaitingOn::from_presence(target, &other)),
            }
            missing.insert(target.clone());
        }
        if missing.is_empty() {
            return self.judge_drift();
        }
        self.wake(over_at);
        self.wait(WaitingOn::DriftCheck {
            targets: missing.len(),
            names: missing.iter().take(NAMES).cloned().collect(),
        });
        self.out.reads.drift = missing;
    }

    fn judge_drift(&mut self) {
        let found: Vec<(TargetName, String)> = self
            .inventory
            .drift
            .iter()
            .filter_map(|(target, what)| Some((target.clone(), what.clone()?)))
            .collect();
        if !found.is_empty() && self.job.plan.scope.body.drift() == Drift::RefuseJob {
            let cause = StopCause::Drift {
                targets: found.into_iter().collect(),
            };
            return self.move_to(JobState::Failed { cause });
        }
        for (target, what) in found {
            if self.job.record(&target).state == TargetState::NotStarted {
                let failure = Failure::new(DRIFT, what).with_hint("plan again and submit that");
                self.emit(&target, TargetEvent::LeftOut { failure });
            }
        }
        // In a round of its own: once this is known, who is not left out is opened.
        if self.out.events.is_empty() {
            self.emit_header(HeaderEvent::DriftChecked);
        }
    }

    /// A job that undoes another begins where that one ended. Every target is taken over before the way
    /// back begins: a target without a record would count as untouched.
    fn take_over(&mut self, undone: &JobId) {
        let runs: Vec<TargetName> = self.job.plan.runs().cloned().collect();
        for name in runs {
            if self.job.record(&name).state != TargetState::NotStarted {
                continue;
            }
            let left = self.job.part(&name).and_then(|part| part.left.clone());
            let event = match left {
                Some(left) => TargetEvent::TakenOver { steps: left.steps },
                None => TargetEvent::LeftOut {
                    failure: Failure::new("plan", "the plan does not say what was left here"),
                },
            };
            self.emit(&name, event);
        }
        if self.out.events.is_empty() {
            let job = undone.clone();
            self.move_to(JobState::Unwinding {
                cause: StopCause::Undoes { job },
            });
        }
    }

    fn is_unreachable(&self, since: Timestamp) -> bool {
        self.now >= since.plus(self.inventory.limits.unreachable_after)
    }

    /// A target that failed within the budget: undone alone where policy is undo, else left and named.
    fn settle_failed(&mut self) {
        for (name, target) in &self.job.targets {
            if !matches!(target.state, TargetState::Failed { .. }) {
                continue;
            }
            let goes_back = self.on_failure() == OnFailure::Undo || !target.may_have_effect();
            if !goes_back {
                let rest = not_helped(target);
                self.emit(name, TargetEvent::Settled { rest });
                continue;
            }
            match self.back_of(target) {
                Back::Open => self.open_undo(name, target),
                Back::Wait { until } => self.wait_for_agent(name, until),
                Back::Rest(rest) => self.emit(name, TargetEvent::Settled { rest }),
                Back::Nothing => {}
            }
        }
    }

    fn wave(&mut self) {
        let current = self.job.header.wave;
        self.deferred_returns();
        if self.out.events.iter().any(|event| opened(event).is_some()) {
            // Who is back counts at the barriers of its wave, once that is committed.
            return;
        }
        // Deferred targets of earlier waves go on by themselves, beside the wave in work.
        for wave in 0..current {
            self.open_segments(wave);
        }
        let targets = self.targets(current);
        let decided = targets.iter().all(|target| {
            target.is_at_rest() || matches!(target.state, TargetState::Deferred { .. })
        });
        // Whatever this round has just emitted is committed before the wave is judged.
        if decided && self.out.events.is_empty() {
            return self.wave_decided(&targets);
        }
        self.open_segments(current);
    }

    pub(super) fn targets(&self, wave: usize) -> Vec<Arc<Target>> {
        let participants = self.job.participants(wave).into_iter();
        participants.map(|name| self.job.record(name)).collect()
    }

    /// Opens what may be opened: barriers, slots and agents permitting.
    fn open_segments(&mut self, index: usize) {
        let wave = &self.targets(index);
        let barriers = Barriers::of(self.job.segments(), wave);
        let late = self.stop_late_ones(wave, &barriers);
        let mut slots = self.slots(index);
        let mut waits_for_slot = 0;
        for target in wave.iter().filter(|target| !late.contains(&target.name)) {
            let next = match &target.state {
                TargetState::NotStarted if !self.is_planned(&target.name) => {
                    self.emit(&target.name, TargetEvent::Deferred { since: self.now });
                    continue;
                }
                TargetState::NotStarted => 0,
                TargetState::Stopped { segment } => *segment,
                TargetState::AtBarrier { segment, .. }
                    if self.barrier_open(&barriers, *segment) =>
                {
                    segment + 1
                }
                _ => continue,
            };
            if slots == 0 {
                waits_for_slot += 1;
            } else if self.open(target, next) {
                slots -= 1;
            }
        }
        self.wait_for_slot(index, waits_for_slot);
    }

    /// Whether its agent has planned it, to be run: one that was away then plans it first.
    fn is_planned(&self, name: &TargetName) -> bool {
        let part = self.job.part(name);
        part.is_some_and(|part| part.disposition == Disposition::Run)
    }

    /// How many more targets of the wave may be in work, what this round has opened included.
    pub(super) fn slots(&self, wave: usize) -> usize {
        let opened: BTreeSet<&TargetName> = self.out.events.iter().filter_map(opened).collect();
        let taken = self.job.participants(wave).into_iter().filter(|name| {
            let target = self.job.targets.get(*name);
            opened.contains(name) || target.is_some_and(|t| t.state.in_work().is_some())
        });
        let max_parallel = self.job.plan.phase().waves[wave].max_parallel;
        max_parallel.saturating_sub(taken.count())
    }

    pub(super) fn wait_for_slot(&mut self, wave: usize, targets: usize) {
        if targets > 0 {
            let max_parallel = self.job.plan.phase().waves[wave].max_parallel;
            self.wait(WaitingOn::Slot {
                targets,
                max_parallel,
            });
        }
    }

    /// Commits an attempt where the agent may be given work; true when it took a slot.
    pub(super) fn open(&mut self, target: &Target, segment: usize) -> bool {
        let name = &target.name;
        match self.inventory.presence(name) {
            Presence::Live { .. } if self.spends => false,
            Presence::Live { journal } => {
                let commitment = self.commitment(&journal);
                let attempt = target.attempt.next();
                self.emit(
                    name,
                    TargetEvent::Opened {
                        segment,
                        attempt,
                        commitment,
                    },
                );
                true
            }
            _ => {
                match self.inventory.away_since(name) {
                    Some(since) if target.state == TargetState::NotStarted => {
                        self.away_before_start(name, since);
                    }
                    Some(since) => self.away_between_segments(name, since),
                    None => self.wait_for_agent(name, None),
                }
                false
            }
        }
    }

    /// At a barrier, or at a stop, with its agent away: nobody is waited for for ever.
    fn away_between_segments(&mut self, name: &TargetName, since: Timestamp) {
        let until = self.given_up_at(since);
        if self.now < until {
            return self.wait_for_agent(name, Some(until));
        }
        let failure = self.unreachable(name, since);
        self.emit(name, TargetEvent::TooLate { failure });
    }

    fn away_before_start(&mut self, name: &TargetName, since: Timestamp) {
        if !self.is_unreachable(since) {
            let until = since.plus(self.inventory.limits.unreachable_after);
            return self.wait_for_agent(name, Some(until));
        }
        let event = match self.job.plan.scope.body.when_unreachable() {
            WhenUnreachable::Defer => TargetEvent::Deferred { since: self.now },
            WhenUnreachable::Fail => TargetEvent::LeftOut {
                failure: self.unreachable(name, since),
            },
            WhenUnreachable::Skip => TargetEvent::Skipped {
                why: format!("{} (`whenUnreachable: skip`)", self.away(name, since)),
            },
        };
        self.emit(name, event);
    }

    fn wave_decided(&mut self, targets: &[Arc<Target>]) {
        let index = self.job.header.wave;
        let changed: BTreeSet<TargetName> = targets
            .iter()
            .filter(|target| target.state == TargetState::Rest(Rest::Changed))
            .map(|target| target.name.clone())
            .collect();
        let soak = self
            .job
            .plan
            .phase()
            .waves
            .get(index)
            .and_then(|wave| wave.soak.clone());
        if let Some(soak) = soak
            && !changed.is_empty()
        {
            return self.soak(index, changed, &soak);
        }
        self.after_wave(index);
    }

    fn after_wave(&mut self, index: usize) {
        if index + 1 < self.job.plan.phase().waves.len() {
            return self.emit_header(HeaderEvent::WaveDone);
        }
        if self.out.events.is_empty() && everyone_rests(self.job) {
            self.end();
        }
    }

    fn soak(&mut self, wave: usize, targets: BTreeSet<TargetName>, soak: &crate::runbook::Soak) {
        let committed = self
            .job
            .header
            .soak
            .clone()
            .filter(|progress| progress.wave == wave);
        let counted = self
            .inventory
            .soak
            .clone()
            .filter(|progress| progress.wave == wave);
        let progress = match (&committed, counted) {
            (Some(committed), Some(counted)) if counted.elapsed_ms < committed.elapsed_ms => {
                committed.clone()
            }
            (_, Some(counted)) => counted,
            (Some(committed), None) => committed.clone(),
            (None, None) => SoakProgress::begin(wave),
        };
        let scope = &self.job.plan.scope;
        match progress.verdict(&scope.body, soak, &scope.params) {
            Verdict::Passed => self.after_wave(wave),
            Verdict::Broken { why } => {
                let wave = self.job.plan.phase().waves[wave].name.clone();
                self.stop(StopCause::Soak { wave, why });
            }
            Verdict::Going { left } => {
                let kept = progress.to_keep();
                let known = committed.unwrap_or_else(|| SoakProgress::begin(wave));
                let grown = progress.elapsed_ms.saturating_sub(known.elapsed_ms);
                // Whoever sees only the records must learn that time stands still, and who makes it. The
                // names differ at most once a round of reading; the reasons may differ each time.
                let others = !kept.unread.keys().eq(known.unread.keys());
                if others || grown >= COMMIT_EVERY.as_millis() as u64 {
                    self.emit_header(HeaderEvent::Soaked { progress: kept });
                }
                self.wait(WaitingOn::Soak {
                    wave,
                    left,
                    unread: progress.unread.clone(),
                });
                self.out.reads.soak = Some(SoakWanted { wave, targets });
            }
        }
    }
}

/// The target that an event gives work to.
fn opened(event: &Event) -> Option<&TargetName> {
    match event {
        Event::Target(name, TargetEvent::Opened { .. } | TargetEvent::UndoOpened { .. }) => {
            Some(name)
        }
        Event::Target(..) | Event::Header(_) => None,
    }
}

/// What the target's remedy or change did not achieve, for a person.
pub(super) fn not_helped(target: &Target) -> Rest {
    let why = target.failure.as_ref().map_or_else(
        || "stopped half way".to_owned(),
        |failed| match &failed.step {
            Some(step) => format!("failed at `{step}`: {}", failed.failure.cause),
            None => failed.failure.cause.clone(),
        },
    );
    Rest::NeedsOperator { why }
}
