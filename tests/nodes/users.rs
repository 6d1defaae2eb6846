//! Two fleets at the same time, of two work trees or two users: neither takes what is the other's.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use aldis_tests::binaries;
use aldis_tests::fleet::folder::Folder;
use tempfile::TempDir;

use super::launcher::Launcher;
use super::stage::real;
use super::traces;

/// `nobody`, and its group.
const USER: u32 = 65534;

/// A user who has the launcher and what it runs, and no rights on this machine.
struct Other {
    home: TempDir,
}

impl Other {
    /// Gives one copies: what is below the home of root he cannot read.
    fn new() -> Self {
        let home = tempfile::tempdir().unwrap();
        fs::set_permissions(home.path(), Permissions::from_mode(0o755)).unwrap();
        let launcher = Path::new(env!("CARGO_BIN_EXE_aldis-fleet"));
        copy(launcher, &home.path().join("aldis-fleet"));
        copy_all(&binaries::cache(), &home.path().join("cache/bin"));
        chown(home.path(), Some(USER), Some(USER)).unwrap();
        Self { home }
    }

    fn folder(&self) -> PathBuf {
        self.home.path().join("fleet")
    }

    /// What the launcher says to him of a folder, and whether it obeyed.
    fn types(&self, command: &str, folder: &Path, more: &[&str]) -> (bool, String) {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(self.home.path().join("aldis-fleet"))
            .arg(command)
            .arg("--folder")
            .arg(folder)
            .args(more)
            .current_dir(self.home.path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap())
            .env("HOME", self.home.path())
            .env("ALDIS_CACHE", self.home.path().join("cache"))
            .uid(USER)
            .gid(USER)
            .output()
            .unwrap();
        let said = [stdout, stderr].map(|text| String::from_utf8(text).unwrap());
        (status.success(), said.concat())
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.types("down", &self.folder(), &[]);
    }
}

fn copy(from: &Path, to: &Path) {
    fs::hard_link(from, to)
        .or_else(|_| fs::copy(from, to).map(drop))
        .unwrap();
}

fn copy_all(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    for entry in from.read_dir().unwrap().map(Result::unwrap) {
        let to = to.join(entry.file_name());
        if entry.path().is_dir() {
            copy_all(&entry.path(), &to);
        } else {
            copy(&entry.path(), &to);
        }
    }
}

/// Who runs the programs of a fleet.
fn users(fleet: &Path) -> Vec<u32> {
    let programs = Folder::open(fleet).unwrap().processes();
    let owner = |pid: i32| fs::metadata(format!("/proc/{pid}")).unwrap().uid();
    programs
        .iter()
        .map(|(_, running)| owner(running.pid().as_raw_nonzero().get()))
        .collect()
}

/// Links, routes and cgroups of a fleet, and which of its programs run.
fn standing(fleet: &Launcher, names: &[String]) -> (Vec<String>, Vec<String>) {
    let programs = Folder::open(&fleet.folder).unwrap().processes();
    let running = programs.into_iter().filter(|(_, one)| one.is_alive());
    let mut running: Vec<String> = running.map(|(name, _)| name).collect();
    running.sort();
    (traces::of_networks(names), running)
}

#[tokio::test]
async fn fleets_of_two_users_start_side_by_side_and_neither_stops_the_other() {
    if !real() {
        return;
    }
    let ours = Launcher::new("nodes-of-root");
    let other = Other::new();
    let theirs = other.folder();
    let (real, (up, simulated)) = std::thread::scope(|scope| {
        let real = scope.spawn(|| ours.up());
        let small = ["--clusters", "2", "--without-aldis", "--with", "redis,s3"];
        let up = other.types("up", &theirs, &small);
        (real.join().unwrap(), up)
    });
    assert!(real.contains("nodes are real"), "{real}");
    assert!(up, "{simulated}");
    assert!(
        simulated.contains("it takes root, and this is user 65534"),
        "{simulated}"
    );
    let programs = users(&theirs);
    assert!(programs.len() > 8 && programs.iter().all(|user| *user == USER));

    let (stopped, said) = other.types("down", &ours.folder, &[]);
    assert!(!stopped && said.contains("another user"), "{said}");
    let names = traces::names(&ours.folder);
    let before = standing(&ours, &names);
    let (stopped, said) = other.types("down", &theirs, &[]);
    assert!(stopped, "{said}");
    assert_eq!(traces::of(&theirs, &[]), Vec::<String>::new());
    assert_eq!(standing(&ours, &names), before);
    ours.said("down", &[]);
    assert_eq!(traces::of(&ours.folder, &names), Vec::<String>::new());
}

#[tokio::test]
async fn fleets_of_two_work_trees_have_networks_of_their_own_and_end_alone() {
    if !real() {
        return;
    }
    let [here, there] = ["nodes-here", "nodes-there"].map(Launcher::new);
    std::thread::scope(|scope| {
        scope.spawn(|| here.up());
        there.up();
    });
    let [mine, yours] = [&here, &there].map(|one| traces::names(&one.folder));
    assert_eq!((mine.len(), yours.len()), (1, 1));
    assert_ne!(mine, yours);
    let before = standing(&there, &yours);
    here.said("down", &[]);
    assert_eq!(traces::of(&here.folder, &mine), Vec::<String>::new());
    assert_eq!(standing(&there, &yours), before);
}
