//! The control groups of a node: one folder of its name in each hierarchy of the machine.
//!
//! Version 1 has a hierarchy a controller, version 2 one for all. Version 2 is written as documented and
//! was never tried.

use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tokio::time::Instant;

/// Controllers without which no container starts.
const NEEDED: [&str; 6] = ["cpu", "cpuset", "memory", "devices", "freezer", "pids"];

/// Processes of a killed node end within half a second.
const LIMIT: Duration = Duration::from_secs(20);

/// Between two tries.
const EVERY: Duration = Duration::from_millis(20);

/// Where control groups are on this machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Hierarchies {
    /// One or two.
    pub(super) version: u8,
    /// A folder each.
    pub(super) folders: Vec<PathBuf>,
}

impl Hierarchies {
    /// Finds them.
    pub(super) fn find() -> anyhow::Result<Self> {
        let mounts = std::fs::read_to_string("/proc/self/mountinfo").context("read the mounts")?;
        Self::of(&mounts)
    }

    /// What a person should know who trusts these.
    pub(super) fn untried(&self) -> Option<&'static str> {
        (self.version == 2)
            .then_some("cgroup version 2, written as documented and never tried; `NODES=simulated` does without")
    }

    fn of(mounts: &str) -> anyhow::Result<Self> {
        let mounted = |kind: &str| -> Vec<(PathBuf, Vec<&str>)> {
            mounts
                .lines()
                .filter_map(|line| mount(line, kind))
                .collect()
        };
        let first = mounted("cgroup");
        let has = |name: &&str| first.iter().any(|(_, options)| options.contains(name));
        let second = mounted("cgroup2");
        if let Some((unified, _)) = second.first().filter(|_| first.is_empty()) {
            return Ok(Self {
                version: 2,
                folders: vec![unified.clone()],
            });
        }
        match NEEDED.iter().find(|name| !has(name)) {
            None => Ok(Self {
                version: 1,
                // Where both are mounted, runc makes a group in the second as well.
                folders: first
                    .into_iter()
                    .chain(second)
                    .map(|(folder, _)| folder)
                    .collect(),
            }),
            Some(missing) => bail!("no cgroup hierarchy has the controller `{missing}`"),
        }
    }

    /// The folders of one name.
    pub(super) fn of_name(&self, name: &str) -> Vec<PathBuf> {
        self.folders
            .iter()
            .map(|folder| folder.join(name))
            .collect()
    }
}

/// A mount of a kind: where, and the options of its file system.
fn mount<'a>(line: &'a str, kind: &str) -> Option<(PathBuf, Vec<&'a str>)> {
    let (before, after) = line.split_once(" - ")?;
    let mut after = after.split_whitespace();
    (after.next()? == kind).then_some(())?;
    let folder = before.split_whitespace().nth(4)?;
    Some((folder.into(), after.nth(1)?.split(',').collect()))
}

/// Ends what runs in the groups of a name, and removes them. Whether there were any.
pub(super) fn remove(name: &str) -> anyhow::Result<bool> {
    let groups = Hierarchies::find()?.of_name(name);
    let there: Vec<&PathBuf> = groups.iter().filter(|group| group.is_dir()).collect();
    for group in &there {
        remove_group(group).with_context(|| format!("remove the cgroup {}", group.display()))?;
    }
    Ok(!there.is_empty())
}

/// Who is in it may take a moment to end.
fn remove_group(group: &Path) -> anyhow::Result<()> {
    let deadline = Instant::now() + LIMIT;
    loop {
        match remove_below(group) {
            Ok(()) => return Ok(()),
            Err(error) if Instant::now() >= deadline => return Err(error.into()),
            Err(_) => pause(),
        }
    }
}

fn remove_below(group: &Path) -> std::io::Result<()> {
    for entry in group.read_dir()? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            remove_below(&entry.path())?;
        }
    }
    end_members(group);
    std::fs::remove_dir(group)
}

fn end_members(group: &Path) {
    let members = std::fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    let pids = members.lines().filter_map(|line| line.parse().ok());
    for pid in pids.filter_map(Pid::from_raw) {
        // It may have ended this instant.
        let _ = kill_process(pid, Signal::KILL);
    }
}

#[expect(clippy::disallowed_methods, reason = "also called where no runtime is")]
fn pause() {
    std::thread::sleep(EVERY);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn first(name: &str) -> String {
        format!("31 23 0:28 / /sys/fs/cgroup/{name} rw,relatime - cgroup cgroup rw,{name}\n")
    }

    #[test]
    fn a_machine_with_both_versions_counts_as_the_first_and_has_groups_in_both() {
        let unified = "41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw\n";
        let mounts: String = NEEDED.map(first).concat() + unified;
        let found = Hierarchies::of(&mounts).unwrap();
        assert_eq!(found.version, 1);
        assert_eq!(found.of_name("x")[2], Path::new("/sys/fs/cgroup/memory/x"));
        assert_eq!(found.of_name("x")[6], Path::new("/sys/fs/cgroup/unified/x"));
    }

    #[test]
    fn controllers_that_share_a_hierarchy_are_all_found() {
        let mounts: String = NEEDED[2..].iter().map(|name| first(name)).collect();
        let shared = "31 23 0:28 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu,cpuset\n";
        assert_eq!(
            Hierarchies::of(&(mounts + shared)).unwrap().folders.len(),
            5
        );
    }

    #[test]
    fn a_missing_controller_is_named() {
        let mounts: String = NEEDED[1..].iter().map(|name| first(name)).collect();
        let error = Hierarchies::of(&mounts).unwrap_err().to_string();
        assert!(error.contains("`cpu`"), "{error}");
    }

    #[test]
    fn a_machine_with_the_second_version_alone_has_one_folder() {
        let mounts = "29 23 0:26 / /sys/fs/cgroup rw - cgroup2 cgroup2 rw,nsdelegate\n";
        let found = Hierarchies::of(mounts).unwrap();
        assert_eq!((found.version, found.folders.len()), (2, 1));
    }
}
