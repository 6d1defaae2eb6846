//! The end of a job: it leaves the hot prefix, whole, and its locks are freed.
//!
//! The record under `ended/` is put in the transaction that deletes the header, so that at every
//! moment exactly one of the two exists and a submission under the same key finds it. Locks go after
//! that: a crash in between leaves locks of an ended job, which the sweep frees.

use aldis_core::job::Job;
use aldis_core::outcome::StepState;

use super::{Error, Term};
use crate::jobs::Loaded;
use crate::records::{self, Ended};
use crate::store::{Commit, MAX_BYTES, Precondition, Write, keys};

impl Term<'_> {
    pub(super) async fn retire(&mut self, loaded: &Loaded) -> Result<(), Error> {
        let id = loaded.job.header.id.as_str();
        let header = keys::job_header(id);
        let commit = Commit {
            preconditions: vec![Precondition::Modified {
                key: header.clone(),
                at: loaded.header.modified,
            }],
            writes: vec![
                Write::delete(header),
                Write::put(keys::ended(id), ended(&loaded.job)),
            ],
        };
        let outcome = self
            .writer()
            .fenced()?
            .commit(&*self.parts.store, commit)
            .await?;
        if outcome.is_committed() {
            self.memory.forget(&loaded.job.header.id);
            self.clear(id).await?;
            self.give_back(loaded).await?;
        }
        self.parts.view.reaches(outcome.revision()).await;
        Ok(())
    }

    /// Deletes what a retired job left under the hot prefix.
    pub(super) async fn clear(&self, job: &str) -> Result<(), Error> {
        let left = self.parts.store.list(&keys::job_prefix(job)).await?.records;
        let absent = Precondition::Absent(keys::job_header(job));
        let commits: Vec<Commit> = left
            .into_iter()
            .filter(|record| record.key != keys::job_header(job))
            .map(|record| Commit {
                preconditions: vec![absent.clone()],
                writes: vec![Write::delete(record.key)],
            })
            .collect();
        if !commits.is_empty() {
            self.writer()
                .fenced()?
                .commit_group(&*self.parts.store, commits)
                .await?;
        }
        Ok(())
    }
}

fn ended(job: &Job) -> bytes::Bytes {
    let mut record = Ended {
        format: 1,
        header: job.header.clone(),
        targets: job.targets.clone(),
    };
    let whole = records::write(&record);
    if whole.len() < MAX_BYTES * 9 / 10 {
        return whole;
    }
    for target in record.targets.values_mut() {
        for step in target.steps.values_mut() {
            if let StepState::Succeeded { outputs, .. } = step {
                *outputs = serde_json::Value::Null;
            }
        }
    }
    records::write(&record)
}
