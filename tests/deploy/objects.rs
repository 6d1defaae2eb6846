//! Rendered manifests as the objects that they claim to be. A field that Kubernetes does not know would be dropped by
//! some clients and refused by others, so one that gets lost on the way through its type is a mistake.

use anyhow::Context;
use k8s_openapi::api::apps::v1::StatefulSet;
use k8s_openapi::api::core::v1::{ConfigMap, Service, ServiceAccount};
use k8s_openapi::api::networking::v1::NetworkPolicy;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

/// Every object of a text of several documents.
pub(crate) fn read(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("read the manifests")?;
    let objects: Vec<Value> = documents
        .into_iter()
        .filter(|found| !found.is_null())
        .collect();
    for object in &objects {
        check(object)
            .with_context(|| format!("{} {}", object["kind"], object["metadata"]["name"]))?;
    }
    Ok(objects)
}

/// The objects of a kind.
pub(crate) fn of_kind<'a>(objects: &'a [Value], kind: &str) -> Vec<&'a Value> {
    objects
        .iter()
        .filter(|object| object["kind"] == kind)
        .collect()
}

fn check(object: &Value) -> anyhow::Result<()> {
    match object["kind"].as_str().unwrap_or_default() {
        "ClusterRole" => whole::<ClusterRole>(object),
        "ClusterRoleBinding" => whole::<ClusterRoleBinding>(object),
        "ConfigMap" => whole::<ConfigMap>(object),
        "NetworkPolicy" => whole::<NetworkPolicy>(object),
        "PodDisruptionBudget" => whole::<PodDisruptionBudget>(object),
        "Role" => whole::<Role>(object),
        "RoleBinding" => whole::<RoleBinding>(object),
        "Service" => whole::<Service>(object),
        "ServiceAccount" => whole::<ServiceAccount>(object),
        "StatefulSet" => whole::<StatefulSet>(object),
        other => anyhow::bail!("no chart of ours makes a `{other}`"),
    }
}

fn whole<T: DeserializeOwned + Serialize>(object: &Value) -> anyhow::Result<()> {
    let typed: T = serde_json::from_value(object.clone())?;
    let mut lost = Vec::new();
    compare("", object, &serde_json::to_value(typed)?, &mut lost);
    anyhow::ensure!(
        lost.is_empty(),
        "Kubernetes does not know {}",
        lost.join(", ")
    );
    Ok(())
}

fn compare(at: &str, written: &Value, kept: &Value, lost: &mut Vec<String>) {
    match (written, kept) {
        (Value::Object(written), Value::Object(kept)) => {
            for (key, value) in written {
                let at = format!("{at}.{key}");
                match kept.get(key) {
                    Some(kept) => compare(&at, value, kept, lost),
                    // An empty list or mapping says nothing, and its type may leave it out.
                    None if is_empty(value) => {}
                    None => lost.push(at),
                }
            }
        }
        (Value::Array(written), Value::Array(kept)) => {
            for (index, (written, kept)) in written.iter().zip(kept).enumerate() {
                compare(&format!("{at}[{index}]"), written, kept, lost);
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Null => true,
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.is_empty(),
        Value::Bool(_) | Value::Number(_) | Value::String(_) => false,
    }
}

#[test]
fn a_field_that_kubernetes_does_not_know_is_a_mistake() {
    let text = "apiVersion: v1\nkind: Service\nmetadata: {name: a}\nspec: {selectr: {a: b}}\n";
    let error = format!("{:#}", read(text).unwrap_err());
    assert!(error.contains(".spec.selectr"), "{error}");
}
