//! Runs a short command of the machine, such as `ip`, and says what it said when it fails.

use std::process::Command;

use anyhow::{Context, ensure};

/// Runs it to its end; what it wrote.
pub(super) fn run(program: &str, arguments: &[&str]) -> anyhow::Result<String> {
    let shown = || format!("`{program} {}`", arguments.join(" "));
    let output = Command::new(program)
        .args(arguments)
        .env("PATH", path())
        .output()
        .with_context(shown)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{}: {}", shown(), errors.trim());
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `PATH` with the folders of a system's own programs, which a user's often lacks.
pub(super) fn path() -> String {
    let path = std::env::var("PATH").unwrap_or_default();
    format!("{path}:/usr/local/sbin:/usr/sbin:/sbin")
}
