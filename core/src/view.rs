//! What people and scripts are shown of plans and jobs: everything the command line prints comes from
//! these, so that it needs no rule of its own.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::decide::WaitingOn;
use crate::ids::{Attempt, JobId, StepId, TargetName, Timestamp};
use crate::job::{Header, Job, JobState, Resolution, StopCause, TargetFailure, TargetState};
use crate::outcome::StepState;
use crate::plan::{Disposition, ObjectRef, Plan};
use crate::runbook::Direction;

/// A plan, with what stands in its way now.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PlanView {
    /// The plan itself.
    pub plan: Plan,
    /// Objects that other jobs hold now: the job would wait in the queue for them.
    pub conflicts: Vec<Conflict>,
    /// True when no job can be made of it any more.
    pub expired: bool,
}

/// An object that another job holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Conflict {
    /// Where.
    pub target: TargetName,
    /// What.
    pub object: ObjectRef,
    /// Who holds it.
    pub job: JobId,
}

/// A job as it stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct JobView {
    /// Its record.
    pub header: Header,
    /// Waves with their targets in order, also those that were not opened.
    pub waves: Vec<WaveView>,
    /// Every selected target.
    pub targets: BTreeMap<TargetName, TargetView>,
    /// Why nothing more happens now.
    pub waiting: Vec<WaitingView>,
    /// Failures plus unknowns that are accepted.
    pub budget: usize,
    /// Whether the job is there to change something, or to help where something is wrong. Servers of
    /// before do not say it.
    #[serde(default)]
    pub direction: Direction,
    /// The answering replica's clock.
    pub now: Timestamp,
    /// What `aldis` should exit with, were this the end; none while it goes on.
    pub exit_code: Option<u8>,
}

/// One wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaveView {
    /// Its name.
    pub name: String,
    /// In order.
    pub targets: Vec<TargetName>,
    /// Length of its soak in milliseconds; 0 = none.
    pub soak_ms: u64,
}

/// One target.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct TargetView {
    /// Where it stands.
    pub state: TargetState,
    /// Why it has no part in the job, where it has none.
    pub left_out: Option<String>,
    /// Steps in the runbook's order, with what is known of each.
    pub steps: Vec<(StepId, StepState)>,
    /// Newest attempt.
    pub attempt: Attempt,
    /// Why it failed.
    pub failure: Option<TargetFailure>,
    /// What operators said.
    pub resolutions: Vec<Resolution>,
    /// True for a practice cluster.
    pub simulated: bool,
}

/// A reason with the command that ends it, where there is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct WaitingView {
    /// The reason.
    pub on: WaitingOn,
    /// In words.
    pub text: String,
    /// What an operator can type.
    pub next: Option<String>,
}

/// Draws a job for people.
pub fn job(job: &Job, waiting: &[WaitingOn], now: Timestamp) -> JobView {
    let phase = job.plan.phase();
    let waves = phase.waves.iter().map(|wave| WaveView {
        name: wave.name.clone(),
        targets: wave.targets.clone(),
        soak_ms: wave
            .soak
            .as_ref()
            .map_or(0, |soak| soak.length.as_millis() as u64),
    });
    let targets = job
        .plan
        .scope
        .selection
        .keys()
        .map(|name| (name.clone(), target(job, name)));
    JobView {
        waves: waves.collect(),
        targets: targets.collect(),
        waiting: waiting
            .iter()
            .map(|on| WaitingView {
                text: marked(job, on),
                next: on.next_command(&job.header.id),
                on: on.clone(),
            })
            .collect(),
        budget: phase.budget,
        direction: job.plan.scope.body.spec.direction,
        now,
        exit_code: exit_code(job),
        header: job.header.clone(),
    }
}

/// The reason in words, its target marked where that is a practice cluster.
fn marked(job: &Job, on: &WaitingOn) -> String {
    let text = on.to_string();
    match on.target() {
        Some(name) if job.part(name).is_some_and(|part| part.simulated) => {
            text.replacen(&name.to_string(), &format!("{name} (simulated)"), 1)
        }
        _ => text,
    }
}

fn target(job: &Job, name: &TargetName) -> TargetView {
    let record = job.record(name);
    let part = job.part(name);
    let left_out = part.and_then(|part| match &part.disposition {
        Disposition::Unchanged { why } | Disposition::Skipped { why } => Some(why.clone()),
        Disposition::Refused { why, .. } => Some(why.clone()),
        Disposition::Run | Disposition::Deferred { .. } => None,
    });
    let steps = job
        .plan
        .phase()
        .segments
        .iter()
        .flat_map(|segment| &segment.steps);
    TargetView {
        left_out: record.skipped.clone().or(left_out),
        steps: steps
            .map(|planned| {
                let id = planned.step.id.clone();
                let state = record
                    .steps
                    .get(&id)
                    .cloned()
                    .unwrap_or(StepState::NotStarted);
                (id, state)
            })
            .collect(),
        attempt: record.attempt,
        failure: record.failure.clone(),
        resolutions: record.resolutions.clone(),
        simulated: part.is_some_and(|part| part.simulated),
        state: record.state.clone(),
    }
}

/// The contract of exit codes: 0 ok, 3 failed, 4 undone, 5 partly done, 6 cancelled, 13 refused with
/// nothing touched, 14 a target rests as unknown or stuck.
fn exit_code(job: &Job) -> Option<u8> {
    match &job.header.state {
        JobState::Succeeded => Some(0),
        JobState::Failed {
            cause: StopCause::Drift { .. },
        } => Some(13),
        JobState::Failed { .. } => Some(3),
        JobState::Undone { .. } => Some(4),
        JobState::PartlyDone => Some(5),
        JobState::Cancelled { .. } => Some(6),
        JobState::NeedsOperator { .. } => Some(14),
        JobState::Queued
        | JobState::Running
        | JobState::Paused
        | JobState::Stopping { .. }
        | JobState::Unwinding { .. } => None,
    }
}
