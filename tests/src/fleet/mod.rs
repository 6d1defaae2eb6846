//! Real Kubernetes clusters on this machine, and all that runs beside them.
//!
//! A fleet runs on threads of its own, so that tests with runtimes of their own can share it. It ends with
//! the value, and also when this process is killed: the kernel kills every program (see [`process`]).

pub mod application;
pub mod cluster;
pub mod etcd;
pub mod folder;
pub mod kubelet;
pub mod ports;
pub mod process;
pub mod reader;
pub mod ready;
pub mod running;

use std::path::Path;

use aldis_core::ids::TargetName;
use anyhow::Context;
use futures::future::try_join_all;
use tokio::runtime::Runtime;

use self::cluster::Cluster;
use self::etcd::Etcd;
use self::folder::Folder;

/// The clusters of a fleet, in the order in which a smaller one takes them.
const TARGETS: [(&str, &str); 4] = [
    ("eu-west", "prod-1"),
    ("us-east", "prod-1"),
    ("eu-west", "prod-2"),
    ("us-east", "prod-2"),
];

/// What to start.
#[derive(Clone, Debug)]
pub struct Options {
    /// How many clusters, at most four.
    pub clusters: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self { clusters: 4 }
    }
}

/// A running fleet. All of it ends when this is dropped.
pub struct Fleet {
    parts: Option<Parts>,
    runtime: Option<Runtime>,
}

/// Killed in this order: API servers do not end while their store is gone.
struct Parts {
    clusters: Vec<Cluster>,
    _objects: Etcd,
    folder: Folder,
}

impl Fleet {
    /// Starts one that keeps its files in a folder, which it empties first.
    pub async fn start(folder: &Path, options: Options) -> anyhow::Result<Self> {
        let folder = Folder::make(folder)?;
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
        runtime.shutdown_background();
    }
}

impl Parts {
    async fn start(folder: Folder, options: Options) -> anyhow::Result<Self> {
        let objects = Etcd::start(&folder, "objects").await?;
        let store = objects.endpoint();
        let clusters = try_join_all(targets(options.clusters)?.into_iter().map(|target| {
            let (folder, store) = (folder.clone(), store.clone());
            async move { Cluster::start(&folder, target, &store).await }
        }))
        .await?;
        Ok(Self {
            clusters,
            _objects: objects,
            folder,
        })
    }
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
