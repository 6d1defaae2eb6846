//! One agent's part of a plan to put back what a job left: what would go back, and whether it still could.
//!
//! The order is core's, the same that the runner will go by. Whether a step could go back is seen by looking for its
//! undo: "not done" means that what the step left still stands, as it must; what cannot be told was changed by somebody
//! since. Where several steps changed one object, only the last of them can be seen.

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::assignments::{Assignment, Order, Wanted};
use aldis_core::ids::{Attempt, Digest, Fence, StepId};
use aldis_core::job::Direction;
use aldis_core::outcome::{Failure, SegmentOutcome, StepState};
use aldis_core::plan::part::{Basis, DiffLine, Feasibility};
use aldis_core::plan::{Disposition, Left, ObjectRef, SegmentStep, StepPart, StepPlan, TargetPart};
use aldis_core::question::{Planning, Undoing};
use aldis_core::segment::{self, NextUndo, UndoHow};
use tokio::time::Instant;

use super::{Error, allowed, look, step_named};
use crate::actions::{Call, Observed, Stamp};
use crate::ledger::notes;
use crate::parts::Parts;
use crate::runner::wrong_cluster;

/// What a look at one step's way back says.
enum Back {
    /// It can go.
    Ready,
    /// It is there already.
    There,
    /// It cannot go.
    Refused(Failure),
}

/// Makes the part.
pub(super) async fn plan(
    parts: &Parts,
    undoing: &Undoing,
    until: Instant,
) -> Result<TargetPart, Error> {
    let identity = match look(until, || parts.actions.identity()).await? {
        Ok(identity) => identity,
        Err(failure) => return Err(Error::NotRead(failure.to_string())),
    };
    let mut part = TargetPart {
        target: parts.target.clone(),
        identity: identity.clone(),
        simulated: parts.simulated,
        disposition: Disposition::Run,
        steps: Vec::new(),
        warnings: Vec::new(),
        left: Some(undoing.left.clone()),
    };
    if undoing.part.identity != identity {
        part.disposition = refused(wrong_cluster(&undoing.part.identity, &identity));
        return Ok(part);
    }
    let assignment = assignment(&undoing.planning, undoing.part.clone(), &undoing.left);
    let way = way(&assignment, &undoing.left);
    let (mut ready, mut refusal) = (false, way.stuck);
    let mut seen = BTreeSet::new();
    for (step, how) in way.steps {
        let planned = undoing.part.step(&step);
        let object = planned.and_then(|planned| planned.object.clone());
        let hidden = object.clone().is_some_and(|object| !seen.insert(object));
        let back = match &how {
            UndoHow::Auto if !hidden => {
                can_go(parts, &assignment, &undoing.left, &step, until).await?
            }
            UndoHow::Auto | UndoHow::Own { .. } => Back::Ready,
        };
        part.steps
            .push(step_plan(parts, undoing, &step, planned, object, &back));
        match back {
            Back::Ready => ready = true,
            Back::There => {}
            Back::Refused(failure) => refusal = refusal.or(Some(failure)),
        }
    }
    part.disposition = match refusal {
        Some(failure) => refused(failure),
        None if ready => Disposition::Run,
        None => Disposition::Unchanged {
            why: "everything is back already".to_owned(),
        },
    };
    Ok(part)
}

/// Whether a part that goes back still holds.
pub(super) async fn drift(
    parts: &Parts,
    part: &TargetPart,
    left: &Left,
    until: Instant,
) -> Result<Option<String>, Error> {
    let mut seen = BTreeSet::new();
    for step in &part.steps {
        let hidden = step
            .object
            .clone()
            .is_some_and(|object| !seen.insert(object));
        if hidden || step.touched.is_none() {
            continue;
        }
        let found = can_see(
            parts,
            left,
            step.action,
            step.with.clone(),
            &step.step,
            until,
        )
        .await?;
        if let Back::Refused(failure) = found {
            return Ok(Some(failure.to_string()));
        }
    }
    Ok(None)
}

/// Steps in the order in which they go back, and what the way ends at.
struct Way {
    steps: Vec<(StepId, UndoHow)>,
    stuck: Option<Failure>,
}

fn way(assignment: &Assignment, left: &Left) -> Way {
    let mut known: BTreeMap<StepId, StepState> = left.steps.clone();
    let mut way = Way {
        steps: Vec::new(),
        stuck: None,
    };
    loop {
        match segment::advance_undo(assignment, &known) {
            NextUndo::Undo { step, how, .. } => {
                known.insert(step.clone(), StepState::Undone);
                way.steps.push((step, how));
            }
            NextUndo::Pass { step } => {
                known.insert(step, StepState::Undone);
            }
            NextUndo::Finished(SegmentOutcome::Stuck { step, failure }) => {
                // What could not be put back then is tried again now.
                let retried = matches!(known.get(&step), Some(StepState::UndoFailed { .. }));
                if !retried {
                    way.stuck = Some(at_step(&step, failure));
                    return way;
                }
                known.insert(
                    step,
                    StepState::Succeeded {
                        outputs: serde_json::Value::Null,
                        changed: true,
                    },
                );
            }
            NextUndo::Finished(SegmentOutcome::Unknown { step, .. }) => {
                let failure = Failure::new("unknown", "its outcome is not known")
                    .with_hint("resolve it first");
                way.stuck = Some(at_step(&step, failure));
                return way;
            }
            NextUndo::Finished(_) => return way,
        }
    }
}

async fn can_go(
    parts: &Parts,
    assignment: &Assignment,
    left: &Left,
    step: &StepId,
    until: Instant,
) -> Result<Back, Error> {
    let of = assignment.steps.iter().find(|s| s.step.id == *step);
    let Some(of) = of else {
        return Ok(Back::Ready);
    };
    let with = assignment
        .part
        .step(step)
        .and_then(|plan| plan.with.clone());
    can_see(parts, left, of.step.uses, with, step, until).await
}

async fn can_see(
    parts: &Parts,
    left: &Left,
    action: aldis_core::action::Action,
    with: Option<serde_json::Value>,
    step: &StepId,
    until: Instant,
) -> Result<Back, Error> {
    let Some(effect) = effect(parts, left, step) else {
        let cause = "what stood there before is not in this agent's journal any more";
        return Ok(Back::Refused(at_step(step, Failure::new("lost", cause))));
    };
    let call = Call {
        action,
        with: with.unwrap_or_default(),
        stamp: Stamp {
            job: left.job.clone(),
            target: parts.target.clone(),
            step: step.clone(),
            // A number that no attempt has: the undo that is looked for was never made.
            attempt: Attempt(0),
            direction: Direction::Undo,
        },
        planned: None,
        left: None,
        timeout: until.saturating_duration_since(Instant::now()),
    };
    if let Err(failure) = allowed(parts, &call) {
        return Ok(Back::Refused(at_step(step, failure)));
    }
    let before = Some(&effect.before);
    Ok(
        match look(until, || parts.actions.observe(&call, before)).await? {
            Ok(Observed::NotDone) => Back::Ready,
            Ok(Observed::Done(_)) => Back::There,
            Ok(Observed::Indeterminate { evidence }) => {
                let cause = "what the step left does not stand there any more";
                let failure = Failure::new("drift", cause).with_evidence(evidence);
                Back::Refused(at_step(step, failure))
            }
            Err(failure) => Back::Refused(at_step(step, failure)),
        },
    )
}

fn effect(parts: &Parts, left: &Left, step: &StepId) -> Option<notes::Effect> {
    let target = parts.target.to_string();
    parts
        .ledger
        .read(|attempts| notes::effect(attempts.of_job(left.job.as_str(), &target), step))
}

fn step_plan(
    parts: &Parts,
    undoing: &Undoing,
    step: &StepId,
    planned: Option<&StepPlan>,
    object: Option<ObjectRef>,
    back: &Back,
) -> StepPlan {
    let action = planned.map(|planned| planned.action).or_else(|| {
        let spec = &undoing.planning.body.spec;
        let of = spec.steps.iter().find(|written| written.id == *step);
        of.map(|written| written.uses)
    });
    // What the step left, as the plan of it has it: the journal's own digest does not leave the agent.
    let touched: Option<Digest> = effect(parts, &undoing.left, step)
        .and_then(|effect| effect.after)
        .and_then(|_| planned?.becomes.clone());
    StepPlan {
        step: step.clone(),
        action: action.unwrap_or(aldis_core::action::Action::KubeGet),
        with: planned.and_then(|planned| planned.with.clone()),
        object,
        touched,
        becomes: None,
        changes: matches!(back, Back::Ready),
        diff: planned.map_or(Vec::new(), |planned| {
            planned.diff.iter().map(turned).collect()
        }),
        owners: planned.map_or(Vec::new(), |planned| planned.owners.clone()),
        undo: Feasibility::Impossible {
            why: "it puts back what another job did".to_owned(),
        },
        basis: Basis::Read,
        outputs: None,
    }
}

fn turned(line: &DiffLine) -> DiffLine {
    DiffLine {
        field: line.field.clone(),
        from: line.to.clone(),
        to: line.from.clone(),
    }
}

/// The assignment that the way back will be run by, as far as it is known.
fn assignment(planning: &Planning, part: TargetPart, left: &Left) -> Assignment {
    let spec = &planning.body.spec;
    let steps = [
        (StepPart::Preflight, &spec.preflight),
        (StepPart::Main, &spec.steps),
        (StepPart::Verify, &spec.verify),
    ];
    let steps = steps.into_iter().flat_map(|(part, steps)| {
        steps.iter().map(move |step| SegmentStep {
            part,
            step: step.clone(),
        })
    });
    Assignment {
        format: Assignment::FORMAT,
        order: Order {
            job: left.job.clone(),
            target: planning.target.clone(),
            attempt: Attempt(0),
            fence: Fence::default(),
            journal: aldis_core::ids::JournalId::new(""),
            direction: Direction::Undo,
            segment: 0,
            wanted: Wanted::Observe,
        },
        runbook: planning.runbook.clone(),
        plan_digest: Digest::new(""),
        params: planning.params.clone(),
        labels: planning.labels.clone(),
        part,
        steps: steps.collect(),
        known: left.steps.clone(),
        trace: None,
    }
}

fn refused(failure: Failure) -> Disposition {
    let lines = [vec![failure.cause], failure.evidence].concat();
    Disposition::Refused {
        why: lines.join("; "),
        hint: failure.hint,
    }
}

fn at_step(step: &StepId, failure: Failure) -> Failure {
    Failure {
        cause: format!("{}: {}", step_named(step), failure.cause),
        ..failure
    }
}
