//! What the kubelet, containerd and the pods' network are told. Pure: nothing is started here.
//!
//! Paths are those inside the node's namespaces, where the folders of the machine are hidden by the node's.

use std::fmt::Display;
use std::path::Path;

use serde_json::{Value, json};

use super::images::PAUSE;
use super::network::Plan;
use crate::fleet::cluster::certificates::Certificates;

/// Where containerd listens, inside.
const SOCKET: &str = "/run/containerd/containerd.sock";

/// Port of the kubelet.
pub(super) const KUBELET_PORT: u16 = 10250;

/// The kubelet's configuration. Nobody is let in without a certificate or token that the API server knows
/// and gives the right.
///
/// - `syncFrequency`: with the default of a minute a crash loop or a failed pull is seen late or never.
/// - `serializeImagePulls`: two images that do not exist would delay each other.
/// - disks may be as full as they like: the machine is not the node's.
pub(super) fn kubelet(plan: Plan, certificates: &Certificates, here: &Path) -> Value {
    json!({
        "apiVersion": "kubelet.config.k8s.io/v1beta1",
        "kind": "KubeletConfiguration",
        "address": plan.inside(),
        "port": KUBELET_PORT,
        "readOnlyPort": 0,
        "tlsCertFile": certificates.certificate("kubelet"),
        "tlsPrivateKeyFile": certificates.key("kubelet"),
        "authentication": {
            "anonymous": {"enabled": false},
            "webhook": {"enabled": true},
            "x509": {"clientCAFile": certificates.ca()},
        },
        "authorization": {"mode": "Webhook"},
        "containerRuntimeEndpoint": format!("unix://{SOCKET}"),
        "cgroupDriver": "cgroupfs",
        "cgroupRoot": format!("/{}", plan.name()),
        "failCgroupV1": false,
        "failSwapOn": false,
        "enforceNodeAllocatable": ["pods"],
        "makeIPTablesUtilChains": false,
        "resolvConf": here.join("resolv.conf"),
        "syncFrequency": "2s",
        "serializeImagePulls": false,
        "imageGCHighThresholdPercent": 100,
        "evictionHard": {
            "memory.available": "100Mi",
            "nodefs.available": "0%",
            "nodefs.inodesFree": "0%",
            "imagefs.available": "0%",
            "imagefs.inodesFree": "0%",
        },
    })
}

/// containerd's. On machines that keep the right to lower a process's badness for themselves, every pod
/// would fail without `restrict_oom_score_adj`.
pub(super) fn containerd(plugins: &[impl AsRef<Path>], here: &Path) -> String {
    let folders: Vec<String> = plugins
        .iter()
        .map(|folder| quoted(folder.as_ref().display()))
        .collect();
    format!(
        r#"version = 3
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.nri.v1.nri", "io.containerd.internal.v1.opt"]

[grpc]
address = "{SOCKET}"

[plugins.'io.containerd.cri.v1.images']
snapshotter = "overlayfs"

[plugins.'io.containerd.cri.v1.images'.pinned_images]
sandbox = "{PAUSE}"

[plugins.'io.containerd.cri.v1.runtime']
restrict_oom_score_adj = true

[plugins.'io.containerd.cri.v1.runtime'.cni]
bin_dirs = [{folders}]
conf_dir = {network}

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"

[plugins.'io.containerd.cri.v1.runtime'.containerd.runtimes.runc.options]
SystemdCgroup = false
"#,
        folders = folders.join(", "),
        network = quoted(here.join("network").display()),
    )
}

/// One bridge, whose addresses nobody outside this machine sees.
pub(super) fn network(plan: Plan) -> Value {
    json!({
        "cniVersion": "1.0.0",
        "name": "pods",
        "plugins": [{
            "type": "bridge",
            "bridge": "pods",
            "isGateway": true,
            "ipMasq": false,
            "ipam": {
                "type": "host-local",
                "ranges": [[{"subnet": plan.pods()}]],
                "routes": [{"dst": "0.0.0.0/0"}],
            },
        }],
    })
}

/// Nobody answers there, so that a name fails at once and not after a time limit.
pub(super) const RESOLVER: &str = "nameserver 127.0.0.1\n";

/// A basic string of TOML.
fn quoted(text: impl Display) -> String {
    Value::from(text.to_string()).to_string()
}
