//! An agent beside each cluster of a fleet, as a user of its own there.
//!
//! Each reaches every replica through a proxy of its own, `agent-eu-west-prod-1-cp-1`, so that one link,
//! one agent or one replica can be cut off.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};

use aldis_core::ids::TargetName;
use serde_json::json;

use super::control_plane::ControlPlane;
use super::programs::Programs;
use crate::fleet::cluster::{Cluster, file_name};
use crate::fleet::folder::Folder;
use crate::fleet::process::Process;
use crate::pki::{Request, TRUST_DOMAIN};
use crate::proxy::Proxy;

/// What the clusters' own operators allow in a fleet on this machine: everything that agents can do yet. A
/// file all the same, so that there is one to change.
const POLICY: &str =
    "# See deploy/agent-policy.example.yaml.\nactions: [kube.*, http.probe]\nnamespaces: ['*']\n";

/// A running agent. Ends when dropped.
pub struct Agent {
    target: TargetName,
    files: PathBuf,
    process: Process,
    links: Vec<Proxy>,
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
        let name = format!("agent-{}", file_name(&target));
        let files = folder.make_below(Path::new("agents").join(file_name(&target)))?;
        let mut links = Vec::new();
        for replica in plane.replicas() {
            let address = SocketAddr::from((Ipv4Addr::LOCALHOST, replica.port()));
            links.push(Proxy::start(format!("{name}-{}", replica.name()), address).await?);
        }
        let request = Request::agent(target.region(), target.cluster(), "1");
        plane.authority().issue(&request)?.write(&files, "agent")?;
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
        let program = programs.service(&name, "aldis-agent", &path);
        Ok(Self {
            process: Process::start(folder, program)?,
            target,
            files,
            links,
        })
    }

    /// Starts another process with its identity and a journal of its own, as a cloned machine would.
    pub fn start_twin(&self, folder: &Folder, programs: &Programs) -> anyhow::Result<Process> {
        let config = self.files.join("agent.yaml");
        let text =
            std::fs::read_to_string(&config)?.replace("\"data\": \"data\"", "\"data\": \"twin\"");
        let twin = self.files.join("twin.yaml");
        std::fs::write(&twin, text)?;
        let name = format!("{}-twin", self.process.name());
        Process::start(folder, programs.service(&name, "aldis-agent", &twin))
    }

    /// Its cluster.
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// Its configuration and certificate; `data/journal/journal.log` below it.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Its journal.
    pub fn journal(&self) -> PathBuf {
        self.files.join("data/journal/journal.log")
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its ways to the replicas, in their order.
    pub fn links(&self) -> &[Proxy] {
        &self.links
    }
}
