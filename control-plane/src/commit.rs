//! A decision's events, written: only the records that changed, each if nobody was quicker.
//!
//! Few records go in one transaction with the header. More are cut: the header goes first, so that a
//! stop, a cancel or an unwind is known before the targets learn of it; then each target stands alone,
//! and what lost its race is decided again from what won.

use std::collections::BTreeSet;

use aldis_core::ids::TargetName;
use aldis_core::job::{self, Event, Job};

use crate::clock::Clock;
use crate::jobs::Loaded;
use crate::leadership::{self, FencedTxn, Token};
use crate::records;
use crate::store::{Commit, MAX_OPERATIONS, Precondition, Revision, Store, Write, keys};

/// Target records that still go in one transaction with the header. Each costs a precondition and a
/// write, and the fence one more.
const TOGETHER: usize = MAX_OPERATIONS / 2 - 4;

/// Why a decision was not written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// An event that the job cannot take: a bug of ours.
    #[error(transparent)]
    Illegal(#[from] job::Error),
    /// The term is over, or the store has no answer. What was written is found by reading again.
    #[error(transparent)]
    Leader(#[from] leadership::Error),
}

/// Who writes.
pub struct Writer<'a> {
    /// The store.
    pub store: &'a dyn Store,
    /// The term under which everything is written.
    pub token: &'a Token,
    /// For the term's deadline.
    pub clock: &'a dyn Clock,
}

impl<'a> Writer<'a> {
    /// Writes events; the revision to wait for before deciding again. A conflict is no error: the
    /// next decision starts from what somebody else wrote.
    pub async fn write(&self, loaded: &Loaded, events: Vec<Event>) -> Result<Revision, Error> {
        let mut after = loaded.job.clone();
        let mut changed = BTreeSet::new();
        let mut header = false;
        for event in events {
            match &event {
                Event::Header(_) => header = true,
                Event::Target(name, _) => {
                    changed.insert(name.clone());
                }
            }
            after.apply(event)?;
        }
        aldis_proto::failpoint::hit("commit-before");
        let revision = if changed.len() <= TOGETHER {
            self.together(loaded, &after, header, &changed).await?
        } else {
            self.apart(loaded, &after, header, &changed).await?
        };
        aldis_proto::failpoint::hit("commit-after");
        Ok(revision)
    }

    async fn together(
        &self,
        loaded: &Loaded,
        after: &Job,
        header: bool,
        changed: &BTreeSet<TargetName>,
    ) -> Result<Revision, Error> {
        let mut commit = header_commit(loaded, after, header);
        for name in changed {
            let one = target_commit(loaded, after, name);
            commit.preconditions.extend(one.preconditions);
            commit.writes.extend(one.writes);
        }
        let outcome = self.fenced()?.commit(self.store, commit).await?;
        Ok(outcome.revision())
    }

    async fn apart(
        &self,
        loaded: &Loaded,
        after: &Job,
        header: bool,
        changed: &BTreeSet<TargetName>,
    ) -> Result<Revision, Error> {
        if header {
            let commit = header_commit(loaded, after, true);
            let outcome = self.fenced()?.commit(self.store, commit).await?;
            if !outcome.is_committed() {
                return Ok(outcome.revision());
            }
        }
        let commits = changed
            .iter()
            .map(|name| target_commit(loaded, after, name))
            .collect();
        let outcomes = self.fenced()?.commit_group(self.store, commits).await?;
        Ok(outcomes
            .iter()
            .map(|outcome| outcome.revision())
            .max()
            .unwrap_or_default())
    }

    /// A transaction of this term.
    pub fn fenced(&self) -> Result<FencedTxn<'a>, leadership::Error> {
        FencedTxn::new(self.token, self.clock)
    }
}

/// Where the header does not change, it must still be there, and be the one decided on: a decision
/// over a cancelled job's targets must not be written.
fn header_commit(loaded: &Loaded, after: &Job, header: bool) -> Commit {
    let key = keys::job_header(after.header.id.as_str());
    let unchanged = Precondition::Modified {
        key: key.clone(),
        at: loaded.header.modified,
    };
    let writes = if header {
        vec![Write::put(key, records::write(&after.header))]
    } else {
        vec![]
    };
    Commit {
        preconditions: vec![unchanged],
        writes,
    }
}

fn target_commit(loaded: &Loaded, after: &Job, name: &TargetName) -> Commit {
    let key = keys::job_target(after.header.id.as_str(), &name.to_string());
    Commit {
        preconditions: vec![Precondition::unchanged(&key, loaded.targets.get(name))],
        writes: vec![Write::put(key, records::write(&*after.record(name)))],
    }
}
