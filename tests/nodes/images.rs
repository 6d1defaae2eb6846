//! The images of these tests: one program, run in several ways.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use aldis_tests::fleet::nodes::images::Image;
use anyhow::{Context, ensure};

pub(crate) const SERVES: &str = "nodes.test/server:serves";
pub(crate) const CRASHES: &str = "nodes.test/server:crashes";

/// Nobody made this one.
pub(crate) const MISSING: &str = "nodes.test/server:does-not-exist";

/// Those that exist.
pub(crate) fn images() -> anyhow::Result<[Image; 2]> {
    let program = program()?;
    Ok([
        Image::program(SERVES, &program).arguments(["serve"]),
        Image::program(CRASHES, &program).arguments(["crash"]),
    ])
}

/// Linked once a run.
fn program() -> anyhow::Result<PathBuf> {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    if let Some(linked) = PROGRAM.get() {
        return Ok(linked.clone());
    }
    let linked = link()?;
    Ok(PROGRAM.get_or_init(|| linked).clone())
}

fn link() -> anyhow::Result<PathBuf> {
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("nodes-image");
    std::fs::create_dir_all(&folder).context("make a folder for a program")?;
    let program = folder.join("server");
    let output = Command::new("rustc")
        .args(["--edition", "2024", "-C", "target-feature=+crt-static"])
        .args(["-C", "strip=symbols", "-o"])
        .arg(&program)
        .arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("nodes/server.rs"))
        .output()
        .context("run rustc")?;
    ensure!(
        output.status.success(),
        "link a static program: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(program)
}
