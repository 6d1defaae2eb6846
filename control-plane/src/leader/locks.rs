//! Locks: taken before a job starts, in sorted order, all or none.
//!
//! Where they fit, they go in the transaction that starts the job. More are taken in groups; on a
//! conflict all that were taken are given back and the job stays queued. Each lock names its job, so a
//! later leader goes on from there.
//!
//! | when | what |
//! |---|---|
//! | the job starts | takes what every planned target writes |
//! | a deferred target is planned | takes what it writes, with its part |
//! | the job waits for an operator | lets go of all but what is in doubt: others need not wait for a person |
//! | it goes on from there | takes that again first |
//! | it ends | frees all |

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::ids::{JobId, TargetName};
use aldis_core::inventory::Turn;
use aldis_core::job::{Event, Job, LockName};
use aldis_core::queue::{self, Queued};

use super::{Error, Term};
use crate::jobs::Loaded;
use crate::records::{self, Lock};
use crate::store::{Commit, Key, MAX_OPERATIONS, Precondition, Revision, Write, keys};
use crate::turns;
use crate::view::View;

/// Locks that still fit in one transaction with the header and the fence.
pub(super) const TOGETHER: usize = MAX_OPERATIONS / 2 - 4;

impl Term<'_> {
    /// Takes every lock and starts the job.
    pub(super) async fn start(
        &mut self,
        loaded: &Loaded,
        events: Vec<Event>,
    ) -> Result<Revision, Error> {
        let missing = self.missing(&loaded.job.header.id, loaded.job.locks())?;
        if missing.len() > TOGETHER {
            let (revision, all) = self.take_in_groups(&missing).await?;
            if !all {
                return Ok(self.give_back(loaded).await?.max(revision));
            }
            self.parts.view.reaches(revision).await;
            return Ok(self.writer().write(loaded, events).await?);
        }
        let mut after = loaded.job.clone();
        for event in events {
            after.apply(event).map_err(crate::commit::Error::from)?;
        }
        let key = keys::job_header(after.header.id.as_str());
        let mut commit = Commit {
            preconditions: vec![Precondition::Modified {
                key: key.clone(),
                at: loaded.header.modified,
            }],
            writes: vec![Write::put(key, records::write(&after.header))],
        };
        for (key, lock) in &missing {
            commit.preconditions.push(Precondition::Absent(key.clone()));
            commit
                .writes
                .push(Write::put(key.clone(), records::write(lock)));
        }
        aldis_proto::failpoint::hit("commit-before");
        let fenced = self.writer().fenced()?;
        let outcome = fenced.commit(&*self.parts.store, commit).await?;
        aldis_proto::failpoint::hit("commit-after");
        Ok(outcome.revision())
    }

    /// Takes again what the job let go of while it waited for an operator, then writes.
    pub(super) async fn go_on(
        &mut self,
        loaded: &Loaded,
        events: Vec<Event>,
    ) -> Result<Revision, Error> {
        let job = &loaded.job;
        let missing = self.missing(&job.header.id, job.locks_to_go_on())?;
        if !missing.is_empty() {
            let (revision, all) = self.take_in_groups(&missing).await?;
            if !all {
                // Somebody was quicker. Who holds some and waits for others could wait for ever.
                let taken = |lock: &Lock| missing.iter().any(|(_, ours)| ours == lock);
                return Ok(self.free(taken).await?.max(revision));
            }
            self.parts.view.reaches(revision).await;
        }
        self.memory.let_go.remove(&job.header.id);
        Ok(self.writer().write(loaded, events).await?)
    }

    /// Frees what a job that waits for an operator does not need meanwhile: everything but what is in
    /// doubt. Done once for each number of questions that are open.
    pub(super) async fn let_go(&mut self, loaded: &Loaded) -> Result<(), Error> {
        let id = &loaded.job.header.id;
        let targets = &loaded.job.targets;
        let open = targets.values().filter(|t| t.is_open_question()).count();
        if self.memory.let_go.insert(id.clone(), open) == Some(open) {
            return Ok(());
        }
        let in_doubt = |lock: &Lock| {
            targets
                .get(&lock.target)
                .is_some_and(|target| target.is_open_question())
        };
        let revision = self.free(|lock| lock.job == *id && !in_doubt(lock)).await?;
        self.parts.view.reaches(revision).await;
        Ok(())
    }

    /// Locks among these that the job does not hold yet, in sorted order.
    pub(super) fn missing(
        &self,
        job: &JobId,
        names: impl IntoIterator<Item = LockName>,
    ) -> Result<Vec<(Key, Lock)>, Error> {
        let mut missing = BTreeMap::new();
        for name in names {
            let key = key(&name);
            let ours = match self.parts.view.get(&key) {
                Some(record) => records::shared::<Lock>(&record)?.job == *job,
                None => false,
            };
            if !ours {
                let lock = Lock {
                    format: 1,
                    job: job.clone(),
                    target: name.target,
                    object: name.object,
                };
                missing.entry(key).or_insert(lock);
            }
        }
        Ok(missing.into_iter().collect())
    }

    /// The first of these that another job holds, with that job.
    pub(super) fn held_by_another(
        &self,
        job: &JobId,
        names: &[LockName],
    ) -> Result<Option<(LockName, JobId)>, Error> {
        for name in names {
            let holder = holder(&self.parts.view, name)?;
            if let Some(by) = holder.filter(|by| by != job) {
                return Ok(Some((name.clone(), by)));
            }
        }
        Ok(None)
    }

    pub(super) async fn take_in_groups(
        &self,
        missing: &[(Key, Lock)],
    ) -> Result<(Revision, bool), Error> {
        let commits = missing.iter().map(|(key, lock)| Commit {
            preconditions: vec![Precondition::Absent(key.clone())],
            writes: vec![Write::put(key.clone(), records::write(lock))],
        });
        let outcomes = self
            .writer()
            .fenced()?
            .commit_group(&*self.parts.store, commits.collect())
            .await?;
        let revision = outcomes
            .iter()
            .map(|outcome| outcome.revision())
            .max()
            .unwrap_or_default();
        Ok((
            revision,
            outcomes.iter().all(|outcome| outcome.is_committed()),
        ))
    }

    /// Frees every lock that names the job.
    pub(super) async fn give_back(&self, loaded: &Loaded) -> Result<Revision, Error> {
        let id = loaded.job.header.id.clone();
        self.free(|lock| lock.job == id).await
    }

    /// Frees the locks that fit.
    pub(super) async fn free(&self, fits: impl Fn(&Lock) -> bool) -> Result<Revision, Error> {
        let held = self.parts.store.list(keys::LOCKS).await?;
        let mut commits = Vec::new();
        for record in held.records {
            // One that cannot be read is nobody's to free; it is named where turns are given.
            if records::read::<Lock>(&record).is_ok_and(|lock| fits(&lock)) {
                commits.push(Commit {
                    preconditions: vec![Precondition::Modified {
                        key: record.key.clone(),
                        at: record.modified,
                    }],
                    writes: vec![Write::delete(record.key)],
                });
            }
        }
        if commits.is_empty() {
            return Ok(held.revision);
        }
        let outcomes = self
            .writer()
            .fenced()?
            .commit_group(&*self.parts.store, commits)
            .await?;
        Ok(outcomes
            .iter()
            .map(|outcome| outcome.revision())
            .max()
            .unwrap_or(held.revision))
    }
}

fn key(name: &LockName) -> Key {
    let object = &name.object;
    keys::lock(
        &name.cluster_uid,
        &object.kind,
        &object.namespace,
        &object.name,
    )
}

/// The job that holds a lock, as far as the view knows.
pub(super) fn holder(view: &View, name: &LockName) -> Result<Option<JobId>, records::Error> {
    let record = view.get(&key(name));
    let lock = record.map(|record| records::shared::<Lock>(&record));
    Ok(lock.transpose()?.map(|lock| lock.job.clone()))
}

/// Deferred targets whose late plan met another job's lock, where that job holds it still.
pub(super) fn held_still(view: &View, job: &Job) -> Result<BTreeSet<TargetName>, records::Error> {
    let mut held = BTreeSet::new();
    for (name, target) in &job.targets {
        let (Some(lock), Some(part)) = (&target.late_lock, job.plan.part(name)) else {
            continue;
        };
        let lock_name = LockName {
            cluster_uid: part.identity.cluster_uid.clone(),
            target: name.clone(),
            object: lock.object.clone(),
        };
        if holder(view, &lock_name)?.as_ref() == Some(&lock.by) {
            held.insert(name.clone());
        }
    }
    Ok(held)
}

/// Whether a job that waits for an operator could take again what it let go of.
pub(super) fn turn_to_go_on(view: &View, job: &Job) -> Turn {
    let wanted = Queued {
        job: job.header.id.clone(),
        priority: job.header.priority,
        submitted_at: job.header.submitted_at,
        locks: job.locks_to_go_on(),
    };
    let conflict = queue::conflict(&wanted, &turns::held(view));
    conflict.map_or(Turn::Yes, |(object, target, by)| Turn::Locked {
        object,
        target,
        by,
    })
}
