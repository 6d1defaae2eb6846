//! Plans of every shape, small enough to be read when one fails.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use proptest::prelude::*;
use serde_json::{Value, json};

use crate::canonical;
use crate::ids::{Digest, JobId, PlanId, StepId, TargetName, Timestamp};
use crate::job::{Header, Job, JobState, Link};
use crate::outcome::StepState;
use crate::plan::{
    ClusterIdentity, Disposition, Left, Phase, Plan, RunbookRef, Scope, TargetPart, waves,
};
use crate::runbook::Runbook;

/// What a plan is drawn from.
#[derive(Clone, Debug)]
pub(super) struct Sketch {
    targets: Vec<Kind>,
    waves: Vec<WaveSketch>,
    segments: Vec<SegmentSketch>,
    max_failures: Value,
    policy: (&'static str, &'static str),
    unreachable: &'static str,
    drift: &'static str,
    undoes: bool,
    /// Whether its turn has yet to come.
    pub(super) queued: bool,
}

/// What will become of a target by its plan.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Run,
    Unchanged,
    Deferred,
    Skipped,
}

#[derive(Clone, Debug)]
struct WaveSketch {
    percent: u8,
    max_parallel: u32,
    soak: bool,
}

#[derive(Clone, Debug)]
struct SegmentSketch {
    steps: Vec<Does>,
    barrier: Value,
}

/// What a step does.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Does {
    Read,
    Write,
    /// It is gone past on the way back.
    WriteForGood,
}

pub(super) fn sketch() -> impl Strategy<Value = Sketch> {
    let kind = prop_oneof![
        8 => Just(Kind::Run),
        1 => Just(Kind::Unchanged),
        1 => Just(Kind::Deferred),
        1 => Just(Kind::Skipped),
    ];
    let wave = (1u8..=100, 1u32..=4, prop::bool::weighted(0.3));
    let wave = wave.prop_map(|(percent, max_parallel, soak)| WaveSketch {
        percent,
        max_parallel,
        soak,
    });
    let barrier = prop_oneof![Just(json!(true)), Just(json!({"timeout": "60s"}))];
    let does = prop_oneof![
        4 => Just(Does::Read),
        4 => Just(Does::Write),
        1 => Just(Does::WriteForGood),
    ];
    let segment = (prop::collection::vec(does, 1..=2), barrier);
    let segment = segment.prop_map(|(steps, barrier)| SegmentSketch { steps, barrier });
    let max_failures = prop_oneof![
        (0u32..4).prop_map(|count| json!(count)),
        (0u32..=100).prop_map(|percent| json!(format!("{percent}%"))),
    ];
    // A remedy never puts the bad state back by itself; the linter sees to that.
    let policy = prop::sample::select(vec![
        ("change", "undo"),
        ("change", "halt"),
        ("change", "continue"),
        ("remedy", "halt"),
        ("remedy", "continue"),
    ]);
    (
        prop::collection::vec(kind, 1..=12),
        prop::collection::vec(wave, 1..=4),
        prop::collection::vec(segment, 1..=3),
        max_failures,
        policy,
        prop::sample::select(vec!["fail", "skip", "defer"]),
        prop::sample::select(vec!["refuseTarget", "refuseJob"]),
        prop::bool::weighted(0.1),
        prop::bool::weighted(0.1),
    )
        .prop_map(
            |(
                targets,
                waves,
                segments,
                max_failures,
                policy,
                unreachable,
                drift,
                undoes,
                queued,
            )| Sketch {
                targets,
                waves,
                segments,
                max_failures,
                policy,
                unreachable,
                drift,
                undoes,
                queued,
            },
        )
}

impl Sketch {
    /// A queued job of that plan.
    pub(super) fn job(&self) -> Job {
        let body = self.runbook();
        let named: BTreeMap<TargetName, Kind> = self
            .targets
            .iter()
            .enumerate()
            .map(|(index, kind)| {
                let region = ["a", "b", "c"][index % 3];
                (
                    TargetName::new(region, &format!("t{index}")).unwrap(),
                    *kind,
                )
            })
            .collect();
        let parts = named
            .iter()
            .map(|(name, kind)| (name.clone(), self.part(name, *kind)))
            .collect();
        let plan = plan(body, parts);
        let (late_parts, targets) = (BTreeMap::new(), BTreeMap::new());
        let mut header = header(&plan);
        header.link = self.undoes.then(|| Link::Undoes { job: "j-0".into() });
        Job {
            header,
            plan: Arc::new(plan),
            late_parts,
            targets,
        }
    }

    fn runbook(&self) -> Runbook {
        let waves: Vec<Value> = self.waves.iter().map(WaveSketch::written).collect();
        let last = self.segments.len() - 1;
        let mut steps = Vec::new();
        for (index, segment) in self.segments.iter().enumerate() {
            for (at, does) in segment.steps.iter().enumerate() {
                let ends = at + 1 == segment.steps.len() && index != last;
                let mut step = does.written(&format!("s{index}x{at}"));
                step["barrier"] = if ends {
                    segment.barrier.clone()
                } else {
                    json!(false)
                };
                steps.push(step);
            }
        }
        let (direction, on_failure) = self.policy;
        serde_json::from_value(json!({
            "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"},
            "spec": {
                "direction": direction, "drift": self.drift,
                "targets": {"whenUnreachable": self.unreachable},
                "rollout": {
                    "waves": waves, "maxFailures": self.max_failures, "onFailure": on_failure,
                },
                "steps": steps,
                "verify": [{"id": "health", "use": "http.probe"}],
            }
        }))
        .unwrap()
    }

    fn part(&self, name: &TargetName, kind: Kind) -> TargetPart {
        let why = || "drawn so".to_owned();
        let disposition = match kind {
            Kind::Run => Disposition::Run,
            Kind::Unchanged => Disposition::Unchanged { why: why() },
            // A job that undoes another is planned on agents that are there.
            Kind::Deferred if self.undoes => Disposition::Run,
            Kind::Deferred => Disposition::Deferred { why: why() },
            Kind::Skipped => Disposition::Skipped { why: why() },
        };
        let mut part = part(name, disposition);
        if self.undoes {
            part.left = self.left();
        }
        part
    }

    /// What the other job left: its first writing step.
    fn left(&self) -> Option<Left> {
        let runbook = self.runbook();
        let wrote = |id: &StepId| {
            let state = StepState::Succeeded {
                outputs: Value::Null,
                changed: true,
            };
            BTreeMap::from([(id.clone(), state)])
        };
        let step = runbook
            .spec
            .steps
            .iter()
            .find(|step| step.uses.effect() == crate::action::Effect::Write)?;
        Some(Left {
            job: "j-0".into(),
            steps: wrote(&step.id),
        })
    }
}

impl Does {
    fn written(self, id: &str) -> Value {
        match self {
            Self::Read => json!({"id": id, "use": "kube.get"}),
            Self::Write => json!({"id": id, "use": "kube.set-image"}),
            Self::WriteForGood => {
                json!({"id": id, "use": "kube.set-image", "undo": "none", "reason": "harmless"})
            }
        }
    }
}

impl WaveSketch {
    fn written(&self) -> Value {
        let mut wave = json!({"pick": {"percent": self.percent}, "maxParallel": self.max_parallel});
        if self.soak {
            let require = "steps.health.outputs.errorRate < 0.5";
            wave["soak"] = json!({"for": "30s", "settle": "5s", "every": "5s", "require": require});
        }
        wave
    }
}

/// A part without steps of its own.
pub(super) fn part(name: &TargetName, disposition: Disposition) -> TargetPart {
    TargetPart {
        target: name.clone(),
        identity: ClusterIdentity {
            cluster_uid: name.to_string(),
            ca_fingerprint: String::new(),
        },
        simulated: true,
        disposition,
        steps: vec![],
        warnings: vec![],
        left: None,
    }
}

fn plan(body: Runbook, parts: BTreeMap<TargetName, TargetPart>) -> Plan {
    let selection: BTreeSet<TargetName> = parts.keys().cloned().collect();
    let phase = Phase {
        name: "main".into(),
        waves: waves::cut(&body.spec.rollout, &selection),
        segments: waves::segments(&body),
        budget: waves::budget(&body.spec.rollout.max_failures, selection.len()),
        on_failure: body.on_failure(),
    };
    let runbook = RunbookRef {
        name: "r".into(),
        version: 1,
        digest: canonical::digest(&body),
    };
    let scope = Scope {
        runbook,
        body,
        params: json!({}),
        selector: BTreeMap::new(),
        selection: selection
            .into_iter()
            .map(|name| (name, BTreeMap::new()))
            .collect(),
        phases: vec![phase],
        expires_at: Timestamp(0),
    };
    Plan::new(
        PlanId::from("p-1"),
        scope,
        parts,
        "mei".into(),
        Timestamp(0),
    )
}

fn header(plan: &Plan) -> Header {
    Header {
        format: Header::FORMAT,
        id: JobId::from("j-1"),
        plan: plan.id.clone(),
        digest: plan.digest.clone(),
        body: Digest::from("body"),
        runbook: plan.scope.runbook.clone(),
        selected: plan.parts.len(),
        simulated: true,
        submitted_by: "mei".into(),
        reason: None,
        submitted_at: Timestamp(0),
        priority: 0,
        trace: None,
        link: None,
        state: JobState::Queued,
        drift_checked: false,
        wave: 0,
        soak: None,
        folded: BTreeSet::new(),
        started_at: None,
        resumed_at: None,
        ended_at: None,
    }
}
