//! Attempts that a journal which is gone may have held: never run again, only looked for.
//!
//! Each step's stamp is looked for in order. What carries one was done. The first that does not is not done and nothing
//! behind it is; that is final once its object was moved on, so that a request which is still under way cannot land.
//! Then the attempt is closed by a tombstone. While nobody can say, nothing is closed, and it is looked for again.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::action::Effect;
use aldis_core::ids::StepId;
use aldis_core::job::Direction;
use aldis_core::outcome::{SegmentOutcome, StepState};
use aldis_core::plan::SegmentStep;
use aldis_core::runbook::expression::Template;
use aldis_core::segment;
use serde_json::Value;

use super::control::Rest;
use super::settle::{self, Settled};
use super::{Left, Run, cut};
use crate::actions::{Call, Trouble};
use crate::journal::Half;
use crate::ledger::{Error, notes};

/// Between two looks at an attempt that cannot be told: what could tell is mostly a person at work.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// What was found of an attempt.
struct Found {
    outcome: SegmentOutcome,
    steps: BTreeMap<StepId, StepState>,
}

pub(super) async fn run(mut run: Run) -> Result<Left, Error> {
    let mut said = None;
    loop {
        // Moving an object on is an effect: it needs a permit as every other.
        match run.control.rest(|_| {}).await {
            Rest::Go { .. } => {}
            Rest::Stop | Rest::Close => return Ok(Left::Resting),
        }
        let found = look(&run).await;
        match &found.outcome {
            SegmentOutcome::Unknown { .. } => {
                if said.as_ref() != Some(&found.outcome) {
                    run.pen.report_found(found.outcome.clone(), found.steps);
                    said = Some(found.outcome);
                }
            }
            _ => {
                close(&run, found).await?;
                return Ok(Left::Ended);
            }
        }
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = run.control.interrupted() => return Ok(Left::Resting),
        }
    }
}

async fn close(run: &Run, found: Found) -> Result<(), Error> {
    let half = half(run.assignment.order.direction);
    for (step, state) in &found.steps {
        run.pen.outcome(step, half, state, None).await?;
    }
    let order = &run.assignment.order;
    let answer = notes::Answer {
        outcome: cut::outcome(found.outcome),
        direction: order.direction,
        segment: order.segment,
    };
    run.pen.bury(answer, found.steps).await
}

fn half(direction: Direction) -> Half {
    match direction {
        Direction::Forward => Half::Apply,
        Direction::Undo => Half::Undo,
    }
}

async fn look(run: &Run) -> Found {
    let direction = run.assignment.order.direction;
    let mut known = run.assignment.known.clone();
    let mut found = Found {
        outcome: SegmentOutcome::Stopped { after: None },
        steps: BTreeMap::new(),
    };
    if let Err(Trouble::Failed { failure, .. } | Trouble::Retriable { failure }) =
        run.right_cluster().await
    {
        let step = run
            .assignment
            .steps
            .first()
            .map(|first| first.step.id.clone());
        found.outcome = SegmentOutcome::Unknown {
            step: step.unwrap_or_else(|| StepId::new("unknown")),
            evidence: [vec![failure.cause], failure.evidence].concat(),
        };
        return found;
    }
    for planned in in_order(run) {
        let id = planned.step.id.clone();
        let Some(call) = call(run, planned, &known) else {
            continue;
        };
        let settled = settle::settle(&*run.parts.actions, &call, None, settle::PATIENCE).await;
        match (settled, direction) {
            (Settled::Done(applied), Direction::Forward) => {
                let outputs = cut::outputs(call.action, applied.outputs);
                let state = StepState::Succeeded {
                    outputs,
                    changed: applied.changed,
                };
                known.insert(id.clone(), state.clone());
                found.steps.insert(id.clone(), cut::state(state));
                found.outcome = SegmentOutcome::Stopped { after: Some(id) };
            }
            (Settled::Done(_), Direction::Undo) => {
                found.steps.insert(id.clone(), StepState::Undone);
                found.outcome = SegmentOutcome::Stopped { after: Some(id) };
            }
            (Settled::NotDone, Direction::Forward) => {
                found.steps.insert(id, StepState::NotStarted);
                return found;
            }
            (Settled::NotDone, Direction::Undo) => return found,
            (Settled::Unknown(evidence), _) => {
                found.outcome = SegmentOutcome::Unknown { step: id, evidence };
                return found;
            }
        }
    }
    if direction == Direction::Undo && !found.steps.is_empty() {
        found.outcome = SegmentOutcome::Undone;
    }
    found
}

/// The steps of the attempt that may have left an effect, in the order in which they would have run.
fn in_order(run: &Run) -> Vec<&SegmentStep> {
    let assignment = &run.assignment;
    let writes = assignment
        .steps
        .iter()
        .filter(|planned| planned.step.uses.effect() != Effect::Read);
    match assignment.order.direction {
        Direction::Forward => writes.collect(),
        Direction::Undo => writes
            .rev()
            .filter(|planned| {
                let known = assignment.known.get(&planned.step.id);
                known.is_some_and(StepState::may_have_effect)
            })
            .collect(),
    }
}

/// The call whose stamp is looked for; none for a step that would not have run, or was decided in an earlier attempt.
fn call(run: &Run, planned: &SegmentStep, known: &BTreeMap<StepId, StepState>) -> Option<Call> {
    let assignment = &run.assignment;
    let id = &planned.step.id;
    if assignment.order.direction == Direction::Forward {
        let decided = matches!(
            known.get(id),
            Some(StepState::Succeeded { .. } | StepState::Skipped { .. })
        );
        let skipped = segment::before_try(assignment, &segment::Progress::default(), id);
        if decided || matches!(skipped, Some(StepState::Skipped { .. })) {
            return None;
        }
    }
    let resolved = Template::parse(&planned.step.with)
        .and_then(|template| template.resolve(&assignment.scope(known)))
        .ok();
    let as_planned = || assignment.part.step(id).and_then(|plan| plan.with.clone());
    let with = resolved.or_else(as_planned).unwrap_or(Value::Null);
    Some(run.call(id, planned.step.uses, with))
}
