//! Whose turn it is, of all queued jobs: computed once for each change of the view, however many ask.
//!
//! What a queued job must lock follows from its plan, which never changes; it is read once. Without
//! both, a queue of some thousands would be read anew for each of its jobs after each commit.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use aldis_core::ids::JobId;
use aldis_core::inventory::Turn;
use aldis_core::job::{Header, JobState, LockName, Target};
use aldis_core::plan::ObjectRef;
use aldis_core::queue::{self, LockKey, Queued};
use tokio::sync::Mutex;

use crate::jobs::{self, Plans};
use crate::records::{self, Lock};
use crate::store::keys;
use crate::view::{self, View};

/// Turns of queued jobs.
pub struct Turns {
    view: View,
    plans: Arc<Plans>,
    bound: usize,
    known: Mutex<Known>,
}

/// Turns by job.
pub type ByJob = Arc<BTreeMap<JobId, Turn>>;

#[derive(Default)]
struct Known {
    /// The count of changes that the turns were computed at.
    at: Option<u64>,
    turns: ByJob,
    locks: BTreeMap<JobId, BTreeSet<LockName>>,
}

impl Turns {
    /// Of the jobs in this view, with at most `bound` running.
    pub fn new(view: View, plans: Arc<Plans>, bound: usize) -> Self {
        Self {
            view,
            plans,
            bound,
            known: Mutex::default(),
        }
    }

    /// Every queued job's.
    pub async fn all(&self) -> Result<ByJob, jobs::Error> {
        let mut known = self.known.lock().await;
        // Read before the records: a change in between is looked at again by the next who asks.
        let now = self.view.changes();
        if known.at == Some(now) {
            return Ok(known.turns.clone());
        }
        let headers = jobs::headers(&self.view).readable;
        // What cannot be read may be at work: it takes its place.
        let runs = |header: &&Header| self.runs(header).unwrap_or(true);
        let running = headers.iter().filter(runs).count();
        let waiting: Vec<&Header> = headers
            .iter()
            .filter(|header| header.state == JobState::Queued)
            .collect();
        let ids: BTreeSet<&JobId> = waiting.iter().map(|header| &header.id).collect();
        known.locks.retain(|job, _| ids.contains(job));
        let mut queued = Vec::with_capacity(waiting.len());
        for header in waiting {
            let locks = match self.locks(&mut known, header).await {
                Ok(locks) => locks,
                // Its turn never comes; whoever decides on it names what is wrong.
                Err(jobs::Error::Record(_) | jobs::Error::NoPlan { .. }) => continue,
                Err(error) => return Err(error),
            };
            queued.push(Queued {
                job: header.id.clone(),
                priority: header.priority,
                submitted_at: header.submitted_at,
                locks,
            });
        }
        known.turns = match queued.is_empty() {
            // Most of the time; the locks of a large job are many.
            true => ByJob::default(),
            false => Arc::new(queue::turns(
                &queued,
                running,
                self.bound,
                &held(&self.view),
            )),
        };
        known.at = Some(now);
        Ok(known.turns.clone())
    }

    /// Whether the job takes one of the places of running jobs: whoever only waits for a person does not.
    fn runs(&self, header: &Header) -> Result<bool, records::Error> {
        match &header.state {
            JobState::Queued | JobState::NeedsOperator { .. } => Ok(false),
            JobState::Paused => self.has_work(&header.id),
            state => Ok(!state.is_ended()),
        }
    }

    fn has_work(&self, job: &JobId) -> Result<bool, records::Error> {
        for record in self.view.list(&keys::job_prefix(job.as_str())) {
            if let Some(keys::Name::JobTarget { .. }) = record.key.name() {
                let target: Arc<Target> = records::shared(&record)?;
                if target.state.in_work().is_some() {
                    return Ok(true);
                }
            }
        }
        Ok(false)
    }

    async fn locks(
        &self,
        known: &mut Known,
        header: &Header,
    ) -> Result<BTreeSet<LockName>, jobs::Error> {
        if let Some(locks) = known.locks.get(&header.id) {
            return Ok(locks.clone());
        }
        let loaded = jobs::load(&self.view, &self.plans, &header.id).await?;
        let locks = loaded.map(|loaded| loaded.job.locks()).unwrap_or_default();
        known.locks.insert(header.id.clone(), locks.clone());
        Ok(locks)
    }
}

/// Who holds which object. A lock that cannot be read holds what its key names, for nobody that is known.
pub fn held(view: &View) -> BTreeMap<LockKey, JobId> {
    let locks = view.read(|all| view::under(all, keys::LOCKS).cloned().collect::<Vec<_>>());
    let mut held = BTreeMap::new();
    for record in &locks {
        let Some(keys::Name::Lock {
            cluster_uid,
            kind,
            namespace,
            name,
        }) = record.key.name()
        else {
            continue;
        };
        let job = match records::shared::<Lock>(record) {
            Ok(lock) => lock.job.clone(),
            Err(_) => JobId::new("unreadable"),
        };
        let object = ObjectRef {
            kind,
            namespace,
            name,
        };
        held.insert((cluster_uid, object), job);
    }
    held
}
