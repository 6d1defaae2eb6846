//! Real Kubernetes clusters on this machine, and all that runs beside them.
//!
//! A fleet runs on threads of its own, so that tests with runtimes of their own can share it. It ends with
//! the value, and also when this process is killed: the kernel kills every program (see [`process`]).

pub mod application;
mod claims;
pub mod cluster;
pub mod environment;
pub mod etcd;
pub mod folder;
pub mod kubelet;
pub mod nodes;
pub mod ports;
pub mod process;
pub mod reader;
pub mod ready;
pub mod running;
pub mod services;
pub mod shop;
pub mod system;

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::Context;
use futures::future::try_join_all;
use tokio::runtime::Runtime;

use self::cluster::Cluster;
use self::etcd::Etcd;
use self::folder::Folder;
use self::nodes::{Chosen, leftovers};
use self::services::{Member, Services};
use self::system::System;

/// The clusters of a fleet, in the order in which a smaller one takes them.
const TARGETS: [(&str, &str); 4] = [
    ("eu-west", "prod-1"),
    ("us-east", "prod-1"),
    ("eu-west", "prod-2"),
    ("us-east", "prod-2"),
];

/// Tasks end where they next wait. A node's cgroups are waited for longest.
const END_LIMIT: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many clusters, at most four.
    pub clusters: usize,
    /// Aldis itself, where it is wanted beside the clusters.
    pub system: Option<system::Options>,
    /// What stands beside the clusters: databases, an object store and the like.
    pub services: services::Wanted,
    /// Which nodes they have.
    pub nodes: nodes::Wanted,
    /// Told of each part that is up.
    pub tell: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            clusters: TARGETS.len(),
            system: None,
            services: services::Wanted::none(),
            nodes: nodes::Wanted::Simulated,
            tell: |_| {},
        }
    }
}

/// A running fleet. All of it ends when this is dropped.
pub struct Fleet {
    parts: Option<Parts>,
    runtime: Option<Runtime>,
}

/// Killed in this order: API servers do not end while their store is gone.
struct Parts {
    system: Option<System>,
    services: Services,
    clusters: Vec<Cluster>,
    nodes: Chosen,
    _objects: Etcd,
    folder: Folder,
}

impl Fleet {
    /// Starts one that keeps its files in a folder, which it empties first. What a killed one left is removed.
    pub async fn start(folder: &Path, options: Options) -> anyhow::Result<Self> {
        for removed in leftovers::sweep(folder)? {
            (options.tell)(&removed);
        }
        Self::start_in(Folder::make(folder)?, options).await
    }

    /// Starts one in a folder that is laid out.
    pub async fn start_in(folder: Folder, options: Options) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_multi_thread()
            .worker_threads(2)
            .thread_name("fleet")
            .enable_all()
            .build()
            .context("start the runtime of the fleet")?;
        let mut fleet = Self {
            parts: None,
            runtime: Some(runtime),
        };
        let starting = fleet.runtime().spawn(Parts::start(folder, options));
        fleet.parts = Some(starting.await.context("start the fleet")??);
        Ok(fleet)
    }

    /// Its clusters.
    pub fn clusters(&self) -> &[Cluster] {
        &self.parts().clusters
    }

    /// One of them, by `region/cluster`.
    pub fn cluster(&self, name: &str) -> anyhow::Result<&Cluster> {
        self.clusters()
            .iter()
            .find(|cluster| cluster.target().to_string() == name)
            .with_context(|| format!("the fleet has no cluster `{name}`"))
    }

    /// Which nodes they have, and why.
    pub fn nodes(&self) -> &Chosen {
        &self.parts().nodes
    }

    /// Aldis itself, if it was wanted.
    pub fn system(&self) -> anyhow::Result<&System> {
        let system = self.parts().system.as_ref();
        system.context("this fleet has clusters only")
    }

    /// What stands beside the clusters, as far as it was wanted.
    pub fn services(&self) -> &Services {
        &self.parts().services
    }

    /// Where its files are.
    pub fn folder(&self) -> &Folder {
        &self.parts().folder
    }

    fn parts(&self) -> &Parts {
        self.parts
            .as_ref()
            .expect("set before anyone has the fleet")
    }

    fn runtime(&self) -> &Runtime {
        self.runtime.as_ref().expect("taken only by drop")
    }
}

impl Drop for Fleet {
    fn drop(&mut self) {
        let Some(runtime) = self.runtime.take() else {
            return;
        };
        // Proxies and kubelets are tasks and must be dropped where they can be told.
        let entered = runtime.enter();
        self.parts = None;
        drop(entered);
        // What was still on its way up is dropped with its task: whoever ends a fleet finds all of it ended. On a
        // thread of its own, since no thread of another runtime may wait for one.
        let ends = std::thread::spawn(|| runtime.shutdown_timeout(END_LIMIT));
        let _ = ends.join();
    }
}

impl Parts {
    async fn start(folder: Folder, options: Options) -> anyhow::Result<Self> {
        let nodes = options.nodes.choose(folder.root())?;
        (options.tell)(&nodes.to_string());
        let kind = nodes.nodes;
        let objects = Etcd::start(&folder, "objects").await?;
        let targets = targets(options.clusters)?;
        let regions = regions(&targets);
        let store = objects.endpoint();
        let clusters = try_join_all(targets.into_iter().map(|target| {
            let (folder, store) = (folder.clone(), store.clone());
            async move {
                let cluster = Cluster::start(&folder, target, &store, kind).await?;
                (options.tell)(&format!("cluster {} is up", cluster.target()));
                anyhow::Ok(cluster)
            }
        }))
        .await?;
        let wanted = services::Options {
            wanted: options.services,
            regions,
            addresses: clusters.iter().filter_map(seen_from_pods).collect(),
            tell: options.tell,
        };
        // Neither asks the other; a metrics-server waits for seconds until its API server looks for it.
        let (services, system) = tokio::try_join!(
            serve(&folder, &clusters, wanted),
            oversee(&folder, &clusters, options.system),
        )?;
        if let Some(system) = &system {
            (options.tell)(&format!("control plane is up; {}", system.agents_told()));
        }
        Ok(Self {
            system,
            services,
            clusters,
            nodes,
            _objects: objects,
            folder,
        })
    }
}

/// Starts Aldis over the clusters, where it is wanted.
async fn oversee(
    folder: &Folder,
    clusters: &[Cluster],
    wanted: Option<system::Options>,
) -> anyhow::Result<Option<System>> {
    match wanted {
        None => Ok(None),
        Some(wanted) => System::start(folder, clusters, wanted).await.map(Some),
    }
}

/// Starts what stands beside the clusters, and lets their pods in.
async fn serve(
    folder: &Folder,
    clusters: &[Cluster],
    wanted: services::Options,
) -> anyhow::Result<Services> {
    let tell = wanted.tell;
    let addresses = wanted.addresses.clone();
    let mut services = Services::start(folder, wanted).await?;
    for address in addresses {
        services.open_to(address).await?;
    }
    let members: Vec<Member> = clusters.iter().map(|one| Member::of(folder, one)).collect();
    services.follow(&members).await?;
    if let Some(remark) = services.remark() {
        tell(&remark);
    }
    Ok(services)
}

/// This machine, as the pods of a cluster see it. Simulated pods are on it.
fn seen_from_pods(cluster: &Cluster) -> Option<IpAddr> {
    cluster.node().map(|node| node.plan().outside().into())
}

/// Each region once, the first target's first.
fn regions(targets: &[TargetName]) -> Vec<String> {
    let mut regions: Vec<String> = targets.iter().map(|one| one.region().to_string()).collect();
    regions.dedup();
    regions
}

fn targets(count: usize) -> anyhow::Result<Vec<TargetName>> {
    anyhow::ensure!(
        (1..=TARGETS.len()).contains(&count),
        "a fleet has 1 to {} clusters, not {count}",
        TARGETS.len()
    );
    let mut targets = TARGETS[..count]
        .iter()
        .map(|(region, cluster)| TargetName::new(region, cluster))
        .collect::<Result<Vec<_>, _>>()?;
    targets.sort();
    Ok(targets)
}
