//! The programs of a trial: started, watched, started again when one dies, stopped at the end.
//!
//! Each is in a process group of its own, so that Ctrl-C reaches `aldis dev` alone, which then stops
//! them in order. Their output goes to files; the last lines are shown when one dies. Their standard
//! input is a leash: it ends when this process does, however that happens, and each ends with it.

use std::collections::VecDeque;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::pipe::Receiver;
use tokio::process::{Child, ChildStdin, Command};
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::Error;

/// Lines kept of each, for when it dies.
const KEPT: usize = 8;

/// For a program to stop by itself; then it is killed.
const GRACE: Duration = Duration::from_secs(8);

/// For the last lines of a program that ended to come through its pipe.
const LAST_WORDS: Duration = Duration::from_millis(500);

/// A program that dies so often within [`OFTEN_WITHIN`] is not started again.
const OFTEN: usize = 5;

/// See [`OFTEN`].
const OFTEN_WITHIN: Duration = Duration::from_secs(60);

/// One program.
#[derive(Clone, Debug)]
pub struct Program {
    /// What people call it.
    pub name: String,
    /// The file to run.
    pub binary: PathBuf,
    /// Its configuration.
    pub config: PathBuf,
    /// Where its output goes.
    pub log: PathBuf,
}

/// A program that runs.
pub struct Running {
    /// What it is.
    pub program: Program,
    child: Child,
    /// Held apart: waiting for a child closes the input that it has.
    _leash: Option<ChildStdin>,
    tail: Tail,
    copying: JoinHandle<()>,
    deaths: VecDeque<Instant>,
}

/// Why a program ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Death {
    /// Whose.
    pub name: String,
    /// Such as `exit status: 1`.
    pub how: String,
    /// Its last lines.
    pub lines: Vec<String>,
    /// Where all of them are.
    pub log: PathBuf,
}

#[derive(Clone, Debug, Default)]
struct Tail(Arc<Mutex<VecDeque<String>>>);

impl Tail {
    fn push(&self, line: String) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == KEPT {
            lines.pop_front();
        }
        lines.push_back(line);
    }

    fn lines(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

impl Running {
    /// Starts it.
    pub fn start(program: Program) -> Result<Self, Error> {
        let (mut child, tail, copying) = spawn(&program)?;
        Ok(Self {
            program,
            _leash: child.stdin.take(),
            child,
            tail,
            copying,
            deaths: VecDeque::new(),
        })
    }

    /// Its process, while it runs.
    pub fn pid(&self) -> Option<u32> {
        self.child.id()
    }

    /// Its last lines.
    pub fn last_lines(&self) -> Vec<String> {
        self.tail.lines()
    }

    /// Waits until it ends, however long that takes.
    pub async fn died(&mut self) -> Death {
        let status = self.child.wait().await;
        self.copied().await;
        self.death(status.map_or_else(|error| error.to_string(), said))
    }

    /// Waits until all it wrote is copied, unless a child of its own keeps the pipe open.
    async fn copied(&mut self) {
        if !self.copying.is_finished() {
            let _ = tokio::time::timeout(LAST_WORDS, &mut self.copying).await;
        }
    }

    fn death(&self, how: String) -> Death {
        Death {
            name: self.program.name.clone(),
            how,
            lines: self.tail.lines(),
            log: self.program.log.clone(),
        }
    }

    /// Starts it again; false when it died too often for that to help.
    pub fn restart(&mut self) -> Result<bool, Error> {
        let now = Instant::now();
        self.deaths.push_back(now);
        self.deaths
            .retain(|at| now.duration_since(*at) < OFTEN_WITHIN);
        if self.deaths.len() >= OFTEN {
            return Ok(false);
        }
        (self.child, self.tail, self.copying) = spawn(&self.program)?;
        self._leash = self.child.stdin.take();
        Ok(true)
    }

    /// Asks it to stop, and kills it when it does not.
    pub async fn stop(&mut self) {
        let pid = self.child.id().and_then(|pid| i32::try_from(pid).ok());
        if let Some(pid) = pid.and_then(Pid::from_raw) {
            let _ = kill_process(pid, Signal::TERM);
        }
        if tokio::time::timeout(GRACE, self.child.wait())
            .await
            .is_err()
        {
            let _ = self.child.kill().await;
        }
        self.copied().await;
    }
}

fn said(status: ExitStatus) -> String {
    status.to_string()
}

/// Starts it with one pipe for both of its outputs, so that lines keep their order.
fn spawn(program: &Program) -> Result<(Child, Tail, JoinHandle<()>), Error> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| Error::File { path, source }
    };
    let log = std::fs::OpenOptions::new()
        .create(true)
        .append(true)
        .open(&program.log)
        .map_err(failed(&program.log))?;
    let (reader, writer) = std::io::pipe().map_err(failed(&program.log))?;
    let reader = Receiver::from_owned_fd(reader.into()).map_err(failed(&program.log))?;
    let twin = writer.try_clone().map_err(failed(&program.log))?;
    let child = Command::new(&program.binary)
        .arg("--config")
        .arg(&program.config)
        .arg("--end-with-stdin")
        // Its output goes to a file and is shown as text.
        .env("NO_COLOR", "1")
        .stdin(Stdio::piped())
        .stdout(writer)
        .stderr(twin)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
        .map_err(failed(&program.binary))?;
    let tail = Tail::default();
    let copying = tokio::spawn(copy(reader, tokio::fs::File::from_std(log), tail.clone()));
    Ok((child, tail, copying))
}

/// Copies lines until the program closes its end. A full disk loses lines and stops nothing.
async fn copy(from: Receiver, mut log: tokio::fs::File, tail: Tail) {
    let mut lines = BufReader::new(from).lines();
    while let Ok(Some(line)) = lines.next_line().await {
        let _ = log.write_all(format!("{line}\n").as_bytes()).await;
        let _ = log.flush().await;
        tail.push(line);
    }
}

/// Finds a program beside this one, then on PATH.
pub fn find(name: &str) -> Result<PathBuf, Error> {
    let beside = std::env::current_exe()
        .ok()
        .and_then(|me| Some(me.parent()?.join(name)));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let on_path = std::env::split_paths(&path).map(|folder| folder.join(name));
    beside
        .into_iter()
        .chain(on_path)
        .find(|file| is_program(file))
        .ok_or_else(|| Error::NoProgram {
            name: name.to_owned(),
        })
}

fn is_program(file: &Path) -> bool {
    use std::os::unix::fs::PermissionsExt;
    std::fs::metadata(file)
        .is_ok_and(|about| about.is_file() && about.permissions().mode() & 0o111 != 0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn program(folder: &Path, script: &str) -> Program {
        let binary = folder.join("program");
        std::fs::write(&binary, format!("#!/bin/sh\n{script}\n")).unwrap();
        std::fs::set_permissions(&binary, std::fs::Permissions::from_mode(0o755)).unwrap();
        Program {
            name: "agent of eu-west/dev-1".into(),
            binary,
            config: folder.join("config.yaml"),
            log: folder.join("log"),
        }
    }

    #[tokio::test]
    async fn the_last_lines_of_a_dead_program_are_kept_and_all_are_in_its_log() {
        let folder = tempfile::tempdir().unwrap();
        let script = "for n in 1 2 3 4 5 6 7 8 9 10; do echo line $n; done; echo why >&2; exit 3";
        let mut running = Running::start(program(folder.path(), script)).unwrap();
        let death = running.died().await;
        assert_eq!(death.how, "exit status: 3");
        assert_eq!(death.lines.len(), KEPT);
        assert_eq!(death.lines.last().unwrap(), "why");
        let log = std::fs::read_to_string(&death.log).unwrap();
        assert_eq!(log.lines().count(), 11);
    }

    #[tokio::test]
    async fn what_dies_again_and_again_is_left_alone() {
        let folder = tempfile::tempdir().unwrap();
        let mut running = Running::start(program(folder.path(), "exit 1")).unwrap();
        let mut starts = 1;
        loop {
            running.died().await;
            if !running.restart().unwrap() {
                break;
            }
            starts += 1;
        }
        assert_eq!(starts, OFTEN);
    }

    #[tokio::test]
    async fn a_program_is_asked_to_stop() {
        let folder = tempfile::tempdir().unwrap();
        let script = "trap 'echo stopped; exit 0' TERM; echo up; while :; do sleep 0.05; done";
        let mut running = Running::start(program(folder.path(), script)).unwrap();
        while running.last_lines() != ["up"] {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        running.stop().await;
        let log = std::fs::read_to_string(&running.program.log).unwrap();
        assert!(log.contains("stopped"), "{log}");
    }
}
