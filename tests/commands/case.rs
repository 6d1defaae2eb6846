//! What a case may hold.
//!
//! ```yaml
//! about: One sentence, which heads the golden
//! files:
//!   bad.yaml: |                    # what lies in the operator's folder
//!     …
//!   long.yaml: {line: "# again", times: 40000}
//! commands:
//!   - {types: plan ./bad.yaml, exit: 9}
//! ```
//!
//! The fleet is `eu-west/prod-1` and `us-east/prod-1`, each with Deployment `shop/checkout`, which went from
//! `checkout:v2.17.4` to `checkout:v2.18.0`.

use std::collections::BTreeMap;

use anyhow::Context;
use serde::Deserialize;

/// One file.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) about: String,
    #[serde(default)]
    pub(crate) files: BTreeMap<String, Content>,
    pub(crate) commands: Vec<Command>,
}

/// What a file holds.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
pub(crate) enum Content {
    Text(String),
    Repeated(Repeated),
}

/// One line again and again: for what is too long to be written down.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Repeated {
    line: String,
    times: usize,
}

/// What is typed behind `aldis`.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Command {
    pub(crate) types: String,
    pub(crate) exit: i32,
}

impl Case {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        serde_saphyr::from_str(text).context("read the case")
    }
}

impl Content {
    pub(crate) fn text(&self) -> String {
        match self {
            Self::Text(text) => text.clone(),
            Self::Repeated(repeated) => format!("{}\n", repeated.line).repeat(repeated.times),
        }
    }
}
