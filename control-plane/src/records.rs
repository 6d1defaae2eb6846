//! What the store holds, as types with a layout version each.
//!
//! Reading is strict: a record that does not parse is [`Error::Corrupt`], names its key, and is never
//! taken for absent. Every past layout has a fixture in `tests/` that must load for ever.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use aldis_core::ids::{Attempt, Digest, JobId, JournalId, PlanId, TargetName, Timestamp};
use aldis_core::job::{Header, Request, Target};
use aldis_core::plan::{ClusterIdentity, ObjectRef, Scope, TargetPart};
use aldis_core::reconcile::{Listed, RecordedJournal};
use bytes::Bytes;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::Record;

/// A record that cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It is not what its key says.
    #[error("record {key} is corrupt: {problem}")]
    Corrupt {
        /// Which.
        key: String,
        /// Where and what.
        problem: String,
    },
    /// It was written by a later build.
    #[error("record {key} has layout {found}, this build reads up to {known}: run a newer build")]
    TooNew {
        /// Which.
        key: String,
        /// Its layout.
        found: u64,
        /// The newest that this build knows.
        known: u32,
    },
}

/// A type of record with a layout number.
pub trait Layout: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {
    /// The newest layout that this build writes and reads.
    const FORMAT: u32;
}

/// Reads a record, for oneself: to change it, or because nobody else has the record.
pub fn read<T: Layout>(record: &Record) -> Result<T, Error> {
    match record.known() {
        Some(known) => Ok(T::clone(&known)),
        None => parse(record),
    }
}

/// Reads a record of the view, which many look at: parsed by the first of them, kept beside it for the others.
pub fn shared<T: Layout>(record: &Record) -> Result<Arc<T>, Error> {
    record.read_once(parse)
}

/// How many records were parsed since this process began, for its metrics: where many agents make the same record
/// be parsed again and again, this shows it on any machine.
pub fn parsed() -> u64 {
    PARSED.load(Ordering::Relaxed)
}

static PARSED: AtomicU64 = AtomicU64::new(0);

fn parse<T: Layout>(record: &Record) -> Result<T, Error> {
    PARSED.fetch_add(1, Ordering::Relaxed);
    let corrupt = |error: serde_json::Error| Error::Corrupt {
        key: record.key.to_string(),
        problem: error.to_string(),
    };
    let value: serde_json::Value = serde_json::from_slice(&record.value).map_err(corrupt)?;
    match value.get("format").and_then(serde_json::Value::as_u64) {
        Some(found) if found > u64::from(T::FORMAT) => Err(Error::TooNew {
            key: record.key.to_string(),
            found,
            known: T::FORMAT,
        }),
        _ => serde_json::from_value(value).map_err(corrupt),
    }
}

/// Writes a record, as canonical JSON.
pub fn write<T: Layout>(record: &T) -> Bytes {
    Bytes::from(aldis_core::canonical::encode(record))
}

impl Layout for Header {
    const FORMAT: u32 = Header::FORMAT;
}

impl Layout for Target {
    const FORMAT: u32 = Target::FORMAT;
}

impl Layout for Request {
    const FORMAT: u32 = 1;
}

/// `plans/<plan>/header`: the plan without its parts. Written last, so that it proves them whole.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanHeader {
    /// Layout of this record.
    pub format: u32,
    /// Which.
    pub id: PlanId,
    /// What the digest covers beside the parts.
    pub scope: Scope,
    /// Over scope and parts.
    pub digest: Digest,
    /// Who asked for it.
    pub planned_by: String,
    /// When.
    pub planned_at: Timestamp,
    /// True once it was swept: no submission passes after that.
    pub expired: bool,
    /// The job it undoes or retries.
    pub link: Option<aldis_core::job::Link>,
}

impl Layout for PlanHeader {
    const FORMAT: u32 = 1;
}

/// `plans/<plan>/targets/<target>`: one agent's part.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PlanPart {
    /// Layout of this record.
    pub format: u32,
    /// True when it was made after the job began, for a deferred target: the digest does not cover it,
    /// its scope does.
    pub late: bool,
    /// As the agent made it.
    pub part: TargetPart,
}

impl Layout for PlanPart {
    const FORMAT: u32 = 1;
}

/// `fleet/<target>`: what is known of a cluster. Written on change only.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Fleet {
    /// Layout of this record.
    pub format: u32,
    /// Which.
    pub target: TargetName,
    /// The cluster that is pinned to the name, by config or first registration.
    pub identity: ClusterIdentity,
    /// Another cluster that registered under the name and was refused.
    pub offered: Option<ClusterIdentity>,
    /// For selectors.
    pub labels: BTreeMap<String, String>,
    /// Version of the agent.
    pub version: String,
    /// True for a practice cluster.
    pub simulated: bool,
    /// The journal and its highest sequence ever reported.
    pub journal: RecordedJournal,
    /// Attempts in the agent's journal that no record knows.
    pub orphans: Vec<Listed>,
    /// Set while this agent alone is held, with the alarm's text.
    pub held: Option<Held>,
    /// The life of the store in which the agent's list was merged last: from then on whatever it holds
    /// was committed in that life, or listed as an orphan.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub merged_in: Option<u64>,
}

impl Layout for Fleet {
    const FORMAT: u32 = 1;
}

impl Fleet {
    /// Takes in how far the agent's journal has come. What is recorded of one journal never falls: a
    /// list that is shorter later has lost something.
    pub fn hears_of(&mut self, journal: &JournalId, sequence: u64) {
        let before = match self.journal.id == *journal {
            true => self.journal.sequence,
            false => 0,
        };
        self.journal = RecordedJournal {
            id: journal.clone(),
            sequence: sequence.max(before),
        };
    }

    /// Why the agent is held in this life of the store, if it is.
    pub fn held_in(&self, incarnation: u64) -> Option<&Held> {
        self.held.as_ref().filter(|held| !held.is_over(incarnation))
    }
}

/// The word of an agent that the store went back in time. Neither a restart nor a registration nor a
/// merge lifts it: what was lost stays lost until an operator has declared another life of the store.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "HeldAsWritten")]
pub struct Held {
    /// The alarm in words.
    pub why: String,
    /// The life of the store in which it was seen; a higher one lifts it. Not known of holds that were
    /// written as a text alone: the next registration takes the life it finds.
    pub incarnation: Option<u64>,
}

impl Held {
    /// Whether an operator has raised the incarnation over it.
    pub fn is_over(&self, incarnation: u64) -> bool {
        self.incarnation
            .is_some_and(|seen_in| incarnation > seen_in)
    }
}

/// A hold as this and as earlier builds wrote it.
#[derive(Deserialize)]
#[serde(untagged)]
enum HeldAsWritten {
    Text(String),
    #[serde(rename_all = "camelCase")]
    Whole {
        why: String,
        incarnation: Option<u64>,
    },
}

impl From<HeldAsWritten> for Held {
    fn from(written: HeldAsWritten) -> Self {
        match written {
            HeldAsWritten::Text(why) => Self {
                why,
                incarnation: None,
            },
            HeldAsWritten::Whole { why, incarnation } => Self { why, incarnation },
        }
    }
}

/// `meta/halted`: a replica that lived through a restore says so, for those that are started later and
/// have seen nothing. All dispatch stops while the store is in that life.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Halted {
    /// Layout of this record.
    pub format: u32,
    /// What was seen, and by whom.
    pub why: String,
    /// The highest life that the replica had seen; a higher one lifts it.
    pub incarnation: u64,
}

impl Layout for Halted {
    const FORMAT: u32 = 1;
}

/// `fleet/<target>/session`: the live connection. A key of its own, so that a transaction can compare it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Session {
    /// Layout of this record.
    pub format: u32,
    /// Rises with each registration; frames of an older session are dropped.
    pub generation: u64,
    /// The replica that holds the stream; empty once the agent has left or was lost.
    pub replica: String,
    /// That replica's boot id.
    pub replica_boot: String,
    /// The agent's process, drawn at its start.
    pub process: String,
    /// Proof of the machine and directory.
    pub machine: String,
    /// The journal it registered with.
    pub journal: JournalId,
    /// The highest fence that the agent had on disk when it registered.
    pub highest: aldis_core::ids::Fence,
    /// The leader that merged its list; none = not merged yet. Only the leader writes it.
    pub merged: Option<aldis_core::ids::Fence>,
    /// Set while two processes use the identity: who, and until when nobody gets work, in wall-clock
    /// milliseconds of the writer. It outlives further registrations.
    pub contested: Option<Contested>,
    /// Since when nobody holds a stream.
    pub absent_since: Option<Timestamp>,
    /// True when the agent said goodbye.
    pub said_goodbye: bool,
    /// True when nobody had held a stream for longer than ended jobs are kept: what the agent then holds
    /// and no record knows may have been swept, and does not prove that the store lost it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub was_away_long: bool,
    /// Orders that the agent will not take, in its own words, for operators. They are sent again.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub refused: Vec<RefusedOrder>,
}

/// An order that an agent will not take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RefusedOrder {
    /// Of which job.
    pub job: JobId,
    /// Which attempt.
    pub attempt: Attempt,
    /// The agent's reason.
    pub why: String,
}

impl Layout for Session {
    const FORMAT: u32 = 1;
}

/// Two processes under one identity.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Contested {
    /// The process that registered last, and the one before it.
    pub processes: Vec<String>,
    /// When the contest was seen last: one of them must be silent for a permit after this.
    pub seen_at: Timestamp,
    /// The alarm in words.
    pub why: String,
}

/// `replicas/<id>`: a replica that lives. Leased.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Replica {
    /// Layout of this record.
    pub format: u32,
    /// Its configured name.
    pub id: String,
    /// Which process of that name.
    pub boot_id: String,
    /// Where other replicas reach it.
    pub address: String,
}

impl Layout for Replica {
    const FORMAT: u32 = 1;
}

/// `locks/<cluster uid>/<kind>/<ns>/<name>`: who may write the object.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Lock {
    /// Layout of this record.
    pub format: u32,
    /// The job that holds it.
    pub job: JobId,
    /// Through which target.
    pub target: TargetName,
    /// What.
    pub object: ObjectRef,
}

impl Layout for Lock {
    const FORMAT: u32 = 1;
}

/// `ended/<job>`: a job that has left the hot prefix, whole, for as long as retention says. One record,
/// so that it is put in the transaction that deletes the header.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Ended {
    /// Layout of this record.
    pub format: u32,
    /// Its header at the end.
    pub header: Header,
    /// Its targets at the end. Where they would not fit one record (some 1,500 targets), outputs and
    /// evidence of steps are left out.
    pub targets: BTreeMap<TargetName, Target>,
}

impl Layout for Ended {
    const FORMAT: u32 = 1;
}

/// `runbooks/<name>/<version>`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StoredRunbook {
    /// Layout of this record.
    pub format: u32,
    /// As pushed.
    pub text: String,
    /// Digest of its content.
    pub digest: Digest,
    /// Who pushed it.
    pub pushed_by: String,
}

impl Layout for StoredRunbook {
    const FORMAT: u32 = 1;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fleet(held: Option<Held>) -> Fleet {
        Fleet {
            format: 1,
            target: "eu/prod".parse().unwrap(),
            identity: ClusterIdentity {
                cluster_uid: "uid".into(),
                ca_fingerprint: "ca".into(),
            },
            offered: None,
            labels: BTreeMap::new(),
            version: "1".into(),
            simulated: true,
            journal: RecordedJournal {
                id: "a".into(),
                sequence: 12,
            },
            orphans: vec![],
            held,
            merged_in: None,
        }
    }

    #[test]
    fn what_is_recorded_of_one_journal_never_falls() {
        let mut fleet = fleet(None);
        fleet.hears_of(&"a".into(), 10);
        assert_eq!(fleet.journal.sequence, 12);
        fleet.hears_of(&"a".into(), 13);
        assert_eq!(fleet.journal.sequence, 13);
        fleet.hears_of(&"b".into(), 1);
        assert_eq!(fleet.journal.sequence, 1);
    }

    #[test]
    fn only_a_higher_incarnation_lifts_a_hold() {
        let held = |incarnation| {
            let why = "it has seen revision 9".into();
            fleet(Some(Held { why, incarnation }))
        };
        assert!(held(Some(3)).held_in(3).is_some());
        assert!(held(Some(3)).held_in(2).is_some());
        assert!(held(Some(3)).held_in(4).is_none());
        assert!(
            held(None).held_in(u64::MAX).is_some(),
            "of an earlier build"
        );
    }
}
