//! How large a fleet is wanted, and what it needs of the machine.

use std::path::Path;

use aldis_tests::fleet::Options;
use aldis_tests::fleet::nodes::{Chosen, Nodes, Wanted};
use aldis_tests::fleet::services::{Service, Wanted as Services};
use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use anyhow::ensure;

/// A cluster takes 310 MiB at rest, one with a real node and some pods 390; all that is shared 220 (shares of
/// memory, PSS, measured with four). Room to work in comes on top: API servers grow with what they watch.
const MIB_A_CLUSTER: u64 = 450;
const MIB_A_REAL_CLUSTER: u64 = 550;
const MIB_SHARED: u64 = 400;

/// All seven take some 260 MiB (measured with a metrics-server in each of four clusters).
const MIB_A_SERVICE: u64 = 50;

const MIB_SMALLEST: u64 = MIB_SHARED + MIB_A_CLUSTER;

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
    /// What stands beside the clusters: a list of postgres, s3, redis, prometheus, metrics, github, sentry, or all
    /// or none. All by default, none in the demo
    #[arg(long, env = "WITH")]
    with: Option<Services>,
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
            services: self.services(),
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
        let with = format!("--with={}", self.services());
        let mut words = vec![clusters, format!("--store={store}"), nodes, with];
        if self.without_aldis {
            words.push("--without-aldis".to_owned());
        }
        words
    }

    /// The same with these services, unless others were asked for.
    pub(crate) fn or_with(self, services: Services) -> Self {
        Self {
            with: self.with.or(Some(services)),
            ..self
        }
    }

    /// Whether the shop is in its clusters. Tests of clusters alone bring their own.
    pub(crate) fn has_shop(&self) -> bool {
        !self.without_aldis
    }

    /// What comes with the clusters, in words that follow theirs.
    pub(crate) fn over_them(&self) -> &'static str {
        if self.without_aldis {
            ""
        } else {
            ", Aldis over them and the shop in them"
        }
    }

    /// How many.
    pub(crate) fn clusters(&self) -> u8 {
        self.clusters
    }

    /// In words.
    pub(crate) fn about(&self, nodes: Nodes) -> String {
        let nodes = match nodes {
            Nodes::Real => "real",
            Nodes::Simulated => "simulated",
        };
        match self.clusters {
            1 => format!("1 cluster with {nodes} nodes"),
            several => format!("{several} clusters with {nodes} nodes"),
        }
    }

    /// Refuses what the machine cannot run or has no room for, before anything is started. `folder` is where
    /// the fleet will be.
    pub(crate) fn check(&self, folder: &Path) -> anyhow::Result<Chosen> {
        let chosen = self.nodes.choose(folder)?;
        if let Some(available) = available_mib() {
            self.fits(chosen.nodes, available)?;
        }
        Ok(chosen)
    }

    fn fits(&self, nodes: Nodes, available: u64) -> anyhow::Result<()> {
        let needed = self.mib(nodes);
        let small = Self {
            clusters: self.clusters.min(2),
            with: Some(Services::none()),
            ..self.clone()
        };
        let smaller = small.mib(Nodes::Simulated);
        let hint = if smaller < needed && smaller <= available {
            let clusters = small.clusters;
            format!(
                "{smaller} MiB are enough for `CLUSTERS={clusters} NODES=simulated WITH=none make fleet-up`"
            )
        } else {
            format!(
                "end other programs; the smallest fleet takes {MIB_SMALLEST} MiB: `CLUSTERS=1 NODES=simulated WITH=none make fleet-up`"
            )
        };
        ensure!(
            available >= needed,
            "a fleet of {} needs {needed} MiB of memory, and {available} MiB are available\n\nhint: {hint}",
            self.about(nodes),
        );
        Ok(())
    }

    fn mib(&self, nodes: Nodes) -> u64 {
        let each = match nodes {
            Nodes::Real => MIB_A_REAL_CLUSTER,
            Nodes::Simulated => MIB_A_CLUSTER,
        };
        let services = self.services();
        let wanted = Service::ALL
            .into_iter()
            .filter(|one| services.contains(*one));
        MIB_SHARED + each * u64::from(self.clusters) + MIB_A_SERVICE * wanted.count() as u64
    }

    fn services(&self) -> Services {
        self.with.clone().unwrap_or_default()
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

#[cfg(test)]
mod tests {
    use super::*;

    fn size(clusters: u8, with: Services) -> Size {
        Size {
            clusters,
            store: Kept::Etcd,
            nodes: Wanted::Auto,
            with: Some(with),
            without_aldis: false,
        }
    }

    #[test]
    fn a_fleet_that_has_no_room_says_what_it_needs_and_what_would_fit() {
        let four = size(4, Services::default());
        let error = four.fits(Nodes::Real, 2_000).unwrap_err().to_string();
        let needed = four.mib(Nodes::Real);
        let fits = size(2, Services::none()).mib(Nodes::Simulated);
        assert!(error.contains(&format!("needs {needed} MiB")), "{error}");
        assert!(error.contains("2000 MiB are available"), "{error}");
        assert!(
            error.contains(&format!(
                "hint: {fits} MiB are enough for `CLUSTERS=2 NODES=simulated WITH=none"
            )),
            "{error}"
        );
        assert!(four.fits(Nodes::Real, needed).is_ok());
    }

    #[test]
    fn a_machine_too_small_for_the_smallest_fleet_is_offered_none() {
        let one = size(1, Services::none());
        let error = one.fits(Nodes::Simulated, 100).unwrap_err().to_string();
        assert!(error.contains("hint: end other programs"), "{error}");
    }

    #[test]
    fn services_that_were_asked_for_are_kept() {
        let redis = Services::from_iter([Service::Redis]);
        let chosen = size(4, redis.clone()).or_with(Services::none());
        assert_eq!(chosen.services(), redis);
    }
}
