//! A plan becomes a job, once; and what operators ask of the job afterwards.
//!
//! The job's id is the hash of who submits and the idempotency key. So a submission whose answer was
//! lost is simply made again: it finds its own header, hot or ended, and compares bodies.

use aldis_core::canonical;
use aldis_core::ids::{Digest, JobId, PlanId, RequestId, StepId, TargetName};
use aldis_core::job::{Header, JobState, Request, Wish};
use aldis_core::plan::Plan;
use serde_json::json;

use super::{Error, Kind, Services};
use crate::jobs;
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
        let body = body(&plan, submission);
        for _ in 0..TRIES {
            if let Some(found) = self.already(&job, &body).await? {
                return Ok(found);
            }
            let (record, header) = self.plan_header(&plan).await?;
            let whole = self.0.plans.load(&plan).await?;
            self.may_be_submitted(&header, &whole, submission)?;
            let header = self.job_header(&job, &body, &whole, header, submission);
            match self.0.store.commit(creation(&header, &record)).await {
                Ok(outcome) if outcome.is_committed() => {
                    // Whoever asks next, on this replica, finds it.
                    self.0.view.reaches(outcome.revision()).await;
                    return Ok(Submitted {
                        job,
                        existed: false,
                    });
                }
                // Conflict: the same submission was quicker, or the plan expired. Unknown: perhaps it
                // was written. Reading again tells.
                Ok(_) | Err(store::Error::Unknown { .. }) => {}
                Err(error) => return Err(error.into()),
            }
        }
        Err(Error::new(
            Kind::Unavailable,
            format!("cannot tell whether job {} was made", job.short()),
        )
        .hint("submit again: the same plan never makes a second job"))
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

    async fn plan_header(&self, plan: &PlanId) -> Result<(Record, PlanHeader), Error> {
        let record = self.0.store.get(&keys::plan_header(plan.as_str())).await?;
        let record = record.ok_or_else(|| {
            Error::not_found(format!("there is no plan {}", plan.short()))
                .hint("make another with `aldis plan`")
        })?;
        let header = records::read(&record)?;
        Ok((record, header))
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
        let hot = self.0.view.read(jobs::ids).len();
        if hot >= self.0.open_jobs {
            return Err(Error::new(
                Kind::Unavailable,
                format!("{hot} jobs have not ended, more than are taken"),
            )
            .hint("see `aldis list`; cancel what is not wanted"));
        }
        Ok(())
    }

    fn job_header(
        &self,
        job: &JobId,
        body: &Digest,
        plan: &Plan,
        stored: PlanHeader,
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
            link: stored.link,
            state: JobState::Queued,
            drift_checked: false,
            wave: 0,
            soak: None,
            folded: Default::default(),
            started_at: None,
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
        let Some(header) = self.0.store.get(&header_key).await? else {
            return Err(self.no_hot_job(job).await?);
        };
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
        self.makes_sense(job, &records::read(&header)?, &request.wish)
            .await?;
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
        let word = ended.header.state.word();
        Ok(
            Error::refused(format!("job {short} has ended: {word}")).hint(format!(
                "`aldis undo {short}` or `aldis retry {short}` make another job"
            )),
        )
    }

    /// Says at once what the leader would only ignore.
    async fn makes_sense(&self, job: &JobId, header: &Header, wish: &Wish) -> Result<(), Error> {
        let short = job.short();
        match wish {
            Wish::Cancel { .. } => Ok(()),
            Wish::Pause => match header.state {
                JobState::Running | JobState::Queued | JobState::Paused => Ok(()),
                _ => Err(Error::refused(format!(
                    "job {short} is {}: there is nothing to pause",
                    header.state.word()
                ))),
            },
            Wish::Resume => match header.state {
                JobState::Paused | JobState::Running => Ok(()),
                _ => Err(Error::refused(format!(
                    "job {short} is {}, not paused",
                    header.state.word()
                ))),
            },
            Wish::Resolve { target, step, .. } => {
                let plan = self.0.plans.load(&header.plan).await?;
                if !plan.scope.selection.contains_key(target) {
                    return Err(
                        Error::not_found(format!("job {short} has no target {target}"))
                            .hint(format!("see `aldis status {short}`")),
                    );
                }
                let steps: Vec<&str> = plan
                    .scope
                    .body
                    .steps()
                    .map(|step| step.id.as_str())
                    .collect();
                if !steps.contains(&step.as_str()) {
                    return Err(
                        Error::not_found(format!("the runbook has no step `{step}`"))
                            .hint(format!("its steps: {}", steps.join(", "))),
                    );
                }
                self.is_in_doubt(job, target, step).await
            }
        }
    }

    /// What is known of a step is not an operator's to change.
    async fn is_in_doubt(
        &self,
        job: &JobId,
        target: &TargetName,
        step: &StepId,
    ) -> Result<(), Error> {
        let Some(loaded) = jobs::load(&self.0.view, &self.0.plans, job).await? else {
            return Ok(());
        };
        let short = job.short();
        match loaded.job.in_doubt(target) {
            Some(open) if open == step => Ok(()),
            Some(open) => Err(Error::refused(format!(
                "`{step}` on {target} is not in doubt, `{open}` is"
            ))
            .hint(format!("say `--step {open}`"))),
            None => Err(
                Error::refused(format!("nothing on {target} is in doubt")).hint(format!(
                    "`aldis status {short}` shows what job {short} waits for"
                )),
            ),
        }
    }
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

fn body(plan: &PlanId, submission: &Submission) -> Digest {
    canonical::digest(&json!({
        "plan": plan,
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
