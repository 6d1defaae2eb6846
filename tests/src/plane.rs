//! A control plane in this process, on the embedded store, behind real mutual TLS on loopback.
//!
//! For tests that need services and no clusters. Nothing is mocked: the configuration is read from a
//! file, as the program does it.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use aldis_control_plane::run::{self, Ended};
use anyhow::Context;
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
    address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    running: JoinHandle<anyhow::Result<Ended>>,
}

impl Plane {
    /// Starts one with short times and waits until it leads.
    pub async fn start() -> anyhow::Result<Self> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().context("make a folder")?;
        let authority = Authority::new("aldis test")?;
        let address = free_address()?;
        let at = folder.path();
        std::fs::write(at.join("ca.pem"), authority.pem())?;
        authority
            .issue(&Request::control_plane("cp-1"))?
            .write(at, "cp-1")?;
        let config = at.join("control-plane.yaml");
        std::fs::write(&config, config_text(address))?;
        let config = aldis_control_plane::config::load(&config)?;
        let (stop, stopped) = oneshot::channel();
        let running = tokio::spawn(run::run(config, async {
            let _ = stopped.await;
        }));
        let plane = Self {
            folder,
            authority,
            address,
            stop: Some(stop),
            running,
        };
        plane.wait_for_leader().await?;
        Ok(plane)
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its folder, with `ca.pem`.
    pub fn folder(&self) -> PathBuf {
        self.folder.path().to_owned()
    }

    /// The authority that it trusts.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// A connection of somebody.
    pub async fn connect(&self, who: &Request) -> anyhow::Result<Channel> {
        let leaf = self.authority.issue(who)?;
        self.connect_with(Some(&leaf)).await
    }

    /// A connection with this certificate, or with none.
    pub async fn connect_with(&self, leaf: Option<&Leaf>) -> anyhow::Result<Channel> {
        let mut tls = ClientTlsConfig::new()
            .ca_certificate(Certificate::from_pem(self.authority.pem()))
            .domain_name("localhost");
        if let Some(leaf) = leaf {
            tls = tls.identity(Identity::from_pem(&leaf.certificate, &leaf.key));
        }
        let endpoint = Endpoint::from_shared(format!("https://{}", self.address))?;
        Ok(endpoint.tls_config(tls)?.connect().await?)
    }

    /// Asks it to end, and says how it did.
    pub async fn stop(mut self) -> anyhow::Result<Ended> {
        if let Some(stop) = self.stop.take() {
            let _ = stop.send(());
        }
        (&mut self.running).await?
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

impl Drop for Plane {
    fn drop(&mut self) {
        self.running.abort();
    }
}

fn config_text(address: SocketAddr) -> String {
    format!(
        "replica: cp-1
listen: {address}
advertise: localhost:{port}
trustDomain: {TRUST_DOMAIN}
tls: {{certificate: cp-1.crt, key: cp-1.key, ca: ca.pem}}
store: {{embedded: {{path: state.redb}}}}
limits: {{permit: 5s, unreachableAfter: 2s, leaderTtl: 2s}}
",
        port = address.port()
    )
}

fn free_address() -> anyhow::Result<SocketAddr> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr()?)
}
