//! Lists of attempts: what a leader must have merged before an agent gets anything.

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::ids::{JobId, TargetName};
use aldis_core::job::{Header, Target};
use aldis_core::question::{Answer, Question};
use aldis_core::reconcile::{self, AttemptList, Listed, Merge, Merged};
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use tracing::{error, info, warn};

use super::memory::{Answered, Asking};
use super::questions::{ASK_AGAIN, ASK_WITHIN};
use super::{Error, Term};
use crate::agents::AskError;
use crate::jobs;
use crate::presence::{self, Known};
use crate::records::{self, Fleet, Held, Session};
use crate::store::keys;
use crate::store::{Commit, Group, Precondition, Record, Write};

/// Lists merged at once: each is three round trips to the store and hardly any work here, and after a
/// failover a thousand of them wait.
const AT_ONCE: usize = 64;

/// A list that came, or did not.
pub(super) struct Came {
    pub(super) target: TargetName,
    pub(super) generation: u64,
    pub(super) answer: Result<Answer, AskError>,
}

impl Term<'_> {
    /// Marks sessions as ended whose replica is gone: it can neither say so nor hold a stream.
    pub(super) async fn reap_sessions(
        &self,
        known: &BTreeMap<TargetName, Known>,
    ) -> Result<(), Error> {
        let mut ends = Vec::new();
        for (target, known) in known {
            let Some((session, record)) = &known.session else {
                continue;
            };
            let Some(gone) = self.replica_is_gone(session) else {
                continue;
            };
            info!(%target, replica = session.replica, "session ends with its replica");
            let ended = Session {
                replica: String::new(),
                absent_since: Some(self.now()),
                ..Session::clone(session)
            };
            ends.push(Commit {
                preconditions: vec![unchanged(record), gone],
                writes: vec![Write::put(record.key.clone(), records::write(&ended))],
            });
        }
        if ends.is_empty() {
            return Ok(());
        }
        let fenced = self.writer().fenced()?;
        let outcomes = fenced.commit_group(&*self.parts.store, ends).await?;
        self.parts.view.reaches(newest(&outcomes)).await;
        Ok(())
    }

    /// What proves in the very transaction that nobody holds the stream: the replica's record is gone,
    /// or is another process's. One that cannot be read proves nothing.
    fn replica_is_gone(&self, session: &Session) -> Option<Precondition> {
        if session.replica.is_empty() {
            return None;
        }
        let key = keys::replica(&session.replica);
        let record = self.parts.view.get(&key);
        let other = match &record {
            None => true,
            Some(record) => records::shared::<records::Replica>(record)
                .is_ok_and(|replica| replica.boot_id != session.replica_boot),
        };
        other.then(|| Precondition::unchanged(&key, record.as_ref()))
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
                    .send(Answered::Attempts(Came {
                        target,
                        generation,
                        answer,
                    }))
                    .await;
            });
        }
    }

    /// Merges lists side by side. Those that could not be merged are asked for again.
    pub(super) async fn merge_all(&mut self, came: Vec<Came>) {
        let term = &*self;
        // Boxed: the compiler cannot see otherwise that these futures may move between threads.
        let merges: Vec<BoxFuture<'_, (Asking, bool)>> = came
            .into_iter()
            .map(|came| term.merge(came).boxed())
            .collect();
        let merged: Vec<(Asking, bool)> = futures::stream::iter(merges)
            .buffer_unordered(AT_ONCE)
            .collect()
            .await;
        let again = self.parts.clock.boot_now() + ASK_AGAIN;
        for (asking, done) in merged {
            match done {
                true => self.memory.end(&asking),
                false => self.memory.postpone(asking, again),
            }
        }
    }

    async fn merge(&self, came: Came) -> (Asking, bool) {
        let Came {
            target,
            generation,
            answer,
        } = came;
        let merged = match answer {
            Ok(Answer::Attempts(list)) => self.merge_list(&target, generation, &list).await,
            Ok(_) => {
                warn!(%target, "agent answered another question");
                Ok(false)
            }
            Err(error) => {
                info!(%target, error = crate::telemetry::chain(&error), "list of attempts not read");
                Ok(false)
            }
        };
        let done = merged.unwrap_or_else(|error| {
            warn!(%target, error = crate::telemetry::chain(&error), "list of attempts not merged");
            false
        });
        (Asking::Attempts(target, generation), done)
    }

    /// Commits what the list proves, then that it is merged. True when the session may be given work.
    async fn merge_list(
        &self,
        target: &TargetName,
        generation: u64,
        list: &AttemptList,
    ) -> Result<bool, Error> {
        let known = self.parts.view.read(|all| presence::one(all, target))?;
        let Some(known) = known.filter(|known| known.is_session(generation)) else {
            return Ok(false);
        };
        let records = self.records_of(target);
        let ended = self.known_otherwise(list, &records).await?;
        let records = records.readable;
        let recorded = Some(&known.fleet.journal);
        match reconcile::merge(target, recorded, list, &records, &ended, self.now()) {
            // The replica that holds the session tells the agent at registration; until it registers
            // with another journal it is not merged.
            Merge::SetAside { why } => {
                warn!(%target, why, "list not merged");
                Ok(false)
            }
            Merge::Merged(merged) => Ok(self.commit_merged(target, &merged).await?
                && self.mark_merged(target, generation, list, &merged).await?),
        }
    }

    /// The target's record in every hot job.
    fn records_of(&self, target: &TargetName) -> OfTarget {
        let mut found = OfTarget::default();
        self.parts.view.read(|all| {
            for job in jobs::ids(all) {
                let key = keys::job_target(job.as_str(), &target.to_string());
                match all.get(&key).map(records::read) {
                    Some(Ok(record)) => {
                        found.readable.insert(job, record);
                    }
                    Some(Err(error)) => {
                        warn!(%target, %job, error = crate::telemetry::chain(&error), "record not compared");
                        found.unreadable.insert(job);
                    }
                    None => {}
                }
            }
        });
        found
    }

    /// Jobs of the list that no readable hot record speaks for and that the store knows all the same:
    /// they have ended, or their record cannot be read.
    async fn known_otherwise(
        &self,
        list: &AttemptList,
        records: &OfTarget,
    ) -> Result<BTreeSet<JobId>, Error> {
        let jobs: BTreeSet<&JobId> = list.attempts.iter().map(|listed| &listed.job).collect();
        let asked: Vec<&JobId> = jobs
            .into_iter()
            .filter(|job| !records.readable.contains_key(job))
            .collect();
        let mut known = records.unreadable.clone();
        if asked.is_empty() {
            return Ok(known);
        }
        // Whether it exists, without its value: an ended job of a thousand targets is a megabyte.
        let exists = |job: &&JobId| Commit {
            preconditions: vec![Precondition::Exists(keys::ended(job.as_str()))],
            writes: vec![],
        };
        let group = Group {
            fence: vec![],
            commits: asked.iter().map(exists).collect(),
        };
        let outcomes = self.parts.store.commit_group(group).await?;
        let there = asked.into_iter().zip(outcomes);
        known.extend(
            there
                .filter(|(_, outcome)| outcome.is_committed())
                .map(|(job, _)| job.clone()),
        );
        Ok(known)
    }

    /// Writes what the list says of each job's record; false when one was changed meanwhile.
    async fn commit_merged(&self, target: &TargetName, merged: &Merged) -> Result<bool, Error> {
        let jobs: BTreeSet<&JobId> = merged.events.iter().map(|(job, _)| job).collect();
        let mut commits = Vec::new();
        for job in jobs {
            commits.extend(self.fold(target, job, merged).await?);
        }
        if commits.is_empty() {
            return Ok(true);
        }
        let fenced = self.writer().fenced()?;
        let outcomes = fenced.commit_group(&*self.parts.store, commits).await?;
        self.parts.view.reaches(newest(&outcomes)).await;
        Ok(outcomes.iter().all(|outcome| outcome.is_committed()))
    }

    async fn fold(
        &self,
        target: &TargetName,
        job: &JobId,
        merged: &Merged,
    ) -> Result<Option<Commit>, Error> {
        let header_key = keys::job_header(job.as_str());
        let key = keys::job_target(job.as_str(), &target.to_string());
        let (Some(header), Some(record)) =
            (self.parts.view.get(&header_key), self.parts.view.get(&key))
        else {
            return Ok(None);
        };
        let header: Header = records::read(&header)?;
        let plan = self.parts.plans.load(&header.plan).await?;
        let before: Target = records::read(&record)?;
        let mut after = before.clone();
        for (_, event) in merged.events.iter().filter(|(of, _)| of == job) {
            // What the record has learned meanwhile by a report need not be told again.
            if let Ok(next) = after
                .clone()
                .next(event.clone(), plan.phase().segments.len())
            {
                after = next;
            }
        }
        Ok((after != before).then(|| Commit {
            preconditions: vec![Precondition::Exists(header_key), unchanged(&record)],
            writes: vec![Write::put(key, records::write(&after))],
        }))
    }

    async fn mark_merged(
        &self,
        target: &TargetName,
        generation: u64,
        list: &AttemptList,
        merged: &Merged,
    ) -> Result<bool, Error> {
        let known = self.parts.view.read(|all| presence::one(all, target))?;
        let Some(known) = known.filter(|known| known.is_session(generation)) else {
            return Ok(false);
        };
        let Some((session, session_record)) = &known.session else {
            return Ok(false);
        };
        let before = Fleet::clone(&known.fleet);
        let mut fleet = before.clone();
        fleet.hears_of(&list.journal, list.sequence);
        fleet.held = self.hold(session, &before, merged);
        fleet.orphans.clone_from(&merged.orphans);
        fleet.merged_in = Some(self.fence.incarnation);
        let session = Session {
            merged: Some(self.fence),
            ..Session::clone(session)
        };
        let mut commit = Commit {
            preconditions: vec![unchanged(session_record)],
            writes: vec![Write::put(
                session_record.key.clone(),
                records::write(&session),
            )],
        };
        if fleet != before {
            commit.preconditions.push(unchanged(&known.fleet_record));
            let key = known.fleet_record.key.clone();
            commit.writes.push(Write::put(key, records::write(&fleet)));
        }
        let fenced = self.writer().fenced()?;
        let outcome = fenced.commit(&*self.parts.store, commit).await?;
        self.parts.view.reaches(outcome.revision()).await;
        if outcome.is_committed() {
            alarm(target, &before, &fleet);
        }
        Ok(outcome.is_committed())
    }

    /// The hold that stands in this life of the store, or the one that the list gives reason for: an
    /// attempt that no record knows, of an agent that was merged in this life before.
    fn hold(&self, session: &Session, before: &Fleet, merged: &Merged) -> Option<Held> {
        let life = self.fence.incarnation;
        if let Some(stands) = before.held_in(life) {
            return Some(stands.clone());
        }
        // An agent that was never merged in this life brings what a raised incarnation gave up.
        let same_life = match before.merged_in {
            Some(merged_in) => merged_in == life,
            None => session.highest.incarnation == life,
        };
        let proves = same_life && !session.was_away_long && has_news(&before.orphans, merged);
        let why = merged.went_back.clone().filter(|_| proves)?;
        Some(Held {
            why,
            incarnation: Some(life),
        })
    }
}

/// What the hot jobs say of one target.
#[derive(Default)]
struct OfTarget {
    readable: BTreeMap<JobId, Target>,
    unreadable: BTreeSet<JobId>,
}

fn has_news(listed: &[Listed], merged: &Merged) -> bool {
    merged.orphans.iter().any(|orphan| {
        !listed
            .iter()
            .any(|old| old.job == orphan.job && old.attempt == orphan.attempt)
    })
}

/// Says loudly, once, what an operator must know.
fn alarm(target: &TargetName, before: &Fleet, after: &Fleet) {
    for orphan in &after.orphans {
        if !before.orphans.contains(orphan) {
            warn!(%target, job = %orphan.job, attempt = %orphan.attempt, "orphan: the agent knows this work, the store does not");
        }
    }
    if let Some(held) = after.held.as_ref().filter(|_| before.held != after.held) {
        error!(%target, why = held.why, "agent held: the store went back in time");
    }
}

fn unchanged(record: &Record) -> Precondition {
    Precondition::unchanged(&record.key, Some(record))
}

fn newest(outcomes: &[crate::store::Outcome]) -> crate::store::Revision {
    let revisions = outcomes.iter().map(|outcome| outcome.revision());
    revisions.max().unwrap_or_default()
}
