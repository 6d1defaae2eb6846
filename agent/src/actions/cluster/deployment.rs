//! What is read of a Deployment, and of its ReplicaSets: from JSON as the server sent it, so that a field that this
//! program does not know is put back with the rest. Pure.

use std::collections::BTreeMap;

use aldis_core::ids::Digest;
use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Selector;
use serde_json::Value;

use super::super::revisions::{History, Revision, hash};
use super::super::template::{Completeness, Seen};

/// Annotation: the job of the last effect.
pub(super) const JOB: &str = "aldis.dev/job";
/// Annotation: its step.
pub(super) const STEP: &str = "aldis.dev/step";
/// Annotation: its key.
pub(super) const ATTEMPT: &str = "aldis.dev/attempt";
/// Who we are in `managedFields`.
pub(super) const MANAGER: &str = "aldis";

/// The controller's number for what runs.
const REVISION: &str = "deployment.kubernetes.io/revision";
/// The controller's label on ReplicaSets and pods.
pub(super) const TEMPLATE_HASH: &str = "pod-template-hash";

/// A Deployment as it is at one moment.
#[derive(Clone, Debug)]
pub(super) struct Live {
    /// Namespace and name.
    pub(super) namespace: String,
    /// Its name.
    pub(super) name: String,
    /// It is another one when this differs.
    pub(super) uid: String,
    /// It was written when this differs.
    pub(super) resource_version: String,
    /// Its pod template, without what the server adds.
    pub(super) template: Value,
    /// Hash of that.
    pub(super) hash: Digest,
    /// Whether its rollout is held.
    pub(super) paused: bool,
    /// Number of the revision that runs; none before the controller has seen it.
    pub(super) revision: Option<i64>,
    /// Labels of its own.
    pub(super) labels: BTreeMap<String, String>,
    /// Annotations of its own.
    pub(super) annotations: BTreeMap<String, String>,
    /// Which pods are its.
    pub(super) selector: String,
    /// How far its rollout has come.
    pub(super) counts: Counts,
    /// Conditions that are not about progress only.
    pub(super) conditions: Vec<Condition>,
    /// Who wrote which part.
    pub(super) writers: Vec<Writer>,
    /// Objects that own it.
    pub(super) owned_by: Vec<OwnedBy>,
}

/// Numbers of its spec and status.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Counts {
    /// Wanted.
    pub(super) wanted: i64,
    /// All pods, old ones too.
    pub(super) total: i64,
    /// Of the template.
    pub(super) updated: i64,
    /// Ready.
    pub(super) ready: i64,
    /// Available.
    pub(super) available: i64,
    /// Whether the controller has seen the last change of the spec; before that the others mean nothing.
    pub(super) observed: bool,
}

/// One condition of the status.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Condition {
    /// Such as `Progressing`.
    pub(super) kind: String,
    /// `True`, `False`, `Unknown`.
    pub(super) status: String,
    /// Such as `ProgressDeadlineExceeded`.
    pub(super) reason: String,
    /// For people.
    pub(super) message: String,
}

/// One entry of `managedFields`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Writer {
    /// Such as `kubectl-edit`.
    pub(super) manager: String,
    /// When, as written by the server.
    pub(super) time: String,
    /// Whether it wrote anything in the pod template.
    pub(super) template: bool,
}

/// An owner reference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct OwnedBy {
    /// Such as `Rollout`.
    pub(super) kind: String,
    /// Its name.
    pub(super) name: String,
    /// Whether it manages what it owns, rather than only taking it along when it goes.
    pub(super) controller: bool,
}

/// A ReplicaSet of a Deployment: one revision.
#[derive(Clone, Debug)]
pub(super) struct ReplicaSet {
    /// Its UID, which its pods name as owner.
    pub(super) uid: String,
    /// Its name.
    pub(super) name: String,
    /// Number, template, time.
    pub(super) revision: Revision,
    /// The stamp that the Deployment carried when this revision was made or came back: the controller copies
    /// annotations.
    pub(super) key: Option<String>,
    /// Value of label `pod-template-hash`.
    pub(super) label: String,
}

impl Live {
    /// Reads an answer of the server; none where it is no Deployment.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let spec = object.get("spec")?;
        let template = normal(spec.get("template")?);
        let annotations = texts(metadata.get("annotations"));
        Some(Self {
            namespace: text(metadata, "namespace"),
            name: text(metadata, "name"),
            uid: text(metadata, "uid"),
            resource_version: text(metadata, "resourceVersion"),
            hash: hash(&template),
            template,
            paused: spec.get("paused").and_then(Value::as_bool) == Some(true),
            revision: number_of(&annotations),
            labels: texts(metadata.get("labels")),
            annotations,
            selector: selector(spec.get("selector")),
            counts: counts(object),
            conditions: conditions(object.get("status")),
            writers: writers(metadata),
            owned_by: owned_by(metadata),
        })
    }

    /// For messages.
    pub(super) fn object(&self) -> String {
        format!("Deployment {}/{}", self.namespace, self.name)
    }

    /// What decisions about effects are made on.
    pub(super) fn seen(&self) -> Seen {
        Seen {
            uid: self.uid.clone(),
            hash: self.hash.clone(),
            key: self.annotations.get(ATTEMPT).cloned(),
            changed_by: self.changed_by(),
        }
    }

    /// Who wrote the template last, and when.
    pub(super) fn changed_by(&self) -> String {
        let last = self
            .writers
            .iter()
            .filter(|writer| writer.template)
            .max_by_key(|writer| writer.time.as_str());
        let Some(last) = last else {
            return "nobody that its managedFields name".to_owned();
        };
        let job = self
            .annotations
            .get(JOB)
            .filter(|_| last.manager == MANAGER);
        match job {
            Some(job) => format!("aldis (job {job}) at {}", last.time),
            None => format!("{} at {}", last.manager, last.time),
        }
    }

    /// A condition by its type.
    pub(super) fn condition(&self, kind: &str) -> Option<&Condition> {
        self.conditions.iter().find(|found| found.kind == kind)
    }

    /// The revisions of it, with what runs.
    pub(super) fn history(&self, sets: &[ReplicaSet]) -> History {
        History {
            of: format!("{}/{}", self.namespace, self.name),
            current: self.template.clone(),
            revisions: sets.iter().map(|set| set.revision.clone()).collect(),
        }
    }

    /// The ReplicaSet of the template that is wanted: of two the newest.
    pub(super) fn current<'a>(&self, sets: &'a [ReplicaSet]) -> Option<&'a ReplicaSet> {
        sets.iter()
            .filter(|set| hash(&set.revision.template) == self.hash)
            .max_by_key(|set| set.revision.number)
    }

    /// Those of `sets` that it controls.
    pub(super) fn revisions(&self, sets: &[Value]) -> Vec<ReplicaSet> {
        sets.iter()
            .filter(|set| controlled_by(set, &self.uid))
            .filter_map(ReplicaSet::read)
            .collect()
    }
}

impl Counts {
    /// As `kubectl rollout status` has it: every wanted pod is of the template and available, and none is left over.
    pub(super) fn complete(&self) -> bool {
        self.observed
            && self.updated >= self.wanted
            && self.total <= self.updated
            && self.available >= self.updated
    }

    /// For the captured state.
    pub(super) fn completeness(&self) -> Completeness {
        Completeness {
            complete: self.complete(),
            updated: self.updated,
            available: self.available,
        }
    }

    /// For a line of progress.
    pub(super) fn sentence(&self) -> String {
        format!(
            "{} of {} pods updated, {} available",
            self.updated, self.wanted, self.available
        )
    }
}

impl ReplicaSet {
    fn read(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        let annotations = texts(metadata.get("annotations"));
        let template = object.pointer("/spec/template")?;
        Some(Self {
            uid: text(metadata, "uid"),
            name: text(metadata, "name"),
            revision: Revision {
                number: number_of(&annotations)?,
                template: normal(template),
                created: seconds(&text(metadata, "creationTimestamp")),
            },
            key: annotations.get(ATTEMPT).cloned(),
            label: text(
                metadata.get("labels").unwrap_or(&Value::Null),
                TEMPLATE_HASH,
            ),
        })
    }
}

/// A template as a person would write it: without the controller's label and without an empty time that some servers
/// add.
fn normal(template: &Value) -> Value {
    let mut template = template.clone();
    if let Some(metadata) = template.get_mut("metadata").and_then(Value::as_object_mut) {
        if metadata.get("creationTimestamp") == Some(&Value::Null) {
            metadata.remove("creationTimestamp");
        }
        if let Some(labels) = metadata.get_mut("labels").and_then(Value::as_object_mut) {
            labels.remove(TEMPLATE_HASH);
        }
    }
    template
}

/// Whether the object's controller has this UID.
pub(super) fn controlled_by(object: &Value, uid: &str) -> bool {
    let owners = object.pointer("/metadata/ownerReferences");
    owners
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|owner| owner["controller"] == true && owner["uid"] == uid)
}

/// A text of an object, empty where there is none.
pub(super) fn text(of: &Value, name: &str) -> String {
    of.get(name)
        .and_then(Value::as_str)
        .unwrap_or_default()
        .to_owned()
}

/// Seconds since 1970 of a time as the server writes it.
pub(super) fn seconds(time: &str) -> Option<i64> {
    time.parse::<Timestamp>().ok().map(Timestamp::as_second)
}

fn texts(of: Option<&Value>) -> BTreeMap<String, String> {
    of.and_then(Value::as_object)
        .into_iter()
        .flatten()
        .filter_map(|(name, value)| Some((name.clone(), value.as_str()?.to_owned())))
        .collect()
}

fn number_of(annotations: &BTreeMap<String, String>) -> Option<i64> {
    annotations.get(REVISION)?.parse().ok()
}

/// A selector that cannot be read selects nothing that we could mistake for its pods: owners are checked as well.
fn selector(of: Option<&Value>) -> String {
    let selector = of.and_then(|of| serde_json::from_value::<LabelSelector>(of.clone()).ok());
    selector
        .and_then(|selector| Selector::try_from(selector).ok())
        .map(|selector| selector.to_string())
        .unwrap_or_default()
}

fn counts(object: &Value) -> Counts {
    let number = |path: &str| object.pointer(path).and_then(Value::as_i64);
    let status = |name: &str| number(&format!("/status/{name}")).unwrap_or(0);
    Counts {
        wanted: number("/spec/replicas").unwrap_or(1),
        total: status("replicas"),
        updated: status("updatedReplicas"),
        ready: status("readyReplicas"),
        available: status("availableReplicas"),
        observed: status("observedGeneration") >= number("/metadata/generation").unwrap_or(0),
    }
}

/// The conditions in a status.
pub(super) fn conditions(status: Option<&Value>) -> Vec<Condition> {
    let conditions = status.and_then(|status| status.get("conditions")?.as_array());
    conditions
        .into_iter()
        .flatten()
        .map(|condition| Condition {
            kind: text(condition, "type"),
            status: text(condition, "status"),
            reason: text(condition, "reason"),
            message: text(condition, "message"),
        })
        .collect()
}

fn writers(metadata: &Value) -> Vec<Writer> {
    let entries = metadata.get("managedFields").and_then(Value::as_array);
    entries
        .into_iter()
        .flatten()
        .filter(|entry| entry["subresource"] != "status")
        .map(|entry| Writer {
            manager: text(entry, "manager"),
            time: text(entry, "time"),
            template: entry.pointer("/fieldsV1/f:spec/f:template").is_some(),
        })
        .collect()
}

fn owned_by(metadata: &Value) -> Vec<OwnedBy> {
    let owners = metadata.get("ownerReferences").and_then(Value::as_array);
    owners
        .into_iter()
        .flatten()
        .map(|owner| OwnedBy {
            kind: text(owner, "kind"),
            name: text(owner, "name"),
            controller: owner["controller"] == true,
        })
        .collect()
}

/// What the tests of this folder build on.
#[cfg(test)]
pub(super) mod samples {
    use super::*;
    use serde_json::json;

    /// `shop/checkout`, rolled out, with one container that runs `image`.
    pub(in super::super) fn deployment(image: &str) -> Value {
        json!({
            "metadata": {
                "namespace": "shop", "name": "checkout", "uid": "u-1",
                "resourceVersion": "100", "generation": 4,
                "labels": {"app": "checkout"},
                "annotations": {"deployment.kubernetes.io/revision": "2"},
                "managedFields": [
                    {"manager": "kubectl-create", "operation": "Update", "time": "2026-11-24T09:00:00Z",
                     "fieldsV1": {"f:spec": {"f:template": {"f:spec": {}}}}},
                    {"manager": "kubectl-set", "operation": "Update", "time": "2026-11-24T10:00:00Z",
                     "fieldsV1": {"f:spec": {"f:template": {"f:spec": {}}}}},
                    {"manager": "autoscaler", "operation": "Update", "time": "2026-11-24T12:00:00Z",
                     "fieldsV1": {"f:spec": {"f:replicas": {}}}},
                    {"manager": "kube-controller-manager", "operation": "Update", "subresource": "status",
                     "time": "2026-11-24T13:00:00Z", "fieldsV1": {"f:spec": {"f:template": {}}}},
                ],
            },
            "spec": {
                "replicas": 3,
                "selector": {"matchLabels": {"app": "checkout"}},
                "template": {
                    "metadata": {"creationTimestamp": null, "labels": {"app": "checkout"}},
                    "spec": {"containers": [{"name": "app", "image": image}], "newField": 7},
                },
            },
            "status": {
                "observedGeneration": 4, "replicas": 3, "updatedReplicas": 3,
                "readyReplicas": 3, "availableReplicas": 3,
            },
        })
    }

    /// The same, read.
    pub(in super::super) fn live(image: &str) -> Live {
        Live::read(&deployment(image)).expect("a Deployment")
    }

    /// Its ReplicaSet of that image.
    pub(in super::super) fn replica_set(image: &str, number: i64, key: Option<&str>) -> Value {
        let mut set = deployment(image);
        set["metadata"] = json!({
            "name": format!("checkout-{number}"), "uid": format!("rs-{number}"),
            "creationTimestamp": "2026-11-24T09:00:00Z",
            "labels": {"app": "checkout", "pod-template-hash": format!("h{number}")},
            "annotations": {"deployment.kubernetes.io/revision": number.to_string()},
            "ownerReferences": [{"kind": "Deployment", "name": "checkout", "uid": "u-1", "controller": true}],
        });
        set["spec"]["template"]["metadata"]["labels"]["pod-template-hash"] =
            json!(format!("h{number}"));
        if let Some(key) = key {
            set["metadata"]["annotations"][ATTEMPT] = json!(key);
        }
        set
    }
}

#[cfg(test)]
mod tests {
    use super::samples::*;
    use super::*;
    use serde_json::json;

    #[test]
    fn a_revision_has_the_hash_of_the_deployment_that_made_it() {
        let live = live("checkout:v1");
        let sets = live.revisions(&[
            replica_set("checkout:v0", 1, None),
            replica_set("checkout:v1", 2, Some("k")),
        ]);
        let current = live.current(&sets).expect("found");
        assert_eq!(
            (current.name.as_str(), current.label.as_str()),
            ("checkout-2", "h2")
        );
        assert_eq!(current.key.as_deref(), Some("k"));
        assert_eq!(live.history(&sets).current_number(), Some(2));
    }

    #[test]
    fn fields_that_nobody_here_knows_are_kept() {
        assert_eq!(live("a").template["spec"]["newField"], 7);
    }

    #[test]
    fn a_replica_set_of_somebody_else_is_no_revision() {
        let mut set = replica_set("checkout:v1", 2, None);
        set["metadata"]["ownerReferences"][0]["uid"] = json!("u-2");
        assert!(live("checkout:v1").revisions(&[set]).is_empty());
    }

    #[test]
    fn the_last_writer_of_the_template_is_named() {
        assert_eq!(
            live("a").changed_by(),
            "kubectl-set at 2026-11-24T10:00:00Z"
        );
        let mut ours = deployment("a");
        ours["metadata"]["managedFields"][1]["manager"] = json!("aldis");
        ours["metadata"]["annotations"][JOB] = json!("j-7");
        assert_eq!(
            Live::read(&ours).unwrap().changed_by(),
            "aldis (job j-7) at 2026-11-24T10:00:00Z"
        );
        ours["metadata"]["managedFields"] = json!([]);
        assert!(
            Live::read(&ours)
                .unwrap()
                .changed_by()
                .starts_with("nobody")
        );
    }

    #[test]
    fn complete_means_seen_updated_available_and_none_left_over() {
        let complete = live("a").counts;
        assert!(complete.complete());
        for other in [
            Counts {
                observed: false,
                ..complete
            },
            Counts {
                updated: 2,
                ..complete
            },
            Counts {
                total: 4,
                ..complete
            },
            Counts {
                available: 2,
                ..complete
            },
        ] {
            assert!(!other.complete(), "{other:?}");
        }
        let none = Counts {
            observed: true,
            ..Counts::default()
        };
        assert!(none.complete(), "nothing wanted, nothing there");
    }

    #[test]
    fn a_selector_is_written_as_the_server_reads_it() {
        let selector = selector(Some(&json!({
            "matchLabels": {"app": "checkout"},
            "matchExpressions": [{"key": "tier", "operator": "In", "values": ["a", "b"]}],
        })));
        assert!(selector.contains("app=checkout"), "{selector}");
        assert!(selector.contains("tier in (a,b)"), "{selector}");
    }
}
