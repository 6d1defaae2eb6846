//! The way back over a whole target, last step first.
//!
//! By the law of [`crate::actions::Actions::undo`] an undo is harmless on work that never happened and on work already
//! undone. So one whose answer was lost, or that a restart cut off, is simply made again, with the same stamp.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::action::{Action, Effect as ActionEffect};
use aldis_core::ids::StepId;
use aldis_core::job::Direction;
use aldis_core::outcome::{Failure, SegmentOutcome, StepState};
use aldis_core::segment::{self, NextUndo, UndoHow};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::control::Rest;
use super::effect::{Effected, steadily, too_slow};
use super::settle::{self, Settled};
use super::{Left, Run, cut};
use crate::actions::{Call, Effect, Stamp, Trouble};
use crate::journal::Half;
use crate::ledger::Error;

/// Between two tries of an undo at first; doubled up to [`LONGEST_PAUSE`] within the step's time.
const FIRST_PAUSE: Duration = Duration::from_millis(500);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

pub(super) async fn run(run: Run) -> Result<Left, Error> {
    let mut undo = Undo::resume(run);
    loop {
        match segment::advance_undo(&undo.run.assignment, &undo.known) {
            NextUndo::Finished(outcome) => return undo.end(outcome).await,
            NextUndo::Pass { step } => {
                // Gone past: it stands as it is, and is looked at no more.
                undo.known.insert(step, StepState::Undone);
            }
            NextUndo::Undo { step, how, timeout } => {
                match undo.rest(&step).await {
                    Rest::Go { .. } => {}
                    Rest::Stop => {
                        let outcome = SegmentOutcome::Stopped { after: None };
                        return undo.end(outcome).await;
                    }
                    Rest::Close => return Ok(Left::Resting),
                }
                let state = undo.step(&step, how, timeout).await?;
                undo.take(step, state).await?;
            }
        }
    }
}

struct Undo {
    run: Run,
    /// What core looks at.
    known: BTreeMap<StepId, StepState>,
    /// What this attempt has decided.
    decided: BTreeMap<StepId, StepState>,
}

impl Undo {
    fn resume(run: Run) -> Self {
        let key = run.pen.key().clone();
        let decided = run.parts.ledger.read(|attempts| {
            let attempt = attempts.attempt(&key);
            attempt.map(crate::ledger::notes::steps).unwrap_or_default()
        });
        let mut known = run.assignment.known.clone();
        known.extend(decided.clone());
        Self {
            run,
            known,
            decided,
        }
    }

    /// Before `step` goes back the target stands right behind it: a place to rest, unless the runbook says otherwise.
    async fn rest(&mut self, step: &StepId) -> Rest {
        let planned = self.run.assignment.steps.iter();
        let may_rest = planned
            .filter(|planned| planned.step.id == *step)
            .all(|planned| planned.step.safe_point)
            || self.decided.is_empty();
        if !may_rest {
            return Rest::Go { rested: false };
        }
        let pen = &self.run.pen;
        self.run
            .control
            .rest(|parked| pen.report_parked(parked))
            .await
    }

    async fn step(
        &mut self,
        step: &StepId,
        how: UndoHow,
        timeout: Duration,
    ) -> Result<StepState, Error> {
        let uses = self
            .run
            .assignment
            .steps
            .iter()
            .find(|planned| planned.step.id == *step)
            .map(|planned| planned.step.uses);
        self.run.pen.say(step, "goes back");
        match (how, uses) {
            (UndoHow::Auto, Some(action)) => self.by_itself(step, action, timeout).await,
            (UndoHow::Own { action, with }, _) => {
                self.by_another(step, action, with, timeout).await
            }
            (UndoHow::Auto, None) => Ok(undo_failed(Failure::new(
                "invalid",
                "the assignment does not hold the step",
            ))),
        }
    }

    /// By the action itself, from what it captured.
    async fn by_itself(
        &self,
        step: &StepId,
        action: Action,
        timeout: Duration,
    ) -> Result<StepState, Error> {
        let Some(effect) = self.run.effect_of(step) else {
            let cause = "what stood there before the step is not in this agent's journal";
            return Ok(undo_failed(
                Failure::new("lost", cause)
                    .with_hint("put it back by hand, then resolve the step as done"),
            ));
        };
        let mut call = self.run.call(step, action, self.input_of(step));
        call.timeout = timeout;
        let effect = Effect {
            stamp: Stamp {
                job: self.run.whose().clone(),
                attempt: effect.attempt,
                direction: Direction::Forward,
                ..call.stamp.clone()
            },
            before: effect.before,
            after: effect.after,
        };
        if let Err(failure) = self.ready(&call).await {
            return Ok(undo_failed(failure));
        }
        let number = self.next_number(step);
        // What is to be put back is in the step's own intent; this one says only that it has begun.
        let note = json!({ "undoes": effect.stamp.attempt });
        aldis_proto::failpoint::hit("agent-before-intent");
        // Where the disk is full, the attempt is taken up again once there is room: half of an undo helps nobody.
        self.run.pen.intent(step, Half::Undo, number, note).await?;
        aldis_proto::failpoint::hit("agent-after-intent");
        let state = self.put_back(&call, &effect).await?;
        aldis_proto::failpoint::hit("agent-after-effect");
        Ok(state)
    }

    /// Makes the undo, again and again within its time where it was not heard to end.
    async fn put_back(&self, call: &Call, effect: &Effect) -> Result<StepState, Error> {
        let until = Instant::now() + call.timeout;
        let progress = self.run.pen.progress(&call.stamp.step);
        let mut pause = FIRST_PAUSE;
        loop {
            let undone = self.run.parts.actions.undo(call, effect, &progress);
            let why = match tokio::time::timeout_at(until, undone).await {
                Ok(Ok(())) => return Ok(StepState::Undone),
                Ok(Err(Trouble::Failed { failure, .. })) => return Ok(undo_failed(failure)),
                Ok(Err(Trouble::Retriable { failure })) => failure,
                Ok(Err(Trouble::Unknown { evidence })) => {
                    Failure::new("unavailable", "the answer to the undo was lost")
                        .with_evidence(evidence)
                }
                Err(_) => too_slow(call, "the undo did not end"),
            };
            if Instant::now() + pause >= until {
                return Ok(self.out_of_time(call, effect, why).await);
            }
            self.run
                .pen
                .say(&call.stamp.step, format!("not back yet: {why}"));
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Whether it landed at least, for the person who must now decide.
    async fn out_of_time(&self, call: &Call, effect: &Effect, why: Failure) -> StepState {
        let before = Some(&effect.before);
        let actions = &*self.run.parts.actions;
        match settle::settle(actions, call, before, settle::PATIENCE).await {
            Settled::Done(_) => undo_failed(with_line(
                why,
                "what stood there before is in place again, and was not seen healthy in time",
            )),
            Settled::NotDone => undo_failed(with_line(why, "nothing was put back")),
            Settled::Unknown(evidence) => StepState::Unknown {
                evidence: [vec![why.cause], evidence].concat(),
            },
        }
    }

    /// By another action that the runbook names.
    async fn by_another(
        &self,
        step: &StepId,
        action: Action,
        with: Value,
        timeout: Duration,
    ) -> Result<StepState, Error> {
        let mut call = self.run.call(step, action, with);
        call.timeout = timeout;
        if action.effect() == ActionEffect::Read {
            return Ok(self.by_reading(&call).await);
        }
        let tries = self.run.pen.tries(step, Half::Undo);
        let open = tries.last().filter(|last| last.is_open());
        let effected = match open.and_then(|last| last.intent.as_ref()) {
            Some(before) => self.run.settle_open(&call, &before.value).await,
            None => {
                let number = self.next_number(step);
                let tried = self.run.effect(&call, Half::Undo, number, || {}).await?;
                tried.effected
            }
        };
        Ok(match effected {
            Effected::Done(_) => StepState::Undone,
            Effected::Failed { failure, .. }
            | Effected::NotSent(failure)
            | Effected::NotDone(failure) => undo_failed(failure),
            Effected::Unknown(evidence) => StepState::Unknown { evidence },
        })
    }

    async fn by_reading(&self, call: &Call) -> StepState {
        if let Err(failure) = self.ready(call).await {
            return undo_failed(failure);
        }
        let progress = self.run.pen.progress(&call.stamp.step);
        let actions = &self.run.parts.actions;
        let until = Instant::now() + call.timeout;
        let read = steadily(call, until, || actions.apply(call, &Value::Null, &progress));
        match tokio::time::timeout_at(until, read).await {
            Ok(Ok(_)) => StepState::Undone,
            Ok(Err(Trouble::Failed { failure, .. } | Trouble::Retriable { failure })) => {
                undo_failed(failure)
            }
            Ok(Err(Trouble::Unknown { evidence })) => undo_failed(
                Failure::new("unavailable", "it could not be read").with_evidence(evidence),
            ),
            Err(_) => undo_failed(too_slow(call, "the undo did not end")),
        }
    }

    async fn ready(&self, call: &Call) -> Result<(), Failure> {
        self.run.allowed(call)?;
        let until = Instant::now() + call.timeout;
        let looked = steadily(call, until, || self.run.right_cluster());
        match tokio::time::timeout_at(until, looked).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(Trouble::Failed { failure, .. } | Trouble::Retriable { failure })) => {
                Err(failure)
            }
            Ok(Err(Trouble::Unknown { evidence })) => Err(Failure::new(
                "unavailable",
                "the cluster's identity could not be read",
            )
            .with_evidence(evidence)),
            Err(_) => Err(too_slow(call, "the cluster's identity could not be read")),
        }
    }

    /// The input that the step ran with: as planned, else as the runbook has it with what is known.
    fn input_of(&self, step: &StepId) -> Value {
        let assignment = &self.run.assignment;
        let planned = assignment.steps.iter().find(|p| p.step.id == *step);
        let resolved = planned.and_then(|planned| {
            aldis_core::runbook::expression::Template::parse(&planned.step.with)
                .and_then(|template| template.resolve(&assignment.scope(&assignment.known)))
                .ok()
        });
        let as_planned = || {
            assignment
                .part
                .step(step)
                .and_then(|plan| plan.with.clone())
        };
        resolved.or_else(as_planned).unwrap_or(Value::Null)
    }

    fn next_number(&self, step: &StepId) -> u32 {
        let journalled = self.run.pen.tries(step, Half::Undo).len();
        u32::try_from(journalled).unwrap_or(u32::MAX - 1) + 1
    }

    async fn take(&mut self, step: StepId, state: StepState) -> Result<(), Error> {
        let state = cut::state(state);
        self.run
            .pen
            .outcome(&step, Half::Undo, &state, None)
            .await?;
        aldis_proto::failpoint::hit("agent-after-outcome");
        match &state {
            StepState::UndoFailed { failure } => {
                self.run.pen.say(&step, format!("not put back: {failure}"));
                self.run.pen.report_step(&step, &state);
            }
            // The end of the attempt says it; as a step alone it would not be taken.
            StepState::Unknown { evidence } => {
                let evidence = evidence.join("; ");
                self.run.pen.say(&step, format!("unknown: {evidence}"));
            }
            _ => {
                self.run.pen.say(&step, "put back");
                self.run.pen.report_step(&step, &state);
            }
        }
        self.known.insert(step.clone(), state.clone());
        self.decided.insert(step, state);
        Ok(())
    }

    async fn end(&mut self, outcome: SegmentOutcome) -> Result<Left, Error> {
        self.run.pen.end(outcome, self.decided.clone()).await?;
        Ok(Left::Ended)
    }
}

fn undo_failed(failure: Failure) -> StepState {
    StepState::UndoFailed { failure }
}

fn with_line(mut failure: Failure, line: &str) -> Failure {
    failure.evidence.push(line.to_owned());
    failure
}
