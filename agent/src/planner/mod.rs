//! Answers questions of the control plane. Nothing here changes anything.
//!
//! | question | answered by |
//! |---|---|
//! | what would this runbook do here? | `plan.rs`: every step dry, judged by policy, owners, preflight |
//! | could what a job left be put back? | `undo.rs` |
//! | does this part still hold? | `drift.rs`: the same looks again, on what was planned |
//! | what do the checks after a wave read? | `soak.rs`: the `verify` steps |
//! | which attempts does the journal hold? | the ledger's list |
//!
//! A cluster that does not answer is asked again until the asker's patience ends. Then a question about drift gets *no*
//! answer: an error would be read as a change.

mod drift;
mod plan;
mod soak;
#[cfg(test)]
mod tests;
mod undo;

use std::time::Duration;

use aldis_core::assignments;
use aldis_core::ids::{Attempt, JobId, StepId};
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::question::{Answer, Planning, Question};
use aldis_core::runbook::Step;
use aldis_core::runbook::expression::Scope;
use aldis_core::segment;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use crate::actions::{Call, Stamp, Trouble};
use crate::parts::Parts;

/// Kept back from the asker's patience, for the way of the answer.
const MARGIN: Duration = Duration::from_millis(500);

/// Between two looks at a cluster that does not answer.
const PAUSE: Duration = Duration::from_millis(500);

/// Why there is no answer of the question's kind.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It was asked of somebody else.
    #[error("this is the agent of {ours}, not of {asked}")]
    AnotherTarget {
        /// Whom it was asked of.
        asked: String,
        /// Who this is.
        ours: String,
    },
    /// The cluster did not answer in time.
    #[error("the cluster could not be read: {0}")]
    NotRead(String),
}

/// Answers one question. None: better no answer than this one.
pub async fn answer(
    parts: &Parts,
    question: Question,
    within: Duration,
) -> Option<Result<Answer, Error>> {
    let until = Instant::now() + within.saturating_sub(MARGIN);
    match question {
        Question::Plan(planning) => Some(match is_ours(parts, &planning) {
            Ok(()) => plan::plan(parts, &planning, until)
                .await
                .map(|part| Answer::Plan(Box::new(part))),
            Err(error) => Err(error),
        }),
        Question::Undo(undoing) => Some(match is_ours(parts, &undoing.planning) {
            Ok(()) => undo::plan(parts, &undoing, until)
                .await
                .map(|part| Answer::Plan(Box::new(part))),
            Err(error) => Err(error),
        }),
        Question::Drift { part } => match drift::find(parts, &part, until).await {
            Ok(found) => Some(Ok(Answer::Drift { found })),
            Err(error) => {
                tracing::warn!(%error, "a question about drift is left unanswered");
                None
            }
        },
        Question::Soak(planning) => Some(match is_ours(parts, &planning) {
            Ok(()) => Ok(Answer::Soak(soak::read(parts, &planning, until).await)),
            Err(error) => Err(error),
        }),
        Question::Attempts => Some(Ok(Answer::Attempts(
            parts.ledger.list(parts.clock.wall_now_ms()),
        ))),
    }
}

fn is_ours(parts: &Parts, planning: &Planning) -> Result<(), Error> {
    if planning.target == parts.target {
        Ok(())
    } else {
        Err(Error::AnotherTarget {
            asked: planning.target.to_string(),
            ours: parts.target.to_string(),
        })
    }
}

/// A call that only looks: it carries no job.
fn call(parts: &Parts, step: &Step, with: Value, until: Instant) -> Call {
    let left = until.saturating_duration_since(Instant::now());
    Call {
        action: step.uses,
        with,
        stamp: Stamp {
            job: JobId::new(""),
            target: parts.target.clone(),
            step: step.id.clone(),
            attempt: Attempt(0),
            direction: Direction::Forward,
        },
        planned: None,
        left: None,
        timeout: segment::timeout(step).min(left),
    }
}

/// Names that expressions may use, with the outputs that are known so far.
fn scope(planning: &Planning, outputs: &Map<String, Value>) -> Scope {
    let steps = outputs
        .iter()
        .map(|(step, outputs)| (step.clone(), json!({ "outputs": outputs })))
        .collect();
    assignments::scope(
        &planning.params,
        &planning.target,
        &planning.labels,
        None,
        steps,
    )
}

/// Looks until it gets an answer that means something, or time is up.
async fn look<T, F>(until: Instant, look: impl Fn() -> F) -> Result<Result<T, Failure>, Error>
where
    F: Future<Output = Result<T, Trouble>>,
{
    loop {
        let why = match tokio::time::timeout_at(until, look()).await {
            Ok(Ok(found)) => return Ok(Ok(found)),
            Ok(Err(Trouble::Failed { failure, .. })) => return Ok(Err(failure)),
            Ok(Err(Trouble::Retriable { failure })) => failure.to_string(),
            Ok(Err(Trouble::Unknown { evidence })) => evidence.join("; "),
            Err(_) => return Err(Error::NotRead("it did not answer in time".to_owned())),
        };
        if Instant::now() + PAUSE >= until {
            return Err(Error::NotRead(why));
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// The local policy's word on a call.
fn allowed(parts: &Parts, call: &Call) -> Result<(), Failure> {
    let namespace = call.with.get("namespace").and_then(Value::as_str);
    let checked = parts.policy.check(call.action.name(), namespace);
    checked.map_err(|refusal| {
        Failure::new("policy", refusal.to_string())
            .with_hint("that file is its operators' to change; or leave the target out with `--target` or `-l`")
    })
}

fn step_named(id: &StepId) -> String {
    format!("step `{id}`")
}
