//! Our own three programs, installed into a fleet as a user has them: one folder that can stand in `PATH`.
//!
//! Copies, so that a build that goes on beside a running fleet changes nothing in it.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::fleet::folder::Folder;
use crate::fleet::process::{Program, WhenItEnds};

/// What is installed.
pub const NAMES: [&str; 3] = ["aldis", "aldis-agent", "aldis-control-plane"];

/// Where the programs come from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Those that were built beside the program that asks.
    BesideMe,
    /// Built on the spot, so that a test never runs an old one, and with crash points (see
    /// [`aldis_proto::failpoint`]).
    BuiltWithCrashPoints,
}

/// The installed programs.
#[derive(Clone, Debug)]
pub struct Programs {
    folder: PathBuf,
    crash_points: Option<PathBuf>,
}

impl Programs {
    /// Installs them into `bin` of a fleet's folder.
    pub async fn install(folder: &Folder, source: Source) -> anyhow::Result<Self> {
        let built = match source {
            Source::BesideMe => beside_me()?,
            Source::BuiltWithCrashPoints => build_with_crash_points().await?,
        };
        let bin = folder.make_below("bin")?;
        for name in NAMES {
            let from = built.join(name);
            std::fs::copy(&from, bin.join(name)).with_context(|| {
                format!(
                    "install {}\n\nhint: build it with `cargo build --workspace --bins`",
                    from.display()
                )
            })?;
        }
        let crash_points = match source {
            Source::BesideMe => None,
            Source::BuiltWithCrashPoints => Some(folder.make_below("crash-points")?),
        };
        Ok(Self {
            folder: bin,
            crash_points,
        })
    }

    /// The folder they are in.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// One of them.
    pub fn path(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }

    /// One of them as a service: started again when it ends, and armed by the file of its name (see [`Self::arm`]).
    pub fn service(&self, name: &str, program: &str, config: &Path) -> Program {
        let service = Program::new(name, self.path(program))
            .arguments(["--config".as_ref(), config.as_os_str()])
            .when_it_ends(WhenItEnds::StartAgain);
        match &self.crash_points {
            None => service,
            Some(folder) => {
                let file = format!("@{}", folder.join(name).display());
                service.environment("ALDIS_FAILPOINTS", file)
            }
        }
    }

    /// Whether they can be killed at crash points.
    pub fn have_crash_points(&self) -> bool {
        self.crash_points.is_some()
    }

    /// Lets a service that runs be killed where it next passes a crash point, once; where it is noted that
    /// it was.
    pub fn arm(&self, service: &str, point: &str) -> anyhow::Result<PathBuf> {
        let folder = self
            .crash_points
            .as_ref()
            .context("built without crash points")?;
        let killed = folder.join(format!("{service}-was-killed-at-{point}"));
        let _ = std::fs::remove_file(&killed);
        std::fs::write(
            folder.join(service),
            format!("{point}=kill-once:{}", killed.display()),
        )
        .with_context(|| format!("arm {service}"))?;
        Ok(killed)
    }

    /// Lets a service pass every crash point again.
    pub fn disarm(&self, service: &str) {
        if let Some(folder) = &self.crash_points {
            let _ = std::fs::remove_file(folder.join(service));
        }
    }

    /// Puts another program beside them, by a link.
    pub fn link(&self, program: &Path) -> anyhow::Result<()> {
        let name = program.file_name().context("a program has a name")?;
        std::os::unix::fs::symlink(program, self.folder.join(name))
            .with_context(|| format!("link {}", program.display()))
    }
}

/// The folder of a profile, `target/debug`. Tests run from `deps` below it.
pub(crate) fn beside_me() -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("find this program")?;
    let folder = me.parent().context("this program is in a folder")?;
    let is_test = folder.ends_with("deps");
    let profile = if is_test {
        folder.parent()
    } else {
        Some(folder)
    };
    Ok(profile.context("a profile has a folder")?.to_owned())
}

/// Builds all of them as the sources are, with crash points, into the folder that this test was built into; that
/// folder. The features of dependencies are the same as in `cargo test --workspace`, so little is built twice.
pub async fn build_with_crash_points() -> anyhow::Result<PathBuf> {
    let profile = beside_me()?;
    let target = profile
        .parent()
        .context("a profile is in a target folder")?;
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = tokio::process::Command::new(cargo);
    command
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args(["build", "--quiet", "--locked", "--bins"])
        .args(NAMES.iter().flat_map(|name| ["-p", name]))
        .args(["-p", "aldis-proto", "--features", "aldis-proto/failpoints"])
        .arg("--target-dir")
        .arg(target);
    if profile.ends_with("release") {
        command.arg("--release");
    }
    let output = command.output().await.context("run cargo")?;
    if !output.status.success() {
        bail!(
            "build our programs:\n{}",
            String::from_utf8_lossy(&output.stderr)
        );
    }
    Ok(profile)
}
