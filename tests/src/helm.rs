//! Runs Helm on a chart of ours, without a cluster and without anything of the user's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde_json::Value;

use crate::binaries;

/// What Helm made of a chart.
pub enum Rendered {
    /// The manifests.
    Manifests(String),
    /// What it says instead.
    Refused(String),
}

impl Rendered {
    /// The manifests, where nothing should be refused.
    pub fn manifests(self) -> anyhow::Result<String> {
        match self {
            Self::Manifests(text) => Ok(text),
            Self::Refused(why) => anyhow::bail!("{why}"),
        }
    }
}

/// The folder of a chart.
pub fn chart(name: &str) -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/charts")).join(name)
}

/// `helm template` of a chart for the Kubernetes that the tests run.
pub fn template(
    name: &str,
    release: &str,
    namespace: &str,
    values: &Value,
) -> anyhow::Result<Rendered> {
    let version = binaries::KUBERNETES_VERSION;
    let arguments = [
        "template",
        release,
        "--namespace",
        namespace,
        "--kube-version",
        version,
    ];
    run(&arguments, &chart(name), values)
}

/// A command over a chart, with values.
pub fn run(arguments: &[&str], chart: &Path, values: &Value) -> anyhow::Result<Rendered> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("values.json");
    std::fs::write(&file, values.to_string())?;
    let run = Command::new(binaries::helm()?)
        .args(arguments)
        .arg(chart)
        .arg("--values")
        .arg(&file)
        // Nothing of the user's: no plugins, no repositories, no cluster.
        .env_clear()
        .env("HOME", folder.path())
        .env("KUBECONFIG", folder.path().join("none"))
        .output()
        .context("run helm")?;
    let said = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if run.status.success() {
        return Ok(Rendered::Manifests(said(&run.stdout)));
    }
    Ok(Rendered::Refused(said(&run.stderr) + &said(&run.stdout)))
}
