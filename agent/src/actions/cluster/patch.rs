//! The requests that change a Deployment, as values. Pure; [`super::write`] sends them.
//!
//! Both are guarded by the `resourceVersion` that they were made from, so a request that was delayed on its way cannot
//! land after any other write, and the same request twice has one effect. What says who did it stands on the
//! Deployment's own metadata: in the pod template it would restart pods.

use serde_json::{Value, json};

use super::super::Stamp;
use super::deployment::{ATTEMPT, JOB, Live, MANAGER, STEP};

/// Label that only moves the object on. No decision reads it, and no selector selects Deployments. An annotation would
/// count as a change of the Deployment: its generation rises with those, and its ReplicaSets get copies.
const FENCE: &str = "aldis.dev/fence";

/// Media type of [`template`].
pub(super) const JSON_PATCH: &str = "application/json-patch+json";
/// Media type of [`fence`].
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

/// A write for real, or one that the server only tries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// For real.
    Real,
    /// A server-side dry run: validation, admission and rights are checked, nothing is stored.
    Dry,
}

impl Mode {
    /// The query of the request.
    pub(super) fn query(self) -> String {
        match self {
            Self::Real => format!("fieldManager={MANAGER}"),
            Self::Dry => format!("fieldManager={MANAGER}&dryRun=All"),
        }
    }
}

/// Replaces the whole pod template and stamps the Deployment: exact, so nothing of the old one is left in between.
pub(super) fn template(live: &Live, template: &Value, stamp: &Stamp) -> Value {
    let mut operations = guards(live);
    operations.push(json!({"op": "replace", "path": "/spec/template", "value": template}));
    operations.extend(stamps(live, stamp));
    Value::Array(operations)
}

/// Changes nothing that anybody reads. Its value holds the version that it was made from, so that a second one moves
/// the object on again.
pub(super) fn fence(live: &Live, stamp: &Stamp) -> Value {
    // 32 and a dot and at most 20: a label holds 63.
    let value = format!("{}.{}", stamp.key(), live.resource_version);
    json!({"metadata": {
        "uid": live.uid,
        "resourceVersion": live.resource_version,
        "labels": {FENCE: value},
    }})
}

fn guards(live: &Live) -> Vec<Value> {
    vec![
        json!({"op": "test", "path": "/metadata/uid", "value": live.uid}),
        json!({"op": "test", "path": "/metadata/resourceVersion", "value": live.resource_version}),
    ]
}

fn stamps(live: &Live, stamp: &Stamp) -> Vec<Value> {
    let values = [
        (JOB, stamp.job.as_str().to_owned()),
        (STEP, stamp.step.as_str().to_owned()),
        (ATTEMPT, stamp.key()),
    ];
    let parent = live
        .annotations
        .is_empty()
        .then(|| json!({"op": "add", "path": "/metadata/annotations", "value": {}}));
    let each = values.into_iter().map(|(name, value)| {
        let name = name.replace('~', "~0").replace('/', "~1");
        json!({"op": "add", "path": format!("/metadata/annotations/{name}"), "value": value})
    });
    parent.into_iter().chain(each).collect()
}

#[cfg(test)]
mod tests {
    use super::super::deployment::samples;
    use super::*;
    use aldis_core::ids::Attempt;
    use aldis_core::job::Direction;

    fn stamp() -> Stamp {
        Stamp {
            job: "j-1".into(),
            target: "eu-west/prod-1".parse().unwrap(),
            step: "rollback".into(),
            attempt: Attempt(1),
            direction: Direction::Forward,
        }
    }

    fn patched(object: &Value, change: &Value) -> Result<Value, json_patch::PatchError> {
        let patch: json_patch::Patch = serde_json::from_value(change.clone()).unwrap();
        let mut object = object.clone();
        json_patch::patch(&mut object, &patch)?;
        Ok(object)
    }

    #[test]
    fn the_template_is_replaced_whole_and_replicas_stay() {
        let live = samples::live("checkout:v2");
        let new = json!({"spec": {"containers": [{"name": "app", "image": "checkout:v1"}]}});
        let object = samples::deployment("checkout:v2");
        let after = patched(&object, &template(&live, &new, &stamp())).unwrap();
        assert_eq!(after["spec"]["template"], new);
        assert_eq!(after["spec"]["replicas"], object["spec"]["replicas"]);
        assert_eq!(after["metadata"]["annotations"][JOB], "j-1");
        assert_eq!(after["metadata"]["annotations"][STEP], "rollback");
        assert_eq!(after["metadata"]["annotations"][ATTEMPT], stamp().key());
    }

    #[test]
    fn another_version_or_another_object_of_the_name_is_not_touched() {
        let live = samples::live("a");
        let change = template(&live, &live.template, &stamp());
        for field in ["uid", "resourceVersion"] {
            let mut other = samples::deployment("a");
            other["metadata"][field] = json!("7");
            assert!(patched(&other, &change).is_err(), "{field}");
        }
    }

    #[test]
    fn a_deployment_without_annotations_gets_some() {
        let mut bare = samples::deployment("a");
        bare["metadata"]
            .as_object_mut()
            .unwrap()
            .remove("annotations");
        let live = Live::read(&bare).unwrap();
        let after = patched(&bare, &template(&live, &live.template, &stamp())).unwrap();
        assert_eq!(after["metadata"]["annotations"][JOB], "j-1");
    }

    #[test]
    fn a_fence_is_guarded_touches_only_its_annotation_and_moves_on_each_time() {
        let live = samples::live("a");
        let first = fence(&live, &stamp());
        assert_eq!(first["metadata"]["resourceVersion"], "100");
        let fields: Vec<_> = first.as_object().unwrap().keys().collect();
        assert_eq!(fields, ["metadata"]);
        let later = Live {
            resource_version: "101".to_owned(),
            ..live
        };
        let again = fence(&later, &stamp());
        assert_ne!(
            first["metadata"]["labels"][FENCE],
            again["metadata"]["labels"][FENCE]
        );
    }

    #[test]
    fn a_dry_run_says_so() {
        assert_eq!(Mode::Real.query(), "fieldManager=aldis");
        assert_eq!(Mode::Dry.query(), "fieldManager=aldis&dryRun=All");
    }
}
