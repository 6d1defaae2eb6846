//! Another job over what a job left behind: planned afresh, linked to the old one.

use aldis_core::ids::TargetName;
use aldis_core::job::{Job, Link, Rest, TargetState};
use aldis_core::view::PlanView;
use tokio::sync::mpsc;

use super::{Asked, Error, Progress, Services, Wanted};

impl Services {
    /// Plans the same runbook with the same parameters on the targets that are not changed.
    pub async fn plan_retry(
        &self,
        typed: &str,
        only: Vec<TargetName>,
        by: &str,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PlanView, Error> {
        let id = self.job_id(typed).await?;
        let job = self.whole_job(&id).await?;
        if !job.header.state.is_ended() {
            let short = id.short();
            return Err(Error::refused(format!(
                "job {short} has not ended: it is {}",
                job.header.state.word()
            ))
            .hint(format!(
                "wait for it with `aldis wait {short}`, or end it with `aldis cancel {short}`"
            )));
        }
        let targets = chosen(&job, only)?;
        let scope = &job.plan.scope;
        let wanted = Wanted {
            runbook: Asked::Kept {
                reference: scope.runbook.clone(),
                body: Box::new(scope.body.clone()),
            },
            params: scope.params.clone(),
            selector: Default::default(),
            targets,
            link: Some(Link::Retries { job: id }),
        };
        self.plan(wanted, by, progress).await
    }
}

/// Who was not changed, or those of them that were named.
fn chosen(job: &Job, only: Vec<TargetName>) -> Result<Vec<TargetName>, Error> {
    let short = job.header.id.short();
    let left: Vec<TargetName> = job
        .plan
        .scope
        .selection
        .keys()
        .filter(|name| !is_changed(job, name))
        .cloned()
        .collect();
    if left.is_empty() {
        return Err(Error::refused(format!(
            "job {short} changed every target: nothing is left to try again"
        )));
    }
    if let Some(done) = only.iter().find(|target| !left.contains(target)) {
        let names: Vec<String> = left.iter().map(ToString::to_string).collect();
        return Err(Error::refused(format!(
            "{done} is not among the targets that job {short} left"
        ))
        .hint(format!("those are: {}", names.join(", "))));
    }
    Ok(if only.is_empty() { left } else { only })
}

fn is_changed(job: &Job, name: &TargetName) -> bool {
    matches!(job.target(name).state, TargetState::Rest(Rest::Changed))
}
