//! metrics-server over the kubelets of one cluster: what `kubectl top` and autoscalers ask.
//!
//! It runs beside the cluster, as its other programs do, and not in it: the API server finds it by a Service that
//! is only a name for this machine, and verifies it by our authority. Kubelets are verified by the cluster's.
//! Over simulated nodes it is not started: usage would be a number of ours.

use std::path::Path;
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::{Context, bail};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Service;
use k8s_openapi::kube_aggregator::pkg::apis::apiregistration::v1::APIService;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::place::Place;
use super::targets::Member;
use crate::binaries;
use crate::fleet::cluster::file_name;
use crate::fleet::process::{Process, Program};
use crate::fleet::{ports, ready};
use crate::pki::{Request, Usage};

/// The metrics-server that is run, built by `tests/fleet/binaries.sh`.
pub const VERSION: &str = "0.9.0";

/// The API that it serves.
const API: &str = "v1beta1.metrics.k8s.io";

const NAMESPACE: &str = "kube-system";
const SERVICE: &str = "metrics-server";
const MANAGER: &str = "aldis-fleet";

/// The API server looks for it every few seconds.
const LIMIT: Duration = Duration::from_secs(90);

/// A running metrics-server. Killed when dropped.
pub struct MetricsServer {
    process: Process,
    target: TargetName,
}

impl MetricsServer {
    /// Starts one and waits until the cluster's API answers for it. First figures come a quarter of a minute later.
    pub(super) async fn start(place: &Place, member: &Member) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let program = program(place, member, port)?;
        let server = Self {
            process: Process::start(place.folder(), program)?,
            target: member.target.clone(),
        };
        register(&member.client, port, place.authority()).await?;
        let look = || is_available(&member.client);
        let what = format!("metrics of {}", server.target);
        ready::until(&server.process, LIMIT, what, look).await?;
        Ok(server)
    }

    /// Its cluster.
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }
}

fn program(place: &Place, member: &Member, port: u16) -> anyhow::Result<Program> {
    let server = binaries::find("metrics-server", VERSION, "--version")?;
    let name = format!("{}-metrics", file_name(&member.target));
    let called = Request::new(SERVICE, Usage::Server).name(&format!("{SERVICE}.{NAMESPACE}.svc"));
    let identity = place.identity_as(&name, called)?;
    let file = |flag: &str, path: &Path| format!("--{flag}={}", path.display());
    Ok(Program::new(name, server)
        .arguments([
            file("kubeconfig", &member.kubeconfig),
            file("authentication-kubeconfig", &member.kubeconfig),
            file("authorization-kubeconfig", &member.kubeconfig),
            file("tls-cert-file", &identity.certificate),
            file("tls-private-key-file", &identity.key),
            file("kubelet-certificate-authority", &member.kubelet_authority),
        ])
        .arguments([
            format!("--secure-port={port}"),
            "--bind-address=127.0.0.1".to_owned(),
            "--kubelet-preferred-address-types=InternalIP".to_owned(),
            "--kubelet-use-node-status-port".to_owned(),
            "--metric-resolution=10s".to_owned(),
            // It refuses to start if the two are equal.
            "--kubelet-request-timeout=5s".to_owned(),
        ]))
}

/// Tells the API server where it is: by a Service that stands for this machine.
async fn register(client: &Client, port: u16, authority: &str) -> anyhow::Result<()> {
    let service = json!({
        "apiVersion": "v1", "kind": "Service", "metadata": {"name": SERVICE},
        "spec": {"type": "ExternalName", "externalName": "localhost"},
    });
    let api = json!({
        "apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": {"name": API},
        "spec": {
            "group": "metrics.k8s.io", "version": "v1beta1",
            "groupPriorityMinimum": 100, "versionPriority": 100,
            "service": {"name": SERVICE, "namespace": NAMESPACE, "port": port},
            "caBundle": ByteString(authority.as_bytes().to_vec()),
        },
    });
    let how = PatchParams::apply(MANAGER).force();
    let services = Api::<Service>::namespaced(client.clone(), NAMESPACE);
    let service = services.patch(SERVICE, &how, &Patch::Apply(service)).await;
    service.context("apply the Service of metrics-server")?;
    let apis = Api::<APIService>::all(client.clone());
    let api = apis.patch(API, &how, &Patch::Apply(api)).await;
    api.context("register the API of metrics-server")?;
    Ok(())
}

async fn is_available(client: &Client) -> anyhow::Result<()> {
    let api = Api::<APIService>::all(client.clone()).get(API).await?;
    let conditions = api
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let available = conditions.iter().find(|one| one.type_ == "Available");
    match available {
        Some(one) if one.status == "True" => Ok(()),
        Some(one) => bail!("{}", one.message.as_deref().unwrap_or("not available")),
        None => bail!("the API server has not looked for it yet"),
    }
}
