//! Lists of attempts: what a leader must have merged before an agent gets anything.

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::ids::{JobId, TargetName};
use aldis_core::job::{Event, Target};
use aldis_core::question::{Answer, Question};
use aldis_core::reconcile::{self, AttemptList, Listed, Merge, Merged, RecordedJournal};
use tracing::{info, warn};

use super::memory::{Answered, Asking};
use super::questions::{ASK_AGAIN, ASK_WITHIN};
use super::{Error, Term};
use crate::jobs;
use crate::presence::Known;
use crate::records::{self, Session};
use crate::store::keys::{self, Name};
use crate::store::{Commit, Precondition, Write};

impl Term<'_> {
    /// Marks sessions as ended whose replica is gone: it can neither say so nor hold a stream.
    pub(super) async fn reap_sessions(
        &self,
        known: &BTreeMap<TargetName, Known>,
    ) -> Result<(), Error> {
        for (target, known) in known {
            let Some((session, record)) = &known.session else {
                continue;
            };
            if session.replica.is_empty() || self.replica_lives(session) {
                continue;
            }
            info!(%target, replica = session.replica, "session ends with its replica");
            let ended = Session {
                replica: String::new(),
                absent_since: Some(self.now()),
                ..session.clone()
            };
            let commit = Commit {
                preconditions: vec![Precondition::Modified {
                    key: record.key.clone(),
                    at: record.modified,
                }],
                writes: vec![Write::put(record.key.clone(), records::write(&ended))],
            };
            let outcome = self
                .writer()
                .fenced()?
                .commit(&*self.parts.store, commit)
                .await?;
            self.parts.view.reaches(outcome.revision()).await;
        }
        Ok(())
    }

    fn replica_lives(&self, session: &Session) -> bool {
        let record = self.parts.view.get(&keys::replica(&session.replica));
        let boot = record.and_then(|record| records::read::<records::Replica>(&record).ok());
        boot.is_some_and(|replica| replica.boot_id == session.replica_boot)
    }

    /// Asks every session that this leader has not merged yet.
    pub(super) fn ask_for_lists(&mut self, known: &BTreeMap<TargetName, Known>) {
        for (target, known) in known {
            let Some((session, _)) = &known.session else {
                continue;
            };
            if session.replica.is_empty() || session.merged == Some(self.fence) {
                continue;
            }
            let asking = Asking::Attempts(target.clone(), session.generation);
            if !self.memory.begin(&asking, self.parts.clock.boot_now()) {
                continue;
            }
            let (agents, answers) = (self.parts.agents.clone(), self.answers.clone());
            let (target, generation) = (target.clone(), session.generation);
            tokio::spawn(async move {
                let answer = agents.ask(&target, Question::Attempts, ASK_WITHIN).await;
                // Without a receiver the term is over.
                let _ = answers
                    .send(Answered::Attempts {
                        target,
                        generation,
                        answer,
                    })
                    .await;
            });
        }
    }

    pub(super) async fn merge(
        &mut self,
        target: TargetName,
        generation: u64,
        answer: Result<Answer, crate::agents::AskError>,
    ) {
        let asking = Asking::Attempts(target.clone(), generation);
        let merged = match answer {
            Ok(Answer::Attempts(list)) => self.merge_list(&target, generation, &list).await,
            Ok(_) => {
                warn!(%target, "agent answered another question");
                Ok(false)
            }
            Err(error) => {
                info!(%target, %error, "list of attempts not read");
                Ok(false)
            }
        };
        match merged {
            Ok(true) => self.memory.end(&asking),
            Ok(false) => {
                let again = self.parts.clock.boot_now() + ASK_AGAIN;
                self.memory.postpone(asking, again);
            }
            Err(error) => {
                warn!(%target, %error, "list of attempts not merged");
                let again = self.parts.clock.boot_now() + ASK_AGAIN;
                self.memory.postpone(asking, again);
            }
        }
    }

    /// Commits what the list proves, then that it is merged. True when the session may be given work.
    async fn merge_list(
        &mut self,
        target: &TargetName,
        generation: u64,
        list: &AttemptList,
    ) -> Result<bool, Error> {
        let known = self.parts.view.read(crate::presence::fleet)?;
        let Some(known) = known.get(target) else {
            return Ok(false);
        };
        let current = known
            .session
            .as_ref()
            .is_some_and(|(s, _)| s.generation == generation);
        if !current {
            return Ok(false);
        }
        let records = self.records_of(target)?;
        let ended = self.ended_of(list, &records).await?;
        let recorded = Some(&known.fleet.journal);
        match reconcile::merge(target, recorded, list, &records, &ended, self.now()) {
            // The replica that holds the session tells the agent at registration; until it registers
            // with another journal it is not merged.
            Merge::SetAside { why } => {
                warn!(%target, why, "list not merged");
                Ok(false)
            }
            Merge::Merged(merged) => {
                self.commit_merged(target, &merged).await?;
                self.mark_merged(target, generation, list, &merged).await
            }
        }
    }

    /// The target's record in every hot job.
    fn records_of(&self, target: &TargetName) -> Result<BTreeMap<JobId, Target>, Error> {
        let records = self.parts.view.read(|all| {
            let ours = |record: &&crate::store::Record| {
                matches!(record.key.name(), Some(Name::JobTarget { target: of, .. }) if of == target.to_string())
            };
            crate::view::under(all, keys::JOBS).filter(ours).cloned().collect::<Vec<_>>()
        });
        let mut found = BTreeMap::new();
        for record in records {
            if let Some(Name::JobTarget { job, .. }) = record.key.name() {
                found.insert(JobId::new(job), records::read(&record)?);
            }
        }
        Ok(found)
    }

    /// Jobs of the list that have ended, or that are hot without having touched the target.
    async fn ended_of(
        &self,
        list: &AttemptList,
        records: &BTreeMap<JobId, Target>,
    ) -> Result<BTreeSet<JobId>, Error> {
        let mut ended = BTreeSet::new();
        for listed in &list.attempts {
            if records.contains_key(&listed.job) || ended.contains(&listed.job) {
                continue;
            }
            if self
                .parts
                .store
                .get(&keys::ended(listed.job.as_str()))
                .await?
                .is_some()
            {
                ended.insert(listed.job.clone());
            }
        }
        Ok(ended)
    }

    async fn commit_merged(&mut self, target: &TargetName, merged: &Merged) -> Result<(), Error> {
        let jobs: BTreeSet<&JobId> = merged.events.iter().map(|(job, _)| job).collect();
        for job in jobs {
            let Some(loaded) = jobs::load(&self.parts.view, &self.parts.plans, job).await? else {
                continue;
            };
            let mut events = Vec::new();
            let mut after = loaded.job.clone();
            for (of, event) in &merged.events {
                let event = Event::Target(target.clone(), event.clone());
                // What the record has learned meanwhile by a report need not be told again.
                if of == job && after.apply(event.clone()).is_ok() {
                    events.push(event);
                }
            }
            let revision = self.writer().write(&loaded, events).await?;
            self.parts.view.reaches(revision).await;
        }
        Ok(())
    }

    async fn mark_merged(
        &self,
        target: &TargetName,
        generation: u64,
        list: &AttemptList,
        merged: &Merged,
    ) -> Result<bool, Error> {
        let known = self.parts.view.read(crate::presence::fleet)?;
        let Some(known) = known.get(target) else {
            return Ok(false);
        };
        let Some((session, session_record)) = &known.session else {
            return Ok(false);
        };
        if session.generation != generation {
            return Ok(false);
        }
        let mut fleet = known.fleet.clone();
        fleet.journal = RecordedJournal {
            id: list.journal.clone(),
            sequence: list.sequence,
        };
        fleet.held = self.hold(session, &known.fleet.orphans, merged);
        fleet.orphans = merged.orphans.clone();
        let session = Session {
            merged: Some(self.fence),
            ..session.clone()
        };
        let unchanged = |record: &crate::store::Record| Precondition::Modified {
            key: record.key.clone(),
            at: record.modified,
        };
        let mut commit = Commit {
            preconditions: vec![unchanged(session_record)],
            writes: vec![Write::put(
                session_record.key.clone(),
                records::write(&session),
            )],
        };
        if fleet != known.fleet {
            commit.preconditions.push(unchanged(&known.fleet_record));
            let key = known.fleet_record.key.clone();
            commit.writes.push(Write::put(key, records::write(&fleet)));
        }
        let outcome = self
            .writer()
            .fenced()?
            .commit(&*self.parts.store, commit)
            .await?;
        self.parts.view.reaches(outcome.revision()).await;
        Ok(outcome.is_committed())
    }

    /// An attempt that no record knows proves that the store went back, unless the agent has not seen
    /// this incarnation yet (it was raised over the loss), or the orphan was listed before.
    fn hold(&self, session: &Session, listed: &[Listed], merged: &Merged) -> Option<String> {
        let same_life = session.highest.incarnation == self.fence.incarnation;
        let is_news = merged.orphans.iter().any(|orphan| {
            !listed
                .iter()
                .any(|old| old.job == orphan.job && old.attempt == orphan.attempt)
        });
        merged.went_back.clone().filter(|_| same_life && is_news)
    }
}
