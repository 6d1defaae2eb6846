//! May this process speak for this cluster? Decided in one transaction.
//!
//! | found | follows |
//! |---|---|
//! | another cluster than the one pinned | refused, and shown to operators until they repin |
//! | the journal is shorter than recorded, or was recorded from another machine | set it aside |
//! | the agent has seen a later life or revision of the store | registered, held, alarm |
//! | another process, on another machine, that did not say goodbye | registered, contested, alarm |
//! | else | registered; the older stream of the same process is closed silently |

use aldis_core::ids::{Fence, JournalId, TargetName, Timestamp};
use aldis_core::plan::ClusterIdentity;
use aldis_core::reconcile::{AttemptList, RecordedJournal};
use aldis_proto::{convert, v1};
use tracing::warn;

use super::Shared;
use crate::leadership;
use crate::records::{self, Contested, Fleet, Held, Session};
use crate::store::{self, Commit, Precondition, Record, Revision, Write, keys};

/// Races with another registration of the same target before giving up; the agent tries again.
const TRIES: usize = 5;

/// What came of a registration.
pub(super) enum Registration {
    /// The session lives under this generation.
    Registered { generation: u64 },
    /// The journal is to be set aside first.
    SetAside { reason: String },
}

/// Why a process may not register.
#[derive(Debug, thiserror::Error)]
pub(super) enum Error {
    #[error(transparent)]
    Message(#[from] convert::Error),
    #[error(transparent)]
    Store(#[from] store::Error),
    #[error(transparent)]
    Record(#[from] records::Error),
    #[error(
        "the cluster behind {target} is not the one pinned to that name: pinned {pinned}, offered {offered}\n\nhint: if the cluster was rebuilt on purpose, `aldis agents repin {target}`"
    )]
    WrongCluster {
        target: TargetName,
        pinned: String,
        offered: String,
    },
    #[error("somebody else keeps registering for {target}")]
    Raced { target: TargetName },
}

/// What is recorded of a target, read linearizably.
struct Recorded {
    fleet: Option<(Fleet, Record)>,
    session: Option<(Session, Record)>,
    newest: Fence,
    revision: Revision,
}

impl Shared {
    pub(super) async fn register(
        &self,
        target: &TargetName,
        register: &v1::Register,
    ) -> Result<Registration, Error> {
        let identity: ClusterIdentity =
            convert::parse(register.identity.as_ref(), "register.identity")?;
        // Read now, so that a list which no leader could read never becomes a session.
        let _: AttemptList = convert::parse(register.attempts.as_ref(), "register.attempts")?;
        for _ in 0..TRIES {
            let recorded = self.recorded(target).await?;
            if let Some((fleet, record)) = &recorded.fleet
                && fleet.identity != identity
            {
                return Err(self.offer(target, fleet, record, identity).await?);
            }
            if let Some(reason) = not_its_journal(register, &recorded) {
                return Ok(Registration::SetAside { reason });
            }
            let session = self.session_record(target, register, &recorded);
            let fleet = fleet_record(target, register, &identity, &recorded);
            let generation = session.generation;
            if self.write(target, &recorded, &fleet, &session).await? {
                return Ok(Registration::Registered { generation });
            }
        }
        Err(Error::Raced {
            target: target.clone(),
        })
    }

    async fn recorded(&self, target: &TargetName) -> Result<Recorded, Error> {
        let store = &*self.parts.store;
        let name = target.to_string();
        let fleet = match store.get(&keys::fleet(&name)).await? {
            Some(record) => Some((records::read::<Fleet>(&record)?, record)),
            None => None,
        };
        let session = match store.get(&keys::session(&name)).await? {
            Some(record) => Some((records::read::<Session>(&record)?, record)),
            None => None,
        };
        let epoch = store.get(&keys::epoch()).await?;
        let epoch = epoch.and_then(|record| {
            std::str::from_utf8(&record.value)
                .ok()
                .and_then(|text| text.trim().parse().ok())
        });
        let incarnation = leadership::incarnation(store).await?.number;
        let newest = Fence {
            incarnation,
            epoch: epoch.unwrap_or(0),
        };
        let revision = store.read_revision().await?;
        Ok(Recorded {
            fleet,
            session,
            newest,
            revision,
        })
    }

    /// Records the cluster that was offered, for operators; the refusal in words.
    async fn offer(
        &self,
        target: &TargetName,
        fleet: &Fleet,
        record: &Record,
        offered: ClusterIdentity,
    ) -> Result<Error, Error> {
        let refusal = Error::WrongCluster {
            target: target.clone(),
            pinned: fleet.identity.cluster_uid.clone(),
            offered: offered.cluster_uid.clone(),
        };
        if fleet.offered.as_ref() != Some(&offered) {
            let shown = Fleet {
                offered: Some(offered),
                ..fleet.clone()
            };
            let commit = Commit {
                preconditions: vec![Precondition::unchanged(&record.key, Some(record))],
                writes: vec![Write::put(record.key.clone(), records::write(&shown))],
            };
            self.parts.store.commit(commit).await?;
        }
        Ok(refusal)
    }

    fn session_record(
        &self,
        target: &TargetName,
        register: &v1::Register,
        recorded: &Recorded,
    ) -> Session {
        let before = recorded.session.as_ref().map(|(session, _)| session);
        Session {
            format: 1,
            generation: before.map_or(0, |session| session.generation) + 1,
            replica: self.parts.replica.clone(),
            replica_boot: self.parts.boot_id.clone(),
            process: register.process.clone(),
            machine: register.machine.clone(),
            journal: JournalId::new(register.journal_id.clone()),
            highest: convert::fence_from(register.highest_fence.as_ref()),
            merged: None,
            contested: self.contest(target, register, before),
            absent_since: None,
            said_goodbye: false,
            was_away_long: self.was_away_long(before),
            refused: vec![],
        }
    }

    fn was_away_long(&self, before: Option<&Session>) -> bool {
        let since = before.and_then(|before| before.absent_since);
        let now = Timestamp(self.parts.clock.wall_now());
        since.is_some_and(|since| now.since(since) > self.parts.retention)
    }

    /// Two processes under one identity: neither gets work until one was silent for a permit.
    fn contest(
        &self,
        target: &TargetName,
        register: &v1::Register,
        before: Option<&Session>,
    ) -> Option<Contested> {
        let before = before?;
        let now = Timestamp(self.parts.clock.wall_now());
        let over = |contested: &&Contested| self.is_over(target, contested);
        let goes_on = before.contested.as_ref().filter(|c| !over(c));
        let other_process = before.process != register.process;
        let proven = before.said_goodbye || before.machine == register.machine;
        if other_process && !proven {
            let why = format!(
                "two processes use the identity of {target}; neither gets work until one was silent for {} s",
                self.parts.permit.as_secs()
            );
            warn!(%target, before = before.process, after = register.process, "{why}");
            let processes = vec![register.process.clone(), before.process.clone()];
            return Some(Contested {
                processes,
                seen_at: now,
                why,
            });
        }
        goes_on.cloned()
    }

    /// Whether one of two processes has been silent for a permit.
    pub(super) fn is_over(&self, target: &TargetName, contested: &Contested) -> bool {
        let now = self.parts.clock.boot_now();
        self.contests
            .is_over(target, contested, self.parts.permit, now)
    }

    async fn write(
        &self,
        target: &TargetName,
        recorded: &Recorded,
        fleet: &Fleet,
        session: &Session,
    ) -> Result<bool, Error> {
        let name = target.to_string();
        let (fleet_key, session_key) = (keys::fleet(&name), keys::session(&name));
        let before = recorded.fleet.as_ref();
        let mut commit = Commit {
            preconditions: vec![
                Precondition::unchanged(&fleet_key, before.map(|(_, record)| record)),
                Precondition::unchanged(
                    &session_key,
                    recorded.session.as_ref().map(|(_, record)| record),
                ),
            ],
            writes: vec![Write::put(session_key, records::write(session))],
        };
        if before.map(|(fleet, _)| fleet) != Some(fleet) {
            commit
                .writes
                .push(Write::put(fleet_key, records::write(fleet)));
        }
        let outcome = self.parts.store.commit(commit).await?;
        if outcome.is_committed() {
            self.parts.view.reaches(outcome.revision()).await;
        }
        Ok(outcome.is_committed())
    }
}

/// A journal that lost what was reported of it, or that another machine wrote.
fn not_its_journal(register: &v1::Register, recorded: &Recorded) -> Option<String> {
    let (fleet, _) = recorded.fleet.as_ref()?;
    let session = recorded.session.as_ref().map(|(session, _)| session);
    let is_same_process = session.is_some_and(|before| before.process == register.process);
    // Whoever moves registers while its older stream still reports: what it said first is older than
    // what is recorded by now. It has held its journal locked all the time.
    if fleet.journal.id.as_str() != register.journal_id || is_same_process {
        return None;
    }
    if register.journal_sequence < fleet.journal.sequence {
        return Some(format!(
            "the journal ends at {}, and {} was reported of it",
            register.journal_sequence, fleet.journal.sequence
        ));
    }
    let session = session?;
    let copied = session.machine != register.machine && !session.said_goodbye;
    copied.then(|| "the journal is a copy of another machine's".to_owned())
}

fn fleet_record(
    target: &TargetName,
    register: &v1::Register,
    identity: &ClusterIdentity,
    recorded: &Recorded,
) -> Fleet {
    let before = recorded.fleet.as_ref().map(|(fleet, _)| fleet);
    let mut fleet = Fleet {
        format: 1,
        target: target.clone(),
        identity: identity.clone(),
        offered: None,
        labels: register.labels.clone().into_iter().collect(),
        version: register.version.clone(),
        simulated: register.simulated,
        journal: before.map_or_else(|| journal(register), |fleet| fleet.journal.clone()),
        orphans: before
            .map(|fleet| fleet.orphans.clone())
            .unwrap_or_default(),
        held: hold(target, register, recorded),
        merged_in: before.and_then(|fleet| fleet.merged_in),
    };
    let offered = journal(register);
    fleet.hears_of(&offered.id, offered.sequence);
    fleet
}

fn journal(register: &v1::Register) -> RecordedJournal {
    RecordedJournal {
        id: JournalId::new(register.journal_id.clone()),
        sequence: register.journal_sequence,
    }
}

/// The hold that stands, or the one that this registration gives reason for.
fn hold(target: &TargetName, register: &v1::Register, recorded: &Recorded) -> Option<Held> {
    let life = recorded.newest.incarnation;
    let before = recorded.fleet.as_ref().map(|(fleet, _)| fleet);
    if let Some(stands) = before.and_then(|fleet| fleet.held_in(life)) {
        return Some(Held {
            why: stands.why.clone(),
            incarnation: stands.incarnation.or(Some(life)),
        });
    }
    let why = went_back(register, recorded)?;
    warn!(%target, why, "agent held: the store went back in time");
    Some(Held {
        why,
        incarnation: Some(life),
    })
}

/// The agent has seen a later leader or a later revision than the store has now.
fn went_back(register: &v1::Register, recorded: &Recorded) -> Option<String> {
    let highest = convert::fence_from(register.highest_fence.as_ref());
    if highest > recorded.newest {
        let newest = recorded.newest;
        return Some(format!(
            "it has seen leader {highest}, the store knows {newest}: was a backup restored?"
        ));
    }
    // After the incarnation was raised the restored history is the history.
    let same_life = highest.incarnation == recorded.newest.incarnation;
    let seen = Revision(register.highest_store_revision);
    (same_life && seen > recorded.revision).then(|| {
        let now = recorded.revision;
        format!(
            "it has seen revision {seen} of the store, which is at {now}: was a backup restored?"
        )
    })
}
