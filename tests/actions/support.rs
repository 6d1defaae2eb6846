//! The cluster of all tests of this program, and calls on it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use aldis_agent::actions::cluster::Cluster as Actor;
use aldis_agent::actions::redact::Key;
use aldis_agent::actions::{Actions, Applied, Before, Call, Effect, Progress, Stamp, Trouble};
use aldis_agent::clock::{Clock, SystemClock};
use aldis_agent::ledger::Ledger;
use aldis_agent::logs::Logs;
use aldis_agent::permit::Permits;
use aldis_agent::policy::Policy;
use aldis_agent::reports::Reports;
use aldis_agent::{Parts, planner};
use aldis_core::action::Action;
use aldis_core::ids::{Attempt, Digest};
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::plan::{RunbookRef, TargetPart};
use aldis_core::question::{Answer, Planning, Question};
use aldis_tests::fleet::application::{Application, rolled_out};
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::reader::Seen;
use aldis_tests::fleet::{Fleet, Options};
use k8s_openapi::api::apps::v1::Deployment;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::sync::OnceCell;

static FLEET: OnceCell<Fleet> = OnceCell::const_new();

/// The cluster, with an administrator's client of this test's runtime and the agent's way to it.
pub(crate) struct World {
    pub(crate) cluster: &'static Cluster,
    pub(crate) admin: Client,
    pub(crate) actor: Actor,
}

/// Its files stay in `target/tmp/actions-fleet` until the next run.
pub(crate) async fn world() -> World {
    let fleet = FLEET
        .get_or_init(|| async {
            let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("actions-fleet");
            Fleet::start(
                &folder,
                Options {
                    clusters: 1,
                    ..Options::default()
                },
            )
            .await
            .unwrap_or_else(|error| panic!("start the fleet: {error:?}"))
        })
        .await;
    let cluster = &fleet.clusters()[0];
    let context = cluster.target().to_string();
    let actor = Actor::from_kubeconfig(&cluster.agent_kubeconfig(), &context, key())
        .await
        .expect("a way to the cluster");
    World {
        cluster,
        admin: cluster.client(),
        actor,
    }
}

pub(crate) fn key() -> Key {
    Key::new([7; 32])
}

/// An application that went through these releases and runs the last.
pub(crate) fn app(namespace: &str, releases: &[&str]) -> Application {
    Application::new(namespace, "shop", releases.iter().copied())
}

/// A call of a job of its own.
pub(crate) fn call(action: Action, with: Value) -> Call {
    static JOBS: AtomicU32 = AtomicU32::new(1);
    let job = format!("j-{}", JOBS.fetch_add(1, Ordering::Relaxed));
    Call {
        action,
        with,
        stamp: Stamp {
            job: job.as_str().into(),
            target: "eu-west/prod-1".parse().expect("a target"),
            step: "step".into(),
            attempt: Attempt(1),
            direction: Direction::Forward,
        },
        planned: None,
        left: None,
        timeout: Duration::from_secs(60),
    }
}

pub(crate) fn rollback(namespace: &str, from: &str, to: &str) -> Call {
    let with = json!({"deployment": "shop", "namespace": namespace, "from": from, "to": to});
    call(Action::KubeRolloutUndo, with)
}

pub(crate) fn set_image(namespace: &str, image: &str) -> Call {
    let with = json!({"deployment": "shop", "namespace": namespace, "image": image});
    call(Action::KubeSetImage, with)
}

pub(crate) fn wait(namespace: &str, patience: &str) -> Call {
    let with = json!({
        "deployment": "shop", "namespace": namespace, "for": "rolledOut", "failAfterNoProgress": patience,
    });
    call(Action::KubeWait, with)
}

/// The same step, on its way back.
pub(crate) fn back(call: &Call) -> Call {
    let mut back = call.clone();
    back.stamp.direction = Direction::Undo;
    back
}

/// What the runner would hold after it.
pub(crate) fn effect(call: &Call, before: &Before, applied: Option<&Applied>) -> Effect {
    Effect {
        stamp: call.stamp.clone(),
        before: before.clone(),
        after: applied.map(|applied| applied.after.clone()),
    }
}

pub(crate) fn failure(trouble: Trouble) -> Failure {
    match trouble {
        Trouble::Failed { failure, .. } => failure,
        other @ (Trouble::Unknown { .. } | Trouble::Retriable { .. }) => {
            panic!("not decided: {other:?}")
        }
    }
}

impl World {
    /// The part that this cluster's agent plans for a runbook of the library.
    pub(crate) async fn part_of(&self, runbook: &str, params: Value) -> TargetPart {
        let context = self.cluster.target().to_string();
        let kubeconfig = self.cluster.agent_kubeconfig();
        let actor = Actor::from_kubeconfig(&kubeconfig, &context, key()).await;
        let folder = tempfile::tempdir().expect("a folder");
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parts = Parts {
            target: context.parse().expect("a target"),
            simulated: false,
            pin: None,
            actions: Arc::new(actor.expect("a way to the cluster")),
            policy: Arc::new(Policy::without_file()),
            ledger: Ledger::open(&folder.path().join("journal")).expect("a journal"),
            reports: Reports::new(),
            logs: Logs::open(&folder.path().join("logs"), clock.clone()).expect("logs"),
            permits: Permits::new(clock.clone()),
            clock,
        };
        let all = aldis_core::runbook::builtin::ALL;
        let (_, text) = all.iter().find(|(name, _)| *name == runbook).expect("it");
        let planning = Planning {
            runbook: RunbookRef {
                name: runbook.to_owned(),
                version: 1,
                digest: Digest::new("d"),
            },
            body: serde_saphyr::from_str(text).expect("a runbook"),
            params,
            target: parts.target.clone(),
            labels: BTreeMap::new(),
        };
        let question = Question::Plan(Box::new(planning));
        let answered = planner::answer(&parts, question, Duration::from_secs(60)).await;
        match answered {
            Some(Ok(Answer::Plan(part))) => *part,
            other => panic!("{other:?}"),
        }
    }

    /// Captures and applies, as the runner does.
    pub(crate) async fn run(&self, call: &Call) -> Result<(Before, Applied), Trouble> {
        let before = self.actor.capture(call).await?;
        let applied = self.actor.apply(call, &before, &Progress::none()).await?;
        Ok((before, applied))
    }

    pub(crate) async fn undo(&self, call: &Call, effect: &Effect) -> Result<(), Trouble> {
        self.actor
            .undo(&back(call), effect, &Progress::none())
            .await
    }

    /// What an independent reader sees.
    pub(crate) async fn seen(&self, namespace: &str) -> Seen {
        Seen::read(&self.admin, namespace, "shop")
            .await
            .expect("the Deployment")
    }

    pub(crate) async fn settled(&self, namespace: &str) {
        rolled_out(&self.admin, namespace, "shop")
            .await
            .expect("rolled out");
    }

    pub(crate) fn deployments(&self, namespace: &str) -> Api<Deployment> {
        Api::namespaced(self.admin.clone(), namespace)
    }

    /// The Deployment as the server has it, with what this program does not know.
    pub(crate) async fn object(&self, namespace: &str) -> Value {
        let found = self.deployments(namespace).get("shop").await;
        serde_json::to_value(found.expect("the Deployment")).expect("JSON")
    }

    /// A change by somebody else.
    pub(crate) async fn interfere(&self, namespace: &str, change: Value) {
        let mei = PatchParams {
            field_manager: Some("mei".to_owned()),
            ..PatchParams::default()
        };
        self.deployments(namespace)
            .patch("shop", &mei, &Patch::Strategic(change))
            .await
            .expect("somebody else's change");
    }

    /// Somebody else's image.
    pub(crate) async fn interfere_with_image(&self, namespace: &str, image: &str) {
        let container = json!({"name": "app", "image": image});
        let change = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
        self.interfere(namespace, change).await;
    }
}
