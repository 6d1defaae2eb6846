//! Aldis itself on a fleet: its control plane, an agent for each cluster, the command line.
//!
//! ```text
//! bin/                    our programs, and kubectl, etcdctl, etcdutl beside them
//! control-plane/          configuration and certificate of each replica
//! agents/REGION-CLUSTER/  the same of each agent, its policy, its data; of one in a pod what its chart was given
//!                         and became
//! cli/                    configuration and certificate of a person
//! ```
//!
//! The programs are those of a user, as processes of their own and one agent as a pod; between them stand proxies
//! that can fail.

pub mod agents;
pub mod command_line;
pub mod control_plane;
mod door;
pub mod pod;
pub mod programs;

use std::time::Duration;

use aldis_proto::v1::ListAgentsRequest;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use anyhow::Context;
use futures::future::try_join_all;
use serde_json::{Value, json};

use self::agents::Agent;
use self::command_line::CommandLine;
use self::control_plane::ControlPlane;
use self::programs::{Programs, Source};
use super::cluster::Cluster;
use super::folder::Folder;
use super::ready;
use crate::binaries;
use crate::pki::Request;
use crate::proxy::control::Control;
use crate::proxy::{Proxy, Switch};

/// An agent is live within a second of its start.
const LIVE_LIMIT: Duration = Duration::from_secs(60);

/// What to start.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Where our programs come from.
    pub source: Source,
    /// Where the control plane keeps its state.
    pub store: Store,
    /// Its times.
    pub times: Times,
}

/// Where a control plane keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Store {
    /// etcd with mutual TLS, two replicas.
    Etcd,
    /// One file, one replica.
    Embedded,
}

/// Times of a control plane.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Times {
    /// As a user gets them.
    AsShipped,
    /// Short ones, so that a test that waits for a permit to end waits for seconds.
    Short,
}

impl Times {
    fn limits(self) -> Value {
        match self {
            Self::AsShipped => json!({}),
            Self::Short => json!({"permit": "6s", "unreachableAfter": "3s", "leaderTtl": "3s"}),
        }
    }
}

/// A running system. All of it ends when this is dropped.
pub struct System {
    command_line: CommandLine,
    control: Control,
    // In the order in which they are killed.
    agents: Vec<Agent>,
    plane: ControlPlane,
    programs: Programs,
}

impl System {
    /// Starts one over clusters that run, and waits until every agent may be given work.
    pub async fn start(
        folder: &Folder,
        clusters: &[Cluster],
        options: Options,
    ) -> anyhow::Result<Self> {
        let programs = Programs::install(folder, options.source).await?;
        for tool in [
            binaries::kubectl()?,
            binaries::etcdctl()?,
            binaries::etcdutl()?,
        ] {
            programs.link(&tool)?;
        }
        let nodes = clusters.iter().filter_map(Cluster::node);
        let addresses = nodes.map(|node| node.plan().outside().into()).collect();
        let plane = ControlPlane::start(folder, &programs, options.store, options.times, addresses)
            .await
            .context("start the control plane")?;
        let starting = clusters
            .iter()
            .map(|cluster| Agent::start(folder, &programs, &plane, cluster));
        let agents = try_join_all(starting).await.context("start the agents")?;
        let system = Self {
            command_line: CommandLine::of(folder, &programs, &plane)?,
            control: Control::start(switches(&plane, &agents)).await?,
            agents,
            plane,
            programs,
        };
        system.until_live().await?;
        Ok(system)
    }

    /// The command line of a person.
    pub fn command_line(&self) -> &CommandLine {
        &self.command_line
    }

    /// Its agents.
    pub fn agents(&self) -> &[Agent] {
        &self.agents
    }

    /// How many agents there are, and where they run.
    pub fn agents_told(&self) -> String {
        let pods = self.agents.iter().filter(|agent| agent.pod().is_some());
        let pods: Vec<String> = pods.map(|agent| agent.target().to_string()).collect();
        let all = self.agents.len();
        match pods.as_slice() {
            [] if all == 1 => "1 agent is up, beside its cluster".to_owned(),
            [] => format!("{all} agents are up, beside their clusters"),
            pods => format!(
                "{all} agents are up: of {} as a pod in its cluster, the others beside theirs",
                pods.join(", ")
            ),
        }
    }

    /// The agent of a target.
    pub fn agent(&self, target: &str) -> anyhow::Result<&Agent> {
        self.agents
            .iter()
            .find(|agent| agent.target().to_string() == target)
            .with_context(|| format!("there is no agent of `{target}`"))
    }

    /// Its control plane.
    pub fn plane(&self) -> &ControlPlane {
        &self.plane
    }

    /// Its programs.
    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    /// Where proxies are switched by HTTP.
    pub fn proxies(&self) -> String {
        self.control.url()
    }

    /// Waits until every agent may be given work.
    pub async fn until_live(&self) -> anyhow::Result<()> {
        ready::eventually(LIVE_LIMIT, "every agent is live", || async {
            let away = self.away().await?;
            let words = || {
                let away = self
                    .agents
                    .iter()
                    .filter(|agent| away.contains(&agent.target().to_string()));
                away.map(|agent| agent.last_words())
                    .collect::<Vec<_>>()
                    .join("\n")
            };
            anyhow::ensure!(away.is_empty(), "{}\n{}", away.join(", "), words());
            Ok(())
        })
        .await
    }

    /// Targets whose agents are not live.
    async fn away(&self) -> anyhow::Result<Vec<String>> {
        let mut last = None;
        for replica in self.plane.replicas() {
            match self.live_by(replica).await {
                Ok(live) => {
                    let names = self.agents.iter().map(|agent| agent.target().to_string());
                    return Ok(names.filter(|name| !live.contains(name)).collect());
                }
                Err(error) => last = Some(error),
            }
        }
        Err(last.context("a control plane has a replica")?)
    }

    async fn live_by(&self, replica: &control_plane::Replica) -> anyhow::Result<Vec<String>> {
        let channel = self.plane.connect(replica, &Request::user("fleet")).await?;
        let all = FleetServiceClient::new(channel)
            .list_agents(ListAgentsRequest::default())
            .await?;
        let agents = all.into_inner().agents.into_iter();
        Ok(agents
            .filter(|agent| agent.state == "live")
            .map(|agent| agent.target)
            .collect())
    }
}

fn switches(plane: &ControlPlane, agents: &[Agent]) -> Vec<Switch> {
    let stores = plane
        .replicas()
        .iter()
        .filter_map(|replica| replica.to_store());
    let links = agents.iter().flat_map(Agent::links);
    stores.chain(links).map(Proxy::switch).collect()
}
