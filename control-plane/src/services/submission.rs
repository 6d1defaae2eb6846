//! A plan becomes a job, once; and what operators ask of the job afterwards.
//!
//! The job's id is the hash of who submits and the idempotency key. So a submission whose answer was
//! lost is simply made again: it finds its own header, hot or ended, and compares bodies.

use std::sync::Arc;

use aldis_core::canonical;
use aldis_core::ids::{Digest, JobId, PlanId, RequestId};
use aldis_core::job::{Header, JobState, Request, Wish};
use aldis_core::plan::Plan;
use serde_json::json;

use super::{Error, Kind, Services};
use crate::jobs::{self, StoredPlan};
use crate::records::{self, Ended, PlanHeader};
use crate::store::keys::{self, Name};
use crate::store::{self, Commit, Precondition, Record, Write};
use crate::view;

/// Tries of one submission whose outcome the store did not tell.
const TRIES: usize = 3;

/// Requests of one job: people ask for a handful, and a target each that they resolve.
const REQUESTS: usize = 4096;

/// Longest key, reason or request id, in bytes.
const LONGEST: usize = 1024;

/// What is submitted.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The plan, as typed.
    pub plan: String,
    /// The digest that was shown; empty = whatever the plan has.
    pub digest: String,
    /// Empty = the plan's id.
    pub idempotency_key: String,
    /// Why.
    pub reason: String,
    /// Higher goes first.
    pub priority: i32,
    /// Who.
    pub by: String,
    /// Trace id carried from the command line.
    pub trace: Option<String>,
}

/// The job of a submission.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Submitted {
    /// Which.
    pub job: JobId,
    /// Whether it was there already.
    pub existed: bool,
}

impl Services {
    /// Makes the job, or finds the one that was made.
    pub async fn submit(&self, submission: &Submission) -> Result<Submitted, Error> {
        bounded("idempotency key", &submission.idempotency_key)?;
        bounded("reason", &submission.reason)?;
        let plan = self.plan_id(&submission.plan).await?;
        let key = match submission.idempotency_key.as_str() {
            "" => plan.as_str(),
            given => given,
        };
        let job = JobId::of_submission(&submission.by, key);
        if let Some(submitted) = self.submit_at_once(&job, &plan, submission).await? {
            return Ok(submitted);
        }
        for _ in 0..TRIES {
            let stored = self.plan_header(&plan).await?;
            if let Some(found) = self.already(&job, &body(&stored.1, submission)).await? {
                return Ok(found);
            }
            let creation = self.creation(&job, &stored, submission).await?;
            let written = self.0.store.commit(creation).await;
            if let Some(submitted) = self.submitted(&job, written).await? {
                return Ok(submitted);
            }
        }
        Err(Error::new(
            Kind::Unavailable,
            format!("cannot tell whether job {} was made", job.short()),
        )
        .hint("submit again: the same plan never makes a second job"))
    }

    /// The usual case, in one transaction and no read: the plan as this replica knows it, and no such job. None
    /// where it is not so simple; the preconditions let nothing wrong be written.
    async fn submit_at_once(
        &self,
        job: &JobId,
        plan: &PlanId,
        submission: &Submission,
    ) -> Result<Option<Submitted>, Error> {
        if self.0.view.get(&keys::job_header(job.as_str())).is_some() {
            return Ok(None);
        }
        let stored = match self.0.plans.kept_header(plan) {
            Some(kept) => kept,
            None => self.plan_header(plan).await?,
        };
        // A refusal may be wrong by now, and a job that is there already is found all the same.
        let Ok(creation) = self.creation(job, &stored, submission).await else {
            return Ok(None);
        };
        let written = self.0.gathering.commit(creation).await;
        self.submitted(job, written).await
    }

    /// The commit that makes the job, if the plan may be submitted.
    async fn creation(
        &self,
        job: &JobId,
        (record, header): &StoredPlan,
        submission: &Submission,
    ) -> Result<Commit, Error> {
        let whole = self.0.plans.load(&header.id).await?;
        self.may_be_submitted(header, &whole, submission)?;
        let body = body(header, submission);
        let made = self.job_header(job, &body, &whole, header, submission);
        Ok(creation(&made, record))
    }

    /// What a write says of the job; none where reading again tells more.
    async fn submitted(
        &self,
        job: &JobId,
        written: store::Result<store::Outcome>,
    ) -> Result<Option<Submitted>, Error> {
        match written {
            Ok(outcome) if outcome.is_committed() => {
                // Whoever asks next, on this replica, finds it.
                self.0.view.reaches(outcome.revision()).await;
                Ok(Some(Submitted {
                    job: job.clone(),
                    existed: false,
                }))
            }
            // Conflict: the same submission was quicker, or the plan expired. Unknown: perhaps it was written.
            Ok(_) | Err(store::Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// The job of this id, if there is one; refused when it was made of something else.
    async fn already(&self, job: &JobId, ours: &Digest) -> Result<Option<Submitted>, Error> {
        let hot = self.0.store.get(&keys::job_header(job.as_str())).await?;
        let body = match hot {
            Some(record) => Some(records::read::<Header>(&record)?.body),
            None => {
                let ended = self.0.store.get(&keys::ended(job.as_str())).await?;
                ended
                    .map(|record| records::read::<Ended>(&record).map(|ended| ended.header.body))
                    .transpose()?
            }
        };
        match body {
            None => Ok(None),
            Some(body) if body == *ours => Ok(Some(Submitted {
                job: job.clone(),
                existed: true,
            })),
            Some(_) => Err(Error::refused(format!(
                "the idempotency key was used for another submission: job {}",
                job.short()
            ))
            .hint(format!(
                "look at it with `aldis status {}`, or choose another `--idempotency-key`",
                job.short()
            ))),
        }
    }

    async fn plan_header(&self, plan: &PlanId) -> Result<StoredPlan, Error> {
        let record = self.0.store.get(&keys::plan_header(plan.as_str())).await?;
        let record = record.ok_or_else(|| {
            Error::not_found(format!("there is no plan {}", plan.short()))
                .hint("make another with `aldis plan`")
        })?;
        let header = Arc::new(records::read::<PlanHeader>(&record)?);
        let stored = (record, header);
        self.0.plans.keep_header(&stored);
        Ok(stored)
    }

    fn may_be_submitted(
        &self,
        header: &PlanHeader,
        plan: &Plan,
        submission: &Submission,
    ) -> Result<(), Error> {
        let short = plan.id.short();
        if header.expired || self.now() > header.scope.expires_at {
            return Err(Error::refused(format!("plan {short} has expired"))
                .hint("plan again: the fleet may have changed"));
        }
        if !submission.digest.is_empty() && submission.digest != plan.digest.as_str() {
            return Err(Error::refused(format!(
                "plan {short} is not the one that was shown: its digest is {}",
                plan.digest.short()
            ))
            .hint(format!("look at it with `aldis plan show {short}`")));
        }
        let refusals = plan.refusals();
        if !refusals.is_empty() {
            return Err(Error::refused(format!(
                "plan {short} is refused:\n  {}",
                refusals.join("\n  ")
            ))
            .hint("mend that and plan again, or leave those targets out"));
        }
        let hot = self.0.view.open_jobs();
        if hot >= self.0.open_jobs {
            return Err(
                Error::refused(format!("{hot} jobs have not ended, as many as are taken"))
                    .hint("see `aldis list`; cancel what is not wanted"),
            );
        }
        Ok(())
    }

    fn job_header(
        &self,
        job: &JobId,
        body: &Digest,
        plan: &Plan,
        stored: &PlanHeader,
        submission: &Submission,
    ) -> Header {
        Header {
            format: Header::FORMAT,
            id: job.clone(),
            plan: plan.id.clone(),
            digest: plan.digest.clone(),
            body: body.clone(),
            runbook: plan.scope.runbook.clone(),
            selected: plan.scope.selection.len(),
            simulated: plan.parts.values().any(|part| part.simulated),
            submitted_by: submission.by.clone(),
            reason: Some(submission.reason.clone()).filter(|reason| !reason.is_empty()),
            submitted_at: self.now(),
            priority: submission.priority,
            trace: submission.trace.clone(),
            link: stored.link.clone(),
            state: JobState::Queued,
            drift_checked: false,
            wave: 0,
            soak: None,
            folded: Default::default(),
            started_at: None,
            resumed_at: None,
            ended_at: None,
        }
    }

    /// Writes down what an operator asks of a job; true when it was there already.
    pub async fn request(
        &self,
        typed: &str,
        id: &str,
        reason: &str,
        wish: Wish,
        by: &str,
    ) -> Result<bool, Error> {
        bounded("reason", reason)?;
        if id.is_empty() {
            return Err(Error::usage(
                "a request needs an id, so that a repeat is the same request",
            ));
        }
        bounded("request id", id)?;
        let job = self.job_id(typed).await?;
        let request = Request {
            format: 1,
            id: RequestId::new(id),
            by: by.to_owned(),
            reason: reason.to_owned(),
            wish,
            at: self.now(),
        };
        for _ in 0..TRIES {
            if let Some(existed) = self.write_request(&job, &request).await? {
                return Ok(existed);
            }
        }
        let problem = format!("cannot tell whether job {} was asked that", job.short());
        Err(Error::new(Kind::Unavailable, problem)
            .hint("ask again: the same request is taken once"))
    }

    /// One try: whether it was there already; none where that cannot be told, or the job changed meanwhile.
    async fn write_request(&self, job: &JobId, request: &Request) -> Result<Option<bool>, Error> {
        let header_key = keys::job_header(job.as_str());
        if self.0.store.get(&header_key).await?.is_none() {
            return Err(self.no_hot_job(job).await?);
        }
        let key = keys::job_request(job.as_str(), request.id.as_str());
        if let Some(record) = self.0.store.get(&key).await? {
            let there: Request = records::read(&record)?;
            return match there.wish == request.wish {
                true => Ok(Some(true)),
                false => Err(Error::refused(format!(
                    "request id `{}` was used for something else",
                    request.id
                ))),
            };
        }
        self.makes_sense(job, &request.wish).await?;
        self.has_room_for_a_request(job)?;
        let commit = Commit {
            preconditions: vec![
                Precondition::Exists(header_key),
                Precondition::Absent(key.clone()),
            ],
            writes: vec![Write::put(key, records::write(request))],
        };
        match self.0.store.commit(commit).await {
            Ok(outcome) if outcome.is_committed() => Ok(Some(false)),
            Ok(_) | Err(store::Error::Unknown { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Each request stays with its job, and every decision reads them all.
    fn has_room_for_a_request(&self, job: &JobId) -> Result<(), Error> {
        let prefix = keys::job_prefix(job.as_str());
        let asked = self.0.view.read(|all| {
            let records = view::under(all, &prefix);
            records
                .filter(|r| matches!(r.key.name(), Some(Name::JobRequest { .. })))
                .count()
        });
        if asked < REQUESTS {
            return Ok(());
        }
        let problem = format!(
            "job {} was asked {asked} things, as many as it takes",
            job.short()
        );
        Err(Error::refused(problem).hint(format!(
            "see what it waits for: `aldis status {}`",
            job.short()
        )))
    }

    async fn no_hot_job(&self, job: &JobId) -> Result<Error, Error> {
        let short = job.short();
        let Some(record) = self.0.store.get(&keys::ended(job.as_str())).await? else {
            return Ok(
                Error::not_found(format!("there is no job {short}")).hint("see `aldis list`")
            );
        };
        let ended: Ended = records::read(&record)?;
        Ok(has_ended(short, ended.header.state.word()))
    }

    /// Says at once what the leader would only pass over.
    async fn makes_sense(&self, job: &JobId, wish: &Wish) -> Result<(), Error> {
        let Some(loaded) = jobs::load(&self.0.view, &self.0.plans, job).await? else {
            // This replica has not heard of it yet.
            return Ok(());
        };
        let short = job.short();
        loaded.job.makes_sense(wish).map_err(|why| {
            let said = format!("job {short}: {why}");
            let error = if why.is_not_found() {
                Error::not_found(said)
            } else {
                Error::refused(said)
            };
            error.hint(why.hint(short))
        })
    }
}

fn has_ended(short: &str, word: &str) -> Error {
    Error::refused(format!("job {short} has ended: {word}")).hint(format!(
        "`aldis undo {short}` or `aldis retry {short}` make another job"
    ))
}

fn creation(header: &Header, plan: &Record) -> Commit {
    let id = header.id.as_str();
    let key = keys::job_header(id);
    Commit {
        preconditions: vec![
            Precondition::Absent(key.clone()),
            Precondition::Absent(keys::ended(id)),
            Precondition::Modified {
                key: plan.key.clone(),
                at: plan.modified,
            },
        ],
        writes: vec![Write::put(key, records::write(header))],
    }
}

/// What is asked for, whichever plan was made of it: who asks the same again means the same job.
fn body(plan: &PlanHeader, submission: &Submission) -> Digest {
    let scope = &plan.scope;
    canonical::digest(&json!({
        "runbook": scope.runbook,
        "params": scope.params,
        "selector": scope.selector,
        "targets": scope.selection.keys().collect::<Vec<_>>(),
        "link": plan.link,
        "reason": submission.reason,
        "priority": submission.priority,
    }))
}

fn bounded(what: &str, text: &str) -> Result<(), Error> {
    if text.len() > LONGEST {
        return Err(Error::usage(format!(
            "the {what} is longer than {LONGEST} bytes"
        )));
    }
    Ok(())
}
