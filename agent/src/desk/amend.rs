//! Attempts that would be without a runner, or without a reason: a full disk, a runner that broke, an end that nobody
//! could tell.
//!
//! | left by | then |
//! |---|---|
//! | no room in the journal | again after a pause, and the control plane is told why it waits |
//! | a runner that broke | again as after a restart, [`BREAKS`] times; then it is unknown, with the reason |
//! | an end that is unknown | looked for again, with growing pauses, while there is a permit |
//!
//! A runner leaves a journal from which the next one goes on, so beginning again is what a restart would do.

use aldis_core::assignments::{Assignment, Wanted};
use aldis_core::ids::{self, JobId, StepId};
use aldis_core::job::Report;
use aldis_core::outcome::SegmentOutcome;
use tokio::task::JoinError;
use tokio::time::Instant;
use tracing::{error, warn};

use super::table::{ATTENDED, Attended, Purpose, Table};
use crate::journal::AttemptKey;
use crate::ledger::{self, notes};
use crate::runner::Told;

/// Runners of one attempt that may break. What breaks so often breaks by what it is given.
const BREAKS: u32 = 3;

/// Attempts looked at again at once: each is a look or two in minutes. Those of older jobs are left to their operators.
const DOUBTED: usize = 16;

/// What the next runner of an attempt is to know.
pub(super) struct Again {
    pub(super) assignment: Assignment,
    pub(super) told: Told,
    purpose: Purpose,
    broken: u32,
}

impl Table {
    pub(super) fn may_attend(&self) -> bool {
        let doubts = self.doubts().count();
        self.attended.len() - doubts < ATTENDED
    }

    fn doubts(&self) -> impl Iterator<Item = (&AttemptKey, &Attended)> {
        let all = self.attended.iter();
        all.filter(|(_, attended)| attended.purpose == Purpose::Doubt)
    }

    /// Something ordered could not be written down: it stays ordered, and its asker hears why it does not happen.
    pub(super) fn wait_for_room(
        &mut self,
        key: AttemptKey,
        assignment: Assignment,
        error: &ledger::Error,
    ) {
        self.refuse(&key, no_room(error));
        self.waiting.insert(key, assignment);
        self.room_at = Some(Instant::now() + self.pauses.room);
    }

    /// Closes what was told to stop and found no room for that.
    pub(super) async fn bury_what_waits(&mut self) {
        let stopped = self
            .waiting
            .iter()
            .filter(|(_, assignment)| assignment.order.wanted == Wanted::Stop);
        let stopped: Vec<AttemptKey> = stopped.map(|(key, _)| key.clone()).collect();
        for key in stopped {
            if let Some(assignment) = self.waiting.remove(&key) {
                self.bury(key, assignment).await;
            }
        }
    }

    /// A runner could not write down what it had to.
    pub(super) fn found_no_room(
        &mut self,
        key: AttemptKey,
        attended: Attended,
        error: &ledger::Error,
    ) {
        self.refuse(&key, no_room(error));
        let broken = attended.broken;
        self.again_later(key, attended, broken);
    }

    /// A runner ended in a way that no runner should.
    pub(super) fn broke(&mut self, key: AttemptKey, attended: Attended, why: &JoinError) {
        if why.is_cancelled() {
            return;
        }
        let broken = attended.broken + 1;
        error!(attempt = %key, broken, why = %why, "a runner broke");
        if broken < BREAKS {
            return self.again_later(key, attended, broken);
        }
        let reason = format!("the agent's runner of it broke {broken} times: {why}");
        if attended.purpose == Purpose::Run {
            self.say_broken(&key, &attended.assignment, &reason);
        }
        self.refuse(&key, format!("{reason}; {AFTER_RESTART}"));
    }

    fn again_later(&mut self, key: AttemptKey, attended: Attended, broken: u32) {
        let again = Again {
            told: *attended.told.borrow(),
            assignment: attended.assignment,
            purpose: attended.purpose,
            broken,
        };
        self.again.insert(key, again);
        self.room_at = Some(Instant::now() + self.pauses.room);
    }

    /// Gives runners to those that lost theirs.
    pub(super) fn begin_again(&mut self) {
        if self.closing {
            return;
        }
        for (key, again) in std::mem::take(&mut self.again) {
            self.taken(&key);
            self.spawn(
                key,
                again.assignment,
                again.told,
                again.purpose,
                again.broken,
            );
        }
    }

    /// What is wanted of an open attempt without a runner, because of an order of `asked`.
    pub(super) fn order_again(&mut self, key: &AttemptKey, told: Told, asked: &AttemptKey) {
        match self.again.get_mut(key) {
            Some(again) => again.told = told,
            None => self.refuse(
                asked,
                format!("the agent's journal holds {key} open without a runner; {AFTER_RESTART}"),
            ),
        }
    }

    /// The job shows why nothing moves. The attempt stays open: the next process takes it up.
    fn say_broken(&self, key: &AttemptKey, assignment: &Assignment, reason: &str) {
        let (step, steps) = self.parts.ledger.read(|attempts| {
            let mut open = attempts.open_intents().filter(|open| open.attempt == key);
            let step = open.next().map(|open| StepId::new(open.step));
            let steps = attempts.attempt(key).map(notes::steps).unwrap_or_default();
            (step, steps)
        });
        let undecided = || {
            let all = assignment.steps.iter().map(|planned| &planned.step.id);
            all.clone()
                .find(|id| !steps.contains_key(*id))
                .or_else(|| all.clone().next())
                .cloned()
        };
        let step = step.or_else(undecided);
        let outcome = SegmentOutcome::Unknown {
            step: step.unwrap_or_else(|| StepId::new("unknown")),
            evidence: vec![reason.to_owned(), AFTER_RESTART.to_owned()],
        };
        let report = Report::Ended { outcome, steps };
        let (job, attempt) = named(key);
        let sequence = self.parts.ledger.sequence();
        self.parts.reports.add(job, attempt, sequence, report);
    }

    /// Goes on looking at an attempt that ended as unknown, where it is the newest of its job.
    pub(super) fn doubt(&mut self, key: AttemptKey) {
        let assignment = self.parts.ledger.read(|attempts| {
            let attempt = attempts.attempt(&key)?;
            let outcome = notes::outcome(attempt)?;
            let newest = attempts.of_job(&key.job, &key.target).next_back()?;
            let in_doubt = matches!(outcome, SegmentOutcome::Unknown { .. });
            (in_doubt && newest.0 == &key).then(|| notes::assignment(attempt))?
        });
        let Some(assignment) = assignment.filter(|_| !self.closing) else {
            return;
        };
        if self.doubts().count() < DOUBTED {
            self.spawn(key, assignment, Told::Go, Purpose::Doubt, 0);
        } else {
            warn!(attempt = %key, "unknown, and not looked at again: {DOUBTED} others are");
        }
    }

    /// A newer attempt takes the place of those of its job: their effects are its own business.
    pub(super) fn end_doubts(&self, of: &AttemptKey) {
        for (key, attended) in self.doubts() {
            if (&key.job, &key.target) == (&of.job, &of.target) {
                attended.told.send_replace(Told::Close);
            }
        }
    }

    pub(super) fn refuse(&self, key: &AttemptKey, reason: String) {
        warn!(attempt = %key, reason, "not done as ordered");
        let (job, attempt) = named(key);
        self.parts.reports.refuse(job, attempt, reason);
    }

    pub(super) fn taken(&self, key: &AttemptKey) {
        let (job, attempt) = named(key);
        self.parts.reports.taken(&job, attempt);
    }
}

const AFTER_RESTART: &str = "a restart of the agent takes it up from its journal";

fn named(key: &AttemptKey) -> (JobId, ids::Attempt) {
    (JobId::new(key.job.clone()), ids::Attempt(key.number))
}

fn no_room(error: &ledger::Error) -> String {
    format!("{error}; free some space where the agent keeps its journal, and it goes on by itself")
}
