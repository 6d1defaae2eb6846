//! Whether a part still holds: the same cluster, and every object that would be changed still as it was planned from.

use aldis_core::ids::{Attempt, JobId};
use aldis_core::job::Direction;
use aldis_core::plan::TargetPart;
use aldis_core::segment;
use tokio::time::Instant;

use super::{Error, allowed, look, undo};
use crate::actions::{Call, Stamp};
use crate::parts::Parts;
use crate::runner::wrong_cluster;

/// One sentence on what changed, if anything did.
pub(super) async fn find(
    parts: &Parts,
    part: &TargetPart,
    until: Instant,
) -> Result<Option<String>, Error> {
    if part.target != parts.target {
        return Ok(Some(format!(
            "the plan is for {}, and this is {}",
            part.target, parts.target
        )));
    }
    let identity = match look(until, || parts.actions.identity()).await? {
        Ok(identity) => identity,
        Err(failure) => return Ok(Some(failure.to_string())),
    };
    let pin = parts.pin.as_ref().unwrap_or(&part.identity);
    for expected in [&part.identity, pin] {
        if *expected != identity {
            return Ok(Some(wrong_cluster(expected, &identity).to_string()));
        }
    }
    if let Some(left) = &part.left {
        return undo::drift(parts, part, left, until).await;
    }
    for call in calls(parts, part) {
        if let Err(failure) = allowed(parts, &call) {
            return Ok(Some(failure.to_string()));
        }
        // Reading the prior state of a planned call refuses where the object is not the one that was planned from.
        if let Err(failure) = look(until, || parts.actions.capture(&call)).await? {
            return Ok(Some(failure.to_string()));
        }
    }
    Ok(None)
}

fn calls(parts: &Parts, part: &TargetPart) -> Vec<Call> {
    let changing = part.steps.iter().filter(|step| step.touched.is_some());
    changing
        .filter_map(|step| {
            Some(Call {
                action: step.action,
                with: step.with.clone()?,
                stamp: Stamp {
                    job: JobId::new(""),
                    target: parts.target.clone(),
                    step: step.step.clone(),
                    attempt: Attempt(0),
                    direction: Direction::Forward,
                },
                planned: Some(step.clone()),
                left: None,
                timeout: segment::DEFAULT_TIMEOUT,
            })
        })
        .collect()
}
