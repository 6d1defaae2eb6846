//! Finds the programs of other projects that the tests run, in the pinned version.
//!
//! Looked for in this order: what our own build left in the cache (newest first), the folder named by
//! `KUBEBUILDER_ASSETS`, `PATH`. A program of another version is passed over: Debian's etcd has known
//! safety bugs, and a test that passes on another version says nothing.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::SystemTime;

/// The etcd, etcdctl and etcdutl that the tests run.
pub const ETCD_VERSION: &str = "3.6.16";

/// The Kubernetes programs that the tests run.
pub const KUBERNETES_VERSION: &str = "1.36.3";

/// The kwok that plays nodes and kubelets.
pub const KWOK_VERSION: &str = "0.8.0";

/// The containerd that real nodes run.
pub const CONTAINERD_VERSION: &str = "2.3.7";

/// Our own program in the image of every pod.
const PAUSE_VERSION: &str = "1";

/// A program that is not where it should be.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` {version} is neither in {} nor in $KUBEBUILDER_ASSETS nor in $PATH\n\nhint: build it with `make binaries`",
    cache.display()
)]
pub struct NotFound {
    name: String,
    version: String,
    cache: PathBuf,
}

/// etcd itself.
pub fn etcd() -> Result<PathBuf, NotFound> {
    find("etcd", ETCD_VERSION, "--version")
}

/// Its command line.
pub fn etcdctl() -> Result<PathBuf, NotFound> {
    find("etcdctl", ETCD_VERSION, "version")
}

/// Its tool for snapshots.
pub fn etcdutl() -> Result<PathBuf, NotFound> {
    find("etcdutl", ETCD_VERSION, "version")
}

/// The Kubernetes API server.
pub fn kube_apiserver() -> Result<PathBuf, NotFound> {
    find("kube-apiserver", KUBERNETES_VERSION, "--version")
}

/// The Kubernetes controllers.
pub fn kube_controller_manager() -> Result<PathBuf, NotFound> {
    find("kube-controller-manager", KUBERNETES_VERSION, "--version")
}

/// The Kubernetes scheduler.
pub fn kube_scheduler() -> Result<PathBuf, NotFound> {
    find("kube-scheduler", KUBERNETES_VERSION, "--version")
}

/// The Kubernetes command line.
pub fn kubectl() -> Result<PathBuf, NotFound> {
    find("kubectl", KUBERNETES_VERSION, "version --client")
}

/// kwok itself.
pub fn kwok() -> Result<PathBuf, NotFound> {
    find("kwok", KWOK_VERSION, "--version")
}

/// The node's own program of Kubernetes.
pub fn kubelet() -> Result<PathBuf, NotFound> {
    find("kubelet", KUBERNETES_VERSION, "--version")
}

/// Runs containers for the kubelet. Its shim is beside it.
pub fn containerd() -> Result<PathBuf, NotFound> {
    find("containerd", CONTAINERD_VERSION, "--version")
}

/// Its command line.
pub fn ctr() -> Result<PathBuf, NotFound> {
    find("ctr", CONTAINERD_VERSION, "--version")
}

/// Holds the namespaces of a pod.
pub fn pause() -> Result<PathBuf, NotFound> {
    find("pause", PAUSE_VERSION, "--version")
}

/// A program that, asked by some arguments, says that it is of a version.
pub fn find(name: &str, version: &str, asked_by: &str) -> Result<PathBuf, NotFound> {
    candidates()
        .into_iter()
        .map(|folder| folder.join(name))
        .find(|path| path.is_file() && says(path, asked_by, version))
        .ok_or_else(|| NotFound {
            name: name.to_owned(),
            version: version.to_owned(),
            cache: cache(),
        })
}

/// Where built programs are kept: a folder a build, below this one.
pub fn cache() -> PathBuf {
    let ours = std::env::var_os("ALDIS_CACHE").map(PathBuf::from);
    let theirs = || std::env::var_os("XDG_CACHE_HOME").map(|cache| Path::new(&cache).join("aldis"));
    let home = || std::env::var_os("HOME").map(|home| Path::new(&home).join(".cache/aldis"));
    ours.or_else(theirs)
        .or_else(home)
        .unwrap_or_default()
        .join("bin")
}

fn candidates() -> Vec<PathBuf> {
    let mut folders = built();
    folders.extend(std::env::var_os("KUBEBUILDER_ASSETS").map(PathBuf::from));
    if let Some(path) = std::env::var_os("PATH") {
        folders.extend(std::env::split_paths(&path));
    }
    folders
}

/// The folders of the cache, newest first, and the cache itself.
fn built() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(cache()) else {
        return Vec::new();
    };
    let mut folders: Vec<PathBuf> = entries
        .filter_map(|entry| Some(entry.ok()?.path()))
        .filter(|path| path.is_dir())
        .collect();
    folders.sort_by_key(|folder| std::cmp::Reverse(modified(folder)));
    folders.push(cache());
    folders
}

fn modified(path: &Path) -> Option<SystemTime> {
    path.metadata().and_then(|about| about.modified()).ok()
}

fn says(path: &Path, asked_by: &str, version: &str) -> bool {
    let asked_by = asked_by.split_whitespace();
    Command::new(path)
        .args(asked_by)
        .output()
        .is_ok_and(|said| {
            String::from_utf8_lossy(&said.stdout)
                .split_whitespace()
                .any(|word| word.trim_start_matches('v') == version)
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn another_version_is_passed_over() {
        let error = find("kwok", "0.0.1", "--version").unwrap_err();
        assert!(error.to_string().contains("make binaries"));
    }
}
