//! Targets whose agents were away: they are planned and run when those are back, whatever wave is in work.

use super::{Round, WaitingOn};
use crate::ids::{TargetName, Timestamp};
use crate::job::{HeldBy, Rest, Target, TargetEvent, TargetState};
use crate::plan::Disposition;

impl Round<'_> {
    /// Deferred targets run as soon as their agents are back, whatever wave is in work.
    pub(super) fn deferred_returns(&mut self) {
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
                } else if self.run_deferred(&target, since) {
                    slots -= 1;
                }
            }
            self.wait_for_slot(wave, waits_for_slot);
        }
    }

    /// Waits for a deferred target, up to a day.
    fn deferred_still(&mut self, name: &TargetName, since: Timestamp) {
        if self.deferred_too_long(name, since, "away") {
            return;
        }
        self.wait(WaitingOn::Deferred {
            target: name.clone(),
            since,
        });
    }

    /// Lets a target rest that is deferred for longer than may be; else looks again when it is.
    fn deferred_too_long(&mut self, name: &TargetName, since: Timestamp, what: &str) -> bool {
        let limit = self.inventory.limits.defer_for;
        let given_up_at = since.plus(limit);
        if self.now < given_up_at {
            self.wake(given_up_at);
            return false;
        }
        let why = format!("deferred, and {what} for {limit:?}");
        let rest = Rest::NeedsOperator { why };
        self.emit(name, TargetEvent::Settled { rest });
        true
    }

    /// Its agent is back and plans it, once nobody else holds what it would write.
    fn plan_late(&mut self, name: &TargetName, since: Timestamp) {
        if self.deferred_too_long(name, since, "not planned") {
            return;
        }
        let target = name.clone();
        let held = self.job.target(name).late_lock;
        match held.filter(|_| self.inventory.late_locks.contains(name)) {
            Some(HeldBy { object, by }) => self.wait(WaitingOn::Lock { object, target, by }),
            None => {
                self.out.reads.plan.insert(name.clone());
                self.wait(WaitingOn::LatePlan { target });
            }
        }
    }

    /// True when it took a slot.
    fn run_deferred(&mut self, target: &Target, since: Timestamp) -> bool {
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
                self.plan_late(name, since);
            }
        }
        false
    }
}
