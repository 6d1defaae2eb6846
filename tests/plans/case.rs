//! What a case may hold.
//!
//! ```yaml
//! about: One sentence, which heads the golden
//! runbook: rollback-service        # one of the library, or the text of a file
//! params: {service: checkout}
//! selector: {tier: web}            # -l
//! targets: [eu-west/prod-1]        # -t
//! detail: full                     # as `aldis plan --full` shows it
//! fleet:
//!   - target: eu-west/prod-1       # with Deployment shop/checkout, which went from v2.17.4 to v2.18.0
//!     labels: {env: prod}          # this one where nothing is said
//!     deployments: {shop/cart: ["cart:1", "cart:2"]}   # each an image or a whole pod template, the last one runs
//!     owners: [{system: Argo CD, name: shop, wouldRevert: true, evidence: label}]
//!     irreversible: The image is gone from the registry
//!     warnings: [The autoscaler is at its maximum]
//!     agent: away                  # or silent, held, contested
//!     policy: "{actions: ['*'], namespaces: [shop]}"   # the agent's own file
//!     pinned: another-uid          # the cluster that was pinned to the name
//! held: [{target: eu-west/prod-1, name: shop/checkout, job: j-…}]
//! since: {eu-west/prod-1: "checkout:v9"}   # somebody sets this image after the plan; agents are asked for drift
//! variants:                        # last: the text above once more, with one piece of it replaced
//!   - {about: Another parameter, replace: v2.18.0, by: v2.19.0}
//! ```

use std::collections::BTreeMap;

use aldis_core::ids::{JobId, TargetName};
use aldis_core::plan::part::ObjectOwner;
use anyhow::Context;
use serde::Deserialize;
use serde_json::{Value, json};

/// One file.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Case {
    pub(crate) about: String,
    pub(crate) runbook: String,
    #[serde(default = "nothing")]
    pub(crate) params: Value,
    #[serde(default)]
    pub(crate) selector: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) targets: Vec<TargetName>,
    #[serde(default)]
    pub(crate) detail: Detail,
    pub(crate) fleet: Vec<Cluster>,
    #[serde(default)]
    pub(crate) held: Vec<Held>,
    #[serde(default)]
    pub(crate) since: BTreeMap<TargetName, String>,
    #[serde(default)]
    pub(crate) variants: Vec<Variant>,
}

/// How much of the plan the golden shows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Detail {
    #[default]
    Folded,
    Full,
}

/// One cluster with its agent.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct Cluster {
    pub(crate) target: TargetName,
    #[serde(default = "production")]
    pub(crate) labels: BTreeMap<String, String>,
    #[serde(default)]
    pub(crate) deployments: BTreeMap<String, Vec<Value>>,
    #[serde(default)]
    pub(crate) owners: Vec<ObjectOwner>,
    #[serde(default)]
    pub(crate) irreversible: Option<String>,
    #[serde(default)]
    pub(crate) warnings: Vec<String>,
    #[serde(default)]
    pub(crate) agent: Agent,
    #[serde(default)]
    pub(crate) policy: Option<String>,
    #[serde(default)]
    pub(crate) pinned: Option<String>,
}

/// How the control plane finds an agent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) enum Agent {
    #[default]
    Here,
    /// Not connected.
    Away,
    /// Connected, and answers nothing.
    Silent,
    /// Held apart with an alarm.
    Held,
    /// Two processes use its identity.
    Contested,
}

/// A lock of another job.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Held {
    pub(crate) target: TargetName,
    /// `NAMESPACE/NAME` of the Deployment.
    pub(crate) name: String,
    pub(crate) job: JobId,
}

/// The same question with one piece of its text replaced.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Variant {
    pub(crate) about: String,
    pub(crate) replace: String,
    pub(crate) by: String,
}

impl Case {
    pub(crate) fn parse(text: &str) -> anyhow::Result<Self> {
        serde_saphyr::from_str(text).context("read the case")
    }

    /// The case that a variant makes of a file's text.
    pub(crate) fn varied(text: &str, variant: &Variant) -> anyhow::Result<Self> {
        let own = text.split("\nvariants:").next().unwrap_or(text);
        anyhow::ensure!(
            own.contains(&variant.replace),
            "the case does not hold `{}`",
            variant.replace
        );
        Self::parse(&own.replace(&variant.replace, &variant.by))
    }
}

/// `NAMESPACE/NAME`.
pub(crate) fn place(name: &str) -> anyhow::Result<(&str, &str)> {
    name.split_once('/')
        .with_context(|| format!("`{name}` is not NAMESPACE/NAME"))
}

fn nothing() -> Value {
    json!({})
}

fn production() -> BTreeMap<String, String> {
    BTreeMap::from([("env".to_owned(), "prod".to_owned())])
}
