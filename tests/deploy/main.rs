//! What `deploy/` gives to a user: charts, example configurations, container files, units.
//!
//! ```text
//! charts/SUBJECT/CASE.yaml ─▶ helm template ─▶ charts/SUBJECT/CASE.txt
//! ```
//!
//! A case names a chart and its values; its golden is what the chart makes of them, or why it refuses. To add one, add its
//! `.yaml` and run with `UPDATE_GOLDENS=1`; then read the `.txt` as somebody who is about to install it. Beside the
//! goldens, what is rendered is held against the types of Kubernetes, against the programs' own reading of their
//! configuration, and against the roles that `aldis-agent rights` prints.

mod charts;
mod configurations;
mod containers;
mod helm;
mod objects;
mod rights;
mod units;

use std::path::{Path, PathBuf};

/// The repository.
fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// `deploy/`.
fn deploy() -> PathBuf {
    root().join("deploy")
}
