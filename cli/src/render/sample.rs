//! Plans and jobs for tests of what is shown, made the way the leader makes them.

use std::collections::BTreeMap;
use std::sync::Arc;

use aldis_core::action::Action;
use aldis_core::decide::WaitingOn;
use aldis_core::ids::{Attempt, Digest, JobId, PlanId, StepId, TargetName, Timestamp};
use aldis_core::job::{Header, Job, JobState, Target, TargetFailure, TargetState};
use aldis_core::outcome::{Failure, StepState};
use aldis_core::plan::{
    ClusterIdentity, Disposition, ObjectRef, Phase, Plan, RunbookRef, Scope, StepPlan, TargetPart,
    part::{Basis, DiffLine, Feasibility},
    waves,
};
use aldis_core::runbook::{OnFailure, builtin, load};
use aldis_core::view::{JobView, PlanView};
use serde_json::json;

/// 2026-11-25 09:46:40 UTC.
pub(crate) const NOW: Timestamp = Timestamp(1_795_600_000_000);

/// A target's name.
pub(crate) fn target(name: &str) -> TargetName {
    name.parse().unwrap()
}

/// `rollback-service` over these targets, with a change of the image on each.
pub(crate) fn plan(names: &[&str]) -> Plan {
    let text = builtin::ALL[1].1;
    let loaded = load::load("rollback-service", text).unwrap();
    let selection: BTreeMap<_, _> = names
        .iter()
        .map(|name| {
            (
                target(name),
                BTreeMap::from([("env".into(), "prod".into())]),
            )
        })
        .collect();
    let waves = waves::cut(
        &loaded.runbook.spec.rollout,
        &selection.keys().cloned().collect(),
    );
    let budget = waves::budget(&loaded.runbook.spec.rollout.max_failures, names.len());
    let phase = Phase {
        name: "main".into(),
        waves,
        segments: waves::segments(&loaded.runbook),
        budget,
        on_failure: OnFailure::Continue,
    };
    let scope = Scope {
        runbook: RunbookRef {
            name: "rollback-service".into(),
            version: 1,
            digest: loaded.digest,
        },
        body: loaded.runbook,
        params: json!({"service": "checkout", "namespace": "shop", "from": "v2.18.0", "to": "previous", "port": 8080}),
        selector: BTreeMap::from([("env".into(), "prod".into())]),
        selection,
        phases: vec![phase],
        expires_at: Timestamp(NOW.0 + 30 * 60_000),
    };
    let parts = names
        .iter()
        .map(|name| (target(name), part(name)))
        .collect();
    Plan::new(
        PlanId::new("p-7f3c91d2aabbccddeeff001122334455"),
        scope,
        parts,
        "user/mei".into(),
        NOW,
    )
}

/// A part that changes the image.
pub(crate) fn part(name: &str) -> TargetPart {
    TargetPart {
        target: target(name),
        identity: ClusterIdentity {
            cluster_uid: format!("uid of {name}"),
            ca_fingerprint: "aa".into(),
        },
        simulated: false,
        disposition: Disposition::Run,
        steps: vec![StepPlan {
            step: "rollback".into(),
            action: Action::KubeRolloutUndo,
            with: None,
            object: Some(checkout()),
            touched: None,
            becomes: None,
            changes: true,
            diff: vec![DiffLine {
                field: "containers[app].image".into(),
                from: Some("checkout:v2.18.0".into()),
                to: Some("checkout:v2.17.4".into()),
            }],
            owners: vec![],
            undo: Feasibility::Possible,
            basis: Basis::DryRun,
            outputs: None,
        }],
        warnings: vec![],
        left: None,
    }
}

/// The Deployment of the samples.
pub(crate) fn checkout() -> ObjectRef {
    ObjectRef {
        kind: "Deployment".into(),
        namespace: "shop".into(),
        name: "checkout".into(),
    }
}

/// The plan again, with its digest over what it holds now.
pub(crate) fn sealed(plan: Plan) -> Plan {
    Plan::new(
        plan.id,
        plan.scope,
        plan.parts,
        plan.planned_by,
        plan.planned_at,
    )
}

/// A plan as the server shows it.
pub(crate) fn shown(plan: Plan) -> PlanView {
    PlanView {
        plan: sealed(plan),
        conflicts: vec![],
        expired: false,
    }
}

/// A job of the plan, running.
pub(crate) fn job(plan: Plan) -> Job {
    let header = Header {
        format: 1,
        id: JobId::new("j-01c9d4aabbccddeeff00112233445566"),
        plan: plan.id.clone(),
        digest: plan.digest.clone(),
        body: Digest::new("b"),
        runbook: plan.scope.runbook.clone(),
        selected: plan.scope.selection.len(),
        simulated: plan.parts.values().any(|part| part.simulated),
        submitted_by: "user/mei".into(),
        reason: Some("INC-2231".into()),
        submitted_at: NOW,
        priority: 0,
        trace: None,
        link: None,
        state: JobState::Running,
        drift_checked: true,
        wave: 0,
        soak: None,
        folded: Default::default(),
        started_at: Some(NOW),
        resumed_at: None,
        ended_at: None,
    };
    Job {
        header,
        plan: Arc::new(plan),
        late_parts: BTreeMap::new(),
        targets: BTreeMap::new(),
    }
}

/// Puts a target in a state.
pub(crate) fn put(job: &mut Job, name: &str, state: TargetState) {
    record(job, name).state = state;
}

/// Puts a step of a target in a state.
pub(crate) fn step(job: &mut Job, name: &str, id: &str, state: StepState) {
    record(job, name).steps.insert(StepId::from(id), state);
}

/// A step that did its work.
pub(crate) fn done() -> StepState {
    StepState::Succeeded {
        outputs: json!({}),
        changed: true,
    }
}

/// What a rollout fails with.
pub(crate) fn image_gone() -> Failure {
    Failure::new(
        "noProgress",
        "Deployment shop/checkout: 7 of 12 pods ready, not progressing for 120s (limit 120s)",
    )
    .with_evidence(vec![
        "pod checkout-6f9c-x2k: ImagePullBackOff checkout:v2.17.4 (not found)".into(),
        "12:11:58 pull checkout:v2.17.4: manifest unknown".into(),
    ])
}

/// Makes a target fail at a step, resting there.
pub(crate) fn fail(job: &mut Job, name: &str, at: &str, failure: Failure, state: TargetState) {
    step(
        job,
        name,
        at,
        StepState::Failed {
            failure: failure.clone(),
            applied: true,
        },
    );
    let target = record(job, name);
    target.failure = Some(TargetFailure {
        step: Some(at.into()),
        failure,
    });
    target.state = state;
}

fn record<'a>(job: &'a mut Job, name: &str) -> &'a mut Target {
    let name = target(name);
    let target = job
        .targets
        .entry(name.clone())
        .or_insert_with(|| Target::new(name).into());
    let target = Arc::make_mut(target);
    target.attempt = Attempt(1);
    target
}

/// The job as the server shows it, some seconds after [`NOW`].
pub(crate) fn view(job: &Job, waiting: &[WaitingOn], seconds: u64) -> JobView {
    aldis_core::view::job(job, waiting, Timestamp(NOW.0 + seconds * 1000))
}
