//! An agent as a pod of its cluster, installed as a user installs it: from the chart in `deploy/`, by `kubectl apply`
//! of what Helm renders. Its account has the chart's rights and no others.
//!
//! ```text
//! values.json      what the chart is given
//! manifests.yaml   what it became
//! data/            the agent's data: a `hostPath`, as nothing on a fleet makes volumes; it outlives the pod
//! ```
//!
//! There is no engine to build the image of `deploy/containers/` with: this one holds the same program at the same
//! place, with the libraries of this machine. The pods' way to the replicas is the machine's end of their node's link.
//!
//! RBAC knows no patterns, and the policy allows every namespace. So the chart's ClusterRole is bound in each namespace
//! as it appears, as the notes of the chart tell a user to (see [`Rights`](crate::fleet::cluster::rights::Rights)), and
//! not in those of Kubernetes nor in the agent's own: there is the key to its certificate.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, ensure};
use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::{Namespace, Secret};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use super::agents::{ACTIONS, NAMESPACES};
use super::control_plane::ControlPlane;
use super::programs::Programs;
use crate::binaries;
use crate::fleet::cluster::Cluster;
use crate::fleet::cluster::rights::{Account, LABEL, MANAGER};
use crate::fleet::folder;
use crate::fleet::nodes::images::Image;
use crate::helm;
use crate::pki::TRUST_DOMAIN;
use crate::proxy::Proxy;

/// Where it is installed, and as whom.
pub const ACCOUNT: Account = Account {
    namespace: "aldis",
    name: RELEASE,
};

/// What its objects are called. Its pod has `-0` behind.
pub const RELEASE: &str = "aldis-agent";

/// The Secret with its certificate.
pub const CERTIFICATE: &str = "aldis-agent-tls";

const IMAGE: &str = "aldis.dev/aldis-agent";

/// Where the chart mounts `data`.
const DATA: &str = "/var/lib/aldis";

/// In `data`: which crash points are armed.
const CRASH_POINTS: &str = "crash-points";

/// Who the chart lets it run as.
const USER: u32 = 65532;

/// A running agent.
pub struct Pod {
    data: PathBuf,
    logs: PathBuf,
}

/// What one is installed with.
pub(super) struct Start<'a> {
    /// Where its files are, its certificate among them.
    pub(super) files: &'a Path,
    pub(super) programs: &'a Programs,
    pub(super) plane: &'a ControlPlane,
    pub(super) cluster: &'a Cluster,
    /// To the replicas, on loopback.
    pub(super) links: &'a [Proxy],
}

impl Start<'_> {
    /// Installs it. Returns when its objects are there, not when it is live.
    pub(super) async fn run(self) -> anyhow::Result<Pod> {
        let node = self.cluster.node().context("find its node")?;
        let pod = Pod {
            data: self.make_data()?,
            logs: node.logs(),
        };
        self.cluster.import(&[self.image()?]).await?;
        let client = self.cluster.client();
        make_namespace(&client).await?;
        self.put_certificate(&client).await?;
        self.apply(&self.values(&pod.data).await?).await?;
        self.cluster.rights().pass_to(ACCOUNT);
        Ok(pod)
    }

    fn make_data(&self) -> anyhow::Result<PathBuf> {
        let data = self.files.join("data");
        std::fs::create_dir_all(&data)
            .and_then(|()| std::os::unix::fs::chown(&data, Some(USER), Some(USER)))
            .with_context(|| format!("make {} for user {USER}", data.display()))?;
        Ok(data)
    }

    fn image(&self) -> anyhow::Result<Image> {
        let name = format!("{IMAGE}:{}", env!("CARGO_PKG_VERSION"));
        let image = Image::dynamic(&name, &self.programs.path("aldis-agent"))?;
        Ok(match self.programs.have_crash_points() {
            true => image.environment("ALDIS_FAILPOINTS", format!("@{DATA}/{CRASH_POINTS}")),
            false => image,
        })
    }

    async fn put_certificate(&self, client: &Client) -> anyhow::Result<()> {
        let read = |path: PathBuf| -> anyhow::Result<ByteString> {
            let bytes = std::fs::read(&path).with_context(|| format!("read {}", path.display()))?;
            Ok(ByteString(bytes))
        };
        let mut secret = Secret {
            type_: Some("kubernetes.io/tls".to_owned()),
            data: Some(BTreeMap::from([
                ("tls.crt".to_owned(), read(self.files.join("agent.crt"))?),
                ("tls.key".to_owned(), read(self.files.join("agent.key"))?),
                ("ca.crt".to_owned(), read(self.plane.ca())?),
            ])),
            ..Secret::default()
        };
        secret.metadata.name = Some(CERTIFICATE.to_owned());
        Api::<Secret>::namespaced(client.clone(), ACCOUNT.namespace)
            .patch(CERTIFICATE, &as_fleet(), &Patch::Apply(&secret))
            .await
            .context("put its certificate there")?;
        Ok(())
    }

    async fn values(&self, data: &Path) -> anyhow::Result<Value> {
        let mut endpoints = Vec::new();
        for link in self.links {
            let lent = self.cluster.lend(link.address().port()).await?;
            endpoints.push(lent.to_string());
        }
        Ok(json!({
            "target": self.cluster.target(),
            "pin": self.pin().await?,
            "labels": {"env": "prod"},
            "controlPlane": {"endpoints": endpoints},
            "trustDomain": TRUST_DOMAIN,
            "tls": {"secret": CERTIFICATE},
            "policy": {"actions": ACTIONS, "namespaces": NAMESPACES},
            "storage": {"kind": "hostPath", "path": data},
            "image": {"repository": IMAGE, "tag": env!("CARGO_PKG_VERSION")},
            "log": {"format": "human"},
        }))
    }

    /// Which cluster this is, so that the same values do nothing in another one.
    async fn pin(&self) -> anyhow::Result<Value> {
        let namespaces = Api::<Namespace>::all(self.cluster.client());
        let system = namespaces.get("kube-system").await?;
        let authority = self.cluster.authority();
        let authority = CertificateDer::from_pem_file(&authority)
            .with_context(|| format!("read {}", authority.display()))?;
        Ok(json!({
            "uid": system.metadata.uid.context("a namespace has an id")?,
            "ca": hex::encode(Sha256::digest(&authority)),
        }))
    }

    async fn apply(&self, values: &Value) -> anyhow::Result<()> {
        std::fs::write(self.files.join("values.json"), format!("{values:#}\n"))?;
        let rendered = helm::template("aldis-agent", RELEASE, ACCOUNT.namespace, values)?;
        let manifests = self.files.join("manifests.yaml");
        std::fs::write(&manifests, rendered.manifests()?)?;
        let output = tokio::process::Command::new(binaries::kubectl()?)
            .args(["apply", "--server-side", "--force-conflicts"])
            .args(["--field-manager", MANAGER])
            .arg("--kubeconfig")
            .arg(self.cluster.admin_kubeconfig())
            .arg("--filename")
            .arg(&manifests)
            .kill_on_drop(true)
            .output()
            .await
            .context("run kubectl")?;
        ensure!(
            output.status.success(),
            "apply {}: {}",
            manifests.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }
}

/// The agent's own, which is none of those that it may change.
async fn make_namespace(client: &Client) -> anyhow::Result<()> {
    let mut namespace = Namespace::default();
    namespace.metadata.name = Some(ACCOUNT.namespace.to_owned());
    namespace.metadata.labels = Some([(LABEL.to_owned(), "none".to_owned())].into());
    Api::<Namespace>::all(client.clone())
        .patch(ACCOUNT.namespace, &as_fleet(), &Patch::Apply(&namespace))
        .await
        .context("make its namespace")?;
    Ok(())
}

fn as_fleet() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

impl Pod {
    /// What it is called, in the namespace of [`ACCOUNT`].
    pub fn name(&self) -> String {
        format!("{RELEASE}-0")
    }

    /// Lets it be killed where it next passes a crash point, once; where it is noted that it was.
    pub fn arm(&self, point: &str) -> anyhow::Result<PathBuf> {
        let note = format!("was-killed-at-{point}");
        let killed = self.data.join(&note);
        let _ = std::fs::remove_file(&killed);
        let text = format!("{point}=kill-once:{DATA}/{note}");
        std::fs::write(self.data.join(CRASH_POINTS), text).context("arm the agent's pod")?;
        Ok(killed)
    }

    /// Lets it pass every crash point again.
    pub fn disarm(&self) {
        let _ = std::fs::remove_file(self.data.join(CRASH_POINTS));
    }

    /// The end of the newest log of its container.
    pub fn last_words(&self) -> String {
        match self.newest_log() {
            Some(log) => folder::end_of(&log),
            None => format!("{}: no container has written yet", self.name()),
        }
    }

    fn newest_log(&self) -> Option<PathBuf> {
        let of_pod = format!("{}_{}_", ACCOUNT.namespace, self.name());
        let pods = paths(&self.logs).into_iter().filter(|folder| {
            let name = folder.file_name().unwrap_or_default();
            name.to_string_lossy().starts_with(&of_pod)
        });
        let logs = pods.flat_map(|pod| paths(&pod.join("agent")));
        logs.max_by_key(|log| log.metadata().and_then(|about| about.modified()).ok())
    }
}

/// What is in a folder; nothing where there is none.
fn paths(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}
