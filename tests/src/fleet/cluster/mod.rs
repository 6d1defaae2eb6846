//! One Kubernetes cluster on loopback: API server, controllers and scheduler are real. So is its node, or
//! nodes and pods are kwok's and our own [`Kubelet`] answers for what runs in the pods (see [`Nodes`]).
//!
//! ```text
//! NAME/certificates/      its authority and all it signed
//! NAME/*.kubeconfig       admin, scheduler, agent
//! NAME/kwok.yaml          stages and slots
//! NAME/pods/              log of each container of simulated nodes that was looked at
//! NAME/node/              what a real node is told, and what its containers write
//! ```
//!
//! Each has an authority and an identity of its own, and nothing but the store in common with the others.

pub mod certificates;
pub mod kubeconfig;
mod kwok;
mod nodes;
mod programs;
pub mod rights;

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::{Context, anyhow};
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use self::certificates::Certificates;
use self::kubeconfig::Entry;
use self::programs::{Ports, Settings};
use self::rights::Rights;
use super::folder::Folder;
use super::kubelet::Kubelet;
use super::kubelet::slots::Slots;
use super::nodes::Nodes;
use super::nodes::images::Image;
use super::nodes::network::Network;
use super::nodes::node::{self, Node};
use super::process::Process;
use super::{ports, ready};

/// An API server is ready in 3 s; one start of twenty took 31 s on a busy machine.
const API_LIMIT: Duration = Duration::from_secs(90);

/// What the controllers and kwok do first takes a second.
const SETTLED_LIMIT: Duration = Duration::from_secs(180);

/// A running cluster. All of it ends when this is dropped.
pub struct Cluster {
    target: TargetName,
    client: Client,
    certificates: Certificates,
    ports: Ports,
    files: PathBuf,
    // In the order in which they are killed.
    _rights: Rights,
    nodes: Under,
    programs: Vec<Process>,
    api: Process,
}

/// What runs its pods.
enum Under {
    Real(Box<Node>),
    Simulated { _kubelet: Kubelet },
}

impl Cluster {
    /// Starts one. `store` is an etcd that it may share with others.
    pub async fn start(
        folder: &Folder,
        target: TargetName,
        store: &str,
        nodes: Nodes,
    ) -> anyhow::Result<Self> {
        let starting = Starting::prepare(folder, target, store, nodes)?;
        let target = starting.target.clone();
        starting
            .run()
            .await
            .with_context(|| format!("start cluster {target}"))
    }

    /// Its name, `region/cluster`.
    pub fn target(&self) -> &TargetName {
        &self.target
    }

    /// A client that may do everything. It lives as long as the runtime that started the cluster.
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// The kubeconfig of the agent: one context, named as the cluster.
    pub fn agent_kubeconfig(&self) -> PathBuf {
        self.files.join("agent.kubeconfig")
    }

    /// How one of its users reaches it: `admin` or `agent`.
    pub fn entry<'a>(&'a self, user: &'a str) -> Entry<'a> {
        Entry {
            context: self.target.to_string(),
            server: server(self.ports),
            certificates: &self.certificates,
            user,
        }
    }

    /// Its programs by name, to kill and start one.
    pub fn programs(&self) -> impl Iterator<Item = &Process> {
        let node = self.node().map(Node::process);
        self.programs.iter().chain([&self.api]).chain(node)
    }

    /// Its node, where it has a real one.
    pub fn node(&self) -> Option<&Node> {
        match &self.nodes {
            Under::Real(node) => Some(node),
            Under::Simulated { .. } => None,
        }
    }

    /// Which kind of nodes it has.
    pub fn nodes(&self) -> Nodes {
        match &self.nodes {
            Under::Real(_) => Nodes::Real,
            Under::Simulated { .. } => Nodes::Simulated,
        }
    }

    /// Makes images known to its node. Simulated nodes run any name and need none.
    pub async fn import(&self, images: &[Image]) -> anyhow::Result<()> {
        match self.node() {
            Some(node) => node
                .import(images)
                .await
                .with_context(|| format!("import images into {}", self.target)),
            None => Ok(()),
        }
    }

    /// Lets its pods reach a port on loopback; under which address. Simulated pods are on loopback.
    pub async fn lend(&self, port: u16) -> anyhow::Result<SocketAddr> {
        match self.node() {
            Some(node) => node.lend(port).await,
            None => Ok(SocketAddr::from((Ipv4Addr::LOCALHOST, port))),
        }
    }
}

/// A cluster on its way up.
struct Starting {
    folder: Folder,
    target: TargetName,
    name: String,
    store: String,
    ports: Ports,
    certificates: Certificates,
    nodes: Nodes,
    /// Of a real node, until that has it.
    network: Option<Network>,
}

impl Starting {
    fn prepare(
        folder: &Folder,
        target: TargetName,
        store: &str,
        nodes: Nodes,
    ) -> anyhow::Result<Self> {
        let name = file_name(&target);
        let below = folder.make_below(Path::new(&name).join("certificates"))?;
        let network = match nodes {
            Nodes::Real => Some(Network::draw(folder, &name)?),
            Nodes::Simulated => None,
        };
        let plan = network.as_ref().map(Network::plan);
        Ok(Self {
            certificates: Certificates::make(&below, &target.to_string(), plan)?,
            nodes,
            network,
            ports: Ports {
                api: ports::free()?,
                controllers: ports::free()?,
                scheduler: ports::free()?,
                kwok: ports::free()?,
                kubelet: ports::free()?,
            },
            folder: folder.clone(),
            store: store.to_owned(),
            name,
            target,
        })
    }

    async fn run(mut self) -> anyhow::Result<Cluster> {
        let api = self.start(self.settings().api_server()?)?;
        let admin = self.write_kubeconfig("admin")?;
        let scheduler = self.write_kubeconfig("scheduler")?;
        self.write_kubeconfig("agent")?;
        let client = kubeconfig::client(&admin, &self.target.to_string()).await?;
        ready::until(&api, API_LIMIT, "API server", || is_ready(&client)).await?;

        let settings = self.settings();
        let mut programs = vec![
            self.start(settings.controllers(&admin)?)?,
            self.start(settings.scheduler(&scheduler)?)?,
        ];
        let network = self.network.take();
        let (nodes, rights) = tokio::try_join!(
            self.run_nodes(network, &client, &admin, &mut programs),
            Rights::give(&client),
        )?;
        settled(&client, nodes::count(self.nodes), &programs).await?;
        Ok(Cluster {
            files: self.folder.path(&self.name),
            target: self.target,
            client,
            certificates: self.certificates,
            ports: self.ports,
            _rights: rights,
            nodes,
            programs,
            api,
        })
    }

    async fn run_nodes(
        &self,
        network: Option<Network>,
        client: &Client,
        admin: &Path,
        programs: &mut Vec<Process>,
    ) -> anyhow::Result<Under> {
        match network {
            Some(network) => self.real(network).await,
            None => self.simulated(client, admin, programs).await,
        }
    }

    async fn real(&self, network: Network) -> anyhow::Result<Under> {
        let entry = Entry {
            server: format!("https://{}", network.plan().service()),
            ..self.entry("node")
        };
        let start = node::Start {
            folder: &self.folder,
            target: &self.target,
            name: &self.name,
            certificates: &self.certificates,
            kubeconfig: kubeconfig::render(&[entry]),
            api: self.ports.api,
            network,
        };
        Ok(Under::Real(Box::new(start.run().await?)))
    }

    async fn simulated(
        &self,
        client: &Client,
        admin: &Path,
        programs: &mut Vec<Process>,
    ) -> anyhow::Result<Under> {
        let slots = Slots::open(&self.folder, &Path::new(&self.name).join("pods")).await?;
        let rules = self.write("kwok.yaml", &kwok::config(&self.name, slots.all()))?;
        programs.push(self.start(self.settings().kwok(admin, &rules)?)?);
        let (kubelet, ()) = tokio::try_join!(
            Kubelet::start(
                self.ports.kubelet,
                self.ports.kwok,
                &self.certificates,
                client.clone(),
                slots
            ),
            nodes::register(client, &self.target),
        )?;
        Ok(Under::Simulated { _kubelet: kubelet })
    }

    fn settings(&self) -> Settings<'_> {
        Settings {
            name: &self.name,
            store: &self.store,
            ports: self.ports,
            certificates: &self.certificates,
            network: self.network.as_ref().map(Network::plan),
        }
    }

    fn start(&self, program: super::process::Program) -> anyhow::Result<Process> {
        Process::start(&self.folder, program)
    }

    fn write_kubeconfig(&self, user: &str) -> anyhow::Result<PathBuf> {
        let text = kubeconfig::render(&[self.entry(user)]);
        self.write(&format!("{user}.kubeconfig"), &text)
    }

    fn entry<'a>(&'a self, user: &'a str) -> Entry<'a> {
        Entry {
            context: self.target.to_string(),
            server: server(self.ports),
            certificates: &self.certificates,
            user,
        }
    }

    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        self.folder.write(Path::new(&self.name).join(name), text)
    }
}

/// The form of a target's name in names of files and programs.
pub fn file_name(target: &TargetName) -> String {
    format!("{}-{}", target.region(), target.cluster())
}

fn server(ports: Ports) -> String {
    format!("https://127.0.0.1:{}", ports.api)
}

async fn is_ready(client: &Client) -> anyhow::Result<()> {
    let request = http::Request::get("/readyz").body(Vec::new())?;
    client.request_text(request).await?;
    Ok(())
}

/// Until pods can be made and would run: before its service account exists, a namespace refuses them.
async fn settled(client: &Client, count: usize, programs: &[Process]) -> anyhow::Result<()> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    let settled = || async {
        accounts.get("default").await.context("service account")?;
        nodes::ready(client, count).await
    };
    ready::eventually(SETTLED_LIMIT, "nodes and controllers", settled)
        .await
        .map_err(|error| {
            let said: Vec<String> = programs.iter().map(Process::last_words).collect();
            anyhow!("{error:#}\n{}", said.join("\n"))
        })
}
