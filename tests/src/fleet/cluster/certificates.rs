//! Certificates of one cluster: an authority of its own, as a real cluster has, and all it signs.
//!
//! | name | is |
//! |---|---|
//! | `apiserver` | the API server |
//! | `kubelet`, `kubelet-client` | the nodes' server, and the API server as its client |
//! | `node` | a real node as a client of the API server, which gives it a node's rights and no more |
//! | `admin` | the person who runs the fleet, the controllers and kwok |
//! | `scheduler` | the scheduler, with Kubernetes' own rights for it |
//! | `front-proxy` | the API server towards APIs behind it |
//! | `agent` | our agent: a user without any group, see [`super::rights`] |

use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::KeyPair;

use crate::fleet::nodes::network::Plan;
use crate::fleet::nodes::node;
use crate::pki::{Authority, Leaf, Request, Usage};

/// The user as which our agent acts.
pub const AGENT_USER: &str = "aldis-agent";

/// Group of those who may do everything.
const ADMINISTRATORS: &str = "system:masters";

/// Group of those who have a node's rights.
const NODES: &str = "system:nodes";

/// First address of the range of services where nodes are simulated, and no pod ever looks for it.
const SERVICE_ADDRESS: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

/// A folder of written certificates.
#[derive(Clone, Debug)]
pub struct Certificates {
    folder: PathBuf,
}

impl Certificates {
    /// Makes and writes all of them. `network` is of the cluster's real node, where it has one.
    pub fn make(folder: &Path, cluster: &str, network: Option<Plan>) -> anyhow::Result<Self> {
        let made = Self {
            folder: folder.to_owned(),
        };
        let authority = Authority::new(&format!("{cluster} authority"))?;
        made.write("ca.crt", authority.pem())?;
        for (name, request) in requests(network) {
            let Leaf { certificate, key } = authority.issue(&request)?;
            made.write(&format!("{name}.crt"), &certificate)?;
            made.write(&format!("{name}.key"), &key)?;
        }
        let accounts = KeyPair::generate().context("make the key of service accounts")?;
        made.write("accounts.key", &accounts.serialize_pem())?;
        made.write("accounts.pub", &accounts.public_key_pem())?;
        Ok(made)
    }

    /// The authority's certificate.
    pub fn ca(&self) -> PathBuf {
        self.file("ca.crt")
    }

    /// A certificate by its name.
    pub fn certificate(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.crt"))
    }

    /// The key to it.
    pub fn key(&self, name: &str) -> PathBuf {
        self.file(&format!("{name}.key"))
    }

    /// With which the API server checks tokens of service accounts.
    pub fn accounts_public(&self) -> PathBuf {
        self.file("accounts.pub")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    fn write(&self, name: &str, pem: &str) -> anyhow::Result<()> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.file(name);
        std::fs::OpenOptions::new()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(pem.as_bytes()))
            .with_context(|| format!("write {}", path.display()))
    }
}

fn requests(network: Option<Plan>) -> Vec<(&'static str, Request)> {
    let client = |name: &str| Request::new(name, Usage::Client);
    vec![
        ("apiserver", api_server(network)),
        ("kubelet", kubelet(network)),
        (
            "kubelet-client",
            client("kube-apiserver-kubelet-client").organization(ADMINISTRATORS),
        ),
        (
            "node",
            client(&format!("system:node:{}", node::NAME)).organization(NODES),
        ),
        ("admin", client("admin").organization(ADMINISTRATORS)),
        ("scheduler", client("system:kube-scheduler")),
        ("front-proxy", client("front-proxy")),
        ("agent", client(AGENT_USER)),
    ]
}

fn server(name: &str) -> Request {
    Request::new(name, Usage::Server).on_loopback()
}

/// Pods find it at the first address of the range of services, as in any cluster.
fn api_server(network: Option<Plan>) -> Request {
    server("kube-apiserver")
        .address(network.map_or(SERVICE_ADDRESS, Plan::service))
        .name("kubernetes")
        .name("kubernetes.default")
        .name("kubernetes.default.svc")
}

fn kubelet(network: Option<Plan>) -> Request {
    match network {
        Some(network) => Request::new(&format!("system:node:{}", node::NAME), Usage::Server)
            .address(network.inside()),
        None => server("system:node:fleet"),
    }
    .organization(NODES)
}
