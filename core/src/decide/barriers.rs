//! Barriers of a wave: who has yet to reach one, and who is not waited for any longer.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::{Round, WaitingOn};
use crate::ids::{TargetName, Timestamp};
use crate::job::{Target, TargetEvent, TargetState};
use crate::outcome::Failure;

impl Round<'_> {
    /// A barrier opens when nobody who still counts is before it. Ended, failed, unknown and deferred
    /// targets have left its count; a target at it holds no slot: so it cannot deadlock.
    pub(super) fn barrier_open(&mut self, barriers: &Barriers, segment: usize) -> bool {
        let before = barriers.before(segment);
        if before > 0 {
            self.wait(WaitingOn::Barrier {
                segment,
                targets: before,
            });
        }
        before == 0
    }

    /// Whoever is not at a barrier when its time is over is not waited for any longer: what runs is told
    /// to stop, what does not run has failed, what never began is left out. Returns who is late. Time in
    /// which an operator held the job does not count.
    pub(super) fn stop_late_ones(
        &mut self,
        wave: &[Arc<Target>],
        barriers: &Barriers,
    ) -> BTreeSet<TargetName> {
        let mut late = BTreeMap::new();
        for (segment, since) in &barriers.first_at {
            let barrier = self.job.plan.phase().segments[*segment].barrier;
            let Some(timeout_ms) = barrier.and_then(|barrier| barrier.timeout_ms) else {
                continue;
            };
            let counts_from = self.job.header.resumed_at.unwrap_or_default().max(*since);
            let over_at = counts_from.plus(Duration::from_millis(timeout_ms));
            if self.now >= over_at {
                let before =
                    |target: &&Arc<Target>| is_before(target).is_some_and(|at| at <= *segment);
                let before = wave.iter().filter(before);
                late.extend(before.map(|target| (target.name.clone(), (target, timeout_ms))));
            } else if barriers.before(*segment) > 0 {
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
        if target.late || self.touched.contains(name) {
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
}

/// Who of a wave is where, counted once for all that wait.
pub(super) struct Barriers {
    /// By segment: targets that become "before its barrier" there, and are before every later one.
    from: Vec<usize>,
    /// By segment whose barrier somebody is at: since when the first one is.
    first_at: BTreeMap<usize, Timestamp>,
}

impl Barriers {
    pub(super) fn of(segments: usize, wave: &[Arc<Target>]) -> Self {
        let mut barriers = Self {
            from: vec![0; segments + 1],
            first_at: BTreeMap::new(),
        };
        for target in wave {
            if let Some(count) = is_before(target).and_then(|at| barriers.from.get_mut(at)) {
                *count += 1;
            }
            if let TargetState::AtBarrier { segment, since } = target.state {
                let first = barriers.first_at.entry(segment).or_insert(since);
                *first = since.min(*first);
            }
        }
        barriers
    }

    /// How many that still count have not reached the barrier that ends this segment.
    fn before(&self, segment: usize) -> usize {
        self.from.iter().take(segment + 1).sum()
    }
}

/// The first segment whose barrier the target still counts for and has not reached.
fn is_before(target: &Target) -> Option<usize> {
    match &target.state {
        TargetState::NotStarted => Some(0),
        TargetState::Assigned { segment }
        | TargetState::Running { segment }
        | TargetState::Stopped { segment } => Some(*segment),
        TargetState::AtBarrier { segment, .. } => Some(segment + 1),
        TargetState::Deferred { .. }
        | TargetState::Failed { .. }
        | TargetState::UndoAssigned
        | TargetState::Undoing
        | TargetState::Unknown { .. }
        | TargetState::Stuck { .. }
        | TargetState::Rest(_) => None,
    }
}
