//! Questions about plans and jobs.

use std::future::Future;

use aldis_core::ids::TargetName;
use aldis_core::job::Wish;
use aldis_core::view::PlanView;
use aldis_proto::convert::{self, document};
use aldis_proto::v1;
use aldis_proto::v1::job_service_server::JobService;
use aldis_proto::v1::plan_request::Runbook as Named;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};
use tracing::Instrument;

use super::status::{self, unreadable};
use super::{fresh, user};
use crate::services::{Asked, Error, Filter, Progress, Services, Submission, Wanted};
use crate::trace;

/// Answers of a plan that may wait for a slow reader; progress beyond it is not shown.
const ANSWERS: usize = 256;

/// Jobs listed where nobody says how many.
const LISTED: usize = 50;

/// Serves people who plan and watch.
pub struct JobServer {
    services: Services,
}

impl JobServer {
    /// Answers from these services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

type Answers<T> = BoxStream<'static, Result<T, Status>>;

#[tonic::async_trait]
impl JobService for JobServer {
    type PlanStream = Answers<v1::PlanResponse>;
    type PlanLinkedStream = Answers<v1::PlanResponse>;
    type WatchJobStream = Answers<v1::WatchJobResponse>;
    type JobLogsStream = Answers<v1::JobLogsResponse>;

    async fn plan(
        &self,
        request: Request<v1::PlanRequest>,
    ) -> Result<Response<Self::PlanStream>, Status> {
        let by = user(&request)?;
        let wanted = wanted(request.into_inner())?;
        let services = fresh(&self.services).await?.clone();
        Ok(Response::new(planned(move |progress| async move {
            services.plan(wanted, &by, &progress).await
        })))
    }

    async fn get_plan(
        &self,
        request: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        let services = fresh(&self.services).await?;
        let plan = services.show_plan(&request.into_inner().plan).await;
        let plan = Some(document(&plan.map_err(|e| status::of(&e))?));
        Ok(Response::new(v1::GetPlanResponse { plan }))
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        let (by, trace) = (user(&request)?, trace::current());
        let request = request.into_inner();
        let submission = Submission {
            plan: request.plan,
            digest: request.digest,
            idempotency_key: request.idempotency_key,
            reason: request.reason,
            priority: request.priority,
            by,
            trace,
        };
        let services = fresh(&self.services).await?;
        let made = services.submit(&submission).await;
        let made = made.map_err(|e| status::of(&e))?;
        Ok(Response::new(v1::SubmitResponse {
            job: made.job.to_string(),
            existed: made.existed,
        }))
    }

    async fn get_job(
        &self,
        request: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        let services = fresh(&self.services).await?;
        let job = services.show_job(&request.into_inner().job).await;
        let job = Some(document(&job.map_err(|e| status::of(&e))?));
        Ok(Response::new(v1::GetJobResponse { job }))
    }

    async fn list_jobs(
        &self,
        request: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        let request = request.into_inner();
        let filter = Filter {
            states: request.states,
            runbook: request.runbook,
            submitted_by: request.submitted_by,
            limit: match request.limit {
                0 => LISTED,
                given => usize::try_from(given).unwrap_or(LISTED),
            },
        };
        let services = fresh(&self.services).await?;
        let jobs = services.list_jobs(&filter).await;
        let jobs = jobs.map_err(|e| status::of(&e))?;
        let waiting = jobs.iter().filter_map(|listed| {
            let waiting = listed.waiting.clone()?;
            Some((listed.header.id.to_string(), waiting))
        });
        Ok(Response::new(v1::ListJobsResponse {
            waiting: waiting.collect(),
            jobs: jobs.iter().map(|listed| document(&listed.header)).collect(),
        }))
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        let services = fresh(&self.services).await?;
        let views = services.watch_job(&request.into_inner().job).await;
        let views = views.map_err(|e| status::of(&e))?.map(|view| match view {
            Ok(view) => Ok(v1::WatchJobResponse {
                job: Some(document(&view)),
            }),
            Err(error) => Err(status::of(&error)),
        });
        Ok(Response::new(views.boxed()))
    }

    async fn request_job(
        &self,
        request: Request<v1::RequestJobRequest>,
    ) -> Result<Response<v1::RequestJobResponse>, Status> {
        let by = user(&request)?;
        let request = request.into_inner();
        let wish: Wish =
            convert::parse(request.wish.as_ref(), "wish").map_err(|e| unreadable(&e))?;
        let services = fresh(&self.services).await?;
        let existed = services
            .request(
                &request.job,
                &request.request_id,
                &request.reason,
                wish,
                &by,
            )
            .await
            .map_err(|e| status::of(&e))?;
        Ok(Response::new(v1::RequestJobResponse { existed }))
    }

    async fn plan_linked(
        &self,
        request: Request<v1::PlanLinkedRequest>,
    ) -> Result<Response<Self::PlanLinkedStream>, Status> {
        let by = user(&request)?;
        let request = request.into_inner();
        let only = targets(&request.targets)?;
        let services = fresh(&self.services).await?.clone();
        match request.kind.as_str() {
            "retries" => Ok(Response::new(planned(move |progress| async move {
                services
                    .plan_retry(&request.job, only, &by, &progress)
                    .await
            }))),
            "undoes" => Ok(Response::new(planned(move |progress| async move {
                services.plan_undo(&request.job, only, &by, &progress).await
            }))),
            other => Err(Status::invalid_argument(format!(
                "`{other}` is no kind of link: `undoes`, `retries`"
            ))),
        }
    }

    async fn job_logs(
        &self,
        request: Request<v1::JobLogsRequest>,
    ) -> Result<Response<Self::JobLogsStream>, Status> {
        use crate::services::Logged;
        use v1::job_logs_response::Message;
        let request = request.into_inner();
        let only = targets(&request.targets)?;
        let services = fresh(&self.services).await?;
        let lines = services.job_logs(&request.job, only, request.follow).await;
        let lines = lines.map_err(|e| status::of(&e))?.map(|logged| {
            let message = match logged {
                Logged::Line(line) => Message::Line(line),
                Logged::Gap { target, reason } => Message::Gap(v1::LogGap {
                    target: target.to_string(),
                    reason,
                }),
            };
            Ok(v1::JobLogsResponse {
                message: Some(message),
            })
        });
        Ok(Response::new(lines.boxed()))
    }
}

fn wanted(request: v1::PlanRequest) -> Result<Wanted, Status> {
    let runbook = match request.runbook {
        Some(Named::Name(name)) => Asked::Name(name),
        Some(Named::Source(source)) => Asked::File {
            name: source.file,
            text: source.text,
        },
        None => {
            return Err(Status::invalid_argument(
                "invalid message: `runbook` is missing",
            ));
        }
    };
    let params = match request.params_json.as_str() {
        "" => serde_json::Value::Null,
        text => serde_json::from_str(text).map_err(|error| {
            Status::invalid_argument(format!("invalid message: `params_json`: {error}"))
        })?,
    };
    Ok(Wanted {
        runbook,
        params,
        selector: request.selector.into_iter().collect(),
        targets: targets(&request.targets)?,
        link: None,
    })
}

fn targets(names: &[String]) -> Result<Vec<TargetName>, Status> {
    names
        .iter()
        .map(|name| convert::target(name, "targets").map_err(|e| unreadable(&e)))
        .collect()
}

/// Progress while agents answer, then the plan. A refusal ends the stream as a status.
fn planned<F, Planning>(plan: F) -> Answers<v1::PlanResponse>
where
    F: FnOnce(mpsc::Sender<Progress>) -> Planning,
    Planning: Future<Output = Result<PlanView, Error>> + Send + 'static,
{
    use v1::plan_response::Message;
    let (progress, seen) = mpsc::channel(ANSWERS);
    let planning = plan(progress);
    let seen = ReceiverStream::new(seen).map(|progress| {
        Ok(v1::PlanResponse {
            message: Some(Message::Progress(v1::PlanProgress {
                target: progress.target.to_string(),
                simulated: progress.simulated,
                state: progress.state.to_owned(),
                done: u32::try_from(progress.done).unwrap_or(u32::MAX),
                total: u32::try_from(progress.total).unwrap_or(u32::MAX),
            })),
        })
    });
    let (answer, answered) = mpsc::channel(1);
    let plan_and_answer = async move {
        let planned = match planning.await {
            Ok(view) => Ok(v1::PlanResponse {
                message: Some(Message::Plan(document(&view))),
            }),
            Err(error) => Err(status::of(&error)),
        };
        // Whoever asked may have left; the plan is kept for them.
        let _ = answer.send(planned).await;
    };
    let carried = trace::under(trace::current(), plan_and_answer);
    tokio::spawn(carried.in_current_span());
    seen.chain(ReceiverStream::new(answered)).boxed()
}
