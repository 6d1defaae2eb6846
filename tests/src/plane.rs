//! A control plane behind real mutual TLS on loopback: in this process, or as processes of its own.
//!
//! For tests and figures that need services and no clusters. Nothing is mocked: the configuration is read from a
//! file, as the program does it. Processes of their own are for what cannot be seen from within one: memory, and
//! a leader that is killed.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::config::Config;
use aldis_control_plane::run::{self, Ended};
use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::{Store, keys};
use anyhow::Context;
use futures::FutureExt;
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::fleet::folder::Folder;
use crate::fleet::process::{Process, Program, WhenItEnds};
use crate::pki::{Authority, Leaf, Request, TRUST_DOMAIN};

/// For the first answer: the store is opened and a leader elected well within it.
const READY: Duration = Duration::from_secs(20);

/// Times of most tests: what must end by time ends soon.
const SHORT: &str = "permit: 5s, unreachableAfter: 2s, leaderTtl: 5s, openJobs: 1000000";

/// A control plane of processes.
pub struct Apart<'a> {
    /// An etcd in plain text.
    pub etcd: &'a str,
    /// How many replicas.
    pub replicas: usize,
    /// `limits` of their configuration, such as `leaderTtl: 20s`.
    pub limits: &'a str,
}

/// A control plane that runs. Dropping it ends it at once.
pub struct Plane {
    replicas: Vec<Replica>,
    folder: TempDir,
    /// Logs of the replicas that are processes of their own.
    processes: Option<TempDir>,
    authority: Authority,
}

struct Replica {
    name: String,
    address: SocketAddr,
    metrics: SocketAddr,
    life: Life,
}

enum Life {
    Here {
        stop: Option<oneshot::Sender<()>>,
        running: JoinHandle<anyhow::Result<Ended>>,
    },
    Apart(Process),
}

impl Plane {
    /// Starts one replica on the embedded store, with short times, and waits until it leads.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with("").await
    }

    /// The same with more limits, such as `planExpiry: 10s`.
    pub async fn start_with(limits: &str) -> anyhow::Result<Self> {
        Self::start_on("{embedded: {path: state.redb}}", limits, 1).await
    }

    /// Starts replicas on an etcd in plain text, and waits until one leads.
    pub async fn start_on_etcd(endpoint: &str, replicas: usize) -> anyhow::Result<Self> {
        Self::start_on(
            &format!("{{etcd: {{endpoints: [\"{endpoint}\"]}}}}"),
            "",
            replicas,
        )
        .await
    }

    /// Starts replicas as processes of their own, each started again when it ends by itself. `program` says how a
    /// replica of some name is run on a configuration.
    pub async fn start_apart(
        apart: &Apart<'_>,
        program: impl Fn(&str, &Path) -> Program,
    ) -> anyhow::Result<Self> {
        let processes = tempfile::tempdir().context("make a folder")?;
        let folder = Folder::make(processes.path())?;
        let store = format!("{{etcd: {{endpoints: [\"{}\"]}}}}", apart.etcd);
        let begin = |name: &str, config: &Path| {
            let program = program(name, config).when_it_ends(WhenItEnds::StartAgain);
            Ok(Life::Apart(Process::start(&folder, program)?))
        };
        let mut plane = Self::start_each(&store, apart.limits, apart.replicas, true, begin).await?;
        plane.processes = Some(processes);
        Ok(plane)
    }

    async fn start_on(store: &str, limits: &str, replicas: usize) -> anyhow::Result<Self> {
        let limits = format!("{SHORT}, {limits}");
        // In one process a replica that starts again would find its port taken.
        Self::start_each(store, &limits, replicas, false, |_, config| here(config)).await
    }

    async fn start_each(
        store: &str,
        limits: &str,
        replicas: usize,
        monitored: bool,
        begin: impl Fn(&str, &Path) -> anyhow::Result<Life>,
    ) -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().context("make a folder")?;
        let authority = Authority::new("aldis test")?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        let mut plane = Self {
            folder,
            processes: None,
            authority,
            replicas: Vec::new(),
        };
        for number in 1..=replicas {
            let name = format!("cp-{number}");
            let (address, metrics) = (free_address()?, free_address()?);
            let mut text = config_text(&name, address, store, limits);
            if monitored {
                text.push_str(&format!("monitoring: {{listen: '{metrics}'}}\n"));
            }
            let config = plane.write_config(&name, &text)?;
            let life = begin(&name, &config)?;
            plane.replicas.push(Replica {
                name,
                address,
                metrics,
                life,
            });
        }
        plane.wait_for_leader().await?;
        Ok(plane)
    }

    fn write_config(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let folder = self.folder.path();
        let leaf = self.authority.issue(&Request::control_plane(name))?;
        leaf.write(folder, name)?;
        let config = folder.join(format!("{name}.yaml"));
        std::fs::write(&config, text)?;
        Ok(config)
    }

    /// Ends one replica of this process in order, and starts it again on the same address.
    pub async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = &mut self.replicas[index];
        replica.life.ask_to_end();
        replica.life.ended().await?;
        replica.life = here(&self.folder.path().join(format!("cp-{}.yaml", index + 1)))?;
        Ok(())
    }

    /// The process of a replica that is one of its own.
    pub fn process(&self, name: &str) -> anyhow::Result<&Process> {
        let named = |replica: &&Replica| replica.name == name;
        match self.replicas.iter().find(named).map(|found| &found.life) {
            Some(Life::Apart(process)) => Ok(process),
            Some(Life::Here { .. }) | None => anyhow::bail!("{name} is no process of its own"),
        }
    }

    /// What replicas that are processes of their own wrote last.
    pub fn last_words(&self) -> String {
        let word = |replica: &Replica| match &replica.life {
            Life::Apart(process) => Some(process.last_words()),
            Life::Here { .. } => None,
        };
        let words: Vec<String> = self.replicas.iter().filter_map(word).collect();
        words.join("\n")
    }

    /// The value of a metric of the first replica, such as `aldis_sessions`.
    pub async fn metric(&self, name: &str) -> anyhow::Result<u64> {
        let mut stream = TcpStream::connect(self.replicas[0].metrics).await?;
        stream.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await?;
        let mut text = String::new();
        stream.read_to_string(&mut text).await?;
        let value = |line: &str| line.strip_prefix(name)?.trim().parse().ok();
        let found = text.lines().find_map(value);
        found.with_context(|| format!("there is no {name} in {text}"))
    }

    /// Where each replica listens.
    pub fn addresses(&self) -> Vec<SocketAddr> {
        self.replicas
            .iter()
            .map(|replica| replica.address)
            .collect()
    }

    /// Its folder, with `ca.pem`.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The authority that it trusts.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A connection of somebody to the first replica.
    pub async fn connect(&self, who: &Request) -> anyhow::Result<Channel> {
        let leaf = self.authority.issue(who)?;
        self.connect_with(Some(&leaf)).await
    }

    /// A connection of somebody to the replica of a name.
    pub async fn connect_to(&self, name: &str, who: &Request) -> anyhow::Result<Channel> {
        let replica = self.replicas.iter().find(|replica| replica.name == name);
        let at = replica.context("a replica of that name")?.address;
        let leaf = self.authority.issue(who)?;
        self.connect_at(at, Some(&leaf)).await
    }

    /// A connection with this certificate, or with none.
    pub async fn connect_with(&self, leaf: Option<&Leaf>) -> anyhow::Result<Channel> {
        self.connect_at(self.replicas[0].address, leaf).await
    }

    /// The same to the replica at this address.
    pub async fn connect_at(
        &self,
        address: SocketAddr,
        leaf: Option<&Leaf>,
    ) -> anyhow::Result<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if let Some(leaf) = leaf {
            tls = tls.identity(Identity::from_pem(&leaf.certificate, &leaf.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{address}"))?;
        Ok(endpoint.tls_config(tls)?.connect().await?)
    }

    /// Asks every replica to end, and says how the first did.
    pub async fn stop(mut self) -> anyhow::Result<Ended> {
        for replica in &mut self.replicas {
            replica.life.ask_to_end();
        }
        let mut ended = Vec::new();
        for replica in &mut self.replicas {
            ended.push(replica.life.ended().await?);
        }
        ended.first().copied().context("no replica ran")
    }

    /// The keys in the embedded store, as a crash at this moment would leave it: a copy of its file is opened.
    pub async fn kept(&self) -> anyhow::Result<Vec<String>> {
        let live = self.folder.path().join("state.redb");
        let opened = async {
            loop {
                let copy = tempfile::NamedTempFile::new()?;
                std::fs::copy(&live, copy.path()).context("copy the store")?;
                // A copy that was made across a write is whole or does not open.
                if let Ok(store) = Embedded::open(copy.path(), Arc::new(SystemClock)) {
                    return anyhow::Ok(store.list(keys::ROOT).await?);
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        let listing = tokio::time::timeout(READY, opened).await;
        let records = listing.context("open a copy of the store")??.records;
        Ok(records
            .iter()
            .map(|record| record.key.to_string())
            .collect())
    }

    async fn wait_for_leader(&self) -> anyhow::Result<()> {
        use aldis_proto::v1::WhoamiRequest;
        use aldis_proto::v1::fleet_service_client::FleetServiceClient;
        let leads = async {
            loop {
                if let Ok(channel) = self.connect(&Request::user("harness")).await
                    && let Ok(who) = FleetServiceClient::new(channel)
                        .whoami(WhoamiRequest {})
                        .await
                    && !who.into_inner().leader.is_empty()
                {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(READY, leads)
            .await
            .context("the control plane leads")
    }
}

impl Life {
    fn ask_to_end(&mut self) {
        if let Self::Here { stop, .. } = self
            && let Some(stop) = stop.take()
        {
            let _ = stop.send(());
        }
    }

    async fn ended(&mut self) -> anyhow::Result<Ended> {
        match self {
            Self::Here { running, .. } => running.await?,
            Self::Apart(process) => anyhow::bail!("{} is a process of its own", process.name()),
        }
    }
}

/// A replica in this process.
fn here(config: &Path) -> anyhow::Result<Life> {
    let config = aldis_control_plane::config::load(config)?;
    let (stop, stopped) = oneshot::channel();
    let running = tokio::spawn(again_when_deposed(config, stopped));
    Ok(Life::Here {
        stop: Some(stop),
        running,
    })
}

/// A replica that led and lost that exits, and whatever supervises it starts it again.
async fn again_when_deposed(
    config: Config,
    stopped: oneshot::Receiver<()>,
) -> anyhow::Result<Ended> {
    let stopped = stopped.map(drop).shared();
    loop {
        match run::run(config.clone(), stopped.clone()).await? {
            Ended::LostLeadership => {}
            ended @ Ended::Asked => return Ok(ended),
        }
    }
}

impl Drop for Plane {
    fn drop(&mut self) {
        for replica in &self.replicas {
            // A process of its own is killed by its own drop.
            if let Life::Here { running, .. } = &replica.life {
                running.abort();
            }
        }
    }
}

fn config_text(name: &str, address: SocketAddr, store: &str, limits: &str) -> String {
    let port = address.port();
    format!(
        "replica: {name}
listen: {address}
advertise: localhost:{port}
trustDomain: {TRUST_DOMAIN}
tls: {{certificate: {name}.crt, key: {name}.key, ca: ca.pem}}
store: {store}
limits: {{{limits}}}
"
    )
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}
