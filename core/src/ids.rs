//! Names and numbers that identify things, each a type of its own so that a job is never taken for a plan.
//!
//! Nothing here is drawn or read from a clock: ids come in from the programs' outermost layer.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

macro_rules! text_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(transparent)]
        pub struct $name(String);

        impl $name {
            /// Wraps text that was checked or made by the caller.
            pub fn new(text: impl Into<String>) -> Self {
                Self(text.into())
            }

            /// The text itself.
            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl From<&str> for $name {
            fn from(text: &str) -> Self {
                Self(text.to_owned())
            }
        }
    };
}

text_id! {
    /// A job: `j-` and 32 hex digits, the hash of who submitted it and the idempotency key.
    JobId
}
text_id! {
    /// A plan: `p-` and 32 hex digits, drawn at random by the replica that planned.
    PlanId
}
text_id! {
    /// A step of a runbook, unique in it. Matches `[a-z][a-zA-Z0-9_]*`.
    StepId
}
text_id! {
    /// A SHA-256 in hex.
    Digest
}
text_id! {
    /// One journal file of one agent. Another id means that earlier records may be missing.
    JournalId
}
text_id! {
    /// A request of an operator to a job (cancel, pause, resume, resolve), named by the caller.
    RequestId
}

impl JobId {
    /// The id that `identity` gets for `idempotency_key`: the same pair names the same job for ever.
    pub fn of_submission(identity: &str, idempotency_key: &str) -> Self {
        let digest =
            crate::canonical::hash_parts(&[identity.as_bytes(), idempotency_key.as_bytes()]);
        Self(format!("j-{}", &digest.as_str()[..32]))
    }

    /// What commands print: long enough to be unambiguous among a fleet's jobs in practice (48 bits).
    pub fn short(&self) -> &str {
        self.0.get(..14).unwrap_or(&self.0)
    }
}

impl PlanId {
    /// What commands print: `p-` and 8 digits.
    pub fn short(&self) -> &str {
        self.0.get(..10).unwrap_or(&self.0)
    }
}

impl Digest {
    /// What people read aloud: the first 12 digits.
    pub fn short(&self) -> &str {
        self.0.get(..12).unwrap_or(&self.0)
    }
}

/// A cluster that jobs act on, written `region/cluster`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TargetName {
    region: String,
    cluster: String,
}

/// Text that names no target.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a target; write `region/cluster` in lower-case letters, digits and hyphens")]
pub struct NotATarget(pub String);

impl TargetName {
    /// Checks both halves: 1 to 63 lower-case letters, digits or inner hyphens, as in a DNS label.
    pub fn new(region: &str, cluster: &str) -> Result<Self, NotATarget> {
        if [region, cluster].iter().all(|part| is_dns_label(part)) {
            Ok(Self {
                region: region.to_owned(),
                cluster: cluster.to_owned(),
            })
        } else {
            Err(NotATarget(format!("{region}/{cluster}")))
        }
    }

    /// The group of clusters.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// The cluster within its region.
    pub fn cluster(&self) -> &str {
        &self.cluster
    }
}

fn is_dns_label(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

impl fmt::Display for TargetName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.region, self.cluster)
    }
}

impl FromStr for TargetName {
    type Err = NotATarget;

    fn from_str(text: &str) -> Result<Self, NotATarget> {
        let (region, cluster) = text
            .split_once('/')
            .ok_or_else(|| NotATarget(text.to_owned()))?;
        Self::new(region, cluster).map_err(|_| NotATarget(text.to_owned()))
    }
}

impl Serialize for TargetName {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for TargetName {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        text.parse().map_err(serde::de::Error::custom)
    }
}

/// Number of a try of one segment on one target. Rises by a fenced transaction only; an agent runs
/// each number at most once. 0 means that none was given.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Attempt(pub u32);

impl Attempt {
    /// The number after this one.
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

impl fmt::Display for Attempt {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.0)
    }
}

/// Which leader speaks: agents drop whatever is older than the highest they have seen.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
pub struct Fence {
    /// Rises only when the store was restored from a backup.
    pub incarnation: u64,
    /// Rises with each election.
    pub epoch: u64,
}

impl fmt::Display for Fence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.incarnation, self.epoch)
    }
}

/// Milliseconds since 1970-01-01 UTC by the writer's wall clock. For people and for waiting; no
/// safety property compares two of them.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize,
)]
#[serde(transparent)]
pub struct Timestamp(pub u64);

impl Timestamp {
    /// The moment `duration` later.
    pub fn plus(self, duration: std::time::Duration) -> Self {
        Self(
            self.0
                .saturating_add(u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)),
        )
    }

    /// Time since `earlier`, zero when the clock went back.
    pub fn since(self, earlier: Timestamp) -> std::time::Duration {
        std::time::Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_target_is_written_region_slash_cluster() {
        let target: TargetName = "eu-west/prod-1".parse().unwrap();
        assert_eq!((target.region(), target.cluster()), ("eu-west", "prod-1"));
        assert_eq!(target.to_string(), "eu-west/prod-1");
    }

    #[test]
    fn what_could_escape_a_key_or_a_path_is_no_target() {
        for text in [
            "prod-1",
            "eu/",
            "/prod",
            "eu/prod/1",
            "EU/prod",
            "eu/..",
            "eu/-a",
            "",
        ] {
            assert!(text.parse::<TargetName>().is_err(), "{text}");
        }
    }

    #[test]
    fn one_identity_and_key_name_one_job() {
        let job = JobId::of_submission("spiffe://d/user/mei", "deploy-7");
        assert_eq!(job, JobId::of_submission("spiffe://d/user/mei", "deploy-7"));
        assert_ne!(job, JobId::of_submission("spiffe://d/user/meid", "eploy-7"));
        assert_eq!(job.as_str().len(), 34);
    }
}
