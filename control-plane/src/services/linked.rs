//! Another job over what a job left behind: planned afresh, linked to the old one.

use std::sync::Arc;

use aldis_core::ids::TargetName;
use aldis_core::job::{Job, JobState, Link, Rest, Target, TargetState};
use aldis_core::view::PlanView;
use tokio::sync::mpsc;

use super::{Asked, Error, Progress, Services, Wanted};

/// Targets named in one hint; more are counted.
const NAMED: usize = 10;

impl Services {
    /// Plans to put back what a job left.
    pub async fn plan_undo(
        &self,
        typed: &str,
        only: Vec<TargetName>,
        by: &str,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PlanView, Error> {
        let job = self.ended_job(typed).await?;
        let targets = chosen(&job, only, stands, "left nothing to put back")?;
        self.plan_back(&job, &targets, by, progress).await
    }

    /// Plans the same runbook with the same parameters on the targets that are not changed.
    pub async fn plan_retry(
        &self,
        typed: &str,
        only: Vec<TargetName>,
        by: &str,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PlanView, Error> {
        let job = self.ended_job(typed).await?;
        let targets = chosen(&job, only, is_left, "changed every target")?;
        let scope = &job.plan.scope;
        let wanted = Wanted {
            runbook: Asked::Kept {
                reference: scope.runbook.clone(),
                body: Box::new(scope.body.clone()),
            },
            params: scope.params.clone(),
            selector: Default::default(),
            targets,
            link: Some(Link::Retries {
                job: job.header.id.clone(),
            }),
        };
        self.plan(wanted, by, progress).await
    }

    async fn ended_job(&self, typed: &str) -> Result<Arc<Job>, Error> {
        let id = self.job_id(typed).await?;
        let job = self.whole_job(&id).await?;
        if job.header.state.is_ended() {
            return Ok(job);
        }
        let (short, word) = (id.short(), job.header.state.word());
        let why = format!("job {short} has not ended: it is {word}");
        let hint = match &job.header.state {
            JobState::NeedsOperator { .. } => format!(
                "`aldis status {short}` names what keeps it open, and the commands that end that"
            ),
            _ => format!(
                "wait for it with `aldis wait {short}`, or end it with `aldis cancel {short}`"
            ),
        };
        Err(Error::refused(why).hint(hint))
    }
}

/// The targets that qualify, or those of them that were named.
fn chosen(
    job: &Job,
    only: Vec<TargetName>,
    qualifies: fn(&Target) -> bool,
    otherwise: &str,
) -> Result<Vec<TargetName>, Error> {
    let short = job.header.id.short();
    let selection = job.plan.scope.selection.keys();
    let all: Vec<TargetName> = selection
        .filter(|name| qualifies(&job.target(name)))
        .cloned()
        .collect();
    if all.is_empty() {
        return Err(Error::refused(format!("job {short} {otherwise}")));
    }
    if let Some(other) = only.iter().find(|target| !all.contains(target)) {
        let names = all.iter().take(NAMED).map(ToString::to_string);
        let mut names: Vec<String> = names.collect();
        if all.len() > NAMED {
            names.push(format!("and {} more", all.len() - NAMED));
        }
        let why = format!("{other} is not among the targets in question of job {short}");
        return Err(Error::refused(why).hint(format!("those are: {}", names.join(", "))));
    }
    Ok(if only.is_empty() { all } else { only })
}

/// Not changed: it may be tried again.
fn is_left(target: &Target) -> bool {
    target.state != TargetState::Rest(Rest::Changed)
}

/// Something of the job stands there.
fn stands(target: &Target) -> bool {
    target.may_have_effect() && target.state != TargetState::Rest(Rest::Restored)
}
