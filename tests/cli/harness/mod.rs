//! A practice fleet with the real `aldis` before it, in a home of its own.
//!
//! The programs are built here when they are missing or out of date: a test of an old binary says
//! nothing. Nothing of the tester's own configuration reaches them.

mod programs;
mod terminal;

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use aldis_tests::pki::{Leaf, Request};
use aldis_tests::practice::Practice;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

pub(crate) use programs::program;
pub(crate) use terminal::Terminal;

/// For a command to end, or to say something: far longer than any needs.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// A fleet and a home with a context for it.
pub(crate) struct Bench {
    /// The fleet.
    pub(crate) practice: Practice,
    /// Where the command line finds its configuration.
    pub(crate) home: Home,
}

/// A folder that commands take for the home of whoever types them.
pub(crate) struct Home {
    folder: TempDir,
}

/// What a command said.
#[derive(Debug)]
pub(crate) struct Said {
    /// What it exited with.
    pub(crate) code: Option<i32>,
    /// Standard output.
    pub(crate) out: String,
    /// Standard error.
    pub(crate) err: String,
}

impl Bench {
    /// A fleet of these clusters.
    pub(crate) async fn start(names: &[&str]) -> Self {
        let home = Home::new();
        let practice = Practice::start(names).await.unwrap();
        Self::before(home, practice)
    }

    /// A home before a fleet that was started already.
    pub(crate) fn before(home: Home, practice: Practice) -> Self {
        let bench = Self { practice, home };
        let mei = bench.issue(&Request::user("mei"));
        bench.context("test", &mei, "");
        bench
    }

    /// A certificate of the authority that the control plane trusts.
    pub(crate) fn issue(&self, who: &Request) -> Leaf {
        self.practice.plane.authority().issue(who).unwrap()
    }

    /// Where the control plane listens.
    pub(crate) fn server(&self) -> String {
        let port = self.practice.plane.addresses()[0].port();
        format!("https://localhost:{port}")
    }

    /// Makes one context the only one, and the one in use.
    pub(crate) fn context(&self, name: &str, leaf: &Leaf, more: &str) {
        let folder = self.home.path();
        let (cert, key) = leaf.write(folder, name).unwrap();
        let ca = self.practice.plane.folder().join("ca.pem");
        let text = format!(
            "currentContext: {name}\ncontexts:\n  - {{name: {name}, server: '{}', ca: '{}', auth: {{cert: '{}', key: '{}'}}{more}}}\n",
            self.server(),
            ca.display(),
            cert.display(),
            key.display(),
        );
        std::fs::write(self.home.config(), text).unwrap();
    }

    /// Runs a command to its end, with nobody to be asked.
    pub(crate) async fn aldis(&self, arguments: &[&str]) -> Said {
        self.home.aldis(arguments).await
    }

    /// Writes a runbook file into the home.
    pub(crate) fn runbook(&self, text: &str) -> String {
        let path = self.home.path().join("runbook.yaml");
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }
}

impl Home {
    /// An empty one. The programs are built by then: that takes long, and nothing else should wait then.
    pub(crate) fn new() -> Self {
        program("aldis");
        let folder = tempfile::tempdir().unwrap();
        Self { folder }
    }

    /// Where it is.
    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// The configuration of the command line.
    pub(crate) fn config(&self) -> PathBuf {
        self.folder.path().join("config.yaml")
    }

    /// A command, to be changed before it is started.
    pub(crate) fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(program("aldis"));
        command
            .args(arguments)
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("HOME", self.path())
            .env("ALDIS_CONFIG", self.config())
            .current_dir(self.path())
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        command
    }

    /// Runs a command to its end, with nobody to be asked.
    pub(crate) async fn aldis(&self, arguments: &[&str]) -> Said {
        ended(self.command(arguments)).await
    }

    /// Starts a command whose output is read as it comes.
    pub(crate) fn start(&self, arguments: &[&str]) -> Going {
        Going::start(self.command(arguments))
    }
}

/// Runs it to its end.
pub(crate) async fn ended(mut command: Command) -> Said {
    // Its outputs lead where the test said: `output` would lead them here.
    let output = command.spawn().unwrap().wait_with_output();
    let output = tokio::time::timeout(PATIENCE, output)
        .await
        .expect("the command ends")
        .unwrap();
    Said {
        code: output.status.code(),
        out: String::from_utf8(output.stdout).unwrap(),
        err: String::from_utf8(output.stderr).unwrap(),
    }
}

/// A command that runs.
pub(crate) struct Going {
    child: Child,
    lines: tokio::sync::mpsc::UnboundedReceiver<String>,
    /// All that was read, of both outputs.
    heard: String,
}

impl Going {
    /// Starts a command.
    pub(crate) fn start(mut command: Command) -> Self {
        let mut child = command.spawn().unwrap();
        let (sender, lines) = tokio::sync::mpsc::unbounded_channel();
        copy(child.stdout.take().unwrap(), sender.clone());
        copy(child.stderr.take().unwrap(), sender);
        Self {
            child,
            lines,
            heard: String::new(),
        }
    }

    /// Waits for a line with this text.
    pub(crate) async fn hears(&mut self, text: &str) -> String {
        let found = async {
            while let Some(line) = self.lines.recv().await {
                self.heard.push_str(&line);
                self.heard.push('\n');
                if line.contains(text) {
                    return Some(line);
                }
            }
            None
        };
        let found = tokio::time::timeout(PATIENCE, found).await;
        let heard = &self.heard;
        found
            .unwrap_or_else(|_| panic!("`{text}` is never said:\n{heard}"))
            .unwrap_or_else(|| panic!("ended without a word of `{text}`:\n{heard}"))
    }

    /// Its process.
    pub(crate) fn pid(&self) -> Pid {
        let pid = self.child.id().expect("it runs");
        Pid::from_raw(pid.try_into().unwrap()).unwrap()
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        kill_process(self.pid(), signal).unwrap();
    }

    /// Waits for its end: what it exited with, and all that it said.
    pub(crate) async fn ends(mut self) -> (Option<i32>, String) {
        let status = tokio::time::timeout(PATIENCE, self.child.wait());
        let status = status
            .await
            .unwrap_or_else(|_| panic!("does not end:\n{}", self.heard))
            .unwrap();
        while let Some(line) = self.lines.recv().await {
            self.heard.push_str(&line);
            self.heard.push('\n');
        }
        (status.code(), self.heard)
    }
}

fn copy(
    from: impl AsyncRead + Unpin + Send + 'static,
    to: tokio::sync::mpsc::UnboundedSender<String>,
) {
    tokio::spawn(async move {
        let mut lines = BufReader::new(from).lines();
        while let Ok(Some(line)) = lines.next_line().await {
            if to.send(line).is_err() {
                return;
            }
        }
    });
}
