//! What was ever stored must load for ever.
//!
//! Each file of `tests/records/v1` holds a list of records of one type as this layout was first
//! written. They are never edited: a change that breaks one must read both layouts, or take the next
//! format number and a folder of its own.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use aldis_control_plane::leadership::{Incarnation, Leader};
use aldis_control_plane::records::{
    self, Ended, Fleet, Halted, Layout, Lock, PlanHeader, PlanPart, Replica, Session, StoredRunbook,
};
use aldis_control_plane::store::{Key, Record, Revision};
use aldis_core::assignments::Assignment;
use aldis_core::job::{Header, JobState, Request, Target, TargetState};
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("records/v1")
}

fn samples(name: &str) -> Vec<Value> {
    let path = folder().join(format!("{name}.json"));
    let text = fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    serde_json::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

fn stored(value: &Value) -> Record {
    written(value.to_string().into_bytes())
}

fn written(value: Vec<u8>) -> Record {
    Record::new(Key::raw("fixture"), value, Revision(1), Revision(1))
}

/// Every sample as its type, which written and read again is the same.
fn records<T: Layout + PartialEq + std::fmt::Debug>(name: &str) -> Vec<T> {
    let read = |value: &Value| {
        let record: T = records::read(&stored(value)).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = written(records::write(&record).to_vec());
        let again: T = records::read(&again).unwrap_or_else(|e| panic!("{name}: {e}"));
        assert_eq!(record, again);
        record
    };
    let all: Vec<T> = samples(name).iter().map(read).collect();
    assert!(!all.is_empty(), "{name}.json holds nothing");
    all
}

/// As [`records`], for documents without a layout number of the store.
fn documents<T: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug>(name: &str) {
    for value in samples(name) {
        let document: T = serde_json::from_value(value).unwrap_or_else(|e| panic!("{name}: {e}"));
        let again = serde_json::to_value(&document).unwrap();
        assert_eq!(document, serde_json::from_value::<T>(again).unwrap());
    }
}

/// Loads each type of record; the names of the types that were loaded.
macro_rules! load {
    ($($kind:ident: $name:literal),+ $(,)?) => {{
        $(records::<$kind>($name);)+
        BTreeSet::from([$(stringify!($kind)),+])
    }};
}

#[test]
fn every_record_of_the_first_layout_loads_and_no_type_is_without_one() {
    let loaded = load! {
        Header: "header", Target: "target", Request: "request",
        PlanHeader: "plan-header", PlanPart: "plan-part",
        Fleet: "fleet", Session: "session", Replica: "replica", Halted: "halted",
        Lock: "lock", Ended: "ended", StoredRunbook: "stored-runbook",
    };
    let source = include_str!("../../control-plane/src/records.rs");
    let kinds: BTreeSet<&str> = source
        .lines()
        .filter_map(|line| line.strip_prefix("impl Layout for ")?.split(' ').next())
        .collect();
    assert_eq!(loaded, kinds);
}

#[test]
fn what_has_no_layout_number_loads_too() {
    documents::<Leader>("leader");
    documents::<Incarnation>("incarnation");
    // Journalled whole by agents.
    documents::<Assignment>("assignment");
}

/// A hold was a text at first. Read back it stands in every life of the store, since nobody knows of which it was.
#[test]
fn a_hold_that_is_a_text_stands_until_it_is_known_of_which_life_it_was() {
    let fleet = records::<Fleet>("fleet").remove(1);
    let held = fleet.held_in(u64::MAX).expect("it is held");
    assert!(held.why.contains("was a backup restored?") && held.incarnation.is_none());
}

#[test]
fn a_record_of_a_later_build_is_refused_by_name_and_number() {
    let mut later = samples("lock").remove(0);
    later["format"] = 2.into();
    let error = records::read::<Lock>(&stored(&later)).unwrap_err();
    assert!(error.to_string().contains("layout 2"), "{error}");
}

#[test]
fn every_state_has_a_sample() {
    let kinds = |names: &[&str]| {
        names
            .iter()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    };
    let jobs: BTreeSet<String> = records::<Header>("header")
        .iter()
        .map(|header| kind_of_job(&header.state).to_owned())
        .collect();
    let expected = [
        "queued",
        "running",
        "paused",
        "stopping",
        "unwinding",
        "succeeded",
        "partlyDone",
        "failed",
        "undone",
        "cancelled",
        "needsOperator",
    ];
    assert_eq!(jobs, kinds(&expected));
    let targets: BTreeSet<String> = records::<Target>("target")
        .iter()
        .map(|target| kind_of_target(&target.state).to_owned())
        .collect();
    let expected = [
        "notStarted",
        "deferred",
        "assigned",
        "running",
        "atBarrier",
        "failed",
        "stopped",
        "undoAssigned",
        "undoing",
        "unknown",
        "stuck",
        "rest",
    ];
    assert_eq!(targets, kinds(&expected));
}

/// A new state does not compile here, so that nobody forgets its sample.
fn kind_of_job(state: &JobState) -> &'static str {
    match state {
        JobState::Queued => "queued",
        JobState::Running => "running",
        JobState::Paused => "paused",
        JobState::Stopping { .. } => "stopping",
        JobState::Unwinding { .. } => "unwinding",
        JobState::Succeeded => "succeeded",
        JobState::PartlyDone => "partlyDone",
        JobState::Failed { .. } => "failed",
        JobState::Undone { .. } => "undone",
        JobState::Cancelled { .. } => "cancelled",
        JobState::NeedsOperator { .. } => "needsOperator",
    }
}

fn kind_of_target(state: &TargetState) -> &'static str {
    match state {
        TargetState::NotStarted => "notStarted",
        TargetState::Deferred { .. } => "deferred",
        TargetState::Assigned { .. } => "assigned",
        TargetState::Running { .. } => "running",
        TargetState::AtBarrier { .. } => "atBarrier",
        TargetState::Failed { .. } => "failed",
        TargetState::Stopped { .. } => "stopped",
        TargetState::UndoAssigned => "undoAssigned",
        TargetState::Undoing => "undoing",
        TargetState::Unknown { .. } => "unknown",
        TargetState::Stuck { .. } => "stuck",
        TargetState::Rest(_) => "rest",
    }
}
