//! The control plane of a fleet: two replicas on an etcd with mutual TLS, or one on a file.
//!
//! Each replica reaches etcd through a proxy of its own, `store-cp-1`, so that one can be cut off alone.
//! A replica that ends is started again, as a service manager would.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use serde_json::{Value, json};
use tonic::transport::Channel;

use super::programs::Programs;
use super::{Store, Times, door};
use crate::fleet::etcd::Etcd;
use crate::fleet::folder::Folder;
use crate::fleet::process::Process;
use crate::fleet::{ports, ready};
use crate::pki::{Authority, Request, TRUST_DOMAIN};
use crate::proxy::Proxy;

/// A replica leads within a second; the first start of etcd takes longer on a busy machine.
const LIMIT: Duration = Duration::from_secs(60);

/// A running control plane. All of it ends when this is dropped.
pub struct ControlPlane {
    authority: Authority,
    files: PathBuf,
    /// Of this machine, beside loopback, under which pods reach the replicas.
    addresses: Vec<IpAddr>,
    // In the order in which they are killed.
    replicas: Vec<Replica>,
    store: Option<Etcd>,
}

/// One replica.
pub struct Replica {
    name: String,
    port: u16,
    metrics: u16,
    process: Process,
    to_store: Option<Proxy>,
}

impl ControlPlane {
    /// Starts one and waits until it has a leader. Its replicas' certificates hold `addresses` too: agents in pods
    /// reach them there.
    pub async fn start(
        folder: &Folder,
        programs: &Programs,
        store: Store,
        times: Times,
        addresses: Vec<IpAddr>,
    ) -> anyhow::Result<Self> {
        let files = folder.make_below("control-plane")?;
        let authority = Authority::new("aldis fleet")?;
        folder.write("control-plane/ca.pem", authority.pem())?;
        let store = match store {
            Store::Etcd => Some(Etcd::start_tls(folder, "etcd").await?),
            Store::Embedded => None,
        };
        let names: &[&str] = if store.is_some() {
            &["cp-1", "cp-2"]
        } else {
            &["cp-1"]
        };
        let mut plane = Self {
            authority,
            files,
            addresses,
            replicas: Vec::new(),
            store,
        };
        for name in names {
            let replica = plane.start_replica(folder, programs, name, times).await?;
            plane.replicas.push(replica);
        }
        plane.leader().await?;
        Ok(plane)
    }

    async fn start_replica(
        &self,
        folder: &Folder,
        programs: &Programs,
        name: &str,
        times: Times,
    ) -> anyhow::Result<Replica> {
        let to_store = match &self.store {
            Some(etcd) => {
                let address = SocketAddr::from((Ipv4Addr::LOCALHOST, etcd.port()));
                Some(Proxy::start(format!("store-{name}"), address).await?)
            }
            None => None,
        };
        let addresses = self.addresses.iter();
        let request = addresses.fold(Request::control_plane(name), |request, address| {
            request.address(*address)
        });
        self.authority.issue(&request)?.write(&self.files, name)?;
        let (port, metrics) = (ports::free()?, ports::free()?);
        let config = json!({
            "replica": name,
            "listen": format!("127.0.0.1:{port}"),
            "advertise": format!("localhost:{port}"),
            "trustDomain": TRUST_DOMAIN,
            "tls": {"certificate": format!("{name}.crt"), "key": format!("{name}.key"), "ca": "ca.pem"},
            "store": self.store_config(to_store.as_ref()),
            "limits": times.limits(),
            "monitoring": {"listen": format!("127.0.0.1:{metrics}")},
        });
        let config = folder.write(
            format!("control-plane/{name}.yaml"),
            format!("{config:#}\n"),
        )?;
        let program = programs.service(name, "aldis-control-plane", &config);
        Ok(Replica {
            name: name.to_owned(),
            port,
            metrics,
            process: Process::start(folder, program)?,
            to_store,
        })
    }

    fn store_config(&self, proxy: Option<&Proxy>) -> Value {
        match (self.store.as_ref().and_then(Etcd::tls), proxy) {
            (Some(tls), Some(proxy)) => json!({"etcd": {
                "endpoints": [format!("https://{}", proxy.address())],
                "tls": {"certificate": tls.certificate, "key": tls.key, "ca": tls.ca},
            }}),
            _ => json!({"embedded": {"path": "state.redb"}}),
        }
    }

    /// The authority that signs everybody's certificates.
    pub fn authority(&self) -> &Authority {
        &self.authority
    }

    /// Its certificate.
    pub fn ca(&self) -> PathBuf {
        self.files.join("ca.pem")
    }

    /// Where its files are.
    pub fn files(&self) -> &Path {
        &self.files
    }

    /// Its replicas.
    pub fn replicas(&self) -> &[Replica] {
        &self.replicas
    }

    /// One of them, by name.
    pub fn replica(&self, name: &str) -> anyhow::Result<&Replica> {
        self.replicas
            .iter()
            .find(|replica| replica.name == name)
            .with_context(|| format!("there is no replica `{name}`"))
    }

    /// Its etcd, unless it keeps its state in a file.
    pub fn store(&self) -> Option<&Etcd> {
        self.store.as_ref()
    }

    /// Waits until some replica says who leads; its name.
    pub async fn leader(&self) -> anyhow::Result<String> {
        ready::eventually(LIMIT, "the control plane has a leader", || async {
            let mut said = Vec::new();
            for replica in &self.replicas {
                match self.leader_by(replica).await {
                    Ok(leader) if !leader.is_empty() => return Ok(leader),
                    Ok(_) => said.push(format!("{} knows of none", replica.name)),
                    Err(error) => said.push(format!("{}: {error:#}", replica.name)),
                }
            }
            let words: Vec<String> = self
                .replicas
                .iter()
                .map(|r| r.process.last_words())
                .collect();
            anyhow::bail!("{}\n{}", said.join("; "), words.join("\n"))
        })
        .await
    }

    async fn leader_by(&self, replica: &Replica) -> anyhow::Result<String> {
        let channel = self.connect(replica, &Request::user("fleet")).await?;
        door::leader(channel).await
    }

    /// A connection to a replica as somebody.
    pub async fn connect(&self, replica: &Replica, who: &Request) -> anyhow::Result<Channel> {
        door::connect(&self.authority, replica.port, who).await
    }
}

impl Replica {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where agents, people and other replicas reach it, on loopback.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Where its health and metrics are, in clear text.
    pub fn monitoring(&self) -> String {
        format!("http://127.0.0.1:{}", self.metrics)
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Between it and etcd, where it has one.
    pub fn to_store(&self) -> Option<&Proxy> {
        self.to_store.as_ref()
    }
}
