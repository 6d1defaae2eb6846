//! The command line as a person has it: the installed program, a configuration with one context, a certificate.

use std::path::{Path, PathBuf};
use std::process::Stdio;

use aldis_cli::context::{Auth, Config, Context as Choice};
use anyhow::Context;
use serde::de::DeserializeOwned;

use super::control_plane::ControlPlane;
use super::programs::Programs;
use crate::fleet::folder::Folder;
use crate::pki::{Authority, Request};

/// Name of the context.
pub const CONTEXT: &str = "fleet";

/// Who the person is.
pub const USER: &str = "mei";

/// Runs `aldis` as somebody.
#[derive(Clone, Debug)]
pub struct CommandLine {
    program: PathBuf,
    config: PathBuf,
}

/// How a command ended and what it wrote.
#[derive(Clone, Debug)]
pub struct Said {
    /// What was typed.
    pub line: String,
    /// Its exit code.
    pub code: i32,
    /// Standard output.
    pub out: String,
    /// Standard error.
    pub err: String,
}

impl CommandLine {
    /// Writes the configuration of a person of this control plane.
    pub fn of(folder: &Folder, programs: &Programs, plane: &ControlPlane) -> anyhow::Result<Self> {
        Self::signed_by(
            folder,
            programs,
            plane,
            plane.authority(),
            "cli",
            &Request::user(USER),
        )
    }

    /// The same as somebody else, perhaps one whom the control plane must not let in. `name` is that of
    /// the files.
    pub fn signed_by(
        folder: &Folder,
        programs: &Programs,
        plane: &ControlPlane,
        authority: &Authority,
        name: &str,
        who: &Request,
    ) -> anyhow::Result<Self> {
        let files = folder.make_below(name)?;
        let (cert, key) = authority.issue(who)?.write(&files, "user")?;
        let server = |port: u16| format!("https://localhost:{port}");
        let config = Config {
            current_context: Some(CONTEXT.to_owned()),
            contexts: vec![Choice {
                name: CONTEXT.to_owned(),
                servers: plane
                    .replicas()
                    .iter()
                    .map(|replica| server(replica.port()))
                    .collect(),
                ca: plane.ca(),
                auth: Some(Auth { cert, key }),
                ..Choice::default()
            }],
        };
        let text =
            serde_saphyr::to_string(&config).context("write the command line's configuration")?;
        Ok(Self {
            program: programs.path("aldis"),
            config: folder.write(Path::new(name).join("config.yaml"), text)?,
        })
    }

    /// Its configuration file.
    pub fn config(&self) -> &Path {
        &self.config
    }

    /// The command, not started, without any of our environment that it listens to.
    pub fn command<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> tokio::process::Command {
        let mut command = tokio::process::Command::new(&self.program);
        command
            .args(arguments)
            .env("ALDIS_CONFIG", &self.config)
            .env_remove("ALDIS_CONTEXT")
            .stdin(Stdio::null());
        command
    }

    /// Runs a command to its end.
    pub async fn run<S: AsRef<std::ffi::OsStr>>(&self, arguments: &[S]) -> anyhow::Result<Said> {
        let output = self
            .command(arguments)
            .output()
            .await
            .context("run aldis")?;
        let words: Vec<_> = arguments
            .iter()
            .map(|word| word.as_ref().to_string_lossy())
            .collect();
        Ok(Said {
            line: format!("aldis {}", words.join(" ")),
            code: output.status.code().context("aldis was killed")?,
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        })
    }
}

impl Said {
    /// The same, if it ended with this code.
    pub fn ended(self, code: i32) -> anyhow::Result<Self> {
        anyhow::ensure!(self.code == code, "not {code}: {self}");
        Ok(self)
    }

    /// What it wrote as JSON.
    pub fn json<T: DeserializeOwned>(&self) -> anyhow::Result<T> {
        serde_json::from_str(&self.out).with_context(|| self.to_string())
    }
}

impl std::fmt::Display for Said {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "$ {}\n{}{}(exit {})",
            self.line, self.out, self.err, self.code
        )
    }
}
