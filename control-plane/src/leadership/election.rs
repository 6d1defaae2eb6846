//! One transaction makes a leader, and one makes another life of the store.
//!
//! etcd's own election API is not used: only a transaction of ours raises the epoch with the very
//! write that takes the leader key.

use std::time::Duration;

use bytes::Bytes;
use serde::{Deserialize, Serialize};

use super::{Leader, Settings, Token};
use crate::clock::Clock;
use crate::store::{
    Commit, Error, Key, Lease, Outcome, Precondition, Record, Result, Revision, Store, Write, keys,
};

/// Tries of [`raise_incarnation`] against others who write the same key, who are people.
const RAISE_TRIES: usize = 5;

/// Layout of the whole store that this build reads and writes. Single records have numbers of their own; this one
/// is for changes that no record shows, such as where things are kept.
pub const FORMAT: u64 = 1;

/// What came of a campaign.
pub(super) enum Campaign {
    Elected(Token),
    SomebodyElse,
}

/// Which life of the store this is. Zero until an operator first raises it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Incarnation {
    /// Compared by agents.
    pub number: u64,
    /// The operator's words.
    pub reason: String,
}

/// Reads the incarnation.
pub async fn incarnation(store: &dyn Store) -> Result<Incarnation> {
    parse_incarnation(store.get(&keys::incarnation()).await?.as_ref())
}

/// Refuses a store that a later build has written to: what this one would do there, nobody has thought of.
pub async fn check_format(store: &dyn Store) -> Result<()> {
    known_format(store.get(&keys::format()).await?.as_ref()).map(drop)
}

/// The format that is written down, where it is one of ours; none in a store that nobody led in yet.
fn known_format(record: Option<&Record>) -> Result<Option<u64>> {
    let Some(record) = record else {
        return Ok(None);
    };
    let text = std::str::from_utf8(&record.value).map_err(|error| corrupt(record, &error))?;
    let found: u64 = text.parse().map_err(|error| corrupt(record, &error))?;
    if found <= FORMAT {
        return Ok(Some(found));
    }
    Err(Error::Refused {
        doing: "use this store",
        why: format!("its format is {found}, this build knows up to {FORMAT}: run a newer build"),
    })
}

/// Reads it also from a store that went back.
pub(super) async fn incarnation_despite(store: &dyn Store) -> Result<Incarnation> {
    parse_incarnation(store.read_despite(&keys::incarnation()).await?.as_ref())
}

/// Declares the store restored: a higher incarnation, and no leader, in one transaction.
///
/// `highest_seen` is the highest incarnation that anybody has seen, agents included, where that is
/// known; the wall clock, in seconds, is for where it is not. Returns the incarnation.
pub async fn raise_incarnation(
    store: &dyn Store,
    clock: &dyn Clock,
    highest_seen: u64,
    reason: &str,
) -> Result<u64> {
    let key = keys::incarnation();
    let mut last = None;
    for _ in 0..RAISE_TRIES {
        let read = store.get(&key).await?;
        let stored = parse_incarnation(read.as_ref())?.number;
        if last == Some(stored) {
            // The reply was lost, the write was not.
            return Ok(stored);
        }
        let number = (stored.max(highest_seen) + 1).max(clock.wall_now() / 1000);
        let raised = Incarnation {
            number,
            reason: reason.to_owned(),
        };
        let commit = Commit {
            preconditions: vec![Precondition::unchanged(&key, read.as_ref())],
            writes: vec![
                Write::put(key.clone(), json(&key, &raised)?),
                Write::delete(keys::leader()),
            ],
        };
        match store.commit(commit).await {
            Ok(Outcome::Committed { .. }) => return Ok(number),
            Ok(Outcome::Conflict { .. }) => last = None,
            Err(Error::Unknown { .. }) => last = Some(number),
            Err(error) => return Err(error),
        }
    }
    Err(Error::Refused {
        doing: "raise the incarnation",
        why: "somebody else keeps writing it".to_owned(),
    })
}

/// Tries to become the leader.
pub(super) async fn campaign(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
) -> Result<Campaign> {
    // From before the asking: the answer may have been slow, and the lease runs from the granting.
    let deadline = clock.boot_now() + settings.ttl.saturating_sub(settings.margin);
    let lease = store.grant(settings.ttl).await?;
    let elected = elect(store, &settings.leader, lease, deadline).await;
    if !matches!(elected, Ok(Campaign::Elected(_))) {
        // Also makes a put that is still on its way impossible, if its outcome was unknown.
        if let Err(error) = store.revoke(lease).await {
            tracing::debug!(
                error = crate::telemetry::chain(&error),
                "cannot revoke a lease that won nothing; it ends by itself"
            );
        }
    }
    elected
}

async fn elect(
    store: &dyn Store,
    leader: &Leader,
    lease: Lease,
    deadline: Duration,
) -> Result<Campaign> {
    let epoch = store.get(&keys::epoch()).await?;
    let incarnation = store.get(&keys::incarnation()).await?;
    let format = store.get(&keys::format()).await?;
    let term = Term {
        incarnation: parse_incarnation(incarnation.as_ref())?.number,
        epoch: parse_epoch(epoch.as_ref())? + 1,
    };
    let mut commit = Commit {
        preconditions: vec![
            Precondition::Absent(keys::leader()),
            Precondition::unchanged(&keys::epoch(), epoch.as_ref()),
            Precondition::unchanged(&keys::incarnation(), incarnation.as_ref()),
        ],
        writes: vec![
            Write::Put {
                key: keys::leader(),
                value: json(&keys::leader(), leader)?,
                lease: Some(lease),
            },
            Write::put(keys::epoch(), term.epoch.to_string()),
        ],
    };
    // The first leader of all says what it writes; a later build that changes it deposes nobody unnoticed.
    let unchanged = Precondition::unchanged(&keys::format(), format.as_ref());
    commit.preconditions.push(unchanged);
    if known_format(format.as_ref())?.is_none() {
        let format = Write::put(keys::format(), FORMAT.to_string());
        commit.writes.push(format);
    }
    match store.commit(commit).await {
        Ok(Outcome::Committed { revision }) => Ok(term.won(revision, lease, deadline)),
        Ok(Outcome::Conflict { .. }) => Ok(Campaign::SomebodyElse),
        Err(Error::Unknown { .. }) => find_out(store, term, lease, deadline).await,
        Err(error) => Err(error),
    }
}

/// The reply was lost: the leader key tells by its lease whether it is ours.
async fn find_out(
    store: &dyn Store,
    term: Term,
    lease: Lease,
    deadline: Duration,
) -> Result<Campaign> {
    match store.get(&keys::leader()).await? {
        Some(leader) if leader.lease == Some(lease) => {
            Ok(term.won(leader.created, lease, deadline))
        }
        Some(_) | None => Ok(Campaign::SomebodyElse),
    }
}

/// The term that is stood for.
struct Term {
    incarnation: u64,
    epoch: u64,
}

impl Term {
    fn won(&self, created: Revision, lease: Lease, deadline: Duration) -> Campaign {
        Campaign::Elected(Token::new(
            self.incarnation,
            self.epoch,
            created,
            lease,
            deadline,
        ))
    }
}

fn parse_epoch(record: Option<&Record>) -> Result<u64> {
    let Some(record) = record else { return Ok(0) };
    let text = std::str::from_utf8(&record.value).map_err(|error| corrupt(record, &error))?;
    text.parse().map_err(|error| corrupt(record, &error))
}

fn parse_incarnation(record: Option<&Record>) -> Result<Incarnation> {
    match record {
        None => Ok(Incarnation::default()),
        Some(record) => {
            serde_json::from_slice(&record.value).map_err(|error| corrupt(record, &error))
        }
    }
}

fn corrupt(record: &Record, why: &dyn std::error::Error) -> Error {
    Error::Corrupt {
        place: record.key.to_string(),
        why: why.to_string(),
    }
}

fn json(key: &Key, value: &impl Serialize) -> Result<Bytes> {
    serde_json::to_vec(value)
        .map(Bytes::from)
        .map_err(|error| Error::Refused {
            doing: "commit",
            why: format!("`{key}` cannot be encoded: {error}"),
        })
}
