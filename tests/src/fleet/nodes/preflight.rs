//! Whether this machine can run real nodes. The first check that fails is said in words, so that its reader
//! knows what to change.

use std::fs::{DirBuilder, File};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, bail, ensure};

use super::cgroups::Hierarchies;
use super::commands;
use crate::binaries;

/// Folders in which distributions put the plugins of the container network.
const PLUGIN_FOLDERS: [&str; 2] = ["/opt/cni/bin", "/usr/lib/cni"];

/// The plugins that a node uses.
const PLUGINS: [&str; 3] = ["bridge", "host-local", "loopback"];

/// Programs of the machine that start a node, and the Debian packages that have them.
const PROGRAMS: [(&str, &str); 6] = [
    ("runc", "runc"),
    ("ip", "iproute2"),
    ("unshare", "util-linux"),
    ("nsenter", "util-linux"),
    ("mount", "mount"),
    ("hostname", "hostname"),
];

/// Tried in namespaces of their own, which take all of it with them when they end.
const TRIAL: &str = "
mount --make-rprivate / || exit 40
mount -t tmpfs tmpfs \"$1\"/node || exit 40
mount --bind \"$1\"/node \"$1\"/node || exit 40
umount \"$1\"/node || exit 40
mount -t overlay overlay -o lowerdir=\"$1\"/lower,upperdir=\"$1\"/upper,workdir=\"$1\"/work \"$1\"/merged || exit 41
touch \"$1\"/merged/file || exit 41
ip link add there type veth peer name here || exit 42
ip link add bridged type bridge || exit 43
echo 1 >/proc/sys/net/ipv4/ip_forward || exit 44
";

/// Says why this machine cannot run real nodes below a folder; if it can, where their control groups will be.
/// Leaves nothing.
pub(super) fn check(folder: &Path) -> anyhow::Result<Hierarchies> {
    is_root()?;
    has_programs()?;
    plugin_folders()?;
    let hierarchies = can_limit()?;
    File::open("/dev/kmsg").context("read /dev/kmsg, which a kubelet does")?;
    can_separate(folder)?;
    Ok(hierarchies)
}

fn is_root() -> anyhow::Result<()> {
    let user = rustix::process::geteuid().as_raw();
    ensure!(user == 0, "it takes root, and this is user {user}");
    Ok(())
}

fn has_programs() -> anyhow::Result<()> {
    binaries::kubelet()?;
    binaries::containerd()?;
    let path = commands::path();
    for (program, package) in PROGRAMS {
        ensure!(
            std::env::split_paths(&path).any(|folder| folder.join(program).is_file()),
            "`{program}` is not installed (Debian package {package})"
        );
    }
    Ok(())
}

/// Where the plugins of the container network are.
pub(super) fn plugin_folders() -> anyhow::Result<Vec<PathBuf>> {
    let folders = PLUGIN_FOLDERS.map(PathBuf::from);
    for plugin in PLUGINS {
        ensure!(
            folders.iter().any(|folder| folder.join(plugin).is_file()),
            "the network plugin `{plugin}` is neither in {} (Debian package containernetworking-plugins)",
            PLUGIN_FOLDERS.join(" nor in ")
        );
    }
    Ok(folders.into())
}

fn can_limit() -> anyhow::Result<Hierarchies> {
    /// Two threads may look at the same moment.
    static LOOKS: AtomicU32 = AtomicU32::new(0);
    let hierarchies = Hierarchies::find()?;
    let look = LOOKS.fetch_add(1, Ordering::Relaxed);
    let name = format!("aldis-preflight-{}-{look}", std::process::id());
    for group in hierarchies.of_name(&name) {
        let made = DirBuilder::new().create(&group);
        made.with_context(|| format!("make the cgroup {}", group.display()))?;
        std::fs::remove_dir(&group)
            .with_context(|| format!("remove the cgroup {}", group.display()))?;
    }
    Ok(hierarchies)
}

fn can_separate(folder: &Path) -> anyhow::Result<()> {
    let above = folder.ancestors().find(|folder| folder.is_dir());
    let above = above.context("find the folder of the fleet")?;
    let trial = tempfile::Builder::new()
        .prefix("aldis-preflight-")
        .tempdir_in(above)
        .with_context(|| format!("write into {}", above.display()))?;
    for part in ["node", "lower", "upper", "work", "merged"] {
        std::fs::create_dir(trial.path().join(part)).context("make a folder for a trial")?;
    }
    let output = std::process::Command::new("unshare")
        .args(["--mount", "--pid", "--net", "--uts", "--fork"])
        .args(["--mount-proc", "--kill-child", "sh", "-ec", TRIAL, "sh"])
        .arg(trial.path())
        .env("PATH", commands::path())
        .output()
        .context("run `unshare`")?;
    let what = match output.status.code() {
        Some(0) => return Ok(()),
        Some(40) => format!("nothing can be mounted in {}", above.display()),
        Some(41) => format!("no overlay can be mounted in {}", above.display()),
        Some(42) => "no pair of links (veth) can be made".to_owned(),
        Some(43) => "no bridge can be made".to_owned(),
        Some(44) => "packets cannot be forwarded".to_owned(),
        _ => "no namespaces of mounts, processes and links can be made".to_owned(),
    };
    bail!("{what}: {}", String::from_utf8_lossy(&output.stderr).trim())
}
