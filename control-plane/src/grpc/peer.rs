//! What another replica asks of the agents that hang here.

use std::time::Duration;

use aldis_core::ids::JobId;
use aldis_core::question::Question;
use aldis_proto::convert::{self, document};
use aldis_proto::v1;
use aldis_proto::v1::ask_agent_response::Result as Answered;
use aldis_proto::v1::peer_service_server::PeerService;
use futures::StreamExt;
use futures::stream::BoxStream;
use tonic::{Request, Response, Status};

use super::status::unreadable;
use crate::agents::AskError;
use crate::sessions::Sessions;
use crate::trace;

/// Longest that one hop may wait, whatever the asker says.
const LONGEST: Duration = Duration::from_secs(60);

/// Serves other replicas.
pub struct PeerServer {
    sessions: Sessions,
}

impl PeerServer {
    /// Asks the agents of these sessions.
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

#[tonic::async_trait]
impl PeerService for PeerServer {
    type AgentLogsStream = BoxStream<'static, Result<v1::AgentLogsResponse, Status>>;

    async fn ask_agent(
        &self,
        request: Request<v1::AskAgentRequest>,
    ) -> Result<Response<v1::AskAgentResponse>, Status> {
        let request = request.into_inner();
        let target = convert::target(&request.target, "target").map_err(|e| unreadable(&e))?;
        let question: Question =
            convert::parse(request.question.as_ref(), "question").map_err(|e| unreadable(&e))?;
        let within = Duration::from_millis(request.timeout_ms).min(LONGEST);
        let asked = self
            .sessions
            .ask_here(&target, Some(request.generation), &question, within);
        let asked = trace::under(trace::read(&request.trace), asked);
        let result = match asked.await {
            Ok(answer) => Answered::Answer(document(&answer)),
            Err(AskError::Refused { problem }) => Answered::Error(problem),
            Err(error @ AskError::Silent { .. }) => {
                return Err(Status::deadline_exceeded(error.to_string()));
            }
            Err(
                error
                @ (AskError::Absent { .. } | AskError::NotReady { .. } | AskError::Cut { .. }),
            ) => {
                return Err(Status::unavailable(error.to_string()));
            }
        };
        Ok(Response::new(v1::AskAgentResponse {
            result: Some(result),
        }))
    }

    async fn agent_logs(
        &self,
        request: Request<v1::AgentLogsRequest>,
    ) -> Result<Response<Self::AgentLogsStream>, Status> {
        let request = request.into_inner();
        let target = convert::target(&request.target, "target").map_err(|e| unreadable(&e))?;
        let job = JobId::new(request.job);
        let lines = self
            .sessions
            .logs_here(&target, &job, request.after, request.follow)
            .await
            .map_err(|error| Status::unavailable(error.to_string()))?;
        let lines = lines.map(|line| match line {
            Ok(line) => Ok(v1::AgentLogsResponse { line: Some(line) }),
            Err(AskError::Cut { why, .. }) => Err(Status::aborted(why)),
            Err(error) => Err(Status::aborted(error.to_string())),
        });
        Ok(Response::new(lines.boxed()))
    }
}
