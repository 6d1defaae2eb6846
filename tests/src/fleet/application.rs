//! Applications to work on: a Deployment that went through several releases, and its Service.
//!
//! Each release is rolled out before the next, so that the Deployment has a history of ReplicaSets as a
//! real one has. The last may be one that cannot start.

pub mod manifest;

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Namespace, Service, ServiceAccount};
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use self::manifest::{Container, Secret};
use super::ready;

/// A rollout of some pods takes 1.2 s on a quiet machine.
const ROLLOUT_LIMIT: Duration = Duration::from_secs(60);

/// What a person at the keyboard would be called.
const MANAGER: &str = "someone";

/// An application to be.
#[derive(Clone, Debug)]
pub struct Application {
    /// Its namespace, made when it is missing.
    pub namespace: String,
    /// Name of the Deployment and of the Service.
    pub name: String,
    /// Images in order of release.
    pub releases: Vec<String>,
    /// How many pods.
    pub replicas: u32,
    /// Port of the Service and of the container.
    pub port: u16,
    /// After so long without progress Kubernetes gives a rollout up.
    pub progress_deadline: Duration,
    /// Labels of the Deployment beside its own.
    pub labels: BTreeMap<String, String>,
    /// Annotations of the Deployment.
    pub annotations: BTreeMap<String, String>,
    /// Labels of its pods beside `app`.
    pub pod_labels: BTreeMap<String, String>,
    /// Annotations of its pods, such as `fleet.aldis.dev/ready-after: 3s`.
    pub pod_annotations: BTreeMap<String, String>,
    /// A ConfigMap that only the first release refers to. Nobody makes it here: real pods wait for it.
    pub config_map_of_first: Option<String>,
    /// How its container is run.
    pub container: Container,
    /// Secrets that it needs.
    pub secrets: Vec<Secret>,
    /// Pods that may be missing in a rollout. Kubernetes' own quarter where it is not said.
    pub max_unavailable: Option<u32>,
    /// A pod counts as available once it has been ready for so long without a break.
    pub min_ready: Duration,
    /// Whether all releases but the last are waited for. Not where one of them cannot start.
    pub wait_for_each: bool,
    /// Whether the last release is waited for. Not for one that cannot start.
    pub wait_for_last: bool,
}

impl Application {
    /// Three pods of each of these releases in turn.
    pub fn new<I>(namespace: &str, name: &str, releases: I) -> Self
    where
        I: IntoIterator,
        I::Item: Into<String>,
    {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            releases: releases.into_iter().map(Into::into).collect(),
            replicas: 3,
            port: 8080,
            progress_deadline: Duration::from_secs(600),
            labels: BTreeMap::new(),
            annotations: BTreeMap::new(),
            pod_labels: BTreeMap::new(),
            pod_annotations: BTreeMap::new(),
            config_map_of_first: None,
            container: Container::default(),
            secrets: Vec::new(),
            max_unavailable: None,
            min_ready: Duration::ZERO,
            wait_for_each: true,
            wait_for_last: true,
        }
    }

    /// Releases all of it on one cluster.
    pub async fn release(&self, client: &Client) -> anyhow::Result<()> {
        self.make_namespace(client).await?;
        self.make_secrets(client).await?;
        self.make_service(client).await?;
        for (number, image) in self.releases.iter().enumerate() {
            let is_last = number + 1 == self.releases.len();
            let first = self.config_map_of_first.as_deref().filter(|_| number == 0);
            self.apply_with(client, image, first).await?;
            let waits = if is_last {
                self.wait_for_last
            } else {
                self.wait_for_each
            };
            if waits {
                rolled_out(client, &self.namespace, &self.name)
                    .await
                    .with_context(|| format!("release {image}"))?;
            }
        }
        Ok(())
    }

    /// The Deployment of one release, as it is applied.
    pub fn manifest(&self, image: &str) -> serde_json::Value {
        self.deployment(image, None)
    }

    /// Applies one release and does not wait for it.
    pub async fn apply(&self, client: &Client, image: &str) -> anyhow::Result<()> {
        self.apply_with(client, image, None).await
    }

    async fn apply_with(
        &self,
        client: &Client,
        image: &str,
        config_map: Option<&str>,
    ) -> anyhow::Result<()> {
        Api::<Deployment>::namespaced(client.clone(), &self.namespace)
            .patch(
                &self.name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(self.deployment(image, config_map)),
            )
            .await
            .with_context(|| format!("apply Deployment {}/{}", self.namespace, self.name))?;
        Ok(())
    }

    async fn make_secrets(&self, client: &Client) -> anyhow::Result<()> {
        let api =
            Api::<k8s_openapi::api::core::v1::Secret>::namespaced(client.clone(), &self.namespace);
        for secret in &self.secrets {
            let apply = Patch::Apply(secret.manifest());
            api.patch(&secret.name, &PatchParams::apply(MANAGER).force(), &apply)
                .await
                .with_context(|| format!("apply Secret {}/{}", self.namespace, secret.name))?;
        }
        Ok(())
    }

    async fn make_service(&self, client: &Client) -> anyhow::Result<()> {
        Api::<Service>::namespaced(client.clone(), &self.namespace)
            .patch(
                &self.name,
                &PatchParams::apply(MANAGER).force(),
                &Patch::Apply(self.service()),
            )
            .await
            .with_context(|| format!("apply Service {}/{}", self.namespace, self.name))?;
        Ok(())
    }

    async fn make_namespace(&self, client: &Client) -> anyhow::Result<()> {
        make_namespace(client, &self.namespace).await
    }
}

/// Makes a namespace, and waits until pods can be made in it and the agent may act in it.
pub async fn make_namespace(client: &Client, name: &str) -> anyhow::Result<()> {
    let namespace = json!({
        "apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name},
    });
    Api::<Namespace>::all(client.clone())
        .patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(namespace))
        .await
        .with_context(|| format!("make namespace {name}"))?;
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), name);
    let bindings = Api::<RoleBinding>::namespaced(client.clone(), name);
    ready::eventually(ROLLOUT_LIMIT, format!("namespace {name}"), || async {
        accounts.get("default").await.context("service account")?;
        bindings
            .get(super::cluster::rights::NAMESPACE_ROLE)
            .await
            .context("the agent's rights")?;
        Ok(())
    })
    .await
}

/// Waits until a Deployment runs what it says and nothing else.
pub async fn rolled_out(client: &Client, namespace: &str, name: &str) -> anyhow::Result<()> {
    let api = Api::<Deployment>::namespaced(client.clone(), namespace);
    let what = format!("Deployment {namespace}/{name} is rolled out");
    ready::eventually(ROLLOUT_LIMIT, what, || async {
        let deployment = api.get(name).await?;
        let wanted = deployment.spec.and_then(|spec| spec.replicas).unwrap_or(1);
        let status = deployment.status.unwrap_or_default();
        ensure!(
            status.observed_generation >= deployment.metadata.generation,
            "not seen yet"
        );
        let counts = [
            status.replicas,
            status.updated_replicas,
            status.available_replicas,
        ];
        ensure!(
            counts.iter().all(|count| count.unwrap_or(0) == wanted),
            "{wanted} wanted; in all, updated, available: {counts:?}"
        );
        Ok(())
    })
    .await
}
