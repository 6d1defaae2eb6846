//! The runbook format: what may be written, as types. Reading and judging a file is `load`'s.

pub mod builtin;
pub mod codes;
pub mod diagnostics;
pub mod duration;
pub mod expression;
mod fields;
mod lint;
pub mod load;
mod names;
pub mod params;
pub mod published;
mod shape;
mod tree;
#[cfg(test)]
mod unsupported;

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::action::Action;
use crate::ids::StepId;

/// A runbook, as written.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Runbook {
    /// `aldis.dev/v1alpha1`.
    pub api_version: String,
    /// `Runbook`.
    pub kind: String,
    /// Its name and version.
    pub metadata: Metadata,
    /// What it does.
    pub spec: Spec,
}

/// Name and version of a runbook.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Lower-case letters, digits and hyphens.
    pub name: String,
    /// Rises with each change; 1 where it is missing.
    #[serde(default = "first_version")]
    pub version: u32,
    /// One sentence for lists.
    #[serde(default)]
    pub title: Option<String>,
    /// For people and filters.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
}

fn first_version() -> u32 {
    1
}

/// What a runbook does.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Change or remedy.
    #[serde(default)]
    pub direction: Direction,
    /// JSON Schema 2020-12 of the parameters, an object schema.
    #[serde(default = "no_params")]
    pub params: Value,
    /// Who it is for.
    #[serde(default)]
    pub targets: Targets,
    /// What to do where somebody else owns the object.
    #[serde(default)]
    pub owner: Owner,
    /// What to do when something changed since the plan; by direction where it is missing.
    #[serde(default)]
    pub drift: Option<Drift>,
    /// In which order and how far.
    #[serde(default)]
    pub rollout: Rollout,
    /// Reads, before anything is touched.
    #[serde(default)]
    pub preflight: Vec<Step>,
    /// The work.
    pub steps: Vec<Step>,
    /// Reads, after the work.
    #[serde(default)]
    pub verify: Vec<Step>,
}

fn no_params() -> Value {
    serde_json::json!({"type": "object", "additionalProperties": false})
}

/// Whether a failure is answered by going back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Undone when it fails.
    #[default]
    Change,
    /// Makes things better one target at a time; never puts the bad state back by itself.
    Remedy,
}

/// Selection of targets.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Targets {
    /// Which labels they have.
    #[serde(default)]
    pub select: Selector,
    /// Fewer than this refuse the plan.
    #[serde(default)]
    pub min: Option<u32>,
    /// More than this refuse the plan.
    #[serde(default)]
    pub max: Option<u32>,
    /// What to do with a target whose agent is away.
    #[serde(default)]
    pub when_unreachable: WhenUnreachable,
}

/// Labels that a target must have.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Selector {
    /// Each with this value. Empty selects every target.
    #[serde(default)]
    pub match_labels: BTreeMap<String, String>,
}

/// What to do with a target whose agent is away.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum WhenUnreachable {
    /// It counts as failed.
    #[default]
    Fail,
    /// It is left out and named.
    Skip,
    /// It runs when its agent returns.
    Defer,
}

/// What to do where somebody else would put our change back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Owner {
    /// Refuse the plan.
    #[default]
    Refuse,
    /// Go on, and show it.
    Proceed,
}

/// What to do when something changed between plan and job.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Drift {
    /// Leave that target out and name it.
    RefuseTarget,
    /// Touch nothing anywhere.
    RefuseJob,
}

/// Order and limits of a rollout.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Rollout {
    /// In order; one of everything where it is empty.
    #[serde(default)]
    pub waves: Vec<Wave>,
    /// How many failures and unknowns are accepted.
    #[serde(default)]
    pub max_failures: MaxFailures,
    /// What happens beyond that; by direction where it is missing.
    #[serde(default)]
    pub on_failure: Option<OnFailure>,
}

/// Targets worked on together.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// For people.
    #[serde(default)]
    pub name: Option<String>,
    /// Who goes in it.
    pub pick: Pick,
    /// How many at once.
    #[serde(default)]
    pub max_parallel: Option<u32>,
    /// How long to watch it.
    #[serde(default)]
    pub soak: Option<Soak>,
}

/// Who goes in a wave. The smallest of the given bounds holds.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Pick {
    /// So many of each region.
    #[serde(default)]
    pub per_region: Option<u32>,
    /// At most so many.
    #[serde(default)]
    pub max: Option<u32>,
    /// Exactly so many, if there are.
    #[serde(default)]
    pub count: Option<u32>,
    /// Until this share of the selection, 1 to 100, is in this wave or one before it.
    #[serde(default)]
    pub percent: Option<u8>,
}

/// The wait after a wave.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Soak {
    /// How long.
    #[serde(rename = "for", with = "duration")]
    pub length: Duration,
    /// Nothing is judged before: longer than the window of the metrics.
    #[serde(default, with = "duration")]
    pub settle: Duration,
    /// How often the checks run.
    #[serde(default = "quarter_minute", with = "duration")]
    pub every: Duration,
    /// What must hold over `verify` steps' outputs.
    #[serde(default)]
    pub require: Option<String>,
    /// Fewer samples than this prove nothing.
    #[serde(default)]
    pub min_samples: Option<u64>,
}

fn quarter_minute() -> Duration {
    Duration::from_secs(15)
}

/// How many failures and unknowns are accepted: a number, or a percent of all selected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MaxFailures {
    /// So many.
    Count(u32),
    /// 0 to 100.
    Percent(u8),
}

impl Default for MaxFailures {
    fn default() -> Self {
        Self::Count(0)
    }
}

impl Serialize for MaxFailures {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Count(count) => serializer.serialize_u32(*count),
            Self::Percent(percent) => serializer.collect_str(&format_args!("{percent}%")),
        }
    }
}

impl<'de> Deserialize<'de> for MaxFailures {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Count(u32),
            Text(String),
        }
        match Written::deserialize(deserializer)? {
            Written::Count(count) => Ok(Self::Count(count)),
            Written::Text(text) => text
                .strip_suffix('%')
                .and_then(|number| number.parse().ok())
                .filter(|percent| *percent <= 100)
                .map(Self::Percent)
                .ok_or_else(|| {
                    serde::de::Error::custom(format!(
                        "`{text}` is neither a number nor a percent such as 25%"
                    ))
                }),
        }
    }
}

/// What happens when a rollout fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OnFailure {
    /// Nothing more is opened; what was changed stands.
    Halt,
    /// What was changed is put back.
    Undo,
    /// The others go on; who could not be helped is named.
    Continue,
}

/// One unit of a runbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Step {
    /// Unique in the runbook; `[a-z][a-zA-Z0-9_]*`.
    pub id: StepId,
    /// What it does.
    #[serde(rename = "use")]
    pub uses: Action,
    /// Its input; may hold `${ }`.
    #[serde(default)]
    pub with: Value,
    /// Left out where this does not hold.
    #[serde(rename = "if", default)]
    pub condition: Option<String>,
    /// Fails where this does not hold afterwards.
    #[serde(default)]
    pub require: Option<String>,
    /// What to say when `require` does not hold.
    #[serde(default)]
    pub message: Option<String>,
    /// Done again until this holds.
    #[serde(default)]
    pub until: Option<String>,
    /// How often to try again.
    #[serde(default)]
    pub retry: Option<Retry>,
    /// For all tries together; two minutes where it is missing.
    #[serde(default, with = "duration::optional")]
    pub timeout: Option<Duration>,
    /// No target goes past this step before every target of the wave has reached it.
    #[serde(default)]
    pub barrier: Barrier,
    /// Whether a target may rest after it.
    #[serde(default = "yes")]
    pub safe_point: bool,
    /// How it is put back.
    #[serde(default)]
    pub undo: Undo,
    /// Why there is no undo.
    #[serde(default)]
    pub reason: Option<String>,
}

fn yes() -> bool {
    true
}

/// How often to try again.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Retry {
    /// So many times after the first.
    pub max: u32,
    /// Before the second try.
    #[serde(default, with = "duration::optional")]
    pub delay: Option<Duration>,
    /// Factor from try to try.
    #[serde(default)]
    pub backoff: Option<f64>,
    /// No wait is longer.
    #[serde(default, with = "duration::optional")]
    pub max_delay: Option<Duration>,
    /// Allows it for an action that must not begin twice.
    #[serde(rename = "unsafe", default)]
    pub unsafe_: bool,
}

/// Whether targets wait for each other after a step.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Barrier {
    /// They do not.
    #[default]
    No,
    /// They do.
    Yes,
    /// They do, for so long.
    Within(Duration),
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum BarrierWritten {
    Plain(bool),
    Within(BarrierTimeout),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct BarrierTimeout {
    #[serde(with = "duration")]
    timeout: Duration,
}

impl Serialize for Barrier {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::No => BarrierWritten::Plain(false),
            Self::Yes => BarrierWritten::Plain(true),
            Self::Within(timeout) => BarrierWritten::Within(BarrierTimeout { timeout: *timeout }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Barrier {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(match BarrierWritten::deserialize(deserializer)? {
            BarrierWritten::Plain(false) => Self::No,
            BarrierWritten::Plain(true) => Self::Yes,
            BarrierWritten::Within(BarrierTimeout { timeout }) => Self::Within(timeout),
        })
    }
}

/// How a step is put back.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Undo {
    /// By the action itself.
    #[default]
    Auto,
    /// There is nothing to put back, for the step's `reason`; the way back goes past it.
    None,
    /// It cannot be put back, for the step's `reason`; the way back ends here and says so.
    Never,
    /// By another action, or by the same with other input.
    Own {
        /// Which; none = the same.
        uses: Option<Action>,
        /// Merged over the step's own `with`.
        with: Value,
    },
}

#[derive(Serialize, Deserialize)]
#[serde(untagged)]
enum UndoWritten {
    Word(String),
    Own(UndoOwn),
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct UndoOwn {
    #[serde(rename = "use", default, skip_serializing_if = "Option::is_none")]
    uses: Option<Action>,
    #[serde(default)]
    with: Value,
}

impl Serialize for Undo {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let word = |word: &str| UndoWritten::Word(word.to_owned());
        match self {
            Self::Auto => word("auto"),
            Self::None => word("none"),
            Self::Never => word("never"),
            Self::Own { uses, with } => UndoWritten::Own(UndoOwn {
                uses: *uses,
                with: with.clone(),
            }),
        }
        .serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Undo {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        match UndoWritten::deserialize(deserializer)? {
            UndoWritten::Word(word) => match word.as_str() {
                "auto" => Ok(Self::Auto),
                "none" => Ok(Self::None),
                "never" => Ok(Self::Never),
                other => Err(serde::de::Error::custom(format!(
                    "`{other}` is no undo; write auto, none, never, or an action of its own"
                ))),
            },
            UndoWritten::Own(UndoOwn { uses, with }) => Ok(Self::Own { uses, with }),
        }
    }
}

impl Runbook {
    /// The policy that holds, given or by direction.
    pub fn drift(&self) -> Drift {
        self.spec.drift.unwrap_or(match self.spec.direction {
            Direction::Change => Drift::RefuseJob,
            Direction::Remedy => Drift::RefuseTarget,
        })
    }

    /// The policy that holds, given or by direction.
    pub fn on_failure(&self) -> OnFailure {
        self.spec
            .rollout
            .on_failure
            .unwrap_or(match self.spec.direction {
                Direction::Change => OnFailure::Undo,
                Direction::Remedy => OnFailure::Continue,
            })
    }

    /// What to do with a target whose agent is away.
    pub fn when_unreachable(&self) -> WhenUnreachable {
        self.spec.targets.when_unreachable
    }

    /// Every step with an id, in the order they run.
    pub fn steps(&self) -> impl Iterator<Item = &Step> {
        self.spec
            .preflight
            .iter()
            .chain(&self.spec.steps)
            .chain(&self.spec.verify)
    }
}
