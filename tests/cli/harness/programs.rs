//! Our own programs, as the sources are now.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

/// What is run here: the command line, and what `aldis dev` starts.
const PROGRAMS: [&str; 3] = ["aldis", "aldis-control-plane", "aldis-agent"];

/// The file of one of [`PROGRAMS`].
pub(crate) fn program(name: &str) -> PathBuf {
    static FOLDER: OnceLock<PathBuf> = OnceLock::new();
    FOLDER.get_or_init(build).join(name)
}

/// Builds them into the folder that this test itself was built into: quick where nothing changed.
fn build() -> PathBuf {
    let test = std::env::current_exe().unwrap();
    // TARGET/PROFILE/deps/NAME
    let folder = test.ancestors().nth(2).expect("the folder of a profile");
    let target = folder.parent().expect("the target folder");
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let mut command = Command::new(cargo);
    command
        .current_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join(".."))
        .args(["build", "--locked", "--quiet"])
        .arg("--target-dir")
        .arg(target);
    for program in PROGRAMS {
        command.args(["--bin", program]);
    }
    if folder.ends_with("release") {
        command.arg("--release");
    }
    let status = command.status().expect("run cargo");
    assert!(status.success(), "the programs are built");
    folder.to_owned()
}
