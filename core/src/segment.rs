//! What an agent does next within one segment: one pure function, used by the agent and by the
//! simulation alike.
//!
//! ```text
//! advance ─▶ Try(step) ─▶ (the agent acts) ─▶ conclude ─▶ advance ─▶ … ─▶ Finished
//!         └▶ WaitUntil (between tries)
//! ```
//!
//! Time is a duration on the agent's own boot clock. Nothing here knows of permits or cancels: the
//! runner looks at those where [`Try::at_safe_point`] says that resting is allowed.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::Value;

use crate::action::{Action, Class, Effect, UndoKind};
use crate::assignments::Assignment;
use crate::ids::StepId;
use crate::outcome::{Failure, SegmentOutcome, StepState};
use crate::plan::{SegmentStep, StepPart};
use crate::runbook::expression::{Expression, Template};
use crate::runbook::{Retry, Step, Undo};

/// For a step that names no `timeout`: long enough for any single request with its retries.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(120);

/// Between two looks of an `until` that names no `retry.delay`.
const DEFAULT_DELAY: Duration = Duration::from_secs(2);

/// Between two tries where `retry.maxDelay` names no bound.
const LONGEST_DELAY: Duration = Duration::from_secs(60);

/// Tries of an `until` that names no `retry.max`: its timeout ends it long before.
const UNTIL_TRIES: u32 = 10_000;

/// What is known of the segment's steps while it runs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Progress {
    /// By step, for steps reached so far.
    pub steps: BTreeMap<StepId, StepProgress>,
}

/// One step under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StepProgress {
    /// What is known of it.
    pub state: StepState,
    /// Tries begun.
    pub tries: u32,
    /// When the first began.
    pub first_at: Duration,
    /// When the next may begin.
    pub next_at: Duration,
    /// Why the last try did not do.
    pub last: Option<Failure>,
}

/// The next move.
#[derive(Clone, Debug, PartialEq)]
pub enum Next {
    /// Act.
    Try(Try),
    /// Nothing before this moment.
    WaitUntil(Duration),
    /// The segment is over.
    Finished(SegmentOutcome),
}

/// One try of one step.
#[derive(Clone, Debug, PartialEq)]
pub struct Try {
    /// Which step.
    pub step: StepId,
    /// What to do.
    pub action: Action,
    /// Its resolved input; null where [`before_try`] ends the step, whose input may then not resolve.
    pub with: Value,
    /// Number of the try, from 1.
    pub number: u32,
    /// Time left for it by the step's timeout.
    pub timeout: Duration,
    /// Whether the target may rest before it.
    pub at_safe_point: bool,
}

/// What came of a try.
#[derive(Clone, Debug, PartialEq)]
pub enum TryResult {
    /// Done, or read.
    Done {
        /// Declared outputs.
        outputs: Value,
        /// Whether anything changed.
        changed: bool,
    },
    /// Decided: it did not work.
    Failed {
        /// Why.
        failure: Failure,
        /// Whether an effect began.
        applied: bool,
    },
    /// Nothing was sent, or nothing could be read: trying again is safe.
    Retriable {
        /// Why.
        failure: Failure,
    },
    /// An effect may have happened.
    Unknown {
        /// What was seen.
        evidence: Vec<String>,
    },
}

/// Says what to do next. Total: any progress leads to a move.
pub fn advance(assignment: &Assignment, progress: &Progress, now: Duration) -> Next {
    let known = known(assignment, progress);
    let mut at_safe_point = true;
    for planned in &assignment.steps {
        let step = &planned.step;
        match known.get(&step.id) {
            Some(StepState::Succeeded { .. }) => at_safe_point = step.safe_point,
            // What did not run leaves the place as safe, or as unsafe, as it was.
            Some(StepState::Skipped { .. }) => {}
            Some(StepState::Failed { failure, .. }) if progress.steps.contains_key(&step.id) => {
                let (step, failure) = (step.id.clone(), failure.clone());
                return Next::Finished(SegmentOutcome::Failed { step, failure });
            }
            Some(StepState::Unknown { evidence }) => {
                let (step, evidence) = (step.id.clone(), evidence.clone());
                return Next::Finished(SegmentOutcome::Unknown { step, evidence });
            }
            _ => return begin(assignment, planned, progress, &known, at_safe_point, now),
        }
    }
    Next::Finished(SegmentOutcome::Succeeded)
}

/// The state that a step is skipped or refused with before any try; none = it is to be tried.
pub fn before_try(assignment: &Assignment, progress: &Progress, id: &StepId) -> Option<StepState> {
    let known = known(assignment, progress);
    let planned = assignment
        .steps
        .iter()
        .find(|planned| &planned.step.id == id)?;
    let condition = planned.step.condition.as_ref()?;
    let scope = assignment.scope(&known);
    match Expression::parse(condition).and_then(|expression| expression.evaluate_bool(&scope)) {
        Ok(true) => None,
        Ok(false) => Some(StepState::Skipped {
            why: format!("`if: {condition}` does not hold"),
        }),
        Err(error) => Some(StepState::Failed {
            failure: Failure::new("expression", format!("`if: {condition}`: {error}")),
            applied: false,
        }),
    }
}

fn begin(
    assignment: &Assignment,
    planned: &SegmentStep,
    progress: &Progress,
    known: &BTreeMap<StepId, StepState>,
    at_safe_point: bool,
    now: Duration,
) -> Next {
    let step = &planned.step;
    let so_far = progress.steps.get(&step.id);
    if let Some(so_far) = so_far
        && now < so_far.next_at
    {
        return Next::WaitUntil(so_far.next_at);
    }
    let spent = so_far.map_or(Duration::ZERO, |so_far| now.saturating_sub(so_far.first_at));
    let resolved = match before_try(assignment, progress, &step.id) {
        Some(_) => Ok(Value::Null),
        None => Template::parse(&step.with)
            .and_then(|template| template.resolve(&assignment.scope(known))),
    };
    match resolved {
        Ok(with) => Next::Try(Try {
            step: step.id.clone(),
            action: step.uses,
            with,
            number: so_far.map_or(0, |so_far| so_far.tries) + 1,
            timeout: timeout(step).saturating_sub(spent),
            at_safe_point: at_safe_point && so_far.is_none(),
        }),
        Err(error) => Next::Finished(SegmentOutcome::Failed {
            step: step.id.clone(),
            failure: Failure::new("expression", format!("`with` of `{}`: {error}", step.id)),
        }),
    }
}

/// What a step becomes after a try that began at `began` and ended at `now`.
pub fn conclude(
    assignment: &Assignment,
    progress: &Progress,
    id: &StepId,
    result: TryResult,
    began: Duration,
    now: Duration,
) -> StepProgress {
    let planned = assignment
        .steps
        .iter()
        .find(|planned| &planned.step.id == id);
    let so_far = progress.steps.get(id);
    let tries = so_far.map_or(0, |so_far| so_far.tries) + 1;
    let mut after = StepProgress {
        state: StepState::Running { tries },
        tries,
        first_at: so_far.map_or(began, |so_far| so_far.first_at),
        next_at: now,
        last: None,
    };
    let Some(planned) = planned else { return after };
    let step = &planned.step;
    match result {
        TryResult::Unknown { evidence } => after.state = StepState::Unknown { evidence },
        TryResult::Failed { failure, applied } => {
            let again = !applied && planned.part == StepPart::Verify;
            again_or_failed(&mut after, step, failure, applied, again, now);
        }
        TryResult::Retriable { failure } => {
            again_or_failed(&mut after, step, failure, false, true, now);
        }
        TryResult::Done { outputs, changed } => {
            judge(
                assignment, progress, step, &mut after, outputs, changed, now,
            );
        }
    }
    after
}

/// Holds the outputs against `require` and `until`.
fn judge(
    assignment: &Assignment,
    progress: &Progress,
    step: &Step,
    after: &mut StepProgress,
    outputs: Value,
    changed: bool,
    now: Duration,
) {
    let done = StepState::Succeeded { outputs, changed };
    let mut known = known(assignment, progress);
    known.insert(step.id.clone(), done.clone());
    let scope = assignment.scope(&known);
    for (word, condition) in [("until", &step.until), ("require", &step.require)] {
        let Some(condition) = condition else { continue };
        let held = Expression::parse(condition).and_then(|parsed| parsed.evaluate_bool(&scope));
        let failure = match held {
            Ok(true) => continue,
            Ok(false) => not_held(step, word, condition, &done),
            Err(error) => Failure::new("expression", format!("`{word}: {condition}`: {error}")),
        };
        return again_or_failed(after, step, failure, changed, !changed, now);
    }
    after.state = done;
}

fn not_held(step: &Step, word: &str, condition: &str, done: &StepState) -> Failure {
    let says = step
        .message
        .clone()
        .unwrap_or_else(|| format!("`{condition}` does not hold"));
    let mut failure = Failure::new(word, says);
    if let StepState::Succeeded { outputs, .. } = done {
        failure.evidence = vec![
            format!("{word}: {condition}"),
            format!("outputs: {outputs}"),
        ];
    }
    failure
}

fn again_or_failed(
    after: &mut StepProgress,
    step: &Step,
    failure: Failure,
    applied: bool,
    may_repeat: bool,
    now: Duration,
) {
    let retry = step.retry.clone();
    let allowed = match (&retry, &step.until) {
        (Some(retry), _) => retry.max,
        (None, Some(_)) => UNTIL_TRIES,
        (None, None) => 0,
    };
    let delay = delay(retry.as_ref(), after.tries);
    let deadline = after.first_at + timeout(step);
    let safe = step.uses.class() != Class::Once || retry.as_ref().is_some_and(|r| r.unsafe_);
    if may_repeat && safe && after.tries <= allowed && now + delay < deadline {
        after.next_at = now + delay;
        after.last = Some(failure);
    } else {
        after.state = StepState::Failed { failure, applied };
    }
}

fn delay(retry: Option<&Retry>, tries: u32) -> Duration {
    let Some(retry) = retry else {
        return DEFAULT_DELAY;
    };
    let factor = retry
        .backoff
        .unwrap_or(1.0)
        .powi(i32::try_from(tries).unwrap_or(i32::MAX) - 1);
    let first = retry.delay.unwrap_or(DEFAULT_DELAY);
    let grown = first.as_secs_f64() * factor.clamp(1.0, 10_000.0);
    // What does not fit a duration is longer than any bound.
    let delay = Duration::try_from_secs_f64(grown).unwrap_or(Duration::MAX);
    delay.min(retry.max_delay.unwrap_or(LONGEST_DELAY))
}

/// The whole time of a step, all its tries together.
pub fn timeout(step: &Step) -> Duration {
    step.timeout.unwrap_or(DEFAULT_TIMEOUT)
}

/// States of steps known from before, overlaid with those of this run.
pub fn known(assignment: &Assignment, progress: &Progress) -> BTreeMap<StepId, StepState> {
    let mut known = assignment.known.clone();
    for (id, step) in &progress.steps {
        known.insert(id.clone(), step.state.clone());
    }
    known
}

/// The next move on the way back.
#[derive(Clone, Debug, PartialEq)]
pub enum NextUndo {
    /// Put this step back.
    Undo {
        /// Which.
        step: StepId,
        /// How.
        how: UndoHow,
        /// Its own time.
        timeout: Duration,
    },
    /// The step needs no undo; it is gone past.
    Pass {
        /// Which.
        step: StepId,
    },
    /// The way back is over.
    Finished(SegmentOutcome),
}

/// How a step is put back.
#[derive(Clone, Debug, PartialEq)]
pub enum UndoHow {
    /// By the action itself, from what it captured.
    Auto,
    /// By another action that the runbook names.
    Own {
        /// Which.
        action: Action,
        /// Its input, merged over the step's.
        with: Value,
    },
}

/// Says which step goes back next: the last one with an effect. A step that could not be put back
/// ends the way: what stands before it may rest on it.
pub fn advance_undo(assignment: &Assignment, known: &BTreeMap<StepId, StepState>) -> NextUndo {
    for planned in assignment.steps.iter().rev() {
        let step = &planned.step;
        match known.get(&step.id) {
            Some(StepState::UndoFailed { failure }) => {
                let (step, failure) = (step.id.clone(), failure.clone());
                return NextUndo::Finished(SegmentOutcome::Stuck { step, failure });
            }
            Some(StepState::Unknown { evidence }) => {
                let (step, evidence) = (step.id.clone(), evidence.clone());
                return NextUndo::Finished(SegmentOutcome::Unknown { step, evidence });
            }
            Some(state) if state.may_have_effect() => {
                return undo_of(assignment, step, known);
            }
            Some(_) | None => {}
        }
    }
    NextUndo::Finished(SegmentOutcome::Undone)
}

/// Whether the way back goes past the step: nothing of it is to be put back.
pub fn is_passed_over(step: &Step) -> bool {
    if step.uses.effect() == Effect::Read {
        return true;
    }
    match step.undo {
        Undo::None => true,
        Undo::Auto => step.uses.undo() != UndoKind::Auto,
        Undo::Never | Undo::Own { .. } => false,
    }
}

fn undo_of(assignment: &Assignment, step: &Step, known: &BTreeMap<StepId, StepState>) -> NextUndo {
    let id = step.id.clone();
    if is_passed_over(step) {
        return NextUndo::Pass { step: id };
    }
    match &step.undo {
        Undo::Never => NextUndo::Finished(SegmentOutcome::Stuck {
            step: id,
            failure: Failure::new(
                "never",
                format!(
                    "point of no return: {}",
                    step.reason
                        .as_deref()
                        .unwrap_or("the runbook gives no reason")
                ),
            ),
        }),
        Undo::None | Undo::Auto => NextUndo::Undo {
            timeout: way_back(assignment, &id),
            step: id,
            how: UndoHow::Auto,
        },
        Undo::Own { uses, with } => {
            let merged = own_input(step, *uses, with);
            let resolved = Template::parse(&merged)
                .and_then(|template| template.resolve(&assignment.scope(known)));
            match resolved {
                Ok(with) => NextUndo::Undo {
                    timeout: way_back(assignment, &id),
                    step: id,
                    how: UndoHow::Own {
                        action: uses.unwrap_or(step.uses),
                        with,
                    },
                },
                Err(error) => NextUndo::Finished(SegmentOutcome::Stuck {
                    failure: Failure::new("expression", format!("undo of `{id}`: {error}")),
                    step: id,
                }),
            }
        }
    }
}

/// The input of a step's own undo: what the undo says, over those inputs of the step that its action
/// takes too. Another action would refuse the rest.
pub(crate) fn own_input(step: &Step, uses: Option<Action>, with: &Value) -> Value {
    let action = uses.unwrap_or(step.uses);
    let mut below = step.with.clone();
    if let Value::Object(fields) = &mut below {
        let taken = action.inputs();
        fields.retain(|name, _| taken.iter().any(|input| input.name == name));
    }
    merge(&below, with)
}

/// An undo returns when the object is as healthy as it was. So it has the time of its step and of the
/// reads that follow it, which wait for the same thing on the way forward.
fn way_back(assignment: &Assignment, id: &StepId) -> Duration {
    let mut from = assignment
        .steps
        .iter()
        .skip_while(|planned| &planned.step.id != id);
    let own = from.next().map_or(DEFAULT_TIMEOUT, |p| timeout(&p.step));
    let reads = from
        .take_while(|p| p.part == StepPart::Main && p.step.uses.effect() == Effect::Read)
        .map(|p| timeout(&p.step));
    own + reads.sum::<Duration>()
}

fn merge(below: &Value, above: &Value) -> Value {
    match (below, above) {
        (Value::Object(below), Value::Object(above)) => {
            let mut merged = below.clone();
            merged.extend(above.clone());
            Value::Object(merged)
        }
        (below, Value::Null) => below.clone(),
        (_, above) => above.clone(),
    }
}

#[cfg(test)]
mod tests;
