//! Locks: taken before a job starts, in sorted order, all or none.
//!
//! Where they fit, they go in the transaction that starts the job. More are taken in groups; on a
//! conflict all that were taken are given back and the job stays queued. Each lock names its job, so a
//! later leader goes on from there.

use aldis_core::job::Event;

use super::{Error, Term};
use crate::jobs::Loaded;
use crate::records::{self, Lock};
use crate::store::{Commit, Key, MAX_OPERATIONS, Precondition, Revision, Write, keys};

/// Locks that still fit in one transaction with the header and the fence.
const TOGETHER: usize = MAX_OPERATIONS / 2 - 4;

impl Term<'_> {
    /// Takes every lock and starts the job.
    pub(super) async fn start(
        &mut self,
        loaded: &Loaded,
        events: Vec<Event>,
    ) -> Result<Revision, Error> {
        let missing = self.missing(loaded)?;
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

    /// Locks that the job needs and does not hold yet.
    fn missing(&self, loaded: &Loaded) -> Result<Vec<(Key, Lock)>, Error> {
        let mut missing = Vec::new();
        for name in loaded.job.locks() {
            let object = &name.object;
            let key = keys::lock(
                &name.cluster_uid,
                &object.kind,
                &object.namespace,
                &object.name,
            );
            let ours = match self.parts.view.get(&key) {
                Some(record) => records::read::<Lock>(&record)?.job == loaded.job.header.id,
                None => false,
            };
            if !ours {
                let (job, target) = (loaded.job.header.id.clone(), name.target);
                missing.push((
                    key,
                    Lock {
                        format: 1,
                        job,
                        target,
                        object: name.object,
                    },
                ));
            }
        }
        missing.sort_by(|a, b| a.0.cmp(&b.0));
        missing.dedup_by(|a, b| a.0 == b.0);
        Ok(missing)
    }

    async fn take_in_groups(&self, missing: &[(Key, Lock)]) -> Result<(Revision, bool), Error> {
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
