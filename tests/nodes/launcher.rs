//! A fleet that is stopped leaves nothing, and one that is killed leaves nothing that the next does not remove.

use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::Duration;

use aldis_tests::fleet::ready;
use anyhow::ensure;

use super::stage::{folder, real};
use super::traces;

/// Programs of a killed launcher are killed with it.
const LIMIT: Duration = Duration::from_secs(30);

pub(crate) struct Launcher {
    pub(crate) folder: PathBuf,
}

impl Launcher {
    pub(crate) fn new(name: &str) -> Self {
        let launcher = Self {
            folder: folder(name),
        };
        launcher.said("down", &[]);
        launcher
    }

    /// What the launcher says, to a command that it must obey.
    pub(crate) fn said(&self, command: &str, more: &[&str]) -> String {
        let Output {
            status,
            stdout,
            stderr,
        } = Command::new(env!("CARGO_BIN_EXE_aldis-fleet"))
            .arg(command)
            .arg("--folder")
            .arg(&self.folder)
            .args(more)
            .output()
            .unwrap();
        let said = String::from_utf8(stdout).unwrap();
        assert!(
            status.success(),
            "{command}: {said}{}",
            String::from_utf8_lossy(&stderr)
        );
        said
    }

    pub(crate) fn up(&self) -> String {
        self.said(
            "up",
            &[
                "--clusters=1",
                "--without-aldis",
                "--nodes=real",
                "--with=none",
            ],
        )
    }

    fn traces(&self, names: &[String]) -> Vec<String> {
        traces::of(&self.folder, names)
    }

    /// Kills it, and waits until the kernel has killed the rest.
    async fn kill(&self) {
        let pid = std::fs::read_to_string(self.folder.join("pids/fleet")).unwrap();
        let killed = Command::new("kill")
            .args(["-9", pid.trim()])
            .status()
            .unwrap();
        assert!(killed.success());
        ready::eventually(LIMIT, "its programs end", || async {
            let left = traces::processes_and_mounts(&self.folder);
            ensure!(left.is_empty(), "{left:#?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

impl Drop for Launcher {
    fn drop(&mut self) {
        let folder: &Path = &self.folder;
        // Also where an assertion failed. The test has said all that there is to say.
        let _ = Command::new(env!("CARGO_BIN_EXE_aldis-fleet"))
            .args(["down", "--folder"])
            .arg(folder)
            .output();
    }
}

#[tokio::test]
async fn a_fleet_that_is_stopped_leaves_nothing_and_stopping_it_twice_is_harmless() {
    if !real() {
        return;
    }
    let launcher = Launcher::new("nodes-stopped");
    let said = launcher.up();
    assert!(said.contains("nodes are real"), "{said}");
    let names = traces::names(&launcher.folder);
    assert_eq!(names.len(), 1);
    let running = launcher.traces(&names);
    assert!(
        running.iter().any(|line| line.contains("kubelet")),
        "{running:#?}"
    );
    launcher.said("down", &[]);
    assert_eq!(launcher.traces(&names), Vec::<String>::new());
    launcher.said("down", &[]);
}

#[tokio::test]
async fn what_a_killed_launcher_left_is_removed_by_the_next_start_and_by_down() {
    if !real() {
        return;
    }
    let launcher = Launcher::new("nodes-killed");
    launcher.up();
    let first = traces::names(&launcher.folder);
    launcher.kill().await;
    assert_ne!(
        launcher.traces(&first),
        Vec::<String>::new(),
        "or this tests nothing"
    );

    let said = launcher.up();
    assert!(said.contains("which a killed fleet had left"), "{said}");
    let second = traces::names(&launcher.folder);
    let left = traces::of_networks(&first);
    assert!(first == second || left.is_empty(), "{left:#?}");

    launcher.kill().await;
    let said = launcher.said("down", &[]);
    assert!(said.contains("which a killed fleet had left"), "{said}");
    assert_eq!(launcher.traces(&second), Vec::<String>::new());
}
