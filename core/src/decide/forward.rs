//! A running job: drift check, budget, the wave in work, its barriers and its soak.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::back::everyone_rests;
use super::{Round, SoakWanted, WaitingOn};
use crate::ids::{JobId, TargetName, Timestamp};
use crate::inventory::Presence;
use crate::job::{
    Event, HeaderEvent, JobState, Link, Rest, StopCause, Target, TargetEvent, TargetState,
};
use crate::outcome::Failure;
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
        self.work_in_progress();
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

    /// Asks every reachable agent whether its part still holds, before any target is touched.
    fn check_drift(&mut self) {
        let runs: BTreeSet<TargetName> = self.job.plan.runs().cloned().collect();
        let mut missing = BTreeSet::new();
        for target in &runs {
            if self.inventory.drift.contains_key(target) {
                continue;
            }
            match self.inventory.presence(target) {
                // It is asked again when its first segment begins.
                Presence::Absent { since } if self.is_unreachable(since) => {}
                Presence::Live { .. } => {
                    missing.insert(target.clone());
                }
                other => {
                    self.wait(WaitingOn::from_presence(target, &other));
                    self.wake(self.now.plus(self.inventory.limits.unreachable_after));
                    missing.insert(target.clone());
                }
            }
        }
        if !missing.is_empty() {
            self.wait(WaitingOn::DriftCheck {
                targets: missing.len(),
            });
            self.out.reads.drift = missing;
            return;
        }
        self.judge_drift();
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
            if self.job.target(&target).state == TargetState::NotStarted {
                let failure = Failure::new("drift", what).with_hint("plan again and submit that");
                self.emit(&target, TargetEvent::LeftOut { failure });
            }
        }
        self.emit_header(HeaderEvent::DriftChecked);
    }

    /// A job that undoes another begins where that one ended. Every target is taken over before the way
    /// back begins: a target without a record would count as untouched.
    fn take_over(&mut self, undone: &JobId) {
        let runs: Vec<TargetName> = self.job.plan.runs().cloned().collect();
        for name in runs {
            if self.job.target(&name).state != TargetState::NotStarted {
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
            if !target.may_have_effect() {
                self.emit(
                    name,
                    TargetEvent::Settled {
                        rest: Rest::Untouched,
                    },
                );
            } else if self.on_failure() == OnFailure::Undo {
                self.open_undo(name, target);
            } else {
                self.emit(
                    name,
                    TargetEvent::Settled {
                        rest: not_helped(target),
                    },
                );
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

    fn targets(&self, wave: usize) -> Vec<Target> {
        let participants = self.job.participants(wave).into_iter();
        participants.map(|name| self.job.target(name)).collect()
    }

    /// Opens what may be opened: barriers, slots and agents permitting.
    fn open_segments(&mut self, index: usize) {
        let wave = &self.targets(index);
        let late = self.stop_late_ones(wave);
        let mut slots = self.slots(index);
        let mut waits_for_slot = 0;
        for target in wave.iter().filter(|target| !late.contains(&target.name)) {
            let next = match &target.state {
                TargetState::NotStarted => 0,
                TargetState::Stopped { segment } => *segment,
                TargetState::AtBarrier { segment, .. } if self.barrier_open(wave, *segment) => {
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

    /// How many more targets of the wave may be in work, what this round has opened included.
    fn slots(&self, wave: usize) -> usize {
        let opened: BTreeSet<&TargetName> = self.out.events.iter().filter_map(opened).collect();
        let taken = self.job.participants(wave).into_iter().filter(|name| {
            let target = self.job.targets.get(*name);
            opened.contains(name) || target.is_some_and(|t| t.state.in_work().is_some())
        });
        let max_parallel = self.job.plan.phase().waves[wave].max_parallel;
        max_parallel.saturating_sub(taken.count())
    }

    fn wait_for_slot(&mut self, wave: usize, targets: usize) {
        if targets > 0 {
            let max_parallel = self.job.plan.phase().waves[wave].max_parallel;
            self.wait(WaitingOn::Slot {
                targets,
                max_parallel,
            });
        }
    }

    /// A barrier opens when nobody who still counts is before it. Ended, failed, unknown and deferred
    /// targets have left its count; a target at it holds no slot: so it cannot deadlock.
    fn barrier_open(&mut self, wave: &[Target], segment: usize) -> bool {
        let before = wave
            .iter()
            .filter(|t| is_before_barrier(t, segment))
            .count();
        if before > 0 {
            self.wait(WaitingOn::Barrier {
                segment,
                targets: before,
            });
        }
        before == 0
    }

    /// Whoever is not at a barrier when its time is over is not waited for any longer: what runs is told
    /// to stop, what does not run has failed, what never began is left out. Returns who is late.
    fn stop_late_ones(&mut self, wave: &[Target]) -> BTreeSet<TargetName> {
        let mut late = BTreeMap::new();
        for target in wave {
            let TargetState::AtBarrier { segment, since } = target.state else {
                continue;
            };
            let barrier = self.job.plan.phase().segments[segment].barrier;
            let Some(timeout_ms) = barrier.and_then(|barrier| barrier.timeout_ms) else {
                continue;
            };
            let mut before = wave
                .iter()
                .filter(|t| is_before_barrier(t, segment))
                .peekable();
            let over_at = since.plus(Duration::from_millis(timeout_ms));
            if self.now >= over_at {
                late.extend(before.map(|target| (target.name.clone(), (target, timeout_ms))));
            } else if before.peek().is_some() {
                self.wake(over_at);
            }
        }
        for (target, timeout_ms) in late.values() {
            self.too_late(target, *timeout_ms);
        }
        late.into_keys().collect()
    }

    fn too_late(&mut self, target: &Target, timeout_ms: u64) {
        let name = &target.name;
        // Whoever was given up in this round is judged in the next.
        let of_it = |event: &Event| matches!(event, Event::Target(of, _) if of == name);
        if target.late || self.out.events.iter().any(of_it) {
            return;
        }
        let failure = Failure::new(
            "barrier",
            format!("not at the barrier after {timeout_ms} ms"),
        );
        let event = match &target.state {
            TargetState::NotStarted => TargetEvent::LeftOut { failure },
            _ => TargetEvent::TooLate { failure },
        };
        self.emit(name, event);
    }

    /// Commits an attempt where the agent may be given work; true when it took a slot.
    fn open(&mut self, target: &Target, segment: usize) -> bool {
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
            Presence::Absent { since } if target.state == TargetState::NotStarted => {
                self.absent_before_start(name, since);
                false
            }
            other => {
                self.wait(WaitingOn::from_presence(name, &other));
                false
            }
        }
    }

    fn absent_before_start(&mut self, name: &TargetName, since: Timestamp) {
        if !self.is_unreachable(since) {
            self.wait(WaitingOn::AgentAbsent {
                target: name.clone(),
                since,
            });
            return self.wake(since.plus(self.inventory.limits.unreachable_after));
        }
        let event = match self.job.plan.scope.body.when_unreachable() {
            WhenUnreachable::Defer => TargetEvent::Deferred { since: self.now },
            WhenUnreachable::Fail => TargetEvent::LeftOut {
                failure: self.unreachable(since),
            },
            WhenUnreachable::Skip => TargetEvent::Settled {
                rest: Rest::Untouched,
            },
        };
        self.emit(name, event);
    }

    /// Deferred targets run as soon as their agents are back, whatever wave is in work.
    fn deferred_returns(&mut self) {
        for wave in 0..=self.job.header.wave {
            let mut slots = self.slots(wave);
            let mut waits_for_slot = 0;
            for target in self.targets(wave) {
                let TargetState::Deferred { since } = target.state else {
                    continue;
                };
                if self.inventory.live(&target.name).is_none() {
                    self.deferred_still(&target.name, since);
                } else if slots == 0 {
                    waits_for_slot += 1;
                } else if self.run_deferred(&target) {
                    slots -= 1;
                }
            }
            self.wait_for_slot(wave, waits_for_slot);
        }
    }

    /// Waits for a deferred target, up to a day.
    fn deferred_still(&mut self, name: &TargetName, since: Timestamp) {
        let limit = self.inventory.limits.defer_for;
        let given_up_at = since.plus(limit);
        if self.now >= given_up_at {
            let why = format!("deferred, and away for {limit:?}");
            let rest = Rest::NeedsOperator { why };
            return self.emit(name, TargetEvent::Settled { rest });
        }
        self.wait(WaitingOn::Deferred {
            target: name.clone(),
            since,
        });
        self.wake(given_up_at);
    }

    /// True when it took a slot.
    fn run_deferred(&mut self, target: &Target) -> bool {
        let name = &target.name;
        let disposition = self.job.part(name).map(|part| part.disposition.clone());
        match disposition {
            Some(Disposition::Run) => return self.open(target, 0),
            Some(Disposition::Unchanged { .. }) => {
                self.emit(
                    name,
                    TargetEvent::Settled {
                        rest: Rest::Untouched,
                    },
                );
            }
            Some(Disposition::Refused { why, .. }) => {
                let why = format!("returned, and its plan is refused: {why}");
                self.emit(
                    name,
                    TargetEvent::Settled {
                        rest: Rest::NeedsOperator { why },
                    },
                );
            }
            Some(Disposition::Deferred { .. } | Disposition::Skipped { .. }) | None => {
                self.out.reads.plan.insert(name.clone());
                self.wait(WaitingOn::LatePlan {
                    target: name.clone(),
                });
            }
        }
        false
    }

    fn wave_decided(&mut self, targets: &[Target]) {
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
                let known = committed.unwrap_or_else(|| SoakProgress::begin(wave));
                let grown = progress.elapsed_ms.saturating_sub(known.elapsed_ms);
                // Whoever sees only the records must learn that time stands still, and who makes it. The
                // names differ at most once a round of reading; the reasons may differ each time.
                let others = !progress.unread.keys().eq(known.unread.keys());
                if others || grown >= COMMIT_EVERY.as_millis() as u64 {
                    self.emit_header(HeaderEvent::Soaked {
                        progress: progress.clone(),
                    });
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

fn is_before_barrier(target: &Target, barrier: usize) -> bool {
    match &target.state {
        TargetState::NotStarted => true,
        TargetState::Assigned { segment } | TargetState::Running { segment } => *segment <= barrier,
        TargetState::Stopped { segment } => *segment <= barrier,
        TargetState::AtBarrier { segment, .. } => *segment < barrier,
        TargetState::Deferred { .. }
        | TargetState::Failed { .. }
        | TargetState::UndoAssigned
        | TargetState::Undoing
        | TargetState::Unknown { .. }
        | TargetState::Stuck { .. }
        | TargetState::Rest(_) => false,
    }
}
