//! `aldis dev --simulate`: a whole system in one command, and nothing left of it, however it ends.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_tests::fleet::ports;
use rustix::process::{Pid, Signal, test_kill_process};
use serde_json::Value;

use crate::DEPLOY;
use crate::harness::{Going, Home, PATIENCE};

struct Trial {
    home: Home,
    temporary: PathBuf,
    port: String,
}

impl Trial {
    fn new() -> Self {
        let home = Home::new();
        let temporary = home.path().join("tmp");
        std::fs::create_dir(&temporary).unwrap();
        Self {
            home,
            temporary,
            port: ports::free().unwrap().to_string(),
        }
    }

    fn begin(&self) -> Going {
        let arguments = [
            "dev",
            "--simulate",
            "eu-west/a",
            "us-east/b",
            "--port",
            &self.port,
            "-o",
            "json",
        ];
        let mut command = self.home.command(&arguments);
        command.env("TMPDIR", &self.temporary);
        Going::start(command)
    }

    /// Starts everything, and waits until it can be worked with.
    async fn up(&self) -> (Going, Up) {
        let mut dev = self.begin();
        let line = dev.hears("\"processes\"").await;
        let said: Value = serde_json::from_str(&line).unwrap();
        let pids = said["processes"].as_array().unwrap().iter();
        let pid =
            |process: &Value| Pid::from_raw(process["pid"].as_i64().unwrap().try_into().unwrap());
        let up = Up {
            folder: said["data"].as_str().unwrap().into(),
            pids: pids.map(|process| pid(process).unwrap()).collect(),
        };
        assert_eq!(up.pids.len(), 3, "{said}");
        (dev, up)
    }

    fn contexts(&self) -> String {
        std::fs::read_to_string(self.home.config()).unwrap_or_default()
    }
}

struct Up {
    folder: PathBuf,
    pids: Vec<Pid>,
}

impl Up {
    /// Waits until none of its programs runs.
    async fn is_gone(&self) {
        let gone = async {
            while self.pids.iter().any(|pid| test_kill_process(*pid).is_ok()) {
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
        };
        tokio::time::timeout(PATIENCE, gone)
            .await
            .expect("its programs end");
    }
}

fn is_empty(folder: &Path) -> bool {
    std::fs::read_dir(folder).unwrap().next().is_none()
}

#[tokio::test]
async fn one_command_gives_a_system_to_plan_and_submit_on_and_takes_it_away_again() {
    let trial = Trial::new();
    let (dev, up) = trial.up().await;
    let mode = std::fs::metadata(trial.home.config())
        .unwrap()
        .permissions()
        .mode();
    assert_eq!(mode & 0o777, 0o600);
    let plan = [&["plan", "-c", "dev"], &DEPLOY[1..]].concat();
    let said = trial.home.aldis(&plan).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("(simulated)"), "{said:?}");
    let submit = [&DEPLOY[..], &["-c", "dev", "-y", "-w"]].concat();
    let said = trial.home.aldis(&submit).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("2 changed"), "{said:?}");
    dev.signal(Signal::TERM);
    let (code, heard) = dev.ends().await;
    assert_eq!(code, Some(0), "{heard}");
    up.is_gone().await;
    assert!(!up.folder.exists() && is_empty(&trial.temporary));
    assert!(!trial.contexts().contains("dev"), "{}", trial.contexts());
}

#[tokio::test]
async fn killed_it_takes_its_programs_along_and_the_next_one_cleans_up() {
    let trial = Trial::new();
    let (dev, up) = trial.up().await;
    dev.signal(Signal::KILL);
    dev.ends().await;
    up.is_gone().await;
    assert!(up.folder.exists(), "this is what is to be cleaned up");
    let (dev, next) = trial.up().await;
    assert!(!up.folder.exists(), "keys of a trial that is over");
    dev.signal(Signal::TERM);
    dev.ends().await;
    next.is_gone().await;
    assert!(is_empty(&trial.temporary));
    assert!(!trial.contexts().contains("dev"), "{}", trial.contexts());
}

#[tokio::test]
async fn two_at_once_leave_each_other_alone() {
    let (trial, other) = (Trial::new(), Trial::new());
    let (dev, up) = trial.up().await;
    let shared = Trial {
        temporary: trial.temporary.clone(),
        ..other
    };
    let (second, next) = shared.up().await;
    assert!(up.folder.exists(), "it is still in use");
    for dev in [dev, second] {
        dev.signal(Signal::TERM);
        dev.ends().await;
    }
    assert!(!next.folder.exists());
}

#[tokio::test]
async fn a_context_of_somebody_elses_is_left_alone() {
    let trial = Trial::new();
    let theirs = "contexts:\n  - {name: dev, server: 'https://localhost:9', ca: /etc/theirs.pem}\n";
    std::fs::write(trial.home.config(), theirs).unwrap();
    let (code, heard) = trial.begin().ends().await;
    assert_eq!(code, Some(1), "{heard}");
    assert!(heard.contains("--name"), "{heard}");
    assert_eq!(trial.contexts(), theirs);
}
