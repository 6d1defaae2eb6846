//! One round of the checks after a wave: the `verify` steps, read once. What they mean is judged over all targets.

use std::collections::BTreeMap;

use aldis_core::ids::StepId;
use aldis_core::question::Planning;
use aldis_core::runbook::Step;
use aldis_core::runbook::expression::{Expression, Template};
use aldis_core::soak::SoakReading;
use serde_json::{Map, Value};
use tokio::time::Instant;

use super::{allowed, call, look, scope};
use crate::actions::Progress;
use crate::parts::Parts;
use crate::runner::cut;

/// What the steps read, or why they could not be read: silence is not health.
pub(super) async fn read(parts: &Parts, planning: &Planning, until: Instant) -> SoakReading {
    let mut read = BTreeMap::new();
    let mut outputs = Map::new();
    for step in &planning.body.spec.verify {
        match step_outputs(parts, planning, step, &outputs, until).await {
            Ok(Some(found)) => {
                outputs.insert(step.id.to_string(), found.clone());
                read.insert(step.id.clone(), found);
            }
            Ok(None) => {}
            Err(why) => {
                return SoakReading {
                    steps: Err(unread(&step.id, &why)),
                };
            }
        }
    }
    SoakReading { steps: Ok(read) }
}

fn unread(step: &StepId, why: &str) -> String {
    format!("step `{step}`: {why}")
}

async fn step_outputs(
    parts: &Parts,
    planning: &Planning,
    step: &Step,
    outputs: &Map<String, Value>,
    until: Instant,
) -> Result<Option<Value>, String> {
    let scope = scope(planning, outputs);
    if let Some(condition) = &step.condition {
        let held = Expression::parse(condition).and_then(|parsed| parsed.evaluate_bool(&scope));
        if !held.map_err(|error| error.to_string())? {
            return Ok(None);
        }
    }
    let with = Template::parse(&step.with).and_then(|template| template.resolve(&scope));
    let with = with.map_err(|error| error.to_string())?;
    let call = call(parts, step, with, until);
    allowed(parts, &call).map_err(|failure| failure.to_string())?;
    let progress = Progress::none();
    let looked = look(until, || {
        parts.actions.apply(&call, &Value::Null, &progress)
    })
    .await;
    match looked {
        Ok(Ok(applied)) => Ok(Some(cut::outputs(step.uses, applied.outputs))),
        Ok(Err(failure)) => Err(failure.to_string()),
        Err(error) => Err(error.to_string()),
    }
}
