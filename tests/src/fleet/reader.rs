//! Reads what happened to a Deployment, by itself: nothing here is shared with the agent, so that a test
//! which counts changes does not ask the one that made them.

use std::collections::BTreeMap;

use anyhow::Context;
use k8s_openapi::api::apps::v1::{Deployment, ReplicaSet};
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};

/// Where Kubernetes counts the changes of a template.
const REVISION: &str = "deployment.kubernetes.io/revision";

/// A Deployment and its history as they are now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Counts every change of what is wanted: of the template, of the number of pods, of a pause.
    pub generation: i64,
    /// Number of the current template.
    pub revision: u64,
    /// Images of the current template.
    pub images: Vec<String>,
    /// Pods that are available.
    pub available: i32,
    /// Every template that it ever had and Kubernetes still keeps, oldest first.
    pub history: Vec<Release>,
    /// Annotations of ours, `aldis.dev/…`, on the Deployment.
    pub marks: BTreeMap<String, String>,
    /// Who wrote to it, by field manager, sorted.
    pub managers: Vec<String>,
}

/// A ReplicaSet of a Deployment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Release {
    /// Its number. Going back to an older template gives that one a new number.
    pub revision: u64,
    /// Its images.
    pub images: Vec<String>,
    /// Pods that it should have.
    pub replicas: i32,
}

impl Seen {
    /// Reads one.
    pub async fn read(client: &Client, namespace: &str, name: &str) -> anyhow::Result<Self> {
        let deployment = Api::<Deployment>::namespaced(client.clone(), namespace)
            .get(name)
            .await
            .with_context(|| format!("read Deployment {namespace}/{name}"))?;
        let sets = Api::<ReplicaSet>::namespaced(client.clone(), namespace)
            .list(&ListParams::default())
            .await
            .with_context(|| format!("list ReplicaSets of {namespace}"))?;
        Ok(Self::of(&deployment, &sets.items))
    }

    fn of(deployment: &Deployment, sets: &[ReplicaSet]) -> Self {
        let uid = deployment.uid();
        let owned = |set: &&ReplicaSet| {
            let owners = set.owner_references();
            owners.iter().any(|owner| Some(&owner.uid) == uid.as_ref())
        };
        let mut history: Vec<Release> = sets.iter().filter(owned).map(Release::of).collect();
        history.sort_by_key(|release| release.revision);
        let mut managers: Vec<String> = deployment
            .managed_fields()
            .iter()
            .filter_map(|field| field.manager.clone())
            .collect();
        managers.sort();
        managers.dedup();
        let ours = |(key, _): &(&String, &String)| key.starts_with("aldis.dev/");
        Self {
            generation: deployment.metadata.generation.unwrap_or_default(),
            revision: revision(deployment.annotations()),
            images: deployment
                .spec
                .iter()
                .flat_map(|spec| images(&spec.template.spec))
                .collect(),
            available: deployment
                .status
                .as_ref()
                .and_then(|status| status.available_replicas)
                .unwrap_or_default(),
            history,
            marks: deployment
                .annotations()
                .iter()
                .filter(ours)
                .map(|(key, value)| (key.clone(), value.clone()))
                .collect(),
            managers,
        }
    }
}

impl Release {
    fn of(set: &ReplicaSet) -> Self {
        let spec = set.spec.as_ref();
        let template = spec.and_then(|spec| spec.template.as_ref());
        Self {
            revision: revision(set.annotations()),
            images: template.map_or_else(Vec::new, |template| images(&template.spec)),
            replicas: spec.and_then(|spec| spec.replicas).unwrap_or_default(),
        }
    }
}

fn revision(annotations: &BTreeMap<String, String>) -> u64 {
    let text = annotations.get(REVISION);
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

fn images(spec: &Option<k8s_openapi::api::core::v1::PodSpec>) -> Vec<String> {
    let containers = spec.iter().flat_map(|spec| &spec.containers);
    containers
        .map(|container| container.image.clone().unwrap_or_default())
        .collect()
}
