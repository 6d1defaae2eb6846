//! Writes down what happens to one attempt, and says what was written.

use std::collections::BTreeMap;

use aldis_core::assignments::Order;
use aldis_core::ids::{Attempt, JobId, StepId};
use aldis_core::job::Report;
use aldis_core::outcome::{SegmentOutcome, StepState};
use serde_json::Value;

use super::cut;
use crate::actions::Progress;
use crate::journal::state::Try;
use crate::journal::{AttemptKey, Entry, Half, JournalId};
use crate::ledger::notes::{self, StepNote};
use crate::ledger::{Error, Ledger};
use crate::logs::Logs;
use crate::parts::Parts;
use crate::reports::Reports;

pub(super) struct Pen {
    key: AttemptKey,
    job: JobId,
    attempt: Attempt,
    /// The journal that the attempt was accepted in. Nothing is written to another one.
    journal: JournalId,
    ledger: Ledger,
    reports: Reports,
    logs: Logs,
    clock: std::sync::Arc<dyn crate::clock::Clock>,
}

impl Pen {
    pub(super) fn new(parts: Parts, order: &Order) -> Self {
        Self {
            key: notes::key(order),
            job: order.job.clone(),
            attempt: order.attempt,
            journal: parts.ledger.id(),
            ledger: parts.ledger,
            reports: parts.reports,
            logs: parts.logs,
            clock: parts.clock,
        }
    }

    pub(super) fn key(&self) -> &AttemptKey {
        &self.key
    }

    /// On disk when it returns: the effect may begin.
    pub(super) async fn intent(
        &self,
        step: &StepId,
        half: Half,
        try_number: u32,
        before: Value,
    ) -> Result<(), Error> {
        let entry = Entry::StepIntent {
            attempt: self.key.clone(),
            step: step.to_string(),
            half,
            try_number,
            before,
            at: self.now(),
        };
        self.ledger.append(self.journal, vec![entry]).await?;
        Ok(())
    }

    /// How a try ended. `state` must have been cut. A full disk loses it where no effect was foretold, so that no room
    /// was kept: what has read, or sent nothing, can be decided again after a restart.
    pub(super) async fn outcome(
        &self,
        step: &StepId,
        half: Half,
        state: &StepState,
        after: Option<Value>,
    ) -> Result<(), Error> {
        let note = StepNote {
            state: state.clone(),
            after: after.and_then(cut::after),
        };
        let entry = Entry::StepOutcome {
            attempt: self.key.clone(),
            step: step.to_string(),
            half,
            outcome: json(&note),
            at: self.now(),
        };
        let foretold = self.tries(step, half).last().is_some_and(Try::is_open);
        match self.ledger.append(self.journal, vec![entry]).await {
            Err(error) if !error.is_full() || foretold => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// Something learned while an outcome is open. A full disk loses it.
    pub(super) async fn evidence(
        &self,
        step: &StepId,
        half: Half,
        seen: &[String],
    ) -> Result<(), Error> {
        let entry = Entry::Evidence {
            attempt: self.key.clone(),
            step: step.to_string(),
            half,
            data: json(&seen),
        };
        match self.ledger.append(self.journal, vec![entry]).await {
            Err(error) if !error.is_full() => Err(error),
            Ok(_) | Err(_) => Ok(()),
        }
    }

    /// The end of the attempt, with all that is known of its steps.
    pub(super) async fn end(
        &self,
        outcome: SegmentOutcome,
        steps: BTreeMap<StepId, StepState>,
    ) -> Result<(), Error> {
        let outcome = cut::outcome(outcome);
        let entry = Entry::SegmentOutcome {
            attempt: self.key.clone(),
            outcome: json(&outcome),
            at: self.now(),
        };
        self.close(entry, outcome, steps).await
    }

    /// Closes the attempt for ever, with what is known of its steps.
    pub(super) async fn bury(
        &self,
        answer: notes::Answer,
        steps: BTreeMap<StepId, StepState>,
    ) -> Result<(), Error> {
        let entry = Entry::Tombstone {
            attempt: self.key.clone(),
            answer: json(&answer),
            at: self.now(),
        };
        self.close(entry, answer.outcome, steps).await
    }

    async fn close(
        &self,
        entry: Entry,
        outcome: SegmentOutcome,
        steps: BTreeMap<StepId, StepState>,
    ) -> Result<(), Error> {
        let sequence = self.ledger.append(self.journal, vec![entry]).await?;
        tracing::info!(attempt = %self.key, ?outcome, "attempt ends");
        let report = Report::Ended { outcome, steps };
        self.reports
            .add(self.job.clone(), self.attempt, sequence, report);
        Ok(())
    }

    /// Reports a step as it is.
    pub(super) fn report_step(&self, step: &StepId, state: &StepState) {
        self.report(Report::Step {
            step: step.clone(),
            state: state.clone(),
        });
    }

    /// Reports what was found of an attempt that stays open: nobody can say yet.
    pub(super) fn report_found(&self, outcome: SegmentOutcome, steps: BTreeMap<StepId, StepState>) {
        let outcome = cut::outcome(outcome);
        self.report(Report::Ended { outcome, steps });
    }

    /// Reports whether the attempt rests.
    pub(super) fn report_parked(&self, parked: bool) {
        self.report(Report::Parked { parked });
    }

    fn report(&self, report: Report) {
        let sequence = self.ledger.sequence();
        self.reports
            .add(self.job.clone(), self.attempt, sequence, report);
    }

    /// One line in the job's log.
    pub(super) fn say(&self, step: &StepId, line: impl Into<String>) {
        self.logs.say(&self.job, step, line.into());
    }

    /// For an action: what it says goes to the job's log.
    pub(super) fn progress(&self, step: &StepId) -> Progress {
        let (logs, job, step) = (self.logs.clone(), self.job.clone(), step.clone());
        Progress::new(move |line| logs.say(&job, &step, line))
    }

    /// The tries of one half of a step that are journalled.
    pub(super) fn tries(&self, step: &StepId, half: Half) -> Vec<Try> {
        self.ledger.read(|attempts| {
            let attempt = attempts.attempt(&self.key);
            let of_step = (step.to_string(), half);
            attempt
                .and_then(|attempt| attempt.steps.get(&of_step).cloned())
                .unwrap_or_default()
        })
    }

    fn now(&self) -> u64 {
        self.clock.wall_now_ms()
    }
}

/// # Panics
/// Never: our own types have text keys and finite numbers.
pub(super) fn json<T: serde::Serialize>(value: &T) -> Value {
    serde_json::to_value(value).expect("our own types have text keys")
}
