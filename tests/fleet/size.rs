//! How large a fleet is wanted, and what it needs of the machine.

use aldis_tests::fleet::Options;
use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use anyhow::ensure;

/// A cluster takes 460 MiB, all that is shared some 400 MiB (measured with four).
const MIB_A_CLUSTER: u64 = 460;
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
            system: Some(system::Options {
                source: Source::BesideMe,
                store: match self.store {
                    Kept::Etcd => Store::Etcd,
                    Kept::Embedded => Store::Embedded,
                },
                times: Times::AsShipped,
            }),
            tell,
            ..Options::default()
        }
    }

    /// The same as arguments.
    pub(crate) fn arguments(&self) -> [String; 4] {
        let store = match self.store {
            Kept::Etcd => "etcd",
            Kept::Embedded => "embedded",
        };
        [
            "--clusters".to_owned(),
            self.clusters.to_string(),
            "--store".to_owned(),
            store.to_owned(),
        ]
    }

    /// In words.
    pub(crate) fn about(&self) -> String {
        match self.clusters {
            1 => "1 cluster".to_owned(),
            several => format!("{several} clusters"),
        }
    }

    /// Refuses what the machine has no room for, before anything is started.
    pub(crate) fn check(&self) -> anyhow::Result<()> {
        let needed = MIB_SHARED + MIB_A_CLUSTER * u64::from(self.clusters);
        let Some(free) = available_mib() else {
            return Ok(());
        };
        ensure!(
            free >= needed,
            "a fleet of {} needs {needed} MiB of memory and {free} MiB are free\n\nhint: take fewer: `CLUSTERS=2 make …`",
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
