//! A command on a terminal of its own, typed at by the test. `script` of util-linux makes the terminal.

use std::process::Stdio;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, ChildStdin, ChildStdout, Command};

use super::{Home, PATIENCE, program};

/// What Ctrl-C sends.
const CTRL_C: &[u8] = b"\x03";

/// A command and the person before it.
pub(crate) struct Terminal {
    child: Child,
    keyboard: ChildStdin,
    screen: ChildStdout,
    seen: String,
}

impl Terminal {
    /// Starts a command.
    pub(crate) fn start(home: &Home, arguments: &[&str]) -> Self {
        let words = [program("aldis").display().to_string()];
        let words: Vec<String> = words
            .into_iter()
            .chain(arguments.iter().map(ToString::to_string))
            .map(|word| format!("'{word}'"))
            .collect();
        let mut command = Command::new("script");
        command
            .args(["--quiet", "--return", "--command", &words.join(" ")])
            .arg("/dev/null")
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .env("SHELL", "/bin/sh")
            .env("TERM", "xterm")
            .env("HOME", home.path())
            .env("ALDIS_CONFIG", home.config())
            .current_dir(home.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .kill_on_drop(true);
        let mut child = command.spawn().expect("`script` of util-linux");
        Self {
            keyboard: child.stdin.take().unwrap(),
            screen: child.stdout.take().unwrap(),
            child,
            seen: String::new(),
        }
    }

    /// Waits until this stands on the screen.
    pub(crate) async fn shows(&mut self, text: &str) {
        let mut bytes = [0; 4096];
        while !self.seen.contains(text) {
            let read = tokio::time::timeout(PATIENCE, self.screen.read(&mut bytes));
            let read = read
                .await
                .unwrap_or_else(|_| panic!("`{text}` is never shown:\n{}", self.seen));
            let read = read.unwrap();
            assert!(read > 0, "ended without showing `{text}`:\n{}", self.seen);
            self.seen.push_str(&String::from_utf8_lossy(&bytes[..read]));
        }
    }

    /// Types a line.
    pub(crate) async fn types(&mut self, line: &str) {
        let line = format!("{line}\n");
        self.keyboard.write_all(line.as_bytes()).await.unwrap();
    }

    /// Presses Ctrl-C.
    pub(crate) async fn interrupts(&mut self) {
        self.keyboard.write_all(CTRL_C).await.unwrap();
    }

    /// Waits for the end: what it exited with, and all that was shown.
    pub(crate) async fn ends(mut self) -> (Option<i32>, String) {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(PATIENCE, self.screen.read_to_end(&mut rest));
        let read = read
            .await
            .unwrap_or_else(|_| panic!("does not end:\n{}", self.seen));
        read.unwrap();
        self.seen.push_str(&String::from_utf8_lossy(&rest));
        let status = self.child.wait().await.unwrap();
        (status.code(), self.seen)
    }
}
