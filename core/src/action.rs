//! The closed catalogue of what an agent can do: effect, class, undo, inputs and outputs of each
//! action, in one table that the linter, the planner, the agents and the help all read.

use std::collections::BTreeMap;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// An action of the catalogue, written `name@v1`; without a version, the newest is meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Action {
    /// Reads an object.
    KubeGet,
    /// Finds an older template of a Deployment and checks that what it refers to still exists.
    KubeResolveTemplate,
    /// Puts an older template of a Deployment back.
    KubeRolloutUndo,
    /// Gives a container of a Deployment another image.
    KubeSetImage,
    /// Waits until a Deployment is rolled out, and fails early when it cannot be.
    KubeWait,
    /// Sends requests to a service and counts errors.
    HttpProbe,
}

/// What an action may change, for policy and approval.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Effect {
    /// Nothing.
    Read,
    /// Something that can be put back.
    Write,
    /// Something that cannot.
    Destructive,
}

/// What may be done again after a crash, for recovery.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Class {
    /// Reads only.
    Read,
    /// Twice is as once.
    Idempotent,
    /// The effect carries a compare, so that a second one does nothing.
    Guarded,
    /// Must not begin twice.
    Once,
}

/// Who knows how to put it back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum UndoKind {
    /// The action itself, from what it captured.
    Auto,
    /// The runbook must say.
    Runbook,
    /// Nothing to put back.
    None,
}

/// Type of an input or output.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Text.
    Text,
    /// Whole number.
    Integer,
    /// Number.
    Number,
    /// True or false.
    Bool,
    /// Duration such as `90s`.
    Duration,
    /// List of texts.
    TextList,
    /// Anything.
    Any,
}

/// One input of an action.
#[derive(Clone, Copy, Debug)]
pub struct Input {
    /// Its name under `with`.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// Whether it must be given.
    pub required: bool,
    /// Values it may have; empty = any.
    pub one_of: &'static [&'static str],
    /// What it is for.
    pub about: &'static str,
}

/// One output of an action, read as `steps.ID.outputs.NAME`.
#[derive(Clone, Copy, Debug)]
pub struct Output {
    /// Its name.
    pub name: &'static str,
    /// Its type.
    pub kind: Kind,
    /// What it says.
    pub about: &'static str,
}

/// Text that names no action.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("unknown action `{0}`")]
pub struct UnknownAction(pub String);

const fn input(name: &'static str, kind: Kind, about: &'static str) -> Input {
    Input {
        name,
        kind,
        required: true,
        one_of: &[],
        about,
    }
}

const fn optional(name: &'static str, kind: Kind, about: &'static str) -> Input {
    Input {
        name,
        kind,
        required: false,
        one_of: &[],
        about,
    }
}

const fn output(name: &'static str, kind: Kind, about: &'static str) -> Output {
    Output { name, kind, about }
}

const DEPLOYMENT: Input = input("deployment", Kind::Text, "name of the Deployment");
const NAMESPACE: Input = input("namespace", Kind::Text, "its namespace");

impl Action {
    /// Every action, in the order of their names.
    pub const ALL: [Action; 6] = [
        Action::HttpProbe,
        Action::KubeGet,
        Action::KubeResolveTemplate,
        Action::KubeRolloutUndo,
        Action::KubeSetImage,
        Action::KubeWait,
    ];

    /// Its name without version.
    pub fn name(self) -> &'static str {
        match self {
            Self::KubeGet => "kube.get",
            Self::KubeResolveTemplate => "kube.resolve-template",
            Self::KubeRolloutUndo => "kube.rollout-undo",
            Self::KubeSetImage => "kube.set-image",
            Self::KubeWait => "kube.wait",
            Self::HttpProbe => "http.probe",
        }
    }

    /// One sentence for lists.
    pub fn about(self) -> &'static str {
        match self {
            Self::KubeGet => "read an object and its main facts",
            Self::KubeResolveTemplate => {
                "find an older template of a Deployment and check that what it refers to still exists"
            }
            Self::KubeRolloutUndo => {
                "put an older template of a Deployment back, only where the bad one runs"
            }
            Self::KubeSetImage => "give one container of a Deployment another image",
            Self::KubeWait => "wait until a Deployment is rolled out; fail early when it cannot be",
            Self::HttpProbe => "send requests to a service and count errors",
        }
    }

    /// What it may change.
    pub fn effect(self) -> Effect {
        match self {
            Self::KubeRolloutUndo | Self::KubeSetImage => Effect::Write,
            Self::KubeGet | Self::KubeResolveTemplate | Self::KubeWait | Self::HttpProbe => {
                Effect::Read
            }
        }
    }

    /// What may be done again after a crash.
    pub fn class(self) -> Class {
        match self {
            Self::KubeRolloutUndo | Self::KubeSetImage => Class::Guarded,
            Self::KubeGet | Self::KubeResolveTemplate | Self::KubeWait | Self::HttpProbe => {
                Class::Read
            }
        }
    }

    /// Who knows how to put it back.
    pub fn undo(self) -> UndoKind {
        match self {
            Self::KubeRolloutUndo | Self::KubeSetImage => UndoKind::Auto,
            Self::KubeGet | Self::KubeResolveTemplate | Self::KubeWait | Self::HttpProbe => {
                UndoKind::None
            }
        }
    }

    /// What it takes under `with`.
    pub fn inputs(self) -> &'static [Input] {
        match self {
            Self::KubeGet => {
                const KINDS: Input = Input {
                    one_of: &["Deployment"],
                    ..input("kind", Kind::Text, "kind of the object")
                };
                const {
                    &[
                        KINDS,
                        input("name", Kind::Text, "name of the object"),
                        NAMESPACE,
                    ]
                }
            }
            Self::KubeResolveTemplate => {
                const {
                    &[
                        DEPLOYMENT,
                        NAMESPACE,
                        input(
                            "to",
                            Kind::Text,
                            "which template: `previous`, `revision:N`, an image or a digest",
                        ),
                    ]
                }
            }
            Self::KubeRolloutUndo => {
                const {
                    &[
                        DEPLOYMENT,
                        NAMESPACE,
                        optional(
                            "from",
                            Kind::Text,
                            "bad image, tag or digest: acts only where it runs",
                        ),
                        input(
                            "to",
                            Kind::Text,
                            "which template: `previous`, `revision:N`, an image or a digest",
                        ),
                    ]
                }
            }
            Self::KubeSetImage => {
                const {
                    &[
                        DEPLOYMENT,
                        NAMESPACE,
                        optional(
                            "container",
                            Kind::Text,
                            "which container; may be left out when there is one",
                        ),
                        input("image", Kind::Text, "the image to run"),
                    ]
                }
            }
            Self::KubeWait => {
                const FOR: Input = Input {
                    one_of: &["rolledOut"],
                    ..input("for", Kind::Text, "what to wait for")
                };
                const {
                    &[
                        DEPLOYMENT,
                        NAMESPACE,
                        FOR,
                        optional(
                            "failAfterNoProgress",
                            Kind::Duration,
                            "give up when nothing moves for so long (2m)",
                        ),
                    ]
                }
            }
            Self::HttpProbe => {
                const VIA: Input = Input {
                    one_of: &["portForward", "direct"],
                    ..optional(
                        "via",
                        Kind::Text,
                        "through the API server, or straight to `address` (portForward)",
                    )
                };
                const {
                    &[
                        input("service", Kind::Text, "name of the Service"),
                        NAMESPACE,
                        input("port", Kind::Integer, "port of the Service"),
                        input("path", Kind::Text, "path to ask for"),
                        VIA,
                        optional("address", Kind::Text, "host and port, for `via: direct`"),
                        optional("samples", Kind::Integer, "number of requests (20)"),
                        optional("timeout", Kind::Duration, "time for one request (5s)"),
                        optional(
                            "expectStatus",
                            Kind::Integer,
                            "status that counts as good (200)",
                        ),
                    ]
                }
            }
        }
    }

    /// Reads resolved input as its own type in [`inputs`] does, and says what does not fit.
    pub fn check_input(self, with: &Value) -> Result<(), String> {
        fn read<'de, T: Deserialize<'de>>(with: &'de Value) -> Result<(), String> {
            T::deserialize(with).map(|_| ()).map_err(|e| e.to_string())
        }
        match self {
            Self::KubeGet => read::<inputs::KubeGet>(with),
            Self::KubeResolveTemplate => read::<inputs::KubeResolveTemplate>(with),
            Self::KubeRolloutUndo => read::<inputs::KubeRolloutUndo>(with),
            Self::KubeSetImage => read::<inputs::KubeSetImage>(with),
            Self::KubeWait => read::<inputs::KubeWait>(with),
            Self::HttpProbe => read::<inputs::HttpProbe>(with),
        }
    }

    /// What later expressions may read of it.
    pub fn outputs(self) -> &'static [Output] {
        match self {
            Self::KubeGet => {
                const {
                    &[
                        output("found", Kind::Bool, "whether the object exists"),
                        output("images", Kind::TextList, "images of its containers"),
                        output("replicas", Kind::Integer, "wanted replicas"),
                        output("ready", Kind::Integer, "ready replicas"),
                        output("revision", Kind::Integer, "revision of the Deployment"),
                        output("paused", Kind::Bool, "whether its rollout is paused"),
                    ]
                }
            }
            Self::KubeResolveTemplate => {
                const {
                    &[
                        output("revision", Kind::Integer, "revision found"),
                        output("image", Kind::Text, "image of its first container"),
                        output("ageSeconds", Kind::Integer, "age of its ReplicaSet"),
                        output(
                            "missing",
                            Kind::TextList,
                            "objects it refers to that are gone",
                        ),
                        output("unknown", Kind::TextList, "what could not be read"),
                    ]
                }
            }
            Self::KubeRolloutUndo => {
                const {
                    &[
                        output("changed", Kind::Bool, "whether anything was changed"),
                        output("revision", Kind::Integer, "revision that was put back"),
                        output("image", Kind::Text, "image that runs after it"),
                        output("previousImage", Kind::Text, "image that ran before it"),
                    ]
                }
            }
            Self::KubeSetImage => {
                const {
                    &[
                        output("changed", Kind::Bool, "whether anything was changed"),
                        output("image", Kind::Text, "image that runs after it"),
                        output("previousImage", Kind::Text, "image that ran before it"),
                    ]
                }
            }
            Self::KubeWait => {
                const {
                    &[
                        output("ready", Kind::Integer, "available replicas"),
                        output("replicas", Kind::Integer, "wanted replicas"),
                    ]
                }
            }
            Self::HttpProbe => {
                const {
                    &[
                        output("samples", Kind::Integer, "requests sent"),
                        output("errors", Kind::Integer, "requests that failed"),
                        output("errorRate", Kind::Number, "errors / samples"),
                        output("ok", Kind::Bool, "no request failed"),
                        output(
                            "p95Ms",
                            Kind::Integer,
                            "95th percentile of the time, in milliseconds",
                        ),
                    ]
                }
            }
        }
    }

    /// Outputs that a soak sums over targets and rounds.
    pub fn counters(self) -> &'static [&'static str] {
        match self {
            Self::HttpProbe => &["samples", "errors"],
            Self::KubeGet
            | Self::KubeResolveTemplate
            | Self::KubeRolloutUndo
            | Self::KubeSetImage
            | Self::KubeWait => &[],
        }
    }

    /// The outputs that follow from summed counters. Without a sample there is no rate.
    pub fn outputs_from_counters(self, sums: &BTreeMap<String, u64>) -> Value {
        let sum = |name: &str| sums.get(name).copied().unwrap_or(0);
        match self {
            Self::HttpProbe => {
                let (samples, errors) = (sum("samples"), sum("errors"));
                if samples == 0 {
                    return json!({"samples": 0, "errors": errors, "ok": false});
                }
                #[expect(clippy::cast_precision_loss, reason = "a rate, not a count")]
                let rate = errors as f64 / samples as f64;
                json!({"samples": samples, "errors": errors, "errorRate": rate, "ok": errors == 0})
            }
            Self::KubeGet
            | Self::KubeResolveTemplate
            | Self::KubeRolloutUndo
            | Self::KubeSetImage
            | Self::KubeWait => json!({}),
        }
    }
}

impl std::fmt::Display for Action {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@v1", self.name())
    }
}

impl FromStr for Action {
    type Err = UnknownAction;

    fn from_str(text: &str) -> Result<Self, UnknownAction> {
        let name = text.strip_suffix("@v1").unwrap_or(text);
        Self::ALL
            .into_iter()
            .find(|action| action.name() == name)
            .ok_or_else(|| UnknownAction(text.to_owned()))
    }
}

impl Serialize for Action {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Action {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Typed input of each action: what the runbook's `with` must be after its expressions are resolved.
pub mod inputs {
    use std::time::Duration;

    use serde::{Deserialize, Serialize};

    use crate::runbook::duration;

    /// Of `kube.get`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct KubeGet {
        /// `Deployment`.
        pub kind: String,
        /// Its name.
        pub name: String,
        /// Its namespace.
        pub namespace: String,
    }

    /// Of `kube.resolve-template`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct KubeResolveTemplate {
        /// Its name.
        pub deployment: String,
        /// Its namespace.
        pub namespace: String,
        /// `previous`, `revision:N`, an image or a digest.
        pub to: String,
    }

    /// Of `kube.rollout-undo`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct KubeRolloutUndo {
        /// Its name.
        pub deployment: String,
        /// Its namespace.
        pub namespace: String,
        /// Acts only where this image, tag or digest runs; where none is given the plan is refused and lists what runs.
        #[serde(default)]
        pub from: Option<String>,
        /// `previous`, `revision:N`, an image or a digest.
        pub to: String,
    }

    /// Of `kube.set-image`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct KubeSetImage {
        /// Its name.
        pub deployment: String,
        /// Its namespace.
        pub namespace: String,
        /// Which container; none or empty = the only one.
        #[serde(default)]
        pub container: Option<String>,
        /// The image to run.
        pub image: String,
    }

    /// Of `kube.wait`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct KubeWait {
        /// Its name.
        pub deployment: String,
        /// Its namespace.
        pub namespace: String,
        /// `rolledOut`.
        pub r#for: String,
        /// Give up when nothing moves for so long.
        #[serde(default = "two_minutes", with = "duration")]
        pub fail_after_no_progress: Duration,
    }

    /// Of `http.probe`.
    #[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields, rename_all = "camelCase")]
    pub struct HttpProbe {
        /// Name of the Service.
        pub service: String,
        /// Its namespace.
        pub namespace: String,
        /// Port of the Service.
        pub port: u16,
        /// Path to ask for.
        pub path: String,
        /// How to get there.
        #[serde(default)]
        pub via: Via,
        /// Host and port, for `via: direct`.
        #[serde(default)]
        pub address: Option<String>,
        /// Number of requests.
        #[serde(default = "twenty")]
        pub samples: u32,
        /// Time for one request.
        #[serde(default = "five_seconds", with = "duration")]
        pub timeout: Duration,
        /// Status that counts as good.
        #[serde(default = "ok")]
        pub expect_status: u16,
    }

    /// How a probe reaches the service.
    #[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase")]
    pub enum Via {
        /// Through the API server, pod by pod.
        #[default]
        PortForward,
        /// Straight to an address that the agent can reach.
        Direct,
    }

    fn two_minutes() -> Duration {
        Duration::from_secs(120)
    }

    fn five_seconds() -> Duration {
        Duration::from_secs(5)
    }

    fn twenty() -> u32 {
        20
    }

    fn ok() -> u16 {
        200
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_accepted_with_and_without_its_version() {
        assert_eq!("kube.wait@v1".parse(), Ok(Action::KubeWait));
        assert_eq!("kube.wait".parse(), Ok(Action::KubeWait));
        assert!("kube.wait@v2".parse::<Action>().is_err());
    }

    #[test]
    fn without_a_sample_there_is_no_rate() {
        let outputs = Action::HttpProbe.outputs_from_counters(&BTreeMap::new());
        assert_eq!(outputs.get("errorRate"), None);
        assert_eq!(outputs["ok"], false);
    }
}
