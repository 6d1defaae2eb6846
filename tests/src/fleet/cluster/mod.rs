//! One Kubernetes cluster on loopback: API server, controllers and scheduler are real, nodes and pods are
//! kwok's, and our own [`Kubelet`] answers for what runs in the pods.
//!
//! ```text
//! NAME/certificates/      its authority and all it signed
//! NAME/*.kubeconfig       admin, scheduler, agent
//! NAME/kwok.yaml          stages and slots
//! NAME/pods/              log of each container that was looked at
//! ```
//!
//! Each has an authority and an identity of its own, and nothing but the store in common with the others.

pub mod certificates;
pub mod kubeconfig;
mod kwok;
mod nodes;
mod programs;
pub mod rights;

use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::Context;
use k8s_openapi::api::core::v1::ServiceAccount;
use kube::{Api, Client};

use self::certificates::Certificates;
use self::kubeconfig::Entry;
use self::programs::{Ports, Settings};
use self::rights::Rights;
use super::folder::Folder;
use super::kubelet::Kubelet;
use super::kubelet::slots::Slots;
use super::process::Process;
use super::{ports, ready};

/// An API server is ready in 3 s; one start of twenty took 31 s on a busy machine.
const API_LIMIT: Duration = Duration::from_secs(90);

/// What the controllers and kwok do first takes a second.
const SETTLED_LIMIT: Duration = Duration::from_secs(60);

/// A running cluster. All of it ends when this is dropped.
pub struct Cluster {
    target: TargetName,
    client: Client,
    certificates: Certificates,
    ports: Ports,
    files: PathBuf,
    // In the order in which they are killed.
    _rights: Rights,
    _kubelet: Kubelet,
    programs: Vec<Process>,
    api: Process,
}

impl Cluster {
    /// Starts one. `store` is an etcd that it may share with others.
    pub async fn start(folder: &Folder, target: TargetName, store: &str) -> anyhow::Result<Self> {
        let starting = Starting::prepare(folder, target, store)?;
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
        self.programs.iter().chain([&self.api])
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
}

impl Starting {
    fn prepare(folder: &Folder, target: TargetName, store: &str) -> anyhow::Result<Self> {
        let name = file_name(&target);
        let below = folder.make_below(Path::new(&name).join("certificates"))?;
        Ok(Self {
            certificates: Certificates::make(&below, &target.to_string())?,
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

    async fn run(self) -> anyhow::Result<Cluster> {
        let api = self.start(self.settings().api_server()?)?;
        let admin = self.write_kubeconfig("admin")?;
        let scheduler = self.write_kubeconfig("scheduler")?;
        self.write_kubeconfig("agent")?;
        let client = kubeconfig::client(&admin, &self.target.to_string()).await?;
        ready::until(&api, API_LIMIT, "API server", || is_ready(&client)).await?;

        let slots = Slots::open(&self.folder, &Path::new(&self.name).join("pods")).await?;
        let rules = self.write("kwok.yaml", &kwok::config(&self.name, slots.all()))?;
        let settings = self.settings();
        let programs = vec![
            self.start(settings.controllers(&admin)?)?,
            self.start(settings.scheduler(&scheduler)?)?,
            self.start(settings.kwok(&admin, &rules)?)?,
        ];
        let (kubelet, rights, ()) = tokio::try_join!(
            Kubelet::start(
                self.ports.kubelet,
                self.ports.kwok,
                &self.certificates,
                client.clone(),
                slots
            ),
            Rights::give(&client),
            nodes::register(&client, &self.target),
        )?;
        settled(&client, &programs).await?;
        Ok(Cluster {
            files: self.folder.path(&self.name),
            target: self.target,
            client,
            certificates: self.certificates,
            ports: self.ports,
            _rights: rights,
            _kubelet: kubelet,
            programs,
            api,
        })
    }

    fn settings(&self) -> Settings<'_> {
        Settings {
            name: &self.name,
            store: &self.store,
            ports: self.ports,
            certificates: &self.certificates,
        }
    }

    fn start(&self, program: super::process::Program) -> anyhow::Result<Process> {
        Process::start(&self.folder, program)
    }

    fn write_kubeconfig(&self, user: &str) -> anyhow::Result<PathBuf> {
        let entry = Entry {
            context: self.target.to_string(),
            server: server(self.ports),
            certificates: &self.certificates,
            user,
        };
        self.write(&format!("{user}.kubeconfig"), &kubeconfig::render(&[entry]))
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
async fn settled(client: &Client, programs: &[Process]) -> anyhow::Result<()> {
    let accounts = Api::<ServiceAccount>::namespaced(client.clone(), "default");
    let settled = || async {
        accounts.get("default").await.context("service account")?;
        nodes::ready(client).await
    };
    ready::eventually(SETTLED_LIMIT, "nodes and controllers", settled)
        .await
        .map_err(|error| {
            let said: Vec<String> = programs.iter().map(Process::last_words).collect();
            error.context(said.join("\n"))
        })
}
