//! One real node: containerd and a kubelet in namespaces of their own, and what the machine lends it.
//!
//! ```text
//! this machine                                  the node's namespaces
//!   API server on loopback <- forward             kubelet -> containerd -> runc
//!   aldisN 10.220.x.1, 10.210.x.1:443  <--link-->  eth0 10.220.x.2, bridge `pods` 10.200.x.1
//!   route 10.200.x.0/24 ----------------------->     pods 10.200.x.2 and on
//! ```
//!
//! The address of the service `kubernetes` is the machine's end of the link: a pod that reads
//! `KUBERNETES_SERVICE_HOST`, as every client in a cluster does, reaches its API server. No other service
//! has an address that works: there is no kube-proxy.
//!
//! The process that is supervised is `unshare`. Killing it is switching the node off, since all in its
//! namespaces ends with it; starting it again (or letting the supervisor do so) is switching it on.
//! On the machine some empty folders stay behind, such as `/var/lib/kubelet`: folders of the node are
//! bound on them, inside.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::{Context, ensure};
use rustix::process::Pid;
use tokio::process::Command;

use super::cgroups::Hierarchies;
use super::forward::Forward;
use super::images::{self, Image, PAUSE};
use super::network::{Network, Plan};
use super::{commands, preflight, settings};
use crate::binaries;
use crate::fleet::cluster::certificates::Certificates;
use crate::fleet::folder::Folder;
use crate::fleet::process::{Process, Program, WhenItEnds};
use crate::fleet::ready;

const SCRIPT: &str = include_str!("node.sh");

/// Name of the node in its cluster.
pub const NAME: &str = "node-1";

/// Port of the service `kubernetes`.
const API_PORT: u16 = 443;

/// containerd answers within a second.
const CONTAINERD_LIMIT: Duration = Duration::from_secs(60);

/// A running node. All of it ends when this is dropped.
pub struct Node {
    // In the order in which they end: cgroups cannot be removed before what runs in them.
    process: Process,
    lent: Mutex<BTreeMap<u16, Forward>>,
    imported: Mutex<BTreeMap<String, Image>>,
    here: PathBuf,
    plan: Plan,
    _network: Network,
    _images: Images,
}

/// Where containerd keeps images and what containers wrote over them. It goes with the node: nobody reads it after.
struct Images(PathBuf);

/// What one node is made of.
pub(in crate::fleet) struct Start<'a> {
    /// The fleet's.
    pub(in crate::fleet) folder: &'a Folder,
    /// Whose node it is.
    pub(in crate::fleet) target: &'a TargetName,
    /// First part of each program's name.
    pub(in crate::fleet) name: &'a str,
    /// Of the cluster.
    pub(in crate::fleet) certificates: &'a Certificates,
    /// How the node itself reaches the API server.
    pub(in crate::fleet) kubeconfig: String,
    /// Port of the API server on loopback.
    pub(in crate::fleet) api: u16,
    /// What was drawn for it.
    pub(in crate::fleet) network: Network,
}

impl Start<'_> {
    /// Starts it. Returns when it takes images, not when it is ready.
    pub(in crate::fleet) async fn run(self) -> anyhow::Result<Node> {
        let plan = self.network.plan();
        let here = self.lay_out()?;
        let process = Process::start(self.folder, self.program(&here)?)?;
        let api = SocketAddr::from((plan.service(), API_PORT));
        let api = Forward::start(api, self.api)
            .await
            .with_context(|| process.last_words())?;
        let node = Node {
            process,
            lent: Mutex::new(BTreeMap::from([(self.api, api)])),
            imported: Mutex::default(),
            plan,
            _network: self.network,
            _images: Images(here.join(images::FOLDER)),
            here,
        };
        let pause = Image::program(PAUSE, binaries::pause()?);
        let imported = || node.import(std::slice::from_ref(&pause));
        ready::until(&node.process, CONTAINERD_LIMIT, "containerd", imported).await?;
        Ok(node)
    }

    fn lay_out(&self) -> anyhow::Result<PathBuf> {
        let plan = self.network.plan();
        let below = Path::new(self.name).join("node");
        let here = self.folder.make_below(&below)?;
        let write = |name: &str, text: String| self.folder.write(below.join(name), text);
        let kubelet = settings::kubelet(plan, self.certificates, &here);
        write("kubelet.yaml", format!("{kubelet:#}\n"))?;
        write(
            "containerd.toml",
            settings::containerd(&preflight::plugin_folders()?, &here),
        )?;
        write(
            "network/pods.conflist",
            format!("{:#}\n", settings::network(plan)),
        )?;
        write("resolv.conf", settings::RESOLVER.to_owned())?;
        write("kubeconfig", self.kubeconfig.clone())?;
        write("node.sh", SCRIPT.to_owned())?;
        Ok(here)
    }

    fn program(&self, here: &Path) -> anyhow::Result<Program> {
        let plan = self.network.plan();
        let groups = Hierarchies::find()?;
        let folders: Vec<String> = groups
            .of_name(&plan.name())
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let region = self.target.region();
        let labels =
            format!("topology.kubernetes.io/region={region},topology.kubernetes.io/zone={region}a");
        Ok(Program::new(format!("{}-node", self.name), "/bin/sh")
            .arguments([here.join("node.sh")])
            .environment("PATH", path()?)
            .environment("NODE", NAME)
            .environment("HERE", here)
            .environment("LOG", self.folder.logs().join(self.name))
            .environment("LINK", plan.name())
            .environment("OUTSIDE", plan.outside().to_string())
            .environment("INSIDE", plan.inside().to_string())
            .environment("SERVICE", plan.service().to_string())
            .environment("SERVICES", plan.services())
            .environment("PODS", plan.pods())
            .environment("CGROUPS", folders.join(" "))
            .environment("CGROUP_VERSION", groups.version.to_string())
            .environment("KUBELET_LABELS", labels)
            .when_it_ends(WhenItEnds::StartAgain))
    }
}

/// containerd finds its shim, and the script both programs, by it.
fn path() -> anyhow::Result<std::ffi::OsString> {
    let of = |program: PathBuf| program.parent().map(Path::to_owned).unwrap_or_default();
    let folders = [of(binaries::containerd()?), of(binaries::kubelet()?)];
    let machine = commands::path();
    let all = folders.into_iter().chain(std::env::split_paths(&machine));
    std::env::join_paths(all).context("write the path of a node")
}

impl Node {
    /// What is supervised: killing it switches the node off.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Its names and addresses.
    pub fn plan(&self) -> Plan {
        self.plan
    }

    /// Where its kubelet listens.
    pub fn kubelet(&self) -> SocketAddr {
        SocketAddr::from((self.plan.inside(), settings::KUBELET_PORT))
    }

    /// What its containers wrote: `NAMESPACE_POD_UID/CONTAINER/RESTARTS.log`.
    pub fn logs(&self) -> PathBuf {
        self.here.join("pods")
    }

    /// Lets its pods reach a port on loopback, under the address that this returns.
    pub async fn lend(&self, port: u16) -> anyhow::Result<SocketAddr> {
        if let Some(lent) = self.lent().get(&port) {
            return Ok(lent.address());
        }
        let address = SocketAddr::from((self.plan.outside(), port));
        let forward = Forward::start(address, port).await?;
        let address = forward.address();
        self.lent().insert(port, forward);
        Ok(address)
    }

    fn lent(&self) -> std::sync::MutexGuard<'_, BTreeMap<u16, Forward>> {
        self.lent.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Imports images. Those that it has are passed over.
    pub async fn import(&self, images: &[Image]) -> anyhow::Result<()> {
        let missing: Vec<Image> = {
            let known = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
            let missing = images
                .iter()
                .filter(|image| known.get(&image.name) != Some(*image));
            missing.cloned().collect()
        };
        if missing.is_empty() {
            return Ok(());
        }
        let file = tempfile::NamedTempFile::new_in(&self.here).context("write an archive")?;
        std::fs::write(file.path(), images::archive(&missing)?).context("write an archive")?;
        self.ctr(&["images", "import"], file.path()).await?;
        let mut known = self.imported.lock().unwrap_or_else(PoisonError::into_inner);
        known.extend(missing.into_iter().map(|image| (image.name.clone(), image)));
        Ok(())
    }

    /// containerd's own command, where containerd listens: in the node's namespaces.
    async fn ctr(&self, words: &[&str], file: &Path) -> anyhow::Result<()> {
        let output = Command::new("nsenter")
            .args(["--mount", "--target", &self.inner()?.to_string()])
            .arg(binaries::ctr()?)
            .args(["--namespace", "k8s.io"])
            .args(words)
            .arg(file)
            .kill_on_drop(true)
            .output()
            .await
            .context("run ctr")?;
        ensure!(
            output.status.success(),
            "ctr {}: {}",
            words.join(" "),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// The first process in its namespaces.
    fn inner(&self) -> anyhow::Result<i32> {
        let outer = self.process.pid().context("the node is switched off")?;
        inner(outer).context("the node has no namespaces yet")
    }
}

impl Drop for Images {
    fn drop(&mut self) {
        // All that ran on it has ended, or its cgroups could not have been removed; mounts end with namespaces.
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            tracing::warn!("remove {}: {error}", self.0.display());
        }
    }
}

fn inner(outer: Pid) -> Option<i32> {
    let outer = outer.as_raw_nonzero();
    let children = format!("/proc/{outer}/task/{outer}/children");
    let children = std::fs::read_to_string(children).ok()?;
    children.split_whitespace().next()?.parse().ok()
}
