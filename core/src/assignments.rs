//! Work to send, read off the committed state of a job.
//!
//! An order says which attempt an agent should now hold and what is wanted of it. Sending it again is
//! harmless: the agent answers a repeat from its journal. So any replica may send it, at any time.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::ids::{Attempt, Digest, Fence, JobId, JournalId, StepId, TargetName};
use crate::job::{Direction, Job, JobState, Target, TargetState};
use crate::outcome::StepState;
use crate::plan::{RunbookRef, SegmentStep, StepPart, TargetPart};
use crate::runbook::expression::Scope;

/// What an agent should now hold.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Order {
    /// Of which job.
    pub job: JobId,
    /// On which target.
    pub target: TargetName,
    /// Which attempt.
    pub attempt: Attempt,
    /// Under which leader it is committed.
    pub fence: Fence,
    /// For which journal; an agent with another one refuses it.
    pub journal: JournalId,
    /// Which way it goes.
    pub direction: Direction,
    /// Which segment, when it goes forward.
    pub segment: usize,
    /// What is wanted of it.
    pub wanted: Wanted,
}

/// What is wanted of an attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Wanted {
    /// Run it to its end.
    Go,
    /// Rest at the next safe point, and go on when told.
    Hold,
    /// Stop at the next safe point and say how far it came. Never begin it.
    Stop,
    /// Look whether its effects are there; do not run it.
    Observe,
}

/// An order with all that an agent needs to carry it out by itself.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Assignment {
    /// Layout of this document.
    pub format: u32,
    /// Which attempt, and what is wanted of it.
    pub order: Order,
    /// The runbook, for logs and local policy.
    pub runbook: RunbookRef,
    /// Digest of the plan.
    pub plan_digest: Digest,
    /// Parameters with defaults.
    pub params: Value,
    /// The target's labels, for expressions.
    pub labels: BTreeMap<String, String>,
    /// What the agent planned: identity, touched digests, resolved inputs.
    pub part: TargetPart,
    /// Steps to run in order; for an undo, every step of the target in forward order.
    pub steps: Vec<SegmentStep>,
    /// What is known of steps already reached, in this segment or before it.
    pub known: BTreeMap<StepId, StepState>,
    /// Trace id carried from the command line.
    pub trace: Option<String>,
}

impl Assignment {
    /// Layout written by this build.
    pub const FORMAT: u32 = 1;

    /// Names that expressions may use, with what is known of steps so far.
    pub fn scope(&self, known: &BTreeMap<StepId, StepState>) -> Scope {
        let mut steps = serde_json::Map::new();
        for (step, state) in known {
            if let StepState::Succeeded { outputs, .. } = state {
                steps.insert(step.to_string(), json!({ "outputs": outputs }));
            }
        }
        scope(
            &self.params,
            &self.order.target,
            &self.labels,
            Some(&self.order.job),
            steps,
        )
    }
}

/// Names that expressions of a runbook may use on one target.
pub fn scope(
    params: &Value,
    target: &TargetName,
    labels: &BTreeMap<String, String>,
    job: Option<&JobId>,
    steps: serde_json::Map<String, Value>,
) -> Scope {
    let job_id = job.map_or("", JobId::as_str);
    let job_short = job.map_or("", JobId::short);
    Scope::new()
        .with("params", params.clone())
        .with(
            "target",
            json!({"name": target.to_string(), "region": target.region(), "cluster": target.cluster(), "labels": labels}),
        )
        .with("job", json!({"id": job_id, "short": job_short}))
        .with("steps", Value::Object(steps))
}

/// What every agent should now hold of this job. Empty for a job that is queued or ended.
pub fn assignments(job: &Job) -> Vec<Order> {
    job.targets
        .values()
        .filter_map(|target| order(job, target))
        .collect()
}

fn order(job: &Job, target: &Target) -> Option<Order> {
    let commitment = target.commitment.as_ref()?;
    let (direction, segment, observe) = match &target.state {
        TargetState::Unknown {
            direction, segment, ..
        } if target.observe => (*direction, *segment, true),
        state => {
            let (direction, segment) = state.in_work()?;
            (direction, segment, false)
        }
    };
    Some(Order {
        job: job.header.id.clone(),
        target: target.name.clone(),
        attempt: target.attempt,
        fence: commitment.fence,
        journal: commitment.journal.clone(),
        direction,
        segment,
        wanted: if observe {
            Wanted::Observe
        } else {
            wanted(&job.header.state, target, direction)
        },
    })
}

fn wanted(state: &JobState, target: &Target, direction: Direction) -> Wanted {
    match (state, direction) {
        // While one target waits for an operator, the others are held to where the job was going.
        (JobState::NeedsOperator { after }, _) => wanted(after, target, direction),
        (JobState::Paused, _) => Wanted::Hold,
        (JobState::Stopping { .. } | JobState::Unwinding { .. }, Direction::Forward) => {
            Wanted::Stop
        }
        (_, Direction::Forward) if target.late => Wanted::Stop,
        _ => Wanted::Go,
    }
}

/// The document that carries an order; none when the target has no plan part to run by.
pub fn assignment(job: &Job, order: Order) -> Option<Assignment> {
    let part = job.part(&order.target)?.clone();
    let phase = job.plan.phase();
    let steps = match order.direction {
        Direction::Forward => phase.segments.get(order.segment)?.steps.clone(),
        Direction::Undo => phase
            .segments
            .iter()
            .flat_map(|s| s.steps.clone())
            .collect(),
    };
    let scope = &job.plan.scope;
    Some(Assignment {
        format: Assignment::FORMAT,
        runbook: scope.runbook.clone(),
        plan_digest: job.plan.digest.clone(),
        params: scope.params.clone(),
        labels: scope
            .selection
            .get(&order.target)
            .cloned()
            .unwrap_or_default(),
        part,
        steps,
        known: job
            .targets
            .get(&order.target)
            .map(|t| t.steps.clone())
            .unwrap_or_default(),
        trace: job.header.trace.clone(),
        order,
    })
}

impl Job {
    /// The longest that the open attempt of a target may take by its own timeouts.
    pub fn longest(&self, target: &Target) -> Duration {
        match target.state.in_work() {
            Some((Direction::Forward, segment)) => {
                let segment = self.plan.phase().segments.get(segment);
                total(segment.iter().flat_map(|segment| &segment.steps))
            }
            Some((Direction::Undo, _)) | None => self.longest_way_back(),
        }
    }

    /// The longest that a way back may take by the timeouts of its steps.
    pub fn longest_way_back(&self) -> Duration {
        let segments = self.plan.phase().segments.iter();
        let steps = segments.flat_map(|segment| &segment.steps);
        total(steps.filter(|step| step.part == StepPart::Main))
    }
}

fn total<'a>(steps: impl Iterator<Item = &'a SegmentStep>) -> Duration {
    let timeouts = steps.map(|step| crate::segment::timeout(&step.step));
    timeouts.sum()
}
