//! How plans and jobs stand, from this replica's view; what a job's agents wrote, merged.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::decide::{WaitingOn, decide};
use aldis_core::ids::{JobId, TargetName};
use aldis_core::job::{Header, Job, JobState};
use aldis_core::plan::{Disposition, Plan};
use aldis_core::view::{self as core_view, Conflict, JobView, PlanView};
use aldis_proto::v1::LogLine;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio::time::Instant;
use tokio_stream::wrappers::ReceiverStream;
use tracing::warn;

use super::{Error, Services};
use crate::agents::{Agents, AskError};
use crate::jobs;
use crate::leader::inventory;
use crate::records::{self, PlanHeader};
use crate::store::keys;
use crate::telemetry::chain;
use crate::turns;
use crate::view::HOPELESS_AFTER;

/// Shortest time between two views of one watch: people see no more, and 1,000 targets make 1 MB each.
const AT_MOST_EVERY: Duration = Duration::from_millis(200);

/// After each view a watch rests so many times as long as drawing it took: to look at a large job is not to cost
/// what the job needs.
const RESTS: u32 = 4;

/// A watch looks again without a change: reasons to wait come and go with time.
const AT_LEAST_EVERY: Duration = Duration::from_secs(1);

/// Views that may wait for a slow reader: the newest replaces what was not read anyway.
const VIEWS: usize = 1;

/// Log lines that may wait for a reader, of all targets together.
const LINES: usize = 1024;

/// After the end of a job its agents' last lines may still be under way.
const LAST_LINES: Duration = Duration::from_secs(2);

/// For this view to see what the store already has.
const CATCHES_UP: Duration = Duration::from_secs(2);

/// Ended jobs read at once: one of a thousand targets is a megabyte.
const PAGE: usize = 64;

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct Filter {
    /// Words such as `running`; empty = all.
    pub states: Vec<String>,
    /// Only of this runbook; empty = all.
    pub runbook: String,
    /// Only of this identity, whole or its name; empty = all.
    pub submitted_by: String,
    /// At most so many, newest first.
    pub limit: usize,
}

/// Before a target's logs are asked for again whose agent was away, or whose stream ended early.
const REOPEN_AFTER: Duration = Duration::from_secs(1);

/// A job in a list.
#[derive(Clone, Debug)]
pub struct Listed {
    /// Its record.
    pub header: Header,
    /// What it waits for in the queue, in words.
    pub waiting: Option<String>,
}

/// What a reader of logs gets.
pub(crate) enum Logged {
    /// A line.
    Line(LogLine),
    /// Lines of this target could not be read.
    Gap { target: TargetName, reason: String },
}

impl Services {
    /// A plan, with what stands in its way now.
    pub async fn show_plan(&self, typed: &str) -> Result<PlanView, Error> {
        let id = self.plan_id(typed).await?;
        let plan = self.0.plans.load(&id).await?;
        let record = self.0.store.get(&keys::plan_header(id.as_str())).await?;
        let header = record
            .map(|record| records::read::<PlanHeader>(&record))
            .transpose()?;
        let swept = header.is_none_or(|header| header.expired);
        let expired = swept || self.now() > plan.scope.expires_at;
        self.plan_view(Plan::clone(&plan), expired)
    }

    pub(super) fn plan_view(&self, plan: Plan, expired: bool) -> Result<PlanView, Error> {
        let held = turns::held(&self.0.view);
        let mut conflicts = Vec::new();
        for (target, part) in &plan.parts {
            if !matches!(part.disposition, Disposition::Run) {
                continue;
            }
            for object in part.writes() {
                let key = (part.identity.cluster_uid.clone(), object.clone());
                if let Some(job) = held.get(&key) {
                    conflicts.push(Conflict {
                        target: target.clone(),
                        object,
                        job: job.clone(),
                    });
                }
            }
        }
        Ok(PlanView {
            plan,
            conflicts,
            expired,
        })
    }

    /// A job, hot or ended.
    pub async fn show_job(&self, typed: &str) -> Result<JobView, Error> {
        let id = self.job_id(typed).await?;
        self.job_view(&id).await
    }

    async fn job_view(&self, id: &JobId) -> Result<JobView, Error> {
        self.sees_the_store()?;
        let parts = &self.0;
        if let Some(loaded) = self.hot_job(id).await? {
            let seen = inventory::observe(&parts.view, &parts.turns, &loaded, parts.limits);
            let waiting = decide(&loaded.job, &seen.await?, self.now()).waiting;
            return Ok(core_view::job(&loaded.job, &waiting, self.now()));
        }
        let ended = self.ended(id).await?;
        Ok(core_view::job(&ended, &[], self.now()))
    }

    /// For what goes on after it began: the proof may be older than for a question, the view not over.
    pub(super) fn sees_the_store(&self) -> Result<(), Error> {
        let stale = self.0.view.stale_for(self.0.clock.boot_now());
        match stale <= HOPELESS_AFTER {
            true => Ok(()),
            false => Err(self.unseen()),
        }
    }

    /// The job, if it has not ended; also where it was made on another replica a moment ago.
    pub(super) async fn hot_job(&self, id: &JobId) -> Result<Option<jobs::Loaded>, Error> {
        let parts = &self.0;
        if let Some(loaded) = jobs::load(&parts.view, &parts.plans, id).await? {
            return Ok(Some(loaded));
        }
        let Some(record) = parts.store.get(&keys::job_header(id.as_str())).await? else {
            return Ok(None);
        };
        let reaches = parts.view.reaches(record.modified);
        // Where the view hangs, `fresh` says so at the next call.
        let _ = tokio::time::timeout(CATCHES_UP, reaches).await;
        Ok(jobs::load(&parts.view, &parts.plans, id).await?)
    }

    pub(super) async fn ended(&self, id: &JobId) -> Result<Job, Error> {
        let ended = jobs::ended(&*self.0.store, &self.0.plans, id).await?;
        ended.ok_or_else(|| {
            Error::not_found(format!("there is no job {}", id.short())).hint("see `aldis list`")
        })
    }

    /// The job as it stands, again after each change, until it has ended.
    pub async fn watch_job(
        &self,
        typed: &str,
    ) -> Result<impl Stream<Item = Result<JobView, Error>> + use<>, Error> {
        let id = self.job_id(typed).await?;
        let first = self.job_view(&id).await?;
        let (views, stream) = mpsc::channel(VIEWS);
        let services = self.clone();
        tokio::spawn(async move {
            // The reader may leave at any time.
            let _ = services.follow(id, first, views).await;
        });
        Ok(ReceiverStream::new(stream))
    }

    async fn follow(
        &self,
        id: JobId,
        first: JobView,
        views: mpsc::Sender<Result<JobView, Error>>,
    ) -> Result<(), mpsc::error::SendError<Result<JobView, Error>>> {
        let mut changed = self.0.view.changed();
        let mut shown = first.clone();
        views.send(Ok(first)).await?;
        let mut took = Duration::ZERO;
        while !shown.header.state.is_ended() {
            tokio::time::sleep(AT_MOST_EVERY.max(took * RESTS)).await;
            tokio::select! {
                () = views.closed() => return Ok(()),
                changed = changed.changed() => if changed.is_err() { return Ok(()) },
                () = tokio::time::sleep(AT_LEAST_EVERY) => {}
            }
            changed.borrow_and_update();
            let began = Instant::now();
            let view = self.job_view(&id).await;
            took = began.elapsed();
            match view {
                Ok(view) if is_news(&shown, &view) => {
                    shown = view.clone();
                    views.send(Ok(view)).await?;
                }
                Ok(_) => {}
                Err(error) => return views.send(Err(error)).await,
            }
        }
        Ok(())
    }

    /// Jobs, newest first, with what queued ones wait for.
    pub async fn list_jobs(&self, filter: &Filter) -> Result<Vec<Listed>, Error> {
        let turns = self.0.turns.all().await?;
        let listed = self.newest(filter).await?.into_iter().map(|header| {
            let turn = turns
                .get(&header.id)
                .filter(|_| header.state == JobState::Queued);
            let waiting = turn.and_then(WaitingOn::from_turn);
            Listed {
                waiting: waiting.map(|waiting| waiting.to_string()),
                header,
            }
        });
        Ok(listed.collect())
    }

    /// Ended ones are gone through page by page, of which only the newest are held.
    async fn newest(&self, filter: &Filter) -> Result<Vec<Header>, Error> {
        let headers = jobs::headers(&self.0.view);
        for error in &headers.unreadable {
            warn!(error = chain(error), "job left out of a list");
        }
        let mut all = headers.readable;
        let hot: BTreeSet<JobId> = all.iter().map(|header| header.id.clone()).collect();
        all.retain(|header| filter.takes(header));
        let mut behind = None;
        loop {
            let page = self
                .0
                .store
                .list_page(keys::ENDED, behind.as_ref(), PAGE)
                .await?;
            for record in &page {
                match jobs::ended_header(record) {
                    Ok(header) if filter.takes(&header) && !hot.contains(&header.id) => {
                        all.push(header);
                    }
                    Ok(_) => {}
                    Err(error) => warn!(error = chain(&error), "job left out of a list"),
                }
            }
            all.sort_by(|a, b| (b.submitted_at, &b.id).cmp(&(a.submitted_at, &a.id)));
            all.truncate(filter.limit);
            match page.last() {
                Some(last) if page.len() == PAGE => behind = Some(last.key.clone()),
                _ => return Ok(all),
            }
        }
    }

    /// Log lines of a job from every target's agent; with `follow`, until the job has ended.
    pub(crate) async fn job_logs(
        &self,
        typed: &str,
        only: Vec<TargetName>,
        follow: bool,
    ) -> Result<ReceiverStream<Logged>, Error> {
        let id = self.job_id(typed).await?;
        let view = self.job_view(&id).await?;
        let absent: Vec<String> = only
            .iter()
            .filter(|t| !view.targets.contains_key(t))
            .map(ToString::to_string)
            .collect();
        if !absent.is_empty() {
            return Err(Error::not_found(format!(
                "job {} has no target {}",
                id.short(),
                absent.join(", ")
            ))
            .hint(format!("see `aldis status {}`", id.short())));
        }
        let wanted = |target: &&TargetName| only.is_empty() || only.contains(target);
        let targets: Vec<TargetName> = view.targets.keys().filter(wanted).cloned().collect();
        let follow = follow && !view.header.state.is_ended();
        let (lines, stream) = mpsc::channel(LINES);
        for target in targets {
            tokio::spawn(
                self.clone()
                    .copy_logs(id.clone(), target, follow, lines.clone()),
            );
        }
        Ok(ReceiverStream::new(stream))
    }

    async fn copy_logs(
        self,
        job: JobId,
        target: TargetName,
        follow: bool,
        lines: mpsc::Sender<Logged>,
    ) {
        let mut reading = Reading {
            agents: self.0.agents.clone(),
            job: job.clone(),
            target,
            after: 0,
            is_gap_told: false,
            lines,
        };
        if !follow {
            // The reader may have left.
            let _ = reading.once(false).await;
            return;
        }
        let mut ended = std::pin::pin!(self.until_ended(job));
        loop {
            // A stream ends with its agent, its replica or its connection: what was read so far is known,
            // and the next one goes on after it.
            let read = async {
                let read = reading.once(true).await;
                tokio::time::sleep(REOPEN_AFTER).await;
                read
            };
            tokio::select! {
                read = read => if read.is_err() { return },
                () = &mut ended => break,
            }
        }
        // What came last may not have been read, or its agent was away.
        let _ = reading.once(false).await;
    }

    async fn until_ended(self, job: JobId) {
        let mut changed = self.0.view.changed();
        let header = keys::job_header(job.as_str());
        while self.0.view.get(&header).is_some() {
            if changed.changed().await.is_err() {
                return;
            }
        }
        tokio::time::sleep(LAST_LINES).await;
    }

    /// The job with its plan, hot or ended.
    pub(super) async fn whole_job(&self, id: &JobId) -> Result<Arc<Job>, Error> {
        match self.hot_job(id).await? {
            Some(loaded) => Ok(Arc::new(loaded.job)),
            None => Ok(Arc::new(self.ended(id).await?)),
        }
    }
}

/// One target's lines, over as many streams as it takes.
struct Reading {
    agents: Arc<dyn Agents>,
    job: JobId,
    target: TargetName,
    /// The highest number that was read.
    after: u64,
    /// Whether the reader knows that lines cannot be read at present.
    is_gap_told: bool,
    lines: mpsc::Sender<Logged>,
}

impl Reading {
    /// Reads one stream to its end, or says once why there is none. Fails when the reader left.
    async fn once(&mut self, follow: bool) -> Result<(), mpsc::error::SendError<Logged>> {
        let opened = self
            .agents
            .logs(&self.target, &self.job, self.after, follow)
            .await;
        match opened {
            Ok(mut source) => {
                self.is_gap_told = false;
                while let Some(line) = source.next().await {
                    let line = match line {
                        Ok(line) => line,
                        Err(error) => return self.gap(&error).await,
                    };
                    let sequence = line.sequence;
                    self.lines.send(Logged::Line(line)).await?;
                    self.after = self.after.max(sequence);
                }
                Ok(())
            }
            Err(error) => self.gap(&error).await,
        }
    }

    async fn gap(&mut self, error: &AskError) -> Result<(), mpsc::error::SendError<Logged>> {
        if self.is_gap_told {
            return Ok(());
        }
        self.is_gap_told = true;
        let (target, reason) = (self.target.clone(), error.to_string());
        self.lines.send(Logged::Gap { target, reason }).await
    }
}

impl Filter {
    fn takes(&self, header: &Header) -> bool {
        let state =
            self.states.is_empty() || self.states.iter().any(|word| word == header.state.word());
        let runbook = self.runbook.is_empty() || self.runbook == header.runbook.name;
        let by = self.submitted_by.is_empty()
            || self.submitted_by == header.submitted_by
            || header.submitted_by.strip_prefix("user/") == Some(&self.submitted_by);
        state && runbook && by
    }
}

/// Whether anything but the clock differs.
fn is_news(shown: &JobView, view: &JobView) -> bool {
    let at_that_time = JobView {
        now: shown.now,
        ..view.clone()
    };
    at_that_time != *shown
}
