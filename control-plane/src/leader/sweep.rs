//! What nobody needs any more: history, leftovers of a crash, ended jobs and plans past retention.
//!
//! A task of its own beside the rounds, since it reads cold prefixes, which may hold a hundred thousand
//! records: page by page, a few pages at a time, going on where it stopped. Each part stands alone and
//! a record that cannot be read is named and passed over, so that history is compacted whatever else
//! is wrong. While the store is in doubt nothing is deleted: it may be the only evidence.

use std::collections::BTreeSet;
use std::time::Duration;

use aldis_core::ids::{JobId, PlanId, Timestamp};
use aldis_core::job::Target;
use tracing::{debug, error, warn};

use super::{Error, Parts, retire};
use crate::commit::Writer;
use crate::jobs;
use crate::leadership::Token;
use crate::presence;
use crate::records::{self, Ended, Lock, PlanHeader};
use crate::store::keys::{self, Name};
use crate::store::{Commit, Key, Precondition, Record, Revision, Write};
use crate::telemetry::chain;
use crate::view;

/// Between two sweeps.
const EVERY: Duration = Duration::from_secs(60);

/// Records of one page. The largest, ended jobs of a thousand targets, are a megabyte each.
const PAGE: usize = 32;

/// Pages of one sweep: ten thousand ended jobs are gone through in twenty minutes.
const PAGES: usize = 16;

/// Sweeps until the term is over.
pub(super) async fn run(parts: Parts, token: Token) {
    let mut sweep = Sweep::new(parts, token);
    while sweep.token.is_live(&*sweep.parts.clock) {
        sweep.once().await;
        tokio::time::sleep(EVERY).await;
    }
}

struct Sweep {
    parts: Parts,
    token: Token,
    /// The store's revision at the sweep before: history before it is compacted, and what was stored
    /// before it is no longer being written.
    settled: Revision,
    pass: Pass,
    said: BTreeSet<String>,
}

/// One way through ended jobs, then through plans.
#[derive(Default)]
struct Pass {
    place: Place,
    /// The last key that was looked at.
    behind: Option<Key>,
    /// Plans that a job names.
    kept: BTreeSet<PlanId>,
}

#[derive(Default)]
enum Place {
    #[default]
    Start,
    Ended,
    Plans,
}

impl Sweep {
    fn new(parts: Parts, token: Token) -> Self {
        Self {
            parts,
            token,
            settled: Revision(0),
            pass: Pass::default(),
            said: BTreeSet::new(),
        }
    }

    async fn once(&mut self) {
        let before = self.settled;
        let compacted = self.compact().await;
        self.note("history not compacted", compacted);
        if self.parts.view.read(presence::halted).is_some() {
            return;
        }
        let freed = self.free_leftover_locks().await;
        self.note("locks of ended jobs not freed", freed);
        let cleared = self.clear_leftovers().await;
        self.note("records without a job not cleared", cleared);
        let swept = self.go_on(before).await;
        self.note("ended jobs and plans not swept", swept);
    }

    fn note(&self, what: &'static str, result: Result<(), Error>) {
        if let Err(error) = result {
            warn!(error = chain(&error), "{what}");
        }
    }

    /// Names what cannot be read, once.
    fn pass_over(&mut self, error: &records::Error) {
        let text = chain(error);
        if self.said.insert(text.clone()) {
            error!(error = text, "record passed over by the sweep");
        }
    }

    fn writer(&self) -> Writer<'_> {
        self.parts.writer(&self.token)
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.parts.clock.wall_now())
    }

    async fn commit(&self, commits: Vec<Commit>) -> Result<(), Error> {
        if commits.is_empty() {
            return Ok(());
        }
        let fenced = self.writer().fenced()?;
        fenced.commit_group(&*self.parts.store, commits).await?;
        Ok(())
    }

    /// History is kept for one period, so that a watch that was cut off briefly can resume.
    async fn compact(&mut self) -> Result<(), Error> {
        let now = self.parts.store.read_revision().await?;
        let until = std::mem::replace(&mut self.settled, now);
        if until > Revision(0) {
            self.parts.store.compact(until).await?;
        }
        Ok(())
    }

    /// A lock whose job has left the hot prefix: its leader crashed before it freed it.
    async fn free_leftover_locks(&mut self) -> Result<(), Error> {
        let held = self.parts.view.list(keys::LOCKS);
        let mut loose = Vec::new();
        for record in &held {
            match records::read::<Lock>(record) {
                Ok(lock) if self.has_header(&lock.job) => {}
                Ok(lock) => loose.push((lock.job, deletion(record))),
                Err(error) => self.pass_over(&error),
            }
        }
        let commits = loose.into_iter().map(|(job, mut commit)| {
            let ended = Precondition::Exists(keys::ended(job.as_str()));
            commit.preconditions.push(ended);
            commit
        });
        self.commit(commits.collect()).await
    }

    /// Records under a job that has no header.
    async fn clear_leftovers(&self) -> Result<(), Error> {
        for job in self.parts.view.read(jobs::ids) {
            if !self.has_header(&job) {
                retire::clear(&self.parts, &self.token, job.as_str()).await?;
            }
        }
        Ok(())
    }

    fn has_header(&self, job: &JobId) -> bool {
        let key = keys::job_header(job.as_str());
        self.parts.view.get(&key).is_some()
    }

    /// Some pages more of the way through ended jobs and plans.
    async fn go_on(&mut self, settled: Revision) -> Result<(), Error> {
        for _ in 0..PAGES {
            match self.pass.place {
                Place::Start => self.start(),
                Place::Ended => self.ended_page().await?,
                Place::Plans => {
                    self.plans_page(settled).await?;
                    if matches!(self.pass.place, Place::Start) {
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    /// Jobs that are hot now name their plans, also those that end while ended jobs are gone through. A
    /// job that is made later cannot name a plan that is deleted in this pass: that one was marked in
    /// an earlier one.
    fn start(&mut self) {
        let headers = self.parts.view.read(|all| {
            let headers = view::under(all, keys::JOBS);
            headers
                .filter(|r| matches!(r.key.name(), Some(Name::JobHeader { .. })))
                .filter_map(|record| plan_named_by(record, &["plan"]))
                .collect()
        });
        self.pass = Pass {
            place: Place::Ended,
            behind: None,
            kept: headers,
        };
    }

    async fn ended_page(&mut self) -> Result<(), Error> {
        let store = self.parts.store.clone();
        let behind = self.pass.behind.as_ref();
        let page = store.list_page(keys::ENDED, behind, PAGE).await?;
        let mut dropped = Vec::new();
        for record in &page {
            if self.is_over(record) {
                dropped.push(deletion(record));
            } else if let Some(plan) = plan_named_by(record, &["header", "plan"]) {
                self.pass.kept.insert(plan);
            }
        }
        debug!(dropped = dropped.len(), of = page.len(), "ended jobs swept");
        self.commit(dropped).await?;
        self.pass.behind = page.last().map(|record| record.key.clone());
        if page.len() < PAGE {
            self.pass.place = Place::Plans;
            self.pass.behind = None;
        }
        Ok(())
    }

    /// Past retention, and with nothing on any target that an operator has still to settle.
    fn is_over(&mut self, record: &Record) -> bool {
        match records::read::<Ended>(record) {
            Ok(ended) => {
                let age = self.now().since(ended.header.ended_at.unwrap_or_default());
                let open = ended.targets.values().any(Target::is_open_question);
                age > self.parts.settings.retention && !open
            }
            Err(error) => {
                self.pass_over(&error);
                false
            }
        }
    }

    async fn plans_page(&mut self, settled: Revision) -> Result<(), Error> {
        let store = self.parts.store.clone();
        let behind = self.pass.behind.take();
        let page = store.list_page(keys::PLANS, behind.as_ref(), PAGE).await?;
        let full = page.len() == PAGE;
        let mut reached = behind;
        let mut loose = Vec::new();
        for record in page {
            // A plan with a header speaks for its parts: they are jumped over.
            if reached
                .as_ref()
                .is_some_and(|reached| record.key <= *reached)
            {
                continue;
            }
            reached = Some(record.key.clone());
            match record.key.name() {
                Some(Name::PlanHeader { plan }) => {
                    self.sweep_plan(&record).await?;
                    reached = Some(behind_parts(&plan));
                }
                Some(Name::PlanPart { plan, .. }) if record.modified < settled => {
                    loose.push(if_without_header(&plan, &record));
                }
                _ => {}
            }
        }
        self.commit(loose).await?;
        self.pass.behind = reached;
        if !full {
            self.pass = Pass::default();
        }
        Ok(())
    }

    /// A plan that no job names goes in two steps: first it is marked, so that no submission passes;
    /// a pass later it is deleted, if still nothing names it.
    async fn sweep_plan(&mut self, record: &Record) -> Result<(), Error> {
        let mut plan: PlanHeader = match records::read(record) {
            Ok(plan) => plan,
            Err(error) => {
                self.pass_over(&error);
                return Ok(());
            }
        };
        if self.pass.kept.contains(&plan.id) || self.now() < plan.scope.expires_at {
            return Ok(());
        }
        if plan.expired {
            return self.delete_plan(&plan.id).await;
        }
        plan.expired = true;
        let mut mark = deletion(record);
        mark.writes = vec![Write::put(record.key.clone(), records::write(&plan))];
        self.commit(vec![mark]).await
    }

    /// The header goes first: without it what a crash leaves is swept as parts without a header.
    async fn delete_plan(&self, plan: &PlanId) -> Result<(), Error> {
        for of in [plan.to_string(), jobs::late_plan(plan)] {
            let records = self
                .parts
                .store
                .list(&keys::plan_prefix(&of))
                .await?
                .records;
            self.commit(records.iter().map(deletion).collect()).await?;
        }
        Ok(())
    }
}

/// The plan that a job's record names, also where the rest of it cannot be read.
fn plan_named_by(record: &Record, path: &[&str]) -> Option<PlanId> {
    let value: serde_json::Value = serde_json::from_slice(&record.value).ok()?;
    let plan = path.iter().try_fold(&value, |value, key| value.get(key))?;
    Some(PlanId::new(plan.as_str()?))
}

/// Behind the last part of a plan, and before the next plan.
fn behind_parts(plan: &str) -> Key {
    Key::raw(format!("{}parts0", keys::plan_prefix(plan)))
}

/// A part that stood there a sweep ago without a header never gets one: storing a plan takes seconds.
fn if_without_header(plan: &str, part: &Record) -> Commit {
    let owner = keys::plan_header(jobs::owner_of_parts(plan));
    let mut commit = deletion(part);
    let alone = Precondition::Absent(owner);
    commit.preconditions.push(alone);
    commit
}

fn deletion(record: &Record) -> Commit {
    Commit {
        preconditions: vec![Precondition::unchanged(&record.key, Some(record))],
        writes: vec![Write::delete(record.key.clone())],
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;
    use std::sync::Arc;

    use aldis_core::inventory::Limits;
    use aldis_core::job::Header;
    use futures::stream::BoxStream;

    use super::*;
    use crate::agents::{AgentFacts, Agents, AskError, Logged};
    use crate::clock::SystemClock;
    use crate::jobs::Plans;
    use crate::leader::Settings;
    use crate::leadership::{self, Leader, Leadership, Role};
    use crate::records::PlanPart;
    use crate::store::Store;
    use crate::store::embedded::Embedded;
    use crate::turns::Turns;
    use crate::view::View;

    struct Nobody;

    #[async_trait::async_trait]
    impl Agents for Nobody {
        async fn ask(
            &self,
            target: &aldis_core::ids::TargetName,
            _: aldis_core::question::Question,
            _: Duration,
        ) -> Result<aldis_core::question::Answer, AskError> {
            let target = target.clone();
            Err(AskError::Absent { target })
        }

        async fn logs(
            &self,
            target: &aldis_core::ids::TargetName,
            _: &JobId,
            _: u64,
            _: bool,
        ) -> Result<BoxStream<'static, Logged>, AskError> {
            let target = target.clone();
            Err(AskError::Absent { target })
        }

        fn fleet(&self) -> Vec<AgentFacts> {
            vec![]
        }
    }

    fn sample<T: serde::de::DeserializeOwned>(name: &str) -> T {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/records/v1");
        let text = std::fs::read_to_string(folder.join(name)).unwrap();
        let mut samples: Vec<serde_json::Value> = serde_json::from_str(&text).unwrap();
        serde_json::from_value(samples.remove(0)).unwrap()
    }

    struct Bench {
        store: Arc<dyn Store>,
        sweep: Sweep,
        _leadership: Leadership,
    }

    impl Bench {
        async fn new(folder: &Path) -> Self {
            let clock = Arc::new(SystemClock);
            let kept = Embedded::open(&folder.join("state"), clock.clone()).unwrap();
            let store: Arc<dyn Store> = Arc::new(kept);
            let view = View::start(store.clone(), clock.clone());
            let plans = Arc::new(Plans::new(store.clone()));
            let leader = Leader {
                replica: "cp-1".into(),
                boot_id: "boot".into(),
                address: "localhost:1".into(),
            };
            let settings = leadership::Settings::new(leader);
            let leadership = Leadership::start(store.clone(), clock.clone(), settings);
            let mut role = leadership.role();
            let leads = role.wait_for(|role| matches!(role, Role::Leading(_))).await;
            let Role::Leading(token) = leads.unwrap().clone() else {
                panic!("it does not lead")
            };
            let parts = Parts {
                store: store.clone(),
                view: view.clone(),
                clock,
                plans: plans.clone(),
                turns: Arc::new(Turns::new(view, plans, 1)),
                agents: Arc::new(Nobody),
                settings: Settings {
                    limits: Limits::default(),
                    ..Settings::default()
                },
            };
            Self {
                store,
                sweep: Sweep::new(parts, token),
                _leadership: leadership,
            }
        }

        async fn put(&self, key: Key, value: impl Into<bytes::Bytes>) {
            let commit = Commit {
                preconditions: vec![],
                writes: vec![Write::put(key, value)],
            };
            let outcome = self.store.commit(commit).await.unwrap();
            self.sweep.parts.view.reaches(outcome.revision()).await;
        }

        /// A plan that nobody can submit any more, with a part and a late part.
        async fn plan(&self, id: &str) {
            let mut header: PlanHeader = sample("plan-header.json");
            (header.id, header.scope.expires_at) = (id.into(), Timestamp(1));
            header.expired = false;
            self.put(keys::plan_header(id), records::write(&header))
                .await;
            self.parts_of(id).await;
            self.parts_of(&jobs::late_plan(&id.into())).await;
        }

        async fn parts_of(&self, plan: &str) {
            let part: PlanPart = sample("plan-part.json");
            let key = keys::plan_part(plan, "eu/prod");
            self.put(key, records::write(&part)).await;
        }

        async fn ended(&self, id: &str, at: Timestamp) {
            let mut ended: Ended = sample("ended.json");
            ended.header.ended_at = Some(at);
            ended.header.plan = "p-of-ended".into();
            ended.targets.clear();
            self.put(keys::ended(id), records::write(&ended)).await;
        }

        async fn left(&self, prefix: &str) -> Vec<String> {
            let records = self.store.list(prefix).await.unwrap().records;
            let short = |record: &Record| record.key.as_str().replace(prefix, "");
            records.iter().map(short).collect()
        }
    }

    #[tokio::test]
    async fn what_nobody_names_goes_in_two_sweeps_and_what_cannot_be_read_hinders_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(folder.path()).await;
        for plan in ["p-of-nobody", "p-of-hot", "p-of-ended"] {
            bench.plan(plan).await;
        }
        bench.parts_of("p-without-header").await;
        let mut hot: Header = sample("header.json");
        (hot.id, hot.plan) = ("j-hot".into(), "p-of-hot".into());
        bench
            .put(keys::job_header("j-hot"), records::write(&hot))
            .await;
        bench.ended("j-old", Timestamp(1)).await;
        let now = bench.sweep.now();
        bench.ended("j-lately", now).await;
        bench.put(keys::ended("j-garbled"), "{}").await;
        bench.put(keys::plan_header("p-garbled"), "{}").await;
        bench
            .put(keys::lock("uid", "Deployment", "a", "b"), "{}")
            .await;

        bench.sweep.once().await;
        assert_eq!(bench.left(keys::ENDED).await, ["j-garbled", "j-lately"]);
        bench.sweep.once().await;
        let kept: Vec<String> = ["p-garbled/header".to_owned()]
            .into_iter()
            .chain(["p-of-ended", "p-of-hot"].into_iter().flat_map(|plan| {
                [
                    format!("{plan}+late/parts/eu/prod"),
                    format!("{plan}/header"),
                    format!("{plan}/parts/eu/prod"),
                ]
            }))
            .collect();
        assert_eq!(bench.left(keys::PLANS).await, kept);
    }

    #[tokio::test]
    async fn nothing_is_deleted_while_the_store_is_in_doubt() {
        let folder = tempfile::tempdir().unwrap();
        let mut bench = Bench::new(folder.path()).await;
        bench.ended("j-old", Timestamp(1)).await;
        let halted = records::Halted {
            format: 1,
            why: "it went back".into(),
            incarnation: 0,
        };
        bench.put(keys::halted(), records::write(&halted)).await;
        bench.sweep.once().await;
        assert_eq!(bench.left(keys::ENDED).await, ["j-old"]);
    }
}
