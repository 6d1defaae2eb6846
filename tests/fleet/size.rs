//! How large a fleet is wanted, and what it needs of the machine.

use std::path::Path;

use aldis_tests::fleet::Options;
use aldis_tests::fleet::nodes::{Nodes, Wanted};
use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use anyhow::ensure;

/// A cluster takes 460 MiB, one with a real node and some pods 800; all that is shared some 400 MiB
/// (measured with four).
const MIB_A_CLUSTER: u64 = 460;
const MIB_A_REAL_CLUSTER: u64 = 800;
const MIB_SHARED: u64 = 400;

/// How large.
#[derive(Clone, Debug, clap::Args)]
pub(crate) struct Size {
    /// How many clusters, one to four
    #[arg(long, env = "CLUSTERS", default_value_t = 4, value_parser = clap::value_parser!(u8).range(1..=4))]
    clusters: u8,
    /// Where the control plane keeps its state
    #[arg(long, env = "STORE", value_enum, default_value_t = Kept::Etcd)]
    store: Kept,
    /// Which nodes the clusters have: real ones run containers, which takes root; `auto` takes them where it can
    #[arg(long, env = "NODES", default_value_t = Wanted::Auto)]
    nodes: Wanted,
    /// Starts the clusters alone
    #[arg(long, hide = true)]
    without_aldis: bool,
}

/// Where the control plane keeps its state.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Kept {
    /// In etcd, with two replicas
    Etcd,
    /// In one file, with one replica
    Embedded,
}

impl Size {
    /// What to start. `tell` hears of each part that is up.
    pub(crate) fn options(&self, tell: fn(&str)) -> Options {
        Options {
            clusters: self.clusters.into(),
            system: (!self.without_aldis).then_some(system::Options {
                source: Source::BesideMe,
                store: match self.store {
                    Kept::Etcd => Store::Etcd,
                    Kept::Embedded => Store::Embedded,
                },
                times: Times::AsShipped,
            }),
            nodes: self.nodes,
            tell,
        }
    }

    /// The same as arguments.
    pub(crate) fn arguments(&self) -> Vec<String> {
        let store = match self.store {
            Kept::Etcd => "etcd",
            Kept::Embedded => "embedded",
        };
        let clusters = format!("--clusters={}", self.clusters);
        let nodes = format!("--nodes={}", self.nodes);
        let mut words = vec![clusters, format!("--store={store}"), nodes];
        if self.without_aldis {
            words.push("--without-aldis".to_owned());
        }
        words
    }

    /// The same over simulated nodes.
    pub(crate) fn simulated(self) -> Self {
        Self {
            nodes: Wanted::Simulated,
            ..self
        }
    }

    /// In words.
    pub(crate) fn about(&self) -> String {
        match self.clusters {
            1 => "1 cluster".to_owned(),
            several => format!("{several} clusters"),
        }
    }

    /// Refuses what the machine cannot run or has no room for, before anything is started. `folder` is where
    /// the fleet will be.
    pub(crate) fn check(&self, folder: &Path) -> anyhow::Result<()> {
        let each = match self.nodes.choose(folder)?.nodes {
            Nodes::Real => MIB_A_REAL_CLUSTER,
            Nodes::Simulated => MIB_A_CLUSTER,
        };
        let needed = MIB_SHARED + each * u64::from(self.clusters);
        let Some(free) = available_mib() else {
            return Ok(());
        };
        ensure!(
            free >= needed,
            "a fleet of {} needs {needed} MiB of memory and {free} MiB are free\n\nhint: take fewer, or simulated nodes: `CLUSTERS=2 NODES=simulated make …`",
            self.about()
        );
        Ok(())
    }
}

/// Memory that programs can still take, where the kernel says.
fn available_mib() -> Option<u64> {
    let about = std::fs::read_to_string("/proc/meminfo").ok()?;
    let line = about
        .lines()
        .find(|line| line.starts_with("MemAvailable:"))?;
    let kib: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kib / 1024)
}
