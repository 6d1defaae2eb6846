//! Attempts of which nobody can say how far they came: never run again, only looked for.
//!
//! | whose | known of it | looked for |
//! |---|---|---|
//! | of a journal that is gone, as ordered | what the order says | by stamps alone |
//! | of this journal, ended as unknown | what is journalled | by what was captured as well |
//!
//! Each step's effect is looked for in order. What is there was done. The first that is not is not done and nothing
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
use aldis_core::segment::{self, NextUndo, UndoHow};
use serde_json::Value;

use super::control::Rest;
use super::effect::{forbidden, left};
use super::settle::{self, Settled};
use super::{Left, Run, cut};
use crate::actions::{Before, Call, Trouble};
use crate::journal::Half;
use crate::ledger::{Error, notes};

/// The pause between two looks is doubled up to this: after an hour nobody waits for the minute.
const LONGEST_PAUSE: Duration = Duration::from_secs(600);

/// When the first look is due.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum First {
    /// A leader waits for it.
    AtOnce,
    /// It has just been looked at.
    Later,
}

/// What was found of an attempt.
struct Found {
    outcome: SegmentOutcome,
    steps: BTreeMap<StepId, StepState>,
    /// What effects left that are there.
    left: BTreeMap<StepId, Value>,
}

/// `pause` is that between the first two looks at what cannot be told.
pub(super) async fn run(mut run: Run, first: First, mut pause: Duration) -> Result<Left, Error> {
    let mut said = journalled(&run);
    if first == First::Later && !waits(&mut run, &mut pause).await {
        return Ok(Left::Resting);
    }
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
        if !waits(&mut run, &mut pause).await {
            return Ok(Left::Resting);
        }
    }
}

/// False where it is to be left.
async fn waits(run: &mut Run, pause: &mut Duration) -> bool {
    let this = *pause;
    *pause = (this * 2).min(LONGEST_PAUSE);
    tokio::select! {
        () = tokio::time::sleep(this) => true,
        () = run.control.interrupted() => false,
    }
}

/// How the attempt ended, by this journal.
fn journalled(run: &Run) -> Option<SegmentOutcome> {
    run.parts
        .ledger
        .read(|attempts| notes::outcome(attempts.attempt(run.pen.key())?))
}

async fn close(run: &Run, found: Found) -> Result<(), Error> {
    let half = half(run.assignment.order.direction);
    let mut left = found.left;
    for (step, state) in &found.steps {
        run.pen
            .outcome(step, half, state, left.remove(step))
            .await?;
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
    let mut found = Found {
        outcome: SegmentOutcome::Stopped { after: None },
        steps: BTreeMap::new(),
        left: BTreeMap::new(),
    };
    if let Err(Trouble::Failed { failure, .. } | Trouble::Retriable { failure }) =
        run.right_cluster().await
    {
        let first = run.assignment.steps.first();
        let step = first.map(|first| first.step.id.clone());
        found.outcome = SegmentOutcome::Unknown {
            step: step.unwrap_or_else(|| StepId::new("unknown")),
            evidence: [vec![failure.cause], failure.evidence].concat(),
        };
        return found;
    }
    match run.assignment.order.direction {
        Direction::Forward => forward(run, found).await,
        Direction::Undo => back(run, found).await,
    }
}

/// Steps in the order in which they would have run.
async fn forward(run: &Run, mut found: Found) -> Found {
    let mut known = run.assignment.known.clone();
    for (id, state) in decided(run) {
        known.insert(id.clone(), state);
        found.outcome = SegmentOutcome::Stopped { after: Some(id) };
    }
    for planned in &run.assignment.steps {
        let id = planned.step.id.clone();
        let Some(call) = call(run, planned, &known) else {
            continue;
        };
        let before = captured(run, &id, Half::Apply);
        match settled(run, &call, before.as_ref()).await {
            Settled::Done(applied) => {
                found
                    .left
                    .extend(left(&applied).map(|left| (id.clone(), left)));
                let outputs = cut::outputs(call.action, applied.outputs);
                let state = StepState::Succeeded {
                    outputs,
                    changed: applied.changed,
                };
                known.insert(id.clone(), state.clone());
                found.steps.insert(id.clone(), cut::state(state));
                found.outcome = SegmentOutcome::Stopped { after: Some(id) };
            }
            Settled::NotDone => {
                found.steps.insert(id, StepState::NotStarted);
                return found;
            }
            Settled::Unknown(evidence) => {
                found.outcome = SegmentOutcome::Unknown { step: id, evidence };
                return found;
            }
        }
    }
    found
}

/// Undos in the order in which they would have been made, each as the runbook has it.
async fn back(run: &Run, mut found: Found) -> Found {
    let mut known = run.assignment.known.clone();
    known.extend(decided(run));
    // What is in doubt is what is looked for.
    for state in known.values_mut() {
        if let StepState::Unknown { .. } | StepState::UndoFailed { .. } = state {
            *state = StepState::Succeeded {
                outputs: Value::Null,
                changed: true,
            };
        }
    }
    loop {
        let (step, how) = match segment::advance_undo(&run.assignment, &known) {
            NextUndo::Undo { step, how, .. } => (step, how),
            NextUndo::Pass { step } => {
                known.insert(step, StepState::Undone);
                continue;
            }
            NextUndo::Finished(outcome) => {
                if !found.steps.is_empty() {
                    found.outcome = outcome;
                }
                return found;
            }
        };
        let (call, before) = undo_call(run, &step, how, &known);
        match settled(run, &call, before.as_ref()).await {
            Settled::Done(_) => {
                known.insert(step.clone(), StepState::Undone);
                found.steps.insert(step.clone(), StepState::Undone);
                found.outcome = SegmentOutcome::Stopped { after: Some(step) };
            }
            Settled::NotDone => return found,
            Settled::Unknown(evidence) => {
                found.outcome = SegmentOutcome::Unknown { step, evidence };
                return found;
            }
        }
    }
}

async fn settled(run: &Run, call: &Call, before: Option<&Before>) -> Settled {
    match run.allowed(call) {
        Ok(()) => settle::settle(&*run.parts.actions, call, before, settle::PATIENCE).await,
        Err(failure) => Settled::Unknown(forbidden(failure)),
    }
}

/// What this journal knows to be behind the attempt, in order. Nothing of one that another journal held.
fn decided(run: &Run) -> Vec<(StepId, StepState)> {
    let journalled = run.parts.ledger.read(|attempts| {
        let attempt = attempts.attempt(run.pen.key());
        attempt.map(notes::steps).unwrap_or_default()
    });
    let is_decided = |state: &StepState| {
        matches!(
            state,
            StepState::Succeeded { .. } | StepState::Skipped { .. } | StepState::Undone
        )
    };
    let steps = run.assignment.steps.iter().map(|planned| &planned.step.id);
    steps
        .filter_map(|id| Some((id.clone(), journalled.get(id)?.clone())))
        .filter(|(_, state)| is_decided(state))
        .collect()
}

/// The prior state that was journalled with the intent.
fn captured(run: &Run, step: &StepId, half: Half) -> Option<Before> {
    let tries = run.pen.tries(step, half);
    let mut intents = tries.into_iter().rev().filter_map(|one| one.intent);
    intents.next().map(|noted| noted.value)
}

/// The call whose effect is looked for; none for a step that reads, would not have run, or was decided.
fn call(run: &Run, planned: &SegmentStep, known: &BTreeMap<StepId, StepState>) -> Option<Call> {
    let assignment = &run.assignment;
    let id = &planned.step.id;
    let decided = matches!(
        known.get(id),
        Some(StepState::Succeeded { .. } | StepState::Skipped { .. })
    );
    if decided || planned.step.uses.effect() == Effect::Read {
        return None;
    }
    let skipped = segment::before_try(assignment, &segment::Progress::default(), id);
    if matches!(skipped, Some(StepState::Skipped { .. })) {
        return None;
    }
    Some(run.call(id, planned.step.uses, input(run, planned, known)))
}

fn undo_call(
    run: &Run,
    step: &StepId,
    how: UndoHow,
    known: &BTreeMap<StepId, StepState>,
) -> (Call, Option<Before>) {
    let planned = run.assignment.steps.iter().find(|of| of.step.id == *step);
    match (how, planned) {
        (UndoHow::Own { action, with }, _) => (
            run.call(step, action, with),
            captured(run, step, Half::Undo),
        ),
        (UndoHow::Auto, Some(planned)) => (
            run.call(step, planned.step.uses, input(run, planned, known)),
            run.effect_of(step).map(|effect| effect.before),
        ),
        // `advance_undo` names steps of the assignment only.
        (UndoHow::Auto, None) => (
            run.call(step, aldis_core::action::Action::KubeGet, Value::Null),
            None,
        ),
    }
}

fn input(run: &Run, planned: &SegmentStep, known: &BTreeMap<StepId, StepState>) -> Value {
    let assignment = &run.assignment;
    let resolved = Template::parse(&planned.step.with)
        .and_then(|template| template.resolve(&assignment.scope(known)))
        .ok();
    let as_planned = || assignment.part.step(&planned.step.id)?.with.clone();
    resolved.or_else(as_planned).unwrap_or(Value::Null)
}
