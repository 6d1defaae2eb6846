//! A control plane in this process, behind real mutual TLS on loopback.
//!
//! For tests and figures that need services and no clusters. Nothing is mocked: the configuration is read from a
//! file, as the program does it.

use std::net::SocketAddr;
use std::path::PathBuf;
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
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pki::{Authority, Leaf, Request, TRUST_DOMAIN};

/// For the first answer: the store is opened and a leader elected well within it.
const READY: Duration = Duration::from_secs(20);

/// A control plane that runs. Dropping it ends it at once.
pub struct Plane {
    folder: TempDir,
    authority: Authority,
    replicas: Vec<Replica>,
}

struct Replica {
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<anyhow::Result<Ended>>,
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

    async fn start_on(store: &str, limits: &str, replicas: usize) -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().context("make a folder")?;
        let authority = Authority::new("aldis test")?;
        std::fs::write(folder.path().join("ca.pem"), authority.pem())?;
        let mut plane = Self {
            folder,
            authority,
            replicas: Vec::new(),
        };
        for number in 1..=replicas {
            let replica = plane.start_replica(&format!("cp-{number}"), store, limits)?;
            plane.replicas.push(replica);
        }
        plane.wait_for_leader().await?;
        Ok(plane)
    }

    fn start_replica(&self, name: &str, store: &str, limits: &str) -> anyhow::Result<Replica> {
        let at = self.folder.path();
        let address = free_address()?;
        self.authority
            .issue(&Request::control_plane(name))?
            .write(at, name)?;
        let config = at.join(format!("{name}.yaml"));
        std::fs::write(&config, config_text(name, address, store, limits))?;
        let config = aldis_control_plane::config::load(&config)?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(again_when_deposed(config, stopped));
        Ok(Replica {
            address,
            stop: Some(stop),
            running,
        })
    }

    /// Ends one replica in order, and starts it again on the same address.
    pub async fn restart(&mut self, index: usize) -> anyhow::Result<()> {
        let replica = &mut self.replicas[index];
        if let Some(stop) = replica.stop.take() {
            let _ = stop.send(());
        }
        (&mut replica.running).await??;
        let config = self.folder.path().join(format!("cp-{}.yaml", index + 1));
        let config = aldis_control_plane::config::load(&config)?;
        let (stop, stopped) = oneshot::channel();
        let replica = &mut self.replicas[index];
        replica.running = tokio::spawn(again_when_deposed(config, stopped));
        replica.stop = Some(stop);
        Ok(())
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
            if let Some(stop) = replica.stop.take() {
                let _ = stop.send(());
            }
        }
        let mut ended = Vec::new();
        for replica in &mut self.replicas {
            ended.push((&mut replica.running).await??);
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
        self.replicas
            .iter()
            .for_each(|replica| replica.running.abort());
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
limits: {{permit: 5s, unreachableAfter: 2s, leaderTtl: 5s, openJobs: 1000000, {limits}}}
"
    )
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}
