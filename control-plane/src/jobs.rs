//! Jobs as the store holds them, joined into what the core decides on.
//!
//! Headers, targets and requests come from the view; plans never change, so they are read once and
//! kept. A job whose plan or record cannot be read is an error with the key in it, never a smaller job.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, PoisonError};

use aldis_core::ids::{JobId, PlanId, TargetName};
use aldis_core::job::{Header, Job, Request, Target};
use aldis_core::plan::{Disposition, Plan, TargetPart};

use crate::records::{self, Ended, PlanHeader, PlanPart};
use crate::store::keys::{self, Name};
use crate::store::{self, Key, Record, Store};
use crate::view::View;

/// Plans kept in memory. One of 1,000 targets is some 2 MB; jobs beyond this read theirs again.
const KEPT_PLANS: usize = 64;

/// Why a job or plan cannot be shown or decided on.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] store::Error),
    /// A record cannot be read.
    #[error(transparent)]
    Record(#[from] records::Error),
    /// No such plan, or not all of it.
    #[error("plan {plan} is not in the store, or not whole")]
    NoPlan {
        /// Which.
        plan: PlanId,
    },
}

/// A job with the records it was read from: what a commit must find unchanged.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// For deciding.
    pub job: Job,
    /// The header's record.
    pub header: Record,
    /// The targets' records.
    pub targets: BTreeMap<TargetName, Record>,
    /// What operators asked, oldest first.
    pub requests: Vec<Request>,
}

/// Plans by id.
pub struct Plans {
    store: Arc<dyn Store>,
    kept: Mutex<BTreeMap<PlanId, Arc<Plan>>>,
}

impl Plans {
    /// Reads from this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            kept: Mutex::default(),
        }
    }

    /// The plan, whole and with its digest checked.
    pub async fn load(&self, id: &PlanId) -> Result<Arc<Plan>, Error> {
        if let Some(plan) = self.kept().get(id) {
            return Ok(plan.clone());
        }
        let plan = Arc::new(self.read(id).await?);
        let mut kept = self.kept();
        if kept.len() >= KEPT_PLANS {
            kept.pop_first();
        }
        kept.insert(id.clone(), plan.clone());
        Ok(plan)
    }

    /// The plan of a hot job, if it was loaded before: for those who must not wait.
    pub fn kept_plan(&self, job: &JobId, view: &View) -> Option<Arc<Plan>> {
        let record = view.get(&keys::job_header(job.as_str()))?;
        let header: Header = records::read(&record).ok()?;
        self.kept().get(&header.plan).cloned()
    }

    async fn read(&self, id: &PlanId) -> Result<Plan, Error> {
        let absent = || Error::NoPlan { plan: id.clone() };
        let header = self
            .store
            .get(&keys::plan_header(id.as_str()))
            .await?
            .ok_or_else(absent)?;
        let header: PlanHeader = records::read(&header)?;
        let mut parts = BTreeMap::new();
        for record in self
            .store
            .list(&keys::plan_prefix(id.as_str()))
            .await?
            .records
        {
            if let Some(Name::PlanPart { .. }) = record.key.name() {
                let part: PlanPart = records::read(&record)?;
                if !part.late {
                    parts.insert(part.part.target.clone(), part.part);
                }
            }
        }
        let plan = Plan {
            format: Plan::FORMAT,
            id: id.clone(),
            scope: header.scope,
            parts,
            digest: header.digest,
            planned_by: header.planned_by,
            planned_at: header.planned_at,
        };
        if plan.is_whole() {
            Ok(plan)
        } else {
            Err(absent())
        }
    }

    /// Parts that agents made of deferred targets when they returned.
    pub async fn late_parts(&self, plan: &Plan) -> Result<BTreeMap<TargetName, TargetPart>, Error> {
        let mut late = BTreeMap::new();
        for (target, part) in &plan.parts {
            if !matches!(part.disposition, Disposition::Deferred { .. }) {
                continue;
            }
            // A deferred target's own key holds its first part; the late one stands beside it.
            let key = late_part_key(&plan.id, target);
            if let Some(record) = self.store.get(&key).await? {
                late.insert(target.clone(), records::read::<PlanPart>(&record)?.part);
            }
        }
        Ok(late)
    }

    fn kept(&self) -> std::sync::MutexGuard<'_, BTreeMap<PlanId, Arc<Plan>>> {
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Where the late part of a deferred target is kept. The plan's own parts never change.
pub fn late_part_key(plan: &PlanId, target: &TargetName) -> store::Key {
    keys::plan_part(&format!("{plan}+late"), &target.to_string())
}

/// The hot job of that id, if there is one.
pub async fn load(view: &View, plans: &Plans, id: &JobId) -> Result<Option<Loaded>, Error> {
    let records = view.list(&keys::job_prefix(id.as_str()));
    let Some(header) = records
        .iter()
        .find(|r| r.key == keys::job_header(id.as_str()))
        .cloned()
    else {
        return Ok(None);
    };
    let parsed: Header = records::read(&header)?;
    let plan = plans.load(&parsed.plan).await?;
    let late_parts = plans.late_parts(&plan).await?;
    let mut loaded = Loaded {
        job: Job {
            header: parsed,
            plan,
            late_parts,
            targets: BTreeMap::new(),
        },
        header,
        targets: BTreeMap::new(),
        requests: Vec::new(),
    };
    for record in records {
        match record.key.name() {
            Some(Name::JobTarget { .. }) => {
                let target: Target = records::read(&record)?;
                loaded.targets.insert(target.name.clone(), record);
                loaded.job.targets.insert(target.name.clone(), target);
            }
            Some(Name::JobRequest { .. }) => loaded.requests.push(records::read(&record)?),
            _ => {}
        }
    }
    loaded
        .requests
        .sort_by(|a, b| (a.at, &a.id).cmp(&(b.at, &b.id)));
    Ok(Some(loaded))
}

/// Headers of all hot jobs, in order of their ids.
pub fn headers(view: &View) -> Result<Vec<Header>, records::Error> {
    let records = view.read(|all| {
        let is_header =
            |record: &&Record| matches!(record.key.name(), Some(Name::JobHeader { .. }));
        crate::view::under(all, keys::JOBS)
            .filter(is_header)
            .cloned()
            .collect::<Vec<_>>()
    });
    records.iter().map(records::read).collect()
}

/// Jobs of which operators asked something, folded in or not.
pub fn with_requests(all: &BTreeMap<Key, Record>) -> BTreeSet<JobId> {
    crate::view::under(all, keys::JOBS)
        .filter_map(|record| match record.key.name() {
            Some(Name::JobRequest { job, .. }) => Some(JobId::new(job)),
            _ => None,
        })
        .collect()
}

/// A job that has ended, as it was at its end.
pub async fn ended(store: &dyn Store, plans: &Plans, id: &JobId) -> Result<Option<Job>, Error> {
    let Some(record) = store.get(&keys::ended(id.as_str())).await? else {
        return Ok(None);
    };
    let Ended {
        header, targets, ..
    } = records::read(&record)?;
    let plan = plans.load(&header.plan).await?;
    let late_parts = plans.late_parts(&plan).await?;
    Ok(Some(Job {
        header,
        plan,
        late_parts,
        targets,
    }))
}
