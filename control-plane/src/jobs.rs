//! Jobs as the store holds them, joined into what the core decides on.
//!
//! Headers, targets and requests come from the view; plans never change, so they are read once and
//! kept. A job whose plan or record cannot be read is an error with the key in it, never a smaller job.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::ids::{JobId, PlanId, TargetName};
use aldis_core::job::{Header, Job, Request, Target};
use aldis_core::plan::{Disposition, Plan, TargetPart};
use tokio::time::Instant;

use crate::kept::Kept;
use crate::records::{self, Ended, PlanHeader, PlanPart};
use crate::store::keys::{self, Name};
use crate::store::{self, Key, Record, Store};
use crate::view::View;

/// Plans kept in memory. One of 1,000 targets is some 2 MB; jobs beyond this read theirs again.
const KEPT_PLANS: usize = 64;

/// Between two looks for late parts that another replica may have stored.
const LOOK_AGAIN: Duration = Duration::from_secs(1);

/// What stands behind a plan's id where its late parts are kept.
const LATE: &str = "+late";

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

/// The header of a plan, with the record it was read from.
pub type StoredPlan = (Record, Arc<PlanHeader>);

/// Plans by id.
pub struct Plans {
    store: Arc<dyn Store>,
    headers: Kept<StoredPlan>,
    kept: Kept<Arc<Plan>>,
    late: Kept<Arc<Late>>,
}

/// Late parts of one plan, as read last.
struct Late {
    parts: BTreeMap<TargetName, TargetPart>,
    looked_at: Instant,
}

impl Plans {
    /// Reads from this store.
    pub fn new(store: Arc<dyn Store>) -> Self {
        Self {
            store,
            headers: Kept::of(KEPT_PLANS),
            kept: Kept::of(KEPT_PLANS),
            late: Kept::of(KEPT_PLANS),
        }
    }

    /// The plan, whole and with its digest checked.
    pub async fn load(&self, id: &PlanId) -> Result<Arc<Plan>, Error> {
        if let Some(plan) = self.kept.get(id) {
            return Ok(plan);
        }
        let plan = Arc::new(self.read(id).await?);
        self.kept.keep(id, plan.clone());
        Ok(plan)
    }

    /// The header of a plan as it was read last. It may have expired meanwhile: whoever writes on it makes its
    /// record a precondition.
    pub fn kept_header(&self, id: &PlanId) -> Option<StoredPlan> {
        self.headers.get(id)
    }

    /// Keeps a header for the next who asks.
    pub fn keep_header(&self, stored: &StoredPlan) {
        self.headers.keep(&stored.1.id, stored.clone());
    }

    /// The plan of a hot job, if it was loaded before: for those who must not wait.
    pub fn kept_plan(&self, job: &JobId, view: &View) -> Option<Arc<Plan>> {
        let record = view.get(&keys::job_header(job.as_str()))?;
        let header: Arc<Header> = records::shared(&record).ok()?;
        self.kept.get(&header.plan)
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

    /// Parts that agents made of deferred targets when they returned. They never change once they are
    /// there: only those that are still missing are looked for, in one listing, once in a while.
    pub async fn late_parts(&self, plan: &Plan) -> Result<BTreeMap<TargetName, TargetPart>, Error> {
        let deferred =
            |part: &&TargetPart| matches!(part.disposition, Disposition::Deferred { .. });
        let awaited = plan.parts.values().filter(deferred).count();
        if awaited == 0 {
            return Ok(BTreeMap::new());
        }
        if let Some(known) = self.known_late(&plan.id, awaited) {
            return Ok(known);
        }
        let of = keys::plan_prefix(&late_plan(&plan.id));
        let mut parts = BTreeMap::new();
        for record in self.store.list(&of).await?.records {
            let part = records::read::<PlanPart>(&record)?.part;
            parts.insert(part.target.clone(), part);
        }
        let late = Late {
            parts: parts.clone(),
            looked_at: Instant::now(),
        };
        self.late.keep(&plan.id, Arc::new(late));
        Ok(parts)
    }

    fn known_late(
        &self,
        plan: &PlanId,
        awaited: usize,
    ) -> Option<BTreeMap<TargetName, TargetPart>> {
        let known = self.late.get(plan)?;
        let is_news = known.parts.len() < awaited && known.looked_at.elapsed() >= LOOK_AGAIN;
        (!is_news).then(|| known.parts.clone())
    }

    /// A late part was stored: whoever loads the job next has it.
    pub fn look_again(&self, plan: &PlanId) {
        self.late.forget(plan);
    }
}

/// Where the late part of a deferred target is kept. The plan's own parts never change.
pub fn late_part_key(plan: &PlanId, target: &TargetName) -> store::Key {
    keys::plan_part(&late_plan(plan), &target.to_string())
}

/// What the keys of a plan's late parts are called after.
pub fn late_plan(plan: &PlanId) -> String {
    format!("{plan}{LATE}")
}

/// The plan that owns the parts under a name: its own, or the late ones.
pub fn owner_of_parts(name: &str) -> &str {
    name.strip_suffix(LATE).unwrap_or(name)
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
    let parsed = Header::clone(&*records::shared(&header)?);
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
                let target: Arc<Target> = records::shared(&record)?;
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

/// Headers of hot jobs.
#[derive(Debug, Default)]
pub struct Headers {
    /// In order of their ids.
    pub readable: Vec<Header>,
    /// What cannot be read, each with its key.
    pub unreadable: Vec<records::Error>,
}

/// Headers of all hot jobs. One that cannot be read does not hide the others.
pub fn headers(view: &View) -> Headers {
    let mut headers = Headers::default();
    view.read(|all| {
        for job in ids(all) {
            match all
                .get(&keys::job_header(job.as_str()))
                .map(records::shared::<Header>)
            {
                Some(Ok(header)) => headers.readable.push(Header::clone(&header)),
                Some(Err(error)) => headers.unreadable.push(error),
                None => {}
            }
        }
    });
    headers
}

/// Jobs that have any record under the hot prefix, without looking at each record of each.
pub fn ids(all: &BTreeMap<Key, Record>) -> Vec<JobId> {
    let mut found = Vec::new();
    let mut from = keys::JOBS.to_owned();
    while let Some(key) = first_at(all, &from) {
        match key.name() {
            Some(
                Name::JobHeader { job }
                | Name::JobTarget { job, .. }
                | Name::JobRequest { job, .. },
            ) => {
                // The first key behind everything of that job.
                from = keys::job_prefix(&job);
                from.pop();
                from.push('0');
                found.push(JobId::new(job));
            }
            _ => from = format!("{key}\0"),
        }
    }
    found
}

fn first_at<'a>(all: &'a BTreeMap<Key, Record>, from: &str) -> Option<&'a Key> {
    let range = (Bound::Included(from), Bound::Unbounded);
    let (key, _) = all.range::<str, _>(range).next()?;
    key.as_str().starts_with(keys::JOBS).then_some(key)
}

/// Jobs of which operators asked something, folded in or not.
pub fn with_requests(all: &BTreeMap<Key, Record>) -> BTreeSet<JobId> {
    let asked = |job: &JobId| {
        let prefix = keys::job_requests(job.as_str());
        crate::view::under(all, &prefix).next().is_some()
    };
    ids(all).into_iter().filter(asked).collect()
}

/// The header of an ended job, without its targets.
pub fn ended_header(record: &Record) -> Result<Header, records::Error> {
    #[derive(serde::Deserialize)]
    struct Headed {
        header: Header,
    }
    let headed: Headed =
        serde_json::from_slice(&record.value).map_err(|error| records::Error::Corrupt {
            key: record.key.to_string(),
            problem: error.to_string(),
        })?;
    Ok(headed.header)
}

/// A job that has ended, as it was at its end.
pub async fn ended(store: &dyn Store, plans: &Plans, id: &JobId) -> Result<Option<Job>, Error> {
    let Some(record) = store.get(&keys::ended(id.as_str())).await? else {
        return Ok(None);
    };
    let Ended {
        header, targets, ..
    } = records::read(&record)?;
    let targets = targets.into_iter();
    let targets = targets.map(|(name, target)| (name, Arc::new(target)));
    let plan = plans.load(&header.plan).await?;
    let late_parts = plans.late_parts(&plan).await?;
    Ok(Some(Job {
        header,
        plan,
        late_parts,
        targets: targets.collect(),
    }))
}
