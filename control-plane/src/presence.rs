//! What the records say of an agent: whether it may be given work, and if not, why not.

use std::collections::BTreeMap;

use aldis_core::ids::{Fence, TargetName, Timestamp};
use aldis_core::inventory::Presence;

use crate::records::{self, Fleet, Session};
use crate::store::keys::{self, Name};
use crate::store::{Key, Record};
use crate::view;

/// A cluster with the session of its agent, as recorded.
#[derive(Clone, Debug)]
pub struct Known {
    /// The cluster.
    pub fleet: Fleet,
    /// The record it was read from.
    pub fleet_record: Record,
    /// The agent's session, if it ever had one.
    pub session: Option<(Session, Record)>,
}

impl Known {
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
        if let Some(why) = &self.fleet.held {
            return Presence::Held { why: why.clone() };
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

/// Every cluster that the records know.
pub fn fleet(all: &BTreeMap<Key, Record>) -> Result<BTreeMap<TargetName, Known>, records::Error> {
    let mut known = BTreeMap::new();
    for record in view::under(all, keys::FLEET) {
        if let Some(Name::Fleet { .. }) = record.key.name() {
            let one = read(all, record)?;
            known.insert(one.fleet.target.clone(), one);
        }
    }
    Ok(known)
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
    let fleet: Fleet = records::read(record)?;
    let session = match all.get(&keys::session(&fleet.target.to_string())) {
        Some(record) => Some((records::read::<Session>(record)?, record.clone())),
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
