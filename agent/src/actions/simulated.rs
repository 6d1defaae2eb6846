//! A practice cluster: Deployments in memory, for `aldis dev --simulate` and for tests with a thousand agents.
//!
//! It keeps the law of [`Actions`] with the same decisions as a real cluster ([`super::template`]) and nothing else: no
//! network, no clock, no randomness. Without a file ([`Simulated::kept_in`]) it forgets everything when its process ends.
//!
//! | image tag holds | then |
//! |---|---|
//! | `broken` | its pods never start; the ones before it go on serving |
//! | `bad` | it starts, and every request to it fails |
//!
//! Each begins with Deployment `shop/checkout`, which went from `v2.17.4` to `v2.18.0`.

mod kept;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_core::action::{Action, inputs};
use aldis_core::canonical;
use aldis_core::ids::{Digest, TargetName};
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::plan::part::{Basis, Feasibility};
use aldis_core::plan::{ClusterIdentity, ObjectRef};
use async_trait::async_trait;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::planned::{self, WriteFacts};
use super::revisions::{History, Revision, hash};
use super::template::{self, Change, Completeness, Seen, WayBack};
use super::{
    Actions, Applied, Before, Call, Effect, Observed, Planned, Progress, Trouble, images,
    inputs as input, redact, rollout_undo, set_image,
};

/// One practice cluster.
pub struct Simulated {
    target: TargetName,
    /// How long a rollout takes. Zero in tests.
    pace: Duration,
    deployments: Mutex<Deployments>,
    /// Where they are written after each change.
    file: Option<PathBuf>,
}

type Deployments = BTreeMap<(String, String), Deployment>;

/// What a practice cluster knows of one Deployment.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Deployment {
    uid: String,
    replicas: i64,
    template: Value,
    /// The template whose pods are up.
    serving: Value,
    revisions: Vec<Revision>,
    /// Stamp of the last effect.
    key: Option<String>,
    changed_by: String,
    /// Template changes since the beginning.
    writes: u64,
}

/// The Deployment that a call is about.
struct Place {
    namespace: String,
    name: String,
}

impl Place {
    fn of(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }

    fn object(&self) -> String {
        format!("Deployment {}/{}", self.namespace, self.name)
    }
}

impl Simulated {
    /// The practice cluster of `target`, with `shop/checkout` in it.
    pub fn new(target: TargetName, pace: Duration) -> Self {
        let cluster = Self {
            target,
            pace,
            deployments: Mutex::default(),
            file: None,
        };
        cluster.create(
            "shop",
            "checkout",
            &["checkout:v2.17.4", "checkout:v2.18.0"],
        );
        cluster
    }

    /// The same, as `file` has it: made there the first time, and written after each change, so that it outlives an
    /// agent that is killed, as a real cluster does.
    pub fn kept_in(target: TargetName, pace: Duration, file: &Path) -> std::io::Result<Self> {
        let mut cluster = Self::new(target, pace);
        cluster.file = Some(file.to_owned());
        if let Some(kept) = kept::read(file)? {
            cluster.deployments = Mutex::new(kept);
        } else {
            kept::write(file, &cluster.lock())?;
        }
        Ok(cluster)
    }

    /// Adds a Deployment that ran each of `images` in turn and runs the last.
    pub fn create(&self, namespace: &str, name: &str, images: &[&str]) {
        let templates: Vec<Value> = images
            .iter()
            .map(|image| json!({"spec": {"containers": [{"name": name, "image": image}]}}))
            .collect();
        self.create_from(namespace, name, &templates);
    }

    /// The same with whole pod templates.
    pub fn create_from(&self, namespace: &str, name: &str, templates: &[Value]) {
        let mut deployment = Deployment {
            uid: self.made_up(&["deployment", namespace, name]),
            replicas: 3,
            template: Value::Null,
            serving: Value::Null,
            revisions: Vec::new(),
            key: None,
            changed_by: "the practice cluster".to_owned(),
            writes: 0,
        };
        for template in templates {
            deployment.put(template.clone(), "the practice cluster");
        }
        deployment.writes = 0;
        let mut deployments = self.lock();
        deployments.insert((namespace.to_owned(), name.to_owned()), deployment);
        self.keep(&deployments);
    }

    /// Changes an image as somebody else would. False where there is no such Deployment.
    pub fn interfere(&self, namespace: &str, name: &str, image: &str, who: &str) -> bool {
        let mut deployments = self.lock();
        let key = (namespace.to_owned(), name.to_owned());
        let Some(deployment) = deployments.get_mut(&key) else {
            return false;
        };
        let mut template = deployment.template.clone();
        template["spec"]["containers"][0]["image"] = json!(image);
        deployment.put(template, who);
        self.keep(&deployments);
        true
    }

    /// The image that a Deployment wants to run.
    pub fn image(&self, namespace: &str, name: &str) -> Option<String> {
        let found = self.find(&Place::of(namespace, name)).ok()?;
        Some(images::first(&found.template))
    }

    /// How often its template was changed since it was made: what counts effects.
    pub fn writes(&self, namespace: &str, name: &str) -> Option<u64> {
        let found = self.find(&Place::of(namespace, name)).ok()?;
        Some(found.writes)
    }

    /// Writes everything down, where it is kept.
    fn keep(&self, deployments: &Deployments) {
        if let Some(file) = &self.file
            && let Err(error) = kept::write(file, deployments)
        {
            tracing::warn!(%error, "the practice cluster is not kept");
        }
    }

    fn lock(&self) -> MutexGuard<'_, Deployments> {
        self.deployments
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    /// An id that is the same in each run.
    fn made_up(&self, parts: &[&str]) -> String {
        let target = self.target.to_string();
        let parts: Vec<_> = [&["simulated", &target], parts].concat();
        let parts: Vec<_> = parts.iter().map(|part| part.as_bytes()).collect();
        format!("simulated-{}", canonical::hash_parts(&parts).short())
    }

    fn find(&self, place: &Place) -> Result<Deployment, Failure> {
        let deployments = self.lock();
        let key = (place.namespace.clone(), place.name.clone());
        deployments.get(&key).cloned().ok_or_else(|| {
            let names: Vec<_> = deployments
                .keys()
                .map(|(namespace, name)| format!("{namespace}/{name}"))
                .collect();
            Failure::new("notFound", format!("{} does not exist", place.object()))
                .with_evidence(vec![format!("there is {}", names.join(", "))])
        })
    }

    /// The Deployment that `call` writes, with the change that it means now.
    fn change(&self, call: &Call) -> Result<(Place, Deployment, Change), Trouble> {
        let (place, found) = self.written(call)?;
        let change = match call.action {
            Action::KubeRolloutUndo => {
                rollout_undo::change(&found.history(&place), &input::read(call)?)
            }
            Action::KubeSetImage => set_image::change(&found.template, &input::read(call)?),
            Action::KubeGet
            | Action::KubeResolveTemplate
            | Action::KubeWait
            | Action::HttpProbe => Err(input::reads_only(call)),
        };
        Ok((place, found, change.map_err(Trouble::refused)?))
    }

    fn written(&self, call: &Call) -> Result<(Place, Deployment), Trouble> {
        let (namespace, name) = input::written(call)?;
        let place = Place { namespace, name };
        let found = self.find(&place).map_err(Trouble::refused)?;
        Ok((place, found))
    }

    /// What a reading says right now.
    fn read(&self, call: &Call) -> Result<Value, Trouble> {
        let outputs = match call.action {
            Action::KubeGet => {
                let with: inputs::KubeGet = input::read(call)?;
                match self.find(&Place::of(&with.namespace, &with.name)) {
                    Ok(found) => found.facts(),
                    Err(_) => input::absent(),
                }
            }
            Action::KubeResolveTemplate => {
                let with: inputs::KubeResolveTemplate = input::read(call)?;
                let place = Place::of(&with.namespace, &with.deployment);
                let history = self.find(&place).map_err(Trouble::refused)?.history(&place);
                let chosen = history.choose(&with.to).map_err(Trouble::refused)?;
                json!({
                    "revision": chosen.number,
                    "image": images::first(&chosen.template),
                    "ageSeconds": 86_400,
                    "missing": [],
                    "unknown": [],
                })
            }
            Action::KubeWait => {
                let with: inputs::KubeWait = input::read(call)?;
                let place = Place::of(&with.namespace, &with.deployment);
                let found = self.find(&place).map_err(Trouble::refused)?;
                let expected = call.left.as_ref();
                found
                    .rolled_out(&place, expected)
                    .map_err(Trouble::refused)?
            }
            Action::HttpProbe => {
                let with: inputs::HttpProbe = input::read(call)?;
                let place = Place::of(&with.namespace, &with.service);
                let found = self.find(&place).map_err(Trouble::refused)?;
                found.probe(with.samples)
            }
            Action::KubeRolloutUndo | Action::KubeSetImage => Value::Null,
        };
        Ok(outputs)
    }

    /// Puts `template` in place, if the Deployment is still `expected`.
    fn put(
        &self,
        place: &Place,
        expected: &Deployment,
        template: &Value,
        call: &Call,
    ) -> Result<(), Failure> {
        let mut deployments = self.lock();
        let key = (place.namespace.clone(), place.name.clone());
        match deployments.get_mut(&key) {
            Some(live) if live.uid == expected.uid && live.template == expected.template => {
                live.put(template.clone(), "aldis");
                live.key = Some(call.stamp.key());
                self.keep(&deployments);
                Ok(())
            }
            Some(_) | None => {
                let cause = format!("{} changed while it was written", place.object());
                Err(Failure::new("drift", cause))
            }
        }
    }
}

impl Deployment {
    fn put(&mut self, template: Value, who: &str) {
        let number = self.revisions.iter().map(|r| r.number).max().unwrap_or(0) + 1;
        // As the real controller does it, a template that is there already moves to the front.
        self.revisions.retain(|r| r.template != template);
        self.revisions.push(Revision {
            number,
            template: template.clone(),
            created: None,
        });
        if !tag_holds(&template, "broken") {
            self.serving = template.clone();
        }
        self.template = template;
        self.changed_by = who.to_owned();
        self.writes += 1;
    }

    fn history(&self, place: &Place) -> History {
        History {
            of: format!("{}/{}", place.namespace, place.name),
            current: self.template.clone(),
            revisions: self.revisions.clone(),
        }
    }

    fn seen(&self) -> Seen {
        Seen {
            uid: self.uid.clone(),
            hash: hash(&self.template),
            key: self.key.clone(),
            changed_by: self.changed_by.clone(),
        }
    }

    fn complete(&self) -> bool {
        self.serving == self.template
    }

    fn rollout(&self) -> Completeness {
        Completeness {
            complete: self.complete(),
            updated: if self.complete() { self.replicas } else { 1 },
            available: self.replicas,
        }
    }

    fn facts(&self) -> Value {
        json!({
            "found": true,
            "images": images::of_template(&self.template),
            "replicas": self.replicas,
            "ready": self.replicas,
            "revision": self.revisions.iter().map(|r| r.number).max(),
            "paused": false,
        })
    }

    fn rolled_out(&self, place: &Place, expected: Option<&Digest>) -> Result<Value, Failure> {
        if let Some(expected) = expected
            && *expected != hash(&self.template)
        {
            let by = &self.changed_by;
            return Err(template::changed_since(&place.object(), by));
        }
        if self.complete() {
            return Ok(json!({"ready": self.replicas, "replicas": self.replicas}));
        }
        let image = images::first(&self.template);
        let pod = format!("{}-{}-0", place.name, hash(&self.template).short());
        let cause = format!(
            "{} cannot start: ImagePullBackOff in pod {pod}",
            place.object()
        );
        Err(Failure::new("noProgress", cause).with_evidence(vec![
            format!("pod {pod}: ImagePullBackOff: image {image} not found"),
            format!("1 of {} pods updated (practice cluster)", self.replicas),
        ]))
    }

    fn probe(&self, samples: u32) -> Value {
        let errors = if tag_holds(&self.serving, "bad") {
            samples
        } else {
            0
        };
        let counters = BTreeMap::from([
            ("samples".to_owned(), u64::from(samples)),
            ("errors".to_owned(), u64::from(errors)),
        ]);
        let mut outputs = Action::HttpProbe.outputs_from_counters(&counters);
        outputs["p95Ms"] = json!(4);
        outputs
    }
}

/// Nothing in a practice cluster is secret.
fn key() -> redact::Key {
    redact::Key::new([0; 32])
}

fn tag_holds(template: &Value, word: &str) -> bool {
    images::of_template(template)
        .iter()
        .any(|image| images::short(image).contains(word))
}

#[async_trait]
impl Actions for Simulated {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        Ok(ClusterIdentity {
            cluster_uid: self.made_up(&["cluster"]),
            ca_fingerprint: "simulated".to_owned(),
        })
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        match call.action {
            Action::KubeRolloutUndo | Action::KubeSetImage => {
                let (place, found, change) = self.change(call)?;
                let diff = match &change.unchanged {
                    None => redact::diff(&found.template, &change.template, &key()),
                    Some(_) => Vec::new(),
                };
                let facts = WriteFacts {
                    object: ObjectRef {
                        kind: "Deployment".to_owned(),
                        namespace: place.namespace,
                        name: place.name,
                    },
                    touched: key().sealed(&hash(&found.template)),
                    becomes: key().sealed(&hash(&change.template)),
                    diff,
                    owners: Vec::new(),
                    basis: Basis::DryRun,
                    undo: Feasibility::Possible,
                    warnings: Vec::new(),
                };
                Ok(planned::write(call, &change, facts))
            }
            Action::KubeGet | Action::KubeResolveTemplate => {
                Ok(planned::read(call, Some(self.read(call)?), Vec::new()))
            }
            Action::KubeWait | Action::HttpProbe => Ok(planned::read(call, None, Vec::new())),
        }
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        if !input::writes(call) {
            return Ok(Value::Null);
        }
        let (place, found, change) = self.change(call)?;
        let seen = found.seen();
        template::as_planned(call, &place.object(), &seen, &change, &key())
            .map_err(Trouble::refused)?;
        let before = template::Before {
            uid: found.uid.clone(),
            hash: seen.hash,
            rollout: found.rollout(),
            after: hash(&change.template),
            template: found.template,
            change,
            key: call.stamp.key(),
        };
        Ok(before.write())
    }

    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble> {
        if !input::writes(call) {
            if call.action == Action::KubeWait {
                tokio::time::sleep(self.pace).await;
            }
            return Ok(Applied {
                outputs: self.read(call)?,
                changed: false,
                after: Value::Null,
            });
        }
        let before = template::Before::read(before)?;
        let (place, found) = self.written(call)?;
        let seen = found.seen();
        let done = seen.key.as_deref() == Some(&before.key);
        if !done && before.change.unchanged.is_none() {
            if seen.uid != before.uid || seen.hash != before.hash {
                let failure = template::drift(&place.object(), &before.hash, &seen, &key());
                return Err(Trouble::refused(failure));
            }
            self.put(&place, &found, &before.change.template, call)
                .map_err(Trouble::refused)?;
            progress.say(format!(
                "{}: template replaced (practice cluster)",
                place.object()
            ));
        }
        Ok(before.applied(&before.after))
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        if !input::writes(call) {
            return Ok(Observed::NotDone);
        }
        let (_, found) = self.written(call)?;
        let key = call.stamp.key();
        let Some(before) = before else {
            return Ok(template::observe_without_before(&found.seen(), &key));
        };
        let before = template::Before::read(before)?;
        Ok(match call.stamp.direction {
            Direction::Forward => before.observe(&found.seen(), &key),
            Direction::Undo => before.observe_undo(&found.seen(), &key, None),
        })
    }

    /// Every effect happens within one call under one lock: nothing can be on its way.
    async fn fence(&self, _call: &Call, _before: Option<&Before>) -> Result<(), Trouble> {
        Ok(())
    }

    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble> {
        if !input::writes(call) {
            return Ok(());
        }
        let before = template::Before::read(&effect.before)?;
        let (place, found) = self.written(call)?;
        let after = template::after_hash(effect.after.as_ref());
        let way = before
            .way_back(&place.object(), &found.seen(), after.as_ref())
            .map_err(Trouble::refused)?;
        if way == WayBack::Send {
            self.put(&place, &found, &before.template, call)
                .map_err(Trouble::refused)?;
            progress.say(format!(
                "{}: template put back (practice cluster)",
                place.object()
            ));
            tokio::time::sleep(self.pace).await;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::Stamp;
    use aldis_core::ids::Attempt;

    fn cluster() -> Simulated {
        Simulated::new("eu-west/prod-1".parse().unwrap(), Duration::ZERO)
    }

    fn call(action: Action, with: Value) -> Call {
        Call {
            action,
            with,
            stamp: Stamp {
                job: "j-1".into(),
                target: "eu-west/prod-1".parse().unwrap(),
                step: "step".into(),
                attempt: Attempt(1),
                direction: Direction::Forward,
            },
            planned: None,
            left: None,
            timeout: Duration::from_secs(5),
        }
    }

    fn rollback() -> Call {
        call(
            Action::KubeRolloutUndo,
            json!({"deployment": "checkout", "namespace": "shop", "from": "v2.18.0", "to": "previous"}),
        )
    }

    fn set(image: &str) -> Call {
        call(
            Action::KubeSetImage,
            json!({"deployment": "checkout", "namespace": "shop", "image": image}),
        )
    }

    fn wait() -> Call {
        call(
            Action::KubeWait,
            json!({"deployment": "checkout", "namespace": "shop", "for": "rolledOut"}),
        )
    }

    async fn run(cluster: &Simulated, call: &Call) -> Result<(Before, Applied), Trouble> {
        let before = cluster.capture(call).await?;
        let applied = cluster.apply(call, &before, &Progress::none()).await?;
        Ok((before, applied))
    }

    fn back(call: &Call) -> Call {
        let mut back = call.clone();
        back.stamp.direction = Direction::Undo;
        back
    }

    fn effect(call: &Call, before: &Before, applied: &Applied) -> Effect {
        Effect {
            stamp: call.stamp.clone(),
            before: before.clone(),
            after: Some(applied.after.clone()),
        }
    }

    fn failure(trouble: Trouble) -> Failure {
        match trouble {
            Trouble::Failed { failure, .. } => failure,
            other @ (Trouble::Unknown { .. } | Trouble::Retriable { .. }) => panic!("{other:?}"),
        }
    }

    #[tokio::test]
    async fn a_plan_says_what_would_change_and_changes_nothing() {
        let cluster = cluster();
        let planned = cluster.plan(&rollback()).await.unwrap();
        assert!(planned.plan.changes);
        assert_eq!(planned.plan.diff[0].to.as_deref(), Some("checkout:v2.17.4"));
        assert_eq!(cluster.writes("shop", "checkout"), Some(0));
    }

    #[tokio::test]
    async fn the_same_call_twice_has_one_effect() {
        let cluster = cluster();
        let (before, first) = run(&cluster, &rollback()).await.unwrap();
        let again = cluster.apply(&rollback(), &before, &Progress::none()).await;
        assert_eq!(again, Ok(first));
        assert_eq!(cluster.writes("shop", "checkout"), Some(1));
        assert_eq!(
            cluster.image("shop", "checkout").as_deref(),
            Some("checkout:v2.17.4")
        );
    }

    #[tokio::test]
    async fn an_effect_is_found_again_and_put_back_once() {
        let cluster = cluster();
        let call = rollback();
        let before = cluster.capture(&call).await.unwrap();
        assert_eq!(
            cluster.observe(&call, Some(&before)).await,
            Ok(Observed::NotDone)
        );
        let applied = cluster
            .apply(&call, &before, &Progress::none())
            .await
            .unwrap();
        let observed = cluster.observe(&call, Some(&before)).await;
        assert_eq!(observed, Ok(Observed::Done(applied.clone())));
        for _ in 0..2 {
            cluster
                .undo(
                    &back(&call),
                    &effect(&call, &before, &applied),
                    &Progress::none(),
                )
                .await
                .unwrap();
        }
        assert_eq!(cluster.writes("shop", "checkout"), Some(2));
        assert_eq!(
            cluster.image("shop", "checkout").as_deref(),
            Some("checkout:v2.18.0")
        );
    }

    #[tokio::test]
    async fn what_somebody_else_changed_is_neither_overwritten_nor_put_back() {
        let cluster = cluster();
        let planned = cluster.plan(&rollback()).await.unwrap();
        let call = Call {
            planned: Some(planned.plan),
            ..rollback()
        };
        let (before, applied) = run(&cluster, &call).await.unwrap();
        assert!(cluster.interfere("shop", "checkout", "checkout:hotfix", "mei"));
        let refused = failure(cluster.capture(&call).await.unwrap_err());
        assert_eq!(refused.kind, "drift");
        let stuck = cluster
            .undo(
                &back(&call),
                &effect(&call, &before, &applied),
                &Progress::none(),
            )
            .await;
        assert!(failure(stuck.unwrap_err()).cause.contains("by mei"));
        assert_eq!(
            cluster.image("shop", "checkout").as_deref(),
            Some("checkout:hotfix")
        );
    }

    #[tokio::test]
    async fn a_broken_release_never_gets_ready_and_the_old_pods_serve_on() {
        let cluster = cluster();
        run(&cluster, &set("checkout:v3-broken")).await.unwrap();
        let failure = failure(run(&cluster, &wait()).await.unwrap_err());
        assert_eq!(failure.kind, "noProgress");
        assert!(failure.cause.contains("ImagePullBackOff"), "{failure}");
        let probe = call(
            Action::HttpProbe,
            json!({"service": "checkout", "namespace": "shop", "port": 8080, "path": "/"}),
        );
        let (_, read) = run(&cluster, &probe).await.unwrap();
        assert_eq!(read.outputs["errorRate"], 0.0);
    }

    #[tokio::test]
    async fn a_bad_release_starts_and_fails_its_probes() {
        let cluster = cluster();
        run(&cluster, &set("checkout:v3-bad")).await.unwrap();
        run(&cluster, &wait()).await.unwrap();
        let probe = call(
            Action::HttpProbe,
            json!({"service": "checkout", "namespace": "shop", "port": 8080, "path": "/", "samples": 10}),
        );
        let (_, read) = run(&cluster, &probe).await.unwrap();
        assert_eq!(read.outputs["errors"], 10);
        assert_eq!(read.outputs["ok"], false);
    }

    #[tokio::test]
    async fn outputs_are_the_declared_ones() {
        let cluster = cluster();
        let calls = [
            rollback(),
            set("checkout:v9"),
            wait(),
            call(
                Action::KubeGet,
                json!({"kind": "Deployment", "namespace": "shop", "name": "checkout"}),
            ),
            call(
                Action::KubeResolveTemplate,
                json!({"deployment": "checkout", "namespace": "shop", "to": "previous"}),
            ),
            call(
                Action::HttpProbe,
                json!({"service": "checkout", "namespace": "shop", "port": 8080, "path": "/"}),
            ),
        ];
        for call in calls {
            let (_, applied) = run(&cluster, &call).await.unwrap();
            let declared: Vec<_> = call.action.outputs().iter().map(|o| o.name).collect();
            let mut given: Vec<_> = applied.outputs.as_object().unwrap().keys().collect();
            given.sort();
            let mut wanted = declared.clone();
            wanted.sort_unstable();
            assert_eq!(given, wanted, "{}", call.action);
        }
    }

    #[tokio::test]
    async fn a_deployment_that_does_not_exist_is_answered_with_those_that_do() {
        let mut call = rollback();
        call.with["deployment"] = json!("chekout");
        let failure = failure(cluster().plan(&call).await.unwrap_err());
        assert_eq!(failure.cause, "Deployment shop/chekout does not exist");
        assert_eq!(failure.evidence, ["there is shop/checkout"]);
    }
}
