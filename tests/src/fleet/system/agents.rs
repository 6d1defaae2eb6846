//! An agent for each cluster of a fleet: beside it, as a user of its own there, or in it, as a [`Pod`] with an account.
//!
//! Each reaches every replica through a proxy of its own, `agent-eu-west-prod-1-cp-1`, so that one link,
//! one agent or one replica can be cut off.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use aldis_core::ids::TargetName;
use anyhow::Context;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::pod::{self, Pod};
use super::programs::Programs;
use crate::fleet::cluster::{Cluster, file_name};
use crate::fleet::folder::Folder;
use crate::fleet::nodes::Nodes;
use crate::fleet::process::Process;
use crate::pki::{Request, TRUST_DOMAIN};
use crate::proxy::Proxy;

/// The target whose agent is a pod, where its cluster has a real node: a simulated one runs nothing. The last one, so
/// that the smaller fleets have all agents beside their clusters and what is told of the first clusters is of processes.
pub const IN_ITS_CLUSTER: &str = "us-east/prod-2";

/// What the clusters' own operators allow in a fleet on this machine: everything that agents can do yet. A
/// file all the same, so that there is one to change. The same as [`ACTIONS`] and [`NAMESPACES`].
const POLICY: &str =
    "# See deploy/agent-policy.example.yaml.\nactions: [kube.*, http.probe]\nnamespaces: ['*']\n";

/// Actions of the policy.
pub(super) const ACTIONS: [&str; 2] = ["kube.*", "http.probe"];

/// Namespaces of the policy.
pub(super) const NAMESPACES: [&str; 1] = ["*"];

/// A running agent. Ends when dropped.
pub struct Agent {
    target: TargetName,
    files: PathBuf,
    runs: Runs,
    links: Vec<Proxy>,
}

/// How it runs.
enum Runs {
    Beside(Process),
    InItsCluster(Pod),
}

impl Agent {
    /// Starts one.
    pub async fn start(
        folder: &Folder,
        programs: &Programs,
        plane: &ControlPlane,
        cluster: &Cluster,
    ) -> anyhow::Result<Self> {
        let target = cluster.target().clone();
        let files = folder.make_below(Path::new("agents").join(file_name(&target)))?;
        let request = Request::agent(target.region(), target.cluster(), "1");
        plane.authority().issue(&request)?.write(&files, "agent")?;
        let links = links(plane, &target).await?;
        let runs = if is_a_pod(cluster) {
            let start = pod::Start {
                files: &files,
                programs,
                plane,
                cluster,
                links: &links,
            };
            let pod = start.run().await;
            Runs::InItsCluster(
                pod.with_context(|| format!("install the agent's chart in {target}"))?,
            )
        } else {
            Runs::Beside(beside(folder, programs, plane, cluster, &files, &links)?)
        };
        Ok(Self {
            target,
            files,
            runs,
            links,
        })
    }

    /// Starts another process with its identity and a journal of its own, as a cloned machine would.
    pub fn start_twin(&self, folder: &Folder, programs: &Programs) -> anyhow::Result<Process> {
        let original = self.process()?;
        let config = self.files.join("agent.yaml");
        let text =
            std::fs::read_to_string(&config)?.replace("\"data\": \"data\"", "\"data\": \"twin\"");
        let twin = self.files.join("twin.yaml");
        std::fs::write(&twin, text)?;
        let name = format!("{}-twin", original.name());
        Process::start(folder, programs.service(&name, "aldis-agent", &twin))
    }

    /// Its cluster.
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// Its certificate and what it was configured by; `data/journal/journal.log` below it.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Its journal.
    pub fn journal(&self) -> PathBuf {
        self.files.join("data/journal/journal.log")
    }

    /// Its process, which can be stopped and started. A pod's is Kubernetes' to start.
    pub fn process(&self) -> anyhow::Result<&Process> {
        match &self.runs {
            Runs::Beside(process) => Ok(process),
            Runs::InItsCluster(_) => anyhow::bail!(
                "the agent of {} is a pod: no process of this machine",
                self.target
            ),
        }
    }

    /// The pod that it is, where it is one.
    pub fn pod(&self) -> Option<&Pod> {
        match &self.runs {
            Runs::Beside(_) => None,
            Runs::InItsCluster(pod) => Some(pod),
        }
    }

    /// The end of its log.
    pub fn last_words(&self) -> String {
        match &self.runs {
            Runs::Beside(process) => process.last_words(),
            Runs::InItsCluster(pod) => pod.last_words(),
        }
    }

    /// Its ways to the replicas, in their order.
    pub fn links(&self) -> &[Proxy] {
        &self.links
    }
}

/// Whether the agent of a cluster runs in it.
fn is_a_pod(cluster: &Cluster) -> bool {
    cluster.nodes() == Nodes::Real && cluster.target().to_string() == IN_ITS_CLUSTER
}

fn service(target: &TargetName) -> String {
    format!("agent-{}", file_name(target))
}

async fn links(plane: &ControlPlane, target: &TargetName) -> anyhow::Result<Vec<Proxy>> {
    let mut links = Vec::new();
    for replica in plane.replicas() {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, replica.port()));
        let name = format!("{}-{}", service(target), replica.name());
        links.push(Proxy::start(name, address).await?);
    }
    Ok(links)
}

/// As a process of this machine, by the kubeconfig of the agent's user.
fn beside(
    folder: &Folder,
    programs: &Programs,
    plane: &ControlPlane,
    cluster: &Cluster,
    files: &Path,
    links: &[Proxy],
) -> anyhow::Result<Process> {
    let target = cluster.target();
    std::fs::write(files.join("policy.yaml"), POLICY)?;
    let endpoint = |proxy: &Proxy| format!("localhost:{}", proxy.address().port());
    let config = json!({
        "target": target,
        "labels": {"env": "prod"},
        "controlPlane": {"endpoints": links.iter().map(endpoint).collect::<Vec<_>>()},
        "trustDomain": TRUST_DOMAIN,
        "tls": {"certificate": "agent.crt", "key": "agent.key", "ca": plane.ca()},
        "cluster": {"kubeconfig": {"file": cluster.agent_kubeconfig(), "context": target}},
        "data": "data",
        "policy": "policy.yaml",
    });
    let path = files.join("agent.yaml");
    std::fs::write(&path, format!("{config:#}\n"))?;
    let program = programs.service(&service(target), "aldis-agent", &path);
    Process::start(folder, program)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_agent_beside_its_cluster_and_one_in_it_have_the_same_policy() {
        let written: serde_json::Value = serde_saphyr::from_str(POLICY).unwrap();
        assert_eq!(
            written,
            json!({"actions": ACTIONS, "namespaces": NAMESPACES})
        );
    }
}
