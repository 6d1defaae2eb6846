//! The calls, in core types: protobuf ends here.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::{Digest, JobId, PlanId, TargetName};
use aldis_core::job::{Header, Wish};
use aldis_core::view::{JobView, PlanView};
use aldis_proto::convert;
use aldis_proto::v1;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_proto::v1::runbook_service_client::RunbookServiceClient;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;
use tonic::codec::CompressionEncoding::Gzip;
use tonic::{Status, Streaming};

use super::{Client, LARGEST, Service};
use crate::error::Error;
use crate::exit::Exit;

/// Longest silence while agents are asked: each is bounded by the server far below this.
const PLAN_SILENCE: Duration = Duration::from_secs(120);

/// Where a runbook comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// `NAME` or `NAME@VERSION`, known to the server.
    Name(String),
    /// A file that was read here.
    File {
        /// What messages call it.
        file: String,
        /// What it holds.
        text: String,
    },
}

/// What is to be planned.
#[derive(Clone, Debug)]
pub struct PlanRequest {
    /// Which runbook.
    pub source: Source,
    /// Parameters by name.
    pub params: Value,
    /// Labels that narrow the runbook's selection.
    pub selector: BTreeMap<String, String>,
    /// Only these; empty = all.
    pub targets: Vec<TargetName>,
}

/// How far planning has come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanStep {
    /// Who has just answered.
    pub target: String,
    /// True for a practice cluster.
    pub simulated: bool,
    /// With which result.
    pub state: String,
    /// How many have.
    pub done: u32,
    /// Of how many.
    pub total: u32,
}

/// What is to become a job.
#[derive(Clone, Debug)]
pub struct Submission {
    /// The plan.
    pub plan: PlanId,
    /// The digest that was shown.
    pub digest: Digest,
    /// None = the plan's id.
    pub key: Option<String>,
    /// Why.
    pub reason: String,
    /// Higher goes first.
    pub priority: i32,
}

/// Which jobs to list.
#[derive(Clone, Debug, Default)]
pub struct JobFilter {
    /// Words such as `running`; empty = all.
    pub states: Vec<String>,
    /// Of this runbook.
    pub runbook: String,
    /// By this identity.
    pub submitted_by: String,
    /// At most so many.
    pub limit: u32,
}

/// A job in a list.
#[derive(Clone, Debug, PartialEq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Listed {
    /// Its record.
    #[serde(flatten)]
    pub header: Header,
    /// What it waits for in the queue, in words.
    pub waiting: Option<String>,
}

/// An agent, as a replica sees it.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Agent {
    /// Its cluster, `region/cluster`.
    pub target: String,
    /// Version of the program.
    pub version: String,
    /// live, merging, contested, held or lost.
    pub state: String,
    /// Why, where it is not live.
    pub detail: String,
    /// Milliseconds since it was last heard of, or since its session ended; none where the answering
    /// replica cannot say.
    pub last_seen_ms: Option<u64>,
    /// Its labels.
    pub labels: BTreeMap<String, String>,
    /// True for a practice cluster.
    pub simulated: bool,
    /// UID of the cluster that is pinned.
    pub cluster_uid: String,
    /// Fingerprint of the pinned cluster's CA.
    pub ca_fingerprint: String,
    /// Where its session hangs.
    pub replica: String,
    /// Number of its session.
    pub generation: u64,
    /// Its journal.
    pub journal_id: String,
    /// Attempts in its hands.
    pub open_attempts: u32,
    /// Work known to the agent and not to the control plane.
    pub orphans: Vec<String>,
    /// A cluster that is not the pinned one, as registered last.
    pub offered_cluster_uid: String,
}

/// A runbook that the server knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct RunbookEntry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// SHA-256 of its text.
    pub digest: String,
    /// One sentence.
    pub title: String,
    /// `built in` or `pushed`.
    pub origin: String,
}

/// Who the control plane takes us for, and who answers.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Me {
    /// Our identity.
    pub identity: String,
    /// The replica that answers.
    pub replica: String,
    /// Its version.
    pub version: String,
    /// The leader, as it knows it.
    pub leader: String,
}

/// A stream that ended before it should.
#[derive(Clone, Debug)]
pub struct Broken {
    /// Why.
    pub error: Error,
    /// Whether opening it again can help.
    pub passing: bool,
}

/// Something of a log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LogEvent {
    /// A line.
    Line {
        /// Whose.
        target: String,
        /// Of which step; empty = of none.
        step: String,
        /// From 1, without gaps.
        sequence: u64,
        /// Milliseconds since 1970 by the agent's clock.
        at_ms: u64,
        /// The line.
        text: String,
    },
    /// Lines of a target that could not be read.
    Gap {
        /// Whose.
        target: String,
        /// Why.
        reason: String,
    },
}

/// Views of a job, one after each change.
pub struct WatchStream<'a> {
    client: &'a Client,
    inner: Streaming<v1::WatchJobResponse>,
}

impl WatchStream<'_> {
    /// The next view; none when the job has ended.
    pub async fn next(&mut self) -> Result<Option<JobView>, Broken> {
        match self.inner.message().await {
            Ok(Some(message)) => read(message.job.as_ref(), "job")
                .map(Some)
                .map_err(final_break),
            Ok(None) => Ok(None),
            Err(status) => Err(self.client.broken(&status)),
        }
    }
}

/// Lines of a job's logs.
pub struct LogStream<'a> {
    client: &'a Client,
    inner: Streaming<v1::JobLogsResponse>,
}

impl LogStream<'_> {
    /// The next line; none at the end.
    pub async fn next(&mut self) -> Result<Option<LogEvent>, Broken> {
        use v1::job_logs_response::Message;
        loop {
            let message = self.inner.message().await;
            return match message.map_err(|status| self.client.broken(&status))? {
                None => Ok(None),
                Some(v1::JobLogsResponse { message: None }) => continue,
                Some(v1::JobLogsResponse {
                    message: Some(Message::Line(line)),
                }) => Ok(Some(LogEvent::Line {
                    target: line.target,
                    step: line.step,
                    sequence: line.sequence,
                    at_ms: line.at_ms,
                    text: line.text,
                })),
                Some(v1::JobLogsResponse {
                    message: Some(Message::Gap(gap)),
                }) => Ok(Some(LogEvent::Gap {
                    target: gap.target,
                    reason: gap.reason,
                })),
            };
        }
    }
}

fn final_break(error: Error) -> Broken {
    Broken {
        error,
        passing: false,
    }
}

fn read<T: DeserializeOwned>(
    document: Option<&v1::Document>,
    field: &'static str,
) -> Result<T, Error> {
    convert::parse(document, field).map_err(|error| {
        Error::new(
            Exit::Other,
            format!("the server's answer cannot be read: {error}"),
        )
        .hint("is the server of another version? `aldis version` prints both")
    })
}

impl Client {
    fn jobs(service: Service) -> JobServiceClient<Service> {
        JobServiceClient::new(service)
            .max_decoding_message_size(LARGEST)
            .accept_compressed(Gzip)
    }

    fn fleet(service: Service) -> FleetServiceClient<Service> {
        FleetServiceClient::new(service).max_decoding_message_size(LARGEST)
    }

    fn runbook_service(service: Service) -> RunbookServiceClient<Service> {
        RunbookServiceClient::new(service)
    }

    /// Plans; changes nothing. `progress` hears of each target that has answered.
    pub async fn plan(
        &self,
        request: &PlanRequest,
        progress: impl Fn(PlanStep),
    ) -> Result<PlanView, Error> {
        let request = v1::PlanRequest {
            runbook: Some(match &request.source {
                Source::Name(name) => v1::plan_request::Runbook::Name(name.clone()),
                Source::File { file, text } => {
                    v1::plan_request::Runbook::Source(v1::RunbookSource {
                        file: file.clone(),
                        text: text.clone(),
                    })
                }
            }),
            params_json: request.params.to_string(),
            selector: request.selector.clone().into_iter().collect(),
            targets: names(&request.targets),
        };
        let document = self
            .again(async |service| {
                let stream = Self::jobs(service).plan(request.clone()).await?;
                planned(stream.into_inner(), &progress).await
            })
            .await?;
        read(Some(&document), "plan")
    }

    /// Plans a job that `undoes` or `retries` another.
    pub async fn plan_linked(
        &self,
        job: &JobId,
        kind: &str,
        targets: &[TargetName],
        progress: impl Fn(PlanStep),
    ) -> Result<PlanView, Error> {
        let request = v1::PlanLinkedRequest {
            job: job.to_string(),
            kind: kind.to_owned(),
            targets: names(targets),
        };
        let document = self
            .again(async |service| {
                let stream = Self::jobs(service).plan_linked(request.clone()).await?;
                planned(stream.into_inner(), &progress).await
            })
            .await?;
        read(Some(&document), "plan")
    }

    /// A plan by its id or an unambiguous prefix.
    pub async fn stored_plan(&self, plan: &str) -> Result<PlanView, Error> {
        let request = v1::GetPlanRequest {
            plan: plan.to_owned(),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::jobs(service).get_plan(request).await }
            })
            .await?;
        read(answer.plan.as_ref(), "plan")
    }

    /// Makes a job of a plan; true when the job was there already.
    pub async fn submit(&self, submission: &Submission) -> Result<(JobId, bool), Error> {
        let request = v1::SubmitRequest {
            plan: submission.plan.to_string(),
            digest: submission.digest.to_string(),
            idempotency_key: submission.key.clone().unwrap_or_default(),
            reason: submission.reason.clone(),
            priority: submission.priority,
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::jobs(service).submit(request).await }
            })
            .await?;
        Ok((JobId::new(answer.job), answer.existed))
    }

    /// A job by its id or an unambiguous prefix.
    pub async fn job(&self, job: &str) -> Result<JobView, Error> {
        let request = v1::GetJobRequest {
            job: job.to_owned(),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::jobs(service).get_job(request).await }
            })
            .await?;
        read(answer.job.as_ref(), "job")
    }

    /// Jobs, newest first.
    pub async fn list_jobs(&self, filter: &JobFilter) -> Result<Vec<Listed>, Error> {
        let request = v1::ListJobsRequest {
            states: filter.states.clone(),
            runbook: filter.runbook.clone(),
            submitted_by: filter.submitted_by.clone(),
            limit: filter.limit,
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::jobs(service).list_jobs(request).await }
            })
            .await?;
        let mut waiting = answer.waiting;
        let listed = answer.jobs.iter().map(|job| {
            let header: Header = read(Some(job), "jobs")?;
            let waiting = waiting.remove(header.id.as_str());
            Ok(Listed { header, waiting })
        });
        listed.collect()
    }

    /// Follows a job.
    pub async fn watch(&self, job: &JobId) -> Result<WatchStream<'_>, Broken> {
        let request = v1::WatchJobRequest {
            job: job.to_string(),
        };
        let opened = Self::jobs(self.service()).watch_job(request).await;
        let inner = opened.map_err(|status| self.broken(&status))?.into_inner();
        Ok(WatchStream {
            client: self,
            inner,
        })
    }

    /// Asks something of a job; true when this very request was there already.
    pub async fn request(
        &self,
        job: &JobId,
        request_id: &str,
        reason: &str,
        wish: &Wish,
    ) -> Result<bool, Error> {
        let request = v1::RequestJobRequest {
            job: job.to_string(),
            request_id: request_id.to_owned(),
            reason: reason.to_owned(),
            wish: Some(convert::document(wish)),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::jobs(service).request_job(request).await }
            })
            .await?;
        Ok(answer.existed)
    }

    /// Reads the logs of a job.
    pub async fn logs(
        &self,
        job: &JobId,
        targets: &[TargetName],
        follow: bool,
    ) -> Result<LogStream<'_>, Broken> {
        let request = v1::JobLogsRequest {
            job: job.to_string(),
            targets: names(targets),
            follow,
        };
        let opened = Self::jobs(self.service()).job_logs(request).await;
        let inner = opened.map_err(|status| self.broken(&status))?.into_inner();
        Ok(LogStream {
            client: self,
            inner,
        })
    }

    /// Agents that have these labels, in this region; empty = all.
    pub async fn agents(
        &self,
        selector: &BTreeMap<String, String>,
        region: &str,
    ) -> Result<Vec<Agent>, Error> {
        let request = v1::ListAgentsRequest {
            selector: selector.clone().into_iter().collect(),
            region: region.to_owned(),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::fleet(service).list_agents(request).await }
            })
            .await?;
        Ok(answer.agents.into_iter().map(agent).collect())
    }

    /// One agent.
    pub async fn agent(&self, target: &TargetName) -> Result<Agent, Error> {
        let request = v1::GetAgentRequest {
            target: target.to_string(),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::fleet(service).get_agent(request).await }
            })
            .await?;
        answer
            .agent
            .map(agent)
            .ok_or_else(|| Error::new(Exit::Other, format!("the server says nothing of {target}")))
    }

    /// Accepts another cluster behind a target's name.
    pub async fn repin(
        &self,
        target: &TargetName,
        cluster_uid: &str,
        reason: &str,
    ) -> Result<(), Error> {
        let request = v1::RepinAgentRequest {
            target: target.to_string(),
            cluster_uid: cluster_uid.to_owned(),
            reason: reason.to_owned(),
        };
        self.unary(|service| {
            let request = request.clone();
            async move { Self::fleet(service).repin_agent(request).await }
        })
        .await
        .map(|_| ())
    }

    /// Who we are to the control plane.
    pub async fn whoami(&self) -> Result<Me, Error> {
        let answer = self
            .unary(|service| async move { Self::fleet(service).whoami(v1::WhoamiRequest {}).await })
            .await?;
        Ok(Me {
            identity: answer.identity,
            replica: answer.replica,
            version: answer.version,
            leader: answer.leader,
        })
    }

    /// Stores a runbook; true when it was there already.
    pub async fn push_runbook(
        &self,
        file: &str,
        text: &str,
    ) -> Result<(RunbookEntry, bool), Error> {
        let request = v1::PushRunbookRequest {
            source: Some(v1::RunbookSource {
                file: file.to_owned(),
                text: text.to_owned(),
            }),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::runbook_service(service).push_runbook(request).await }
            })
            .await?;
        let entry = RunbookEntry {
            name: answer.name,
            version: answer.version,
            digest: answer.digest,
            title: String::new(),
            origin: "pushed".to_owned(),
        };
        Ok((entry, answer.existed))
    }

    /// Runbooks that the server knows.
    pub async fn runbooks(&self) -> Result<Vec<RunbookEntry>, Error> {
        let answer = self
            .unary(|service| async move {
                let request = v1::ListRunbooksRequest {};
                Self::runbook_service(service).list_runbooks(request).await
            })
            .await?;
        Ok(answer.runbooks.into_iter().map(runbook_entry).collect())
    }

    /// One runbook with its text, by `NAME` or `NAME@VERSION`.
    pub async fn runbook(&self, name: &str) -> Result<(RunbookEntry, String), Error> {
        let request = v1::GetRunbookRequest {
            name: name.to_owned(),
        };
        let answer = self
            .unary(|service| {
                let request = request.clone();
                async move { Self::runbook_service(service).get_runbook(request).await }
            })
            .await?;
        let info = answer.info.ok_or_else(|| {
            Error::new(Exit::Other, format!("the server says nothing of `{name}`"))
        })?;
        Ok((runbook_entry(info), answer.text))
    }
}

/// Reads the stream of a plan to its end.
async fn planned(
    mut stream: Streaming<v1::PlanResponse>,
    progress: &impl Fn(PlanStep),
) -> Result<v1::Document, Status> {
    use v1::plan_response::Message;
    loop {
        let next = tokio::time::timeout(PLAN_SILENCE, stream.message());
        let message = next.await.map_err(|_| {
            let silence = PLAN_SILENCE.as_secs();
            Status::deadline_exceeded(format!("nothing was heard of the plan for {silence} s"))
        })??;
        match message.map(|message| message.message) {
            Some(Some(Message::Plan(document))) => return Ok(document),
            Some(Some(Message::Progress(step))) => progress(PlanStep {
                target: step.target,
                simulated: step.simulated,
                state: step.state,
                done: step.done,
                total: step.total,
            }),
            Some(None) => {}
            None => {
                return Err(Status::unavailable(
                    "the server ended before the plan was made",
                ));
            }
        }
    }
}

fn names(targets: &[TargetName]) -> Vec<String> {
    targets.iter().map(ToString::to_string).collect()
}

fn agent(info: v1::AgentInfo) -> Agent {
    Agent {
        target: info.target,
        version: info.version,
        state: info.state,
        detail: info.detail,
        last_seen_ms: (!info.last_seen_unknown).then_some(info.last_seen_ms),
        labels: info.labels.into_iter().collect(),
        simulated: info.simulated,
        cluster_uid: info.cluster_uid,
        ca_fingerprint: info.ca_fingerprint,
        replica: info.replica,
        generation: info.generation,
        journal_id: info.journal_id,
        open_attempts: info.open_attempts,
        orphans: info.orphans,
        offered_cluster_uid: info.offered_cluster_uid,
    }
}

fn runbook_entry(info: v1::RunbookInfo) -> RunbookEntry {
    RunbookEntry {
        name: info.name,
        version: info.version,
        digest: info.digest,
        title: info.title,
        origin: info.origin,
    }
}
