//! What the records say of an agent: whether it may be given work, and if not, why not; and whether
//! anybody may.

use std::collections::BTreeMap;
use std::sync::Arc;

use aldis_core::ids::{Fence, TargetName, Timestamp};
use aldis_core::inventory::Presence;

use crate::records::{self, Fleet, Halted, Session};
use crate::store::keys::{self, Name};
use crate::store::{Key, Record};
use crate::view;

/// Agents held on their own word from which on nobody is believed: with two, it is the store.
const WORDS_THAT_PROVE: usize = 2;

/// A cluster with the session of its agent, as recorded.
#[derive(Clone, Debug)]
pub struct Known {
    /// The cluster.
    pub fleet: Arc<Fleet>,
    /// The record it was read from.
    pub fleet_record: Record,
    /// The agent's session, if it ever had one.
    pub session: Option<(Arc<Session>, Record)>,
}

impl Known {
    /// Whether the session of this generation is the one that counts.
    pub fn is_session(&self, generation: u64) -> bool {
        let session = self.session.as_ref();
        session.is_some_and(|(session, _)| session.generation == generation)
    }

    /// Whether it may be given work by the leader of this fence.
    pub fn presence(&self, fence: Fence) -> Presence {
        let Some((session, _)) = &self.session else {
            return Presence::Absent {
                since: Timestamp(0),
            };
        };
        if let Some(contest) = &session.contested {
            return Presence::Contested {
                why: contest.why.clone(),
            };
        }
        if session.replica.is_empty() {
            return Presence::Absent {
                since: session.absent_since.unwrap_or_default(),
            };
        }
        if let Some(held) = self.fleet.held_in(fence.incarnation) {
            return Presence::Held {
                why: held.why.clone(),
            };
        }
        if session.merged == Some(fence) {
            Presence::Live {
                journal: session.journal.clone(),
            }
        } else {
            Presence::NotMerged
        }
    }
}

/// Every cluster that has a record: what is known of it, or why that cannot be read.
pub fn fleet(all: &BTreeMap<Key, Record>) -> BTreeMap<TargetName, Result<Known, records::Error>> {
    let of = |record: &Record| match record.key.name() {
        Some(Name::Fleet { target }) => target.parse().ok(),
        _ => None,
    };
    view::under(all, keys::FLEET)
        .filter(|record| record.key.is_fleet())
        .filter_map(|record| Some((of(record)?, read(all, record))))
        .collect()
}

/// Every cluster whose records can be read.
pub fn readable(all: &BTreeMap<Key, Record>) -> BTreeMap<TargetName, Known> {
    let readable = |(target, known): (_, Result<Known, _>)| Some((target, known.ok()?));
    fleet(all).into_iter().filter_map(readable).collect()
}

/// Whether an agent may be given work, also where its record cannot be read: then it may not.
pub fn of(known: &Result<Known, records::Error>, fence: Fence) -> Presence {
    match known {
        Ok(known) => known.presence(fence),
        Err(error) => Presence::Held {
            why: format!("what is known of it cannot be read: {error}"),
        },
    }
}

/// Why nothing may be dispatched to anybody: the store went back in time, by the word of a replica that
/// saw it or of two agents. On one agent's word alone only that agent is held.
pub fn halted(all: &BTreeMap<Key, Record>) -> Option<String> {
    let life = fence(all).incarnation;
    if let Some(record) = all.get(&keys::halted()) {
        match records::read::<Halted>(record) {
            Ok(halted) if life > halted.incarnation => {}
            Ok(halted) => return Some(halted.why),
            Err(error) => return Some(error.to_string()),
        }
    }
    let held: Vec<String> = view::under(all, keys::FLEET)
        .filter(|record| record.key.is_fleet())
        .filter_map(|record| {
            let fleet = records::shared::<Fleet>(record).ok()?;
            let held = fleet.held_in(life)?;
            Some(format!("{}: {}", fleet.target, held.why))
        })
        .collect();
    (held.len() >= WORDS_THAT_PROVE)
        .then(|| format!("the store went back in time ({})", held.join("; ")))
}

/// One cluster, if the records know it.
pub fn one(
    all: &BTreeMap<Key, Record>,
    target: &TargetName,
) -> Result<Option<Known>, records::Error> {
    let record = all.get(&keys::fleet(&target.to_string()));
    record.map(|record| read(all, record)).transpose()
}

fn read(all: &BTreeMap<Key, Record>, record: &Record) -> Result<Known, records::Error> {
    let fleet: Arc<Fleet> = records::shared(record)?;
    let session = match all.get(&keys::session(&fleet.target.to_string())) {
        Some(record) => Some((records::shared::<Session>(record)?, record.clone())),
        None => None,
    };
    Ok(Known {
        fleet,
        fleet_record: record.clone(),
        session,
    })
}

/// The newest fence that the records show: of the leader that was elected last.
pub fn fence(all: &BTreeMap<Key, Record>) -> Fence {
    let epoch = all.get(&keys::epoch()).and_then(|record| {
        std::str::from_utf8(&record.value)
            .ok()
            .and_then(|text| text.trim().parse().ok())
    });
    let incarnation = all.get(&keys::incarnation()).and_then(|record| {
        serde_json::from_slice::<crate::leadership::Incarnation>(&record.value).ok()
    });
    Fence {
        incarnation: incarnation.map_or(0, |incarnation| incarnation.number),
        epoch: epoch.unwrap_or(0),
    }
}
