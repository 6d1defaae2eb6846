//! What stands beside the clusters of a company: databases, an object store, a cache, metrics, and the two
//! services elsewhere that a runbook asks. Servers are the real ones; GitHub and Sentry are fixtures and say so.
//!
//! | service | runs as | doors |
//! |---|---|---|
//! | `postgres` | Debian's Postgres, one primary a region, a streaming replica of the first region's | TLS, SCRAM, roles below |
//! | `s3` | versitygw, one bucket `backups-REGION` a region, with versions | TLS, users below |
//! | `redis` | Debian's Redis | TLS, users below |
//! | `prometheus` | Debian's Prometheus, scrapes every shop pod each 2 s | HTTP, nobody asked who he is, as inside a company |
//! | `metrics` | metrics-server, one a cluster | TLS to the cluster's API server, which asks it for others |
//! | `github`, `sentry` | fixtures in this process | TLS, a token |
//!
//! Every server listens on loopback only. Pods are let in by [`Services::open_to`]: a relay on another address
//! of this machine, same ports, for addresses that were named before the certificates were made. A relay hands on what
//! it is given, so a pod meets the same doors.
//!
//! # TLS
//!
//! Whatever takes a password or a token takes it over TLS only, from pods as well: Postgres, the object store, Redis, the
//! fixtures. Each has a certificate of the services' authority, for loopback and the addresses of pods. Between primary
//! and replica it is the same. metrics-server is checked by the API server by that authority, kubelets by the one of
//! their cluster. Prometheus is the exception, both ways: it is asked, and it scrapes shops, in clear text. Figures are
//! no secret here, and a Prometheus in a cluster is commonly reached like that.
//!
//! # What a shell is told
//!
//! `REGION` is in capitals with `_` for `-`. Addresses hold passwords, so the file is for its owner only.
//!
//! | variable | is |
//! |---|---|
//! | `ALDIS_SERVICES_CA` | file with the authority behind every certificate here |
//! | `ALDIS_PG_REGION_URL` | the region's database `shop` as `aldis`, the role of an agent |
//! | `ALDIS_PG_REGION_SHOP_URL` | the same as `shop`, owner of the database |
//! | `ALDIS_PG_REGION_ADMIN_URL` | the same as `fleet`, superuser, for the hand at the keyboard only |
//! | `ALDIS_PG_REGION_REPLICA_URL` | its replica as `aldis`, where it has one |
//! | `ALDIS_S3_URL`, `ALDIS_S3_REGION` | the object store, and the region it signs for |
//! | `ALDIS_S3_REGION_BUCKET` | the region's bucket |
//! | `ALDIS_S3_REGION_ACCESS_KEY_ID`, `ALDIS_S3_REGION_SECRET_ACCESS_KEY` | the region's key, good for that bucket only |
//! | `ALDIS_S3_ADMIN_ACCESS_KEY_ID`, `ALDIS_S3_ADMIN_SECRET_ACCESS_KEY` | the store's own key, for the hand at the keyboard only |
//! | `ALDIS_REDIS_URL`, `ALDIS_REDIS_SHOP_URL`, `ALDIS_REDIS_ADMIN_URL` | Redis as `aldis`, `shop`, `fleet` |
//! | `ALDIS_PROMETHEUS_URL` | Prometheus |
//! | `ALDIS_GITHUB_FIXTURE_URL`, `ALDIS_GITHUB_FIXTURE_TOKEN` | the fixture in GitHub's place |
//! | `ALDIS_SENTRY_FIXTURE_URL`, `ALDIS_SENTRY_FIXTURE_TOKEN` | the fixture in Sentry's place |

mod fixture;
pub mod github;
pub mod http;
pub mod metrics;
mod place;
pub mod postgres;
mod programs;
pub mod prometheus;
pub mod redis;
pub mod s3;
mod secret;
pub mod sentry;
#[cfg(test)]
mod shapes;
mod targets;
mod wanted;

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};

use aldis_core::ids::TargetName;
use anyhow::{Context, ensure};
use futures::future::try_join_all;

pub use self::fixture::{Fault, Fixture};
use self::metrics::MetricsServer;
use self::place::Place;
use self::postgres::{Postgres, Replica};
use self::prometheus::Prometheus;
use self::redis::Redis;
use self::s3::S3;
pub use self::secret::Secret;
pub use self::targets::{Member, Targets};
pub use self::wanted::{Service, UnknownService, Wanted};
use super::folder::Folder;
use super::nodes::Nodes;
use super::process::Process;
use crate::proxy::Proxy;

/// What to start, and for whom.
#[derive(Clone, Debug)]
pub struct Options {
    /// Which of them.
    pub wanted: Wanted,
    /// A database and a bucket for each; the first region's database has a replica.
    pub regions: Vec<String>,
    /// Addresses beside loopback that [`Services::open_to`] may be called with.
    pub addresses: Vec<IpAddr>,
    /// Told of each that is up.
    pub tell: fn(&str),
}

impl Default for Options {
    fn default() -> Self {
        Self {
            wanted: Wanted::default(),
            regions: vec!["eu-west".to_owned(), "us-east".to_owned()],
            addresses: Vec::new(),
            tell: |_| {},
        }
    }
}

/// Running services. All of them end when this is dropped.
pub struct Services {
    // Relays first: nobody is let in while the servers go.
    relays: Vec<Proxy>,
    postgres: Vec<Postgres>,
    s3: Option<S3>,
    redis: Option<Redis>,
    prometheus: Option<Prometheus>,
    metrics: Vec<MetricsServer>,
    /// Clusters that nothing can be measured of.
    simulated: Vec<TargetName>,
    github: Option<Fixture>,
    sentry: Option<Fixture>,
    wanted: Wanted,
    place: Place,
}

impl Services {
    /// Starts those that are wanted, side by side. Clusters are made known later, by [`Services::follow`].
    pub async fn start(folder: &Folder, options: Options) -> anyhow::Result<Self> {
        let place = Place::make(folder, &options.addresses)?;
        let wanted = &options.wanted;
        let (postgres, s3, redis, prometheus, github, sentry) = tokio::try_join!(
            databases(&place, &options),
            started(&options, Service::S3, S3::start(&place, &options.regions)),
            started(&options, Service::Redis, Redis::start(&place)),
            started(&options, Service::Prometheus, Prometheus::start(&place)),
            started(
                &options,
                Service::Github,
                Fixture::start(&place, github::MANNER)
            ),
            started(
                &options,
                Service::Sentry,
                Fixture::start(&place, sentry::MANNER)
            ),
        )?;
        Ok(Self {
            relays: Vec::new(),
            postgres,
            s3,
            redis,
            prometheus,
            metrics: Vec::new(),
            simulated: Vec::new(),
            github,
            sentry,
            wanted: wanted.clone(),
            place,
        })
    }

    /// Takes clusters in: their shop pods are scraped from here on, and each gets its metrics-server.
    /// Those with simulated nodes are left out of both.
    pub async fn follow(&mut self, members: &[Member]) -> anyhow::Result<()> {
        if !self.measures() {
            return Ok(());
        }
        let (real, simulated): (Vec<_>, Vec<_>) = members
            .iter()
            .partition(|member| member.nodes == Nodes::Real);
        let simulated = simulated.into_iter().map(|member| member.target.clone());
        self.simulated.extend(simulated);
        if let Some(prometheus) = &mut self.prometheus {
            real.iter().for_each(|member| prometheus.follow(member));
        }
        if self.wanted.contains(Service::Metrics) {
            let servers = real
                .iter()
                .map(|member| MetricsServer::start(&self.place, member));
            self.metrics.extend(try_join_all(servers).await?);
        }
        Ok(())
    }

    /// Lets others in by an address of this machine, on the ports that are used on loopback.
    pub async fn open_to(&mut self, address: IpAddr) -> anyhow::Result<()> {
        ensure!(
            self.place.addresses().contains(&address),
            "no certificate of the services is for {address}\n\nhint: name it in `Options::addresses`"
        );
        for port in self.ports() {
            let relay = Proxy::start_on(
                format!("services-{address}-{port}"),
                (address, port).into(),
                (Ipv4Addr::LOCALHOST, port).into(),
            );
            self.relays.push(relay.await?);
        }
        Ok(())
    }

    /// The database of a region.
    pub fn postgres(&self, region: &str) -> anyhow::Result<&Postgres> {
        let found = self.postgres.iter().find(|one| one.region() == region);
        found.with_context(|| format!("no database was started for region `{region}`"))
    }

    /// The object store.
    pub fn s3(&self) -> anyhow::Result<&S3> {
        self.s3.as_ref().context("the object store was not wanted")
    }

    /// Redis.
    pub fn redis(&self) -> anyhow::Result<&Redis> {
        self.redis.as_ref().context("Redis was not wanted")
    }

    /// Prometheus.
    pub fn prometheus(&self) -> anyhow::Result<&Prometheus> {
        let found = self.prometheus.as_ref();
        found.context("Prometheus was not wanted")
    }

    /// The fixture in GitHub's place.
    pub fn github(&self) -> anyhow::Result<&Fixture> {
        let found = self.github.as_ref();
        found.context("the GitHub fixture was not wanted")
    }

    /// The fixture in Sentry's place.
    pub fn sentry(&self) -> anyhow::Result<&Fixture> {
        let found = self.sentry.as_ref();
        found.context("the Sentry fixture was not wanted")
    }

    /// File with the authority behind every certificate here.
    pub fn ca(&self) -> &Path {
        self.place.ca()
    }

    /// Every program, to kill or to freeze one.
    pub fn programs(&self) -> Vec<&Process> {
        let mut found: Vec<&Process> = self.postgres.iter().flat_map(Postgres::programs).collect();
        found.extend(self.s3.as_ref().map(S3::process));
        found.extend(self.redis.as_ref().map(Redis::process));
        found.extend(self.prometheus.as_ref().map(Prometheus::process));
        found.extend(self.metrics.iter().map(MetricsServer::process));
        found
    }

    /// Every port that something listens on.
    pub fn ports(&self) -> Vec<u16> {
        let mut found: Vec<u16> = self.postgres.iter().flat_map(Postgres::ports).collect();
        found.extend(self.s3.as_ref().map(S3::port));
        found.extend(self.redis.as_ref().map(Redis::port));
        found.extend(self.prometheus.as_ref().map(Prometheus::port));
        found.extend(self.github.as_ref().map(Fixture::port));
        found.extend(self.sentry.as_ref().map(Fixture::port));
        found
    }

    /// What a shell is told, in the order of the table above.
    pub fn environment(&self) -> Vec<(String, String)> {
        self.environment_at(Ipv4Addr::LOCALHOST.into())
    }

    /// The same for one who comes by another address, such as a pod.
    pub fn environment_at(&self, address: IpAddr) -> Vec<(String, String)> {
        let ca = self.ca().display().to_string();
        let mut found = vec![("ALDIS_SERVICES_CA".to_owned(), ca)];
        let mut add = |more: Vec<(String, String)>| found.extend(more);
        self.postgres
            .iter()
            .for_each(|one| add(one.environment(address)));
        self.s3.iter().for_each(|one| add(one.environment(address)));
        self.redis
            .iter()
            .for_each(|one| add(one.environment(address)));
        self.prometheus
            .iter()
            .for_each(|one| add(one.environment(address)));
        self.github
            .iter()
            .for_each(|one| add(one.environment(address)));
        self.sentry
            .iter()
            .for_each(|one| add(one.environment(address)));
        found
    }

    /// Whether any of them looks at clusters.
    fn measures(&self) -> bool {
        let measuring = [Service::Prometheus, Service::Metrics];
        measuring.into_iter().any(|one| self.wanted.contains(one))
    }

    /// What there is not, where nodes are simulated: there is nothing behind them to be measured.
    pub fn remark(&self) -> Option<String> {
        let names: Vec<String> = self.simulated.iter().map(TargetName::to_string).collect();
        (!names.is_empty()).then(|| {
            format!(
                "nothing is scraped and no metrics are served of {}: their nodes are simulated",
                names.join(", ")
            )
        })
    }
}

/// One database a region, all at once.
async fn databases(place: &Place, options: &Options) -> anyhow::Result<Vec<Postgres>> {
    if !options.wanted.contains(Service::Postgres) {
        return Ok(Vec::new());
    }
    let each = options.regions.iter().enumerate().map(|(index, region)| {
        let replica = if index == 0 {
            Replica::Streaming
        } else {
            Replica::None
        };
        Postgres::start(place, region, replica)
    });
    let databases = try_join_all(each).await?;
    (options.tell)("postgres is up");
    Ok(databases)
}

/// A service that may not be wanted. One that is not is never polled.
async fn started<T>(
    options: &Options,
    service: Service,
    start: impl Future<Output = anyhow::Result<T>>,
) -> anyhow::Result<Option<T>> {
    if !options.wanted.contains(service) {
        return Ok(None);
    }
    let running = start.await.with_context(|| format!("start {service}"))?;
    (options.tell)(&format!("{service} is up"));
    Ok(Some(running))
}

/// A region in the name of a variable.
fn in_capitals(region: &str) -> String {
    region.replace('-', "_").to_uppercase()
}

/// Where the files of the services are, below the fleet's folder.
fn below(name: &str) -> PathBuf {
    Path::new("services").join(name)
}
