//! The programs that the same build made, and how they are run.

use std::path::{Path, PathBuf};

use aldis_tests::fleet::process::Program;
use anyhow::Context;

/// A program that the same build made.
pub(crate) fn path(name: &str) -> anyhow::Result<PathBuf> {
    let me = std::env::current_exe().context("find this program")?;
    let folder = me
        .ancestors()
        .nth(2)
        .context("find the folder of the build")?;
    let program = folder.join(name);
    anyhow::ensure!(
        program.exists(),
        "{} is not built: `make bench` builds it",
        program.display()
    );
    Ok(program)
}

/// How a replica is run on a configuration.
pub(crate) fn control_plane() -> anyhow::Result<impl Fn(&str, &Path) -> Program> {
    let path = path("aldis-control-plane")?;
    Ok(move |name: &str, config: &Path| {
        Program::new(name, &path)
            .arguments(["--config"])
            .arguments([config])
    })
}
