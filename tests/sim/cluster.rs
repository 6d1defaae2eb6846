//! A cluster without Kubernetes, which keeps the law of [`Actions`] and nothing that would hide a mistake
//! of those who call it.
//!
//! Each object is a value with a version. An effect carries the version that was captured and lands only
//! on that; so a late one cannot land over another, as with a resource version. What it does *not* do: it
//! takes the same change under another attempt's stamp as a change, and calls an object drifted only when
//! somebody else wrote it. A step that is begun twice therefore lands twice, and the
//! [`Witness`](crate::witness::Witness) sees it.
//!
//! Weather: slow answers, no answers, requests that land seconds after their sender was told nothing, or
//! has ended.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_agent::actions::{
    Actions, Applied, Before, Call, Effect as Caused, Observed, Planned, Progress, Trouble,
};
use aldis_core::action::{Action, Effect as Kind};
use aldis_core::canonical;
use aldis_core::ids::TargetName;
use aldis_core::outcome::Failure;
use aldis_core::plan::part::{Basis, Feasibility};
use aldis_core::plan::{ClusterIdentity, ObjectRef, StepPlan};
use async_trait::async_trait;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::witness::{Effect, Witness};

/// One cluster. Clones are the same.
#[derive(Clone)]
pub(crate) struct Cluster(Arc<Shared>);

struct Shared {
    target: TargetName,
    witness: Arc<Witness>,
    chance: Chance,
    storm: watch::Receiver<bool>,
    objects: Mutex<BTreeMap<String, Object>>,
    /// How long the next effects take to land after their sender was left without an answer.
    late: Mutex<Option<Duration>>,
    /// How long every answer takes.
    slow: Mutex<Option<Duration>>,
    /// Whether rollouts of a changed image fail here.
    broken: Mutex<bool>,
}

#[derive(Clone, Debug)]
struct Object {
    value: String,
    version: u64,
    stamp: Option<String>,
    /// Times that somebody who is not ours wrote it.
    foreign: u64,
}

impl Object {
    fn new() -> Self {
        Self {
            value: "v1".to_owned(),
            version: 1,
            stamp: None,
            foreign: 0,
        }
    }

    fn touched(&self) -> aldis_core::ids::Digest {
        canonical::digest(&json!({ "foreign": self.foreign }))
    }
}

/// A request on its way to an object.
struct Request {
    object: String,
    value: String,
    expected: u64,
    stamp: String,
    effect: Effect,
}

fn failed(kind: &str, cause: impl Into<String>) -> Trouble {
    Trouble::refused(Failure::new(kind, cause))
}

fn unanswered() -> Trouble {
    let evidence = vec!["no answer".to_owned()];
    Trouble::Unknown { evidence }
}

impl Cluster {
    pub(crate) fn new(
        target: TargetName,
        witness: Arc<Witness>,
        chance: Chance,
        storm: watch::Receiver<bool>,
    ) -> Self {
        Self(Arc::new(Shared {
            target,
            witness,
            chance,
            storm,
            objects: Mutex::default(),
            late: Mutex::default(),
            slow: Mutex::default(),
            broken: Mutex::default(),
        }))
    }

    /// The cluster as one process of an agent reaches it.
    pub(crate) fn reached_by(&self, life: CancellationToken) -> Reached {
        Reached {
            cluster: self.clone(),
            life,
        }
    }

    /// From here on effects land so long after their sender was left without an answer.
    pub(crate) fn land_late(&self, by: Option<Duration>) {
        *lock(&self.0.late) = by;
    }

    /// From here on every answer takes so long.
    pub(crate) fn answer_slowly(&self, by: Option<Duration>) {
        *lock(&self.0.slow) = by;
    }

    pub(crate) fn break_rollouts(&self, broken: bool) {
        *lock(&self.0.broken) = broken;
    }

    /// Somebody else writes an object.
    pub(crate) fn interfere(&self, name: &str) {
        let mut objects = lock(&self.0.objects);
        let object = objects.entry(name.to_owned()).or_insert_with(Object::new);
        object.version += 1;
        object.foreign += 1;
        object.stamp = None;
    }

    /// A person puts an object back to what it was.
    pub(crate) fn put_back(&self, name: &str) {
        self.interfere(name);
        let mut objects = lock(&self.0.objects);
        if let Some(object) = objects.get_mut(name) {
            object.value = Object::new().value;
        }
    }

    fn object(&self, name: &str) -> Object {
        let mut objects = lock(&self.0.objects);
        let object = objects.entry(name.to_owned());
        object.or_insert_with(Object::new).clone()
    }

    /// Lands a request, if the object is still as its sender saw it.
    fn land(&self, request: Request) -> Result<(), Trouble> {
        let mut objects = lock(&self.0.objects);
        let object = objects.entry(request.object).or_insert_with(Object::new);
        if object.stamp.as_ref() == Some(&request.stamp) {
            return Ok(());
        }
        if object.version != request.expected {
            return Err(failed("drift", "the object was written meanwhile"));
        }
        self.0.witness.landed(request.effect);
        object.value = request.value;
        object.version += 1;
        object.stamp = Some(request.stamp);
        Ok(())
    }

    /// Sends a request: it lands now, later, or never, and the answer comes or does not.
    async fn send(&self, request: Request) -> Result<(), Trouble> {
        self.0.witness.begins(&request.effect);
        let chance = &self.0.chance;
        let scripted = *lock(&self.0.late);
        let storm = *self.0.storm.borrow();
        if scripted.is_none() && (!storm || !chance.one_in(8)) {
            tokio::time::sleep(chance.between(1, 60)).await;
            return self.land(request);
        }
        if scripted.is_none() && chance.one_in(3) {
            // Answered, to a sender that hears nothing of it.
            let _ = self.land(request);
        } else if scripted.is_some() || chance.one_in(2) {
            let by = scripted.unwrap_or_else(|| chance.between(500, 12_000));
            let cluster = self.clone();
            tokio::spawn(async move {
                tokio::time::sleep(by).await;
                // Whoever sent it is not there to hear.
                let _ = cluster.land(request);
            });
        }
        tokio::time::sleep(chance.between(200, 3_000)).await;
        Err(unanswered())
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The cluster as one process reaches it: what has ended gets no further.
pub(crate) struct Reached {
    cluster: Cluster,
    life: CancellationToken,
}

fn text(with: &Value, name: &str) -> String {
    let text = with.get(name).and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn writes(call: &Call) -> bool {
    call.action.effect() != Kind::Read
}

impl Reached {
    async fn travel(&self) -> Result<(), Trouble> {
        let shared = &self.cluster.0;
        let storm = *shared.storm.borrow();
        let longest = if storm && shared.chance.one_in(10) {
            2_500
        } else {
            20
        };
        let slow = *lock(&shared.slow);
        let pause = slow.unwrap_or_else(|| shared.chance.between(1, longest));
        tokio::time::sleep(pause).await;
        if self.life.is_cancelled() {
            std::future::pending::<()>().await;
        }
        if storm && shared.chance.one_in(30) {
            let failure = Failure::new("unavailable", "the API server is away");
            return Err(Trouble::Retriable { failure });
        }
        Ok(())
    }

    fn effect(&self, call: &Call, of: &aldis_agent::actions::Stamp) -> Effect {
        Effect {
            job: of.job.clone(),
            target: self.cluster.0.target.clone(),
            step: call.stamp.step.clone(),
            direction: call.stamp.direction,
            attempt: call.stamp.attempt,
        }
    }

    fn read(&self, call: &Call) -> Result<Value, Trouble> {
        let object = self.cluster.object(&text(&call.with, "deployment"));
        let broken = *lock(&self.cluster.0.broken);
        match call.action {
            Action::KubeWait if broken && object.value != "v1" => {
                Err(failed("noProgress", "its pods do not start"))
            }
            Action::KubeWait => Ok(json!({"ready": 3, "replicas": 3})),
            Action::HttpProbe => {
                let counters = [("samples".to_owned(), 20), ("errors".to_owned(), 0)];
                let counters = BTreeMap::from(counters);
                let mut outputs = Action::HttpProbe.outputs_from_counters(&counters);
                outputs["p95Ms"] = json!(4);
                Ok(outputs)
            }
            Action::KubeGet
            | Action::KubeResolveTemplate
            | Action::KubeRolloutUndo
            | Action::KubeSetImage => Ok(json!({"found": true})),
        }
    }
}

fn applied(stamp: &str) -> Applied {
    Applied {
        outputs: json!({}),
        changed: true,
        after: json!({ "stamp": stamp }),
    }
}

#[async_trait]
impl Actions for Reached {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        self.travel().await?;
        Ok(ClusterIdentity {
            cluster_uid: format!("uid-{}", self.cluster.0.target),
            ca_fingerprint: "story".to_owned(),
        })
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        self.travel().await?;
        let name = text(&call.with, "deployment");
        let object = self.cluster.object(&name);
        let writes = writes(call);
        let reference = ObjectRef {
            kind: "Deployment".to_owned(),
            namespace: text(&call.with, "namespace"),
            name,
        };
        let plan = StepPlan {
            step: call.stamp.step.clone(),
            action: call.action,
            with: Some(call.with.clone()),
            object: writes.then_some(reference),
            touched: writes.then(|| object.touched()),
            becomes: None,
            changes: writes,
            diff: Vec::new(),
            owners: Vec::new(),
            undo: if writes {
                Feasibility::Possible
            } else {
                Feasibility::NotNeeded
            },
            basis: Basis::Read,
            outputs: None,
        };
        Ok(Planned {
            plan,
            outputs: None,
            warnings: Vec::new(),
            unchanged: None,
        })
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        self.travel().await?;
        let object = self.cluster.object(&text(&call.with, "deployment"));
        let planned = call.planned.as_ref().and_then(|plan| plan.touched.clone());
        if planned.is_some_and(|planned| planned != object.touched()) {
            return Err(failed("drift", "somebody else wrote it since the plan"));
        }
        Ok(json!({"value": object.value, "version": object.version}))
    }

    async fn apply(&self, call: &Call, before: &Before, _: &Progress) -> Result<Applied, Trouble> {
        self.travel().await?;
        if !writes(call) {
            let outputs = self.read(call)?;
            return Ok(Applied {
                outputs,
                changed: false,
                after: Value::Null,
            });
        }
        let stamp = call.stamp.key();
        let request = Request {
            object: text(&call.with, "deployment"),
            value: text(&call.with, "image"),
            expected: before["version"].as_u64().unwrap_or_default(),
            stamp: stamp.clone(),
            effect: self.effect(call, &call.stamp),
        };
        self.cluster.send(request).await?;
        Ok(applied(&stamp))
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        self.travel().await?;
        if !writes(call) {
            return Ok(Observed::NotDone);
        }
        let object = self.cluster.object(&text(&call.with, "deployment"));
        let stamp = call.stamp.key();
        let fence = fence_of(&stamp);
        if object.stamp.as_ref() == Some(&stamp) {
            return Ok(Observed::Done(applied(&stamp)));
        }
        let fenced = object.stamp.as_ref() == Some(&fence);
        let as_before = |before: &Before| before["version"].as_u64() == Some(object.version);
        Ok(match before {
            None => Observed::NotDone,
            Some(before) if fenced || as_before(before) => Observed::NotDone,
            Some(_) => Observed::Indeterminate {
                evidence: vec!["somebody else wrote it meanwhile".to_owned()],
            },
        })
    }

    async fn fence(&self, call: &Call, _before: Option<&Before>) -> Result<(), Trouble> {
        self.travel().await?;
        if !writes(call) {
            return Ok(());
        }
        let name = text(&call.with, "deployment");
        let mut objects = lock(&self.cluster.0.objects);
        let object = objects.entry(name).or_insert_with(Object::new);
        if object.stamp.as_ref() != Some(&call.stamp.key()) {
            object.version += 1;
            object.stamp = Some(fence_of(&call.stamp.key()));
        }
        Ok(())
    }

    async fn undo(&self, call: &Call, effect: &Caused, _: &Progress) -> Result<(), Trouble> {
        self.travel().await?;
        if !writes(call) {
            return Ok(());
        }
        let name = text(&call.with, "deployment");
        let object = self.cluster.object(&name);
        let (key, back) = (effect.stamp.key(), call.stamp.key());
        if object.stamp.as_ref() == Some(&back) {
            return Ok(());
        }
        if object.stamp.as_ref() != Some(&key) {
            let never = object.value == text(&effect.before, "value");
            return match never {
                true => Ok(()),
                false => Err(failed("drift", "somebody else wrote it after the step")),
            };
        }
        let request = Request {
            object: name,
            value: text(&effect.before, "value"),
            expected: object.version,
            stamp: back,
            effect: self.effect(call, &effect.stamp),
        };
        self.cluster.send(request).await
    }
}

/// The stamp of whoever moved an object on, so that a request with this stamp cannot land.
fn fence_of(stamp: &str) -> String {
    format!("not {stamp}")
}
