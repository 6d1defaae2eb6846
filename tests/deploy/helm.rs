//! What the tests ask of Helm.

use aldis_tests::helm;
pub(crate) use aldis_tests::helm::{Rendered, chart};
use anyhow::Context;
use serde_json::Value;

/// What the tests render into: the same names in every golden.
const RELEASE: &str = "aldis-agent";
pub(crate) const NAMESPACE: &str = "aldis";

/// `helm template` of a chart, with values and nothing else.
pub(crate) fn template(name: &str, values: &Value) -> anyhow::Result<Rendered> {
    let release = if name == "aldis-agent" { RELEASE } else { name };
    helm::template(name, release, NAMESPACE, values)
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
    let shown = helm::run(&arguments, &chart(name), values)?.manifests()?;
    let (_, notes) = shown
        .split_once("\nNOTES:\n")
        .context("no notes are shown")?;
    Ok(notes.to_owned())
}

/// `helm lint` with a chart's own example values.
pub(crate) fn lint(name: &str) -> anyhow::Result<Rendered> {
    let text = std::fs::read_to_string(chart(name).join("ci/example-values.yaml"))?;
    helm::run(
        &["lint", "--strict"],
        &chart(name),
        &serde_saphyr::from_str(&text)?,
    )
}
