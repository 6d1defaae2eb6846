//! What Prometheus scrapes: a file that follows the shop's pods in every cluster.
//!
//! A pod is in the file from the moment it has an address until it is told to end. It is scraped whether it is
//! ready or not: a release that is never ready is what somebody will want to see.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use aldis_core::ids::TargetName;
use aldis_shop::release::Release;
use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::runtime::reflector::{self, ObjectRef, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use serde_json::{Value, json};
use tokio_util::task::AbortOnDropHandle;

use crate::fleet::cluster::{self, Cluster};
use crate::fleet::folder::Folder;
use crate::fleet::nodes::Nodes;

/// Pods that have a `/metrics`: the shop's label, whatever the application is called.
const SHOP: &str = "app.kubernetes.io/part-of=shop";

/// Name of the port, where a pod declares several.
const PORT: &str = "http";

/// A cluster as the services know it.
#[derive(Clone)]
pub struct Member {
    /// Its name.
    pub target: TargetName,
    /// A client that may list pods and register an API.
    pub client: Client,
    /// The same as a file.
    pub kubeconfig: PathBuf,
    /// The authority of its kubelets' server certificates.
    pub kubelet_authority: PathBuf,
    /// What its nodes are.
    pub nodes: Nodes,
}

impl Member {
    /// One of a fleet that keeps its files in this folder.
    pub fn of(folder: &Folder, cluster: &Cluster) -> Self {
        let files = folder.path(cluster::file_name(cluster.target()));
        Self {
            target: cluster.target().clone(),
            client: cluster.client(),
            kubeconfig: files.join("admin.kubeconfig"),
            kubelet_authority: files.join("certificates/ca.crt"),
            nodes: cluster.nodes(),
        }
    }
}

/// The file, and what is in it by the part that wrote it.
#[derive(Clone)]
pub struct Targets {
    folder: Folder,
    file: PathBuf,
    parts: Arc<Mutex<BTreeMap<String, Vec<Value>>>>,
}

/// Follows clusters. Ends when dropped.
pub(super) struct Followers {
    targets: Targets,
    tasks: Vec<AbortOnDropHandle<()>>,
}

impl Targets {
    /// Makes it, empty. `file` is below the folder.
    pub(super) fn open(folder: &Folder, file: PathBuf) -> anyhow::Result<Self> {
        let targets = Self {
            folder: folder.clone(),
            file,
            parts: Arc::default(),
        };
        targets.set("", Vec::new())?;
        Ok(targets)
    }

    /// Where it is.
    pub(super) fn file(&self) -> PathBuf {
        self.folder.path(&self.file)
    }

    /// Replaces what one part scrapes: entries `{"targets": ["HOST:PORT"], "labels": {…}}`.
    pub fn set(&self, part: &str, entries: Vec<Value>) -> anyhow::Result<()> {
        let mut parts = self.parts.lock().unwrap_or_else(PoisonError::into_inner);
        parts.insert(part.to_owned(), entries);
        let all: Vec<&Value> = parts.values().flatten().collect();
        let text = serde_json::to_string_pretty(&all)?;
        // Under another name first: Prometheus may read at any moment.
        let making = self
            .folder
            .write(self.file.with_extension("making"), text)?;
        std::fs::rename(&making, self.file()).context("write what is scraped")
    }
}

impl Followers {
    pub(super) fn new(targets: Targets) -> Self {
        Self {
            targets,
            tasks: Vec::new(),
        }
    }

    pub(super) fn targets(&self) -> &Targets {
        &self.targets
    }

    pub(super) fn add(&mut self, member: &Member) {
        let following = follow(self.targets.clone(), member.clone());
        self.tasks
            .push(AbortOnDropHandle::new(tokio::spawn(following)));
    }
}

/// Writes the pods of a cluster whenever one of them changed.
async fn follow(targets: Targets, member: Member) {
    let (reader, writer) = reflector::store::<Pod>();
    let pods = watcher(
        Api::<Pod>::all(member.client.clone()),
        watcher::Config::default().labels(SHOP),
    );
    let mut changes = pods.default_backoff().reflect(writer).boxed();
    while let Some(change) = changes.next().await {
        let written = change.map_err(anyhow::Error::from).and_then(|_| {
            targets.set(&member.target.to_string(), entries(&member.target, &reader))
        });
        if let Err(error) = written {
            tracing::warn!("what Prometheus scrapes of {}: {error:#}", member.target);
        }
    }
}

fn entries(target: &TargetName, pods: &Store<Pod>) -> Vec<Value> {
    let mut pods = pods.state();
    pods.sort_by_key(|pod| ObjectRef::from_obj(&**pod).to_string());
    pods.iter().filter_map(|pod| entry(target, pod)).collect()
}

/// What is scraped of a pod. `None` while it has no address, and when it is told to end.
fn entry(target: &TargetName, pod: &Pod) -> Option<Value> {
    if pod.metadata.deletion_timestamp.is_some() {
        return None;
    }
    let address = pod.status.as_ref()?.pod_ip.as_ref()?;
    let container = pod.spec.as_ref()?.containers.first()?;
    let port = port(container)?;
    Some(json!({
        "targets": [format!("{address}:{port}")],
        "labels": {
            "region": target.region(),
            "cluster": target.to_string(),
            "namespace": pod.namespace().unwrap_or_default(),
            "pod": pod.name_any(),
            "release": Release::of_image(container.image.as_deref().unwrap_or_default()).tag(),
        },
    }))
}

fn port(container: &Container) -> Option<i32> {
    let ports = container.ports.as_ref()?;
    let named = ports.iter().find(|port| port.name.as_deref() == Some(PORT));
    named.or(ports.first()).map(|port| port.container_port)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> TargetName {
        TargetName::new("eu-west", "prod-1").unwrap()
    }

    fn pod(status: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "shop-1", "namespace": "store"},
            "spec": {"containers": [{
                "name": "shop",
                "image": "registry.example:5000/shop:v1.42.0",
                "ports": [{"name": "admin", "containerPort": 1}, {"name": "http", "containerPort": 8080}],
            }]},
            "status": status,
        }))
        .unwrap()
    }

    #[test]
    fn a_pod_with_an_address_is_scraped_with_its_labels() {
        let entry = entry(&target(), &pod(json!({"podIP": "10.1.2.3"}))).unwrap();
        assert_eq!(
            entry,
            json!({"targets": ["10.1.2.3:8080"], "labels": {
                "region": "eu-west", "cluster": "eu-west/prod-1",
                "namespace": "store", "pod": "shop-1", "release": "v1.42.0",
            }})
        );
    }

    #[test]
    fn a_pod_without_an_address_or_on_its_way_out_is_not() {
        assert_eq!(entry(&target(), &pod(json!({}))), None);
        let mut leaving = pod(json!({"podIP": "10.1.2.3"}));
        leaving.metadata.deletion_timestamp =
            serde_json::from_value(json!("2026-01-01T00:00:00Z")).unwrap();
        assert_eq!(entry(&target(), &leaving), None);
    }

    #[test]
    fn each_part_replaces_only_its_own() {
        let folder = tempfile::tempdir().unwrap();
        let folder = Folder::make(folder.path()).unwrap();
        let targets = Targets::open(&folder, "targets.json".into()).unwrap();
        targets.set("one", vec![json!(1)]).unwrap();
        targets.set("two", vec![json!(2)]).unwrap();
        targets.set("one", vec![]).unwrap();
        let read = std::fs::read(targets.file()).unwrap();
        assert_eq!(serde_json::from_slice::<Value>(&read).unwrap(), json!([2]));
    }
}
