//! Runs Helm on a chart, without a cluster.

use std::path::{Path, PathBuf};
use std::process::Command;

use aldis_tests::binaries;
use anyhow::Context;
use serde_json::Value;

/// What the tests render into: the same names in every golden.
const RELEASE: &str = "aldis-agent";
pub(crate) const NAMESPACE: &str = "aldis";

/// The Kubernetes that charts are rendered for.
const KUBERNETES: &str = binaries::KUBERNETES_VERSION;

/// What Helm made of a chart.
pub(crate) enum Rendered {
    /// The manifests.
    Manifests(String),
    /// What it says instead.
    Refused(String),
}

impl Rendered {
    /// The manifests, where nothing should be refused.
    pub(crate) fn manifests(self) -> anyhow::Result<String> {
        match self {
            Self::Manifests(text) => Ok(text),
            Self::Refused(why) => anyhow::bail!("{why}"),
        }
    }
}

/// The folder of a chart.
pub(crate) fn chart(name: &str) -> PathBuf {
    crate::deploy().join("charts").join(name)
}

/// `helm template` of a chart, with values and nothing else.
pub(crate) fn template(name: &str, values: &Value) -> anyhow::Result<Rendered> {
    let release = if name == "aldis-agent" { RELEASE } else { name };
    let arguments = [
        "template",
        release,
        "--namespace",
        NAMESPACE,
        "--kube-version",
        KUBERNETES,
    ];
    run(&arguments, &chart(name), values)
}

/// `helm install` up to where it would speak to a cluster: it shows the notes.
pub(crate) fn notes(name: &str, values: &Value) -> anyhow::Result<String> {
    let arguments = [
        "install",
        RELEASE,
        "--namespace",
        NAMESPACE,
        "--dry-run=client",
    ];
    let shown = run(&arguments, &chart(name), values)?.manifests()?;
    let (_, notes) = shown
        .split_once("\nNOTES:\n")
        .context("no notes are shown")?;
    Ok(notes.to_owned())
}

/// `helm lint` with a chart's own example values.
pub(crate) fn lint(name: &str) -> anyhow::Result<Rendered> {
    let text = std::fs::read_to_string(chart(name).join("ci/example-values.yaml"))?;
    run(
        &["lint", "--strict"],
        &chart(name),
        &serde_saphyr::from_str(&text)?,
    )
}

fn run(arguments: &[&str], chart: &Path, values: &Value) -> anyhow::Result<Rendered> {
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
