//! Streams of agents. Whose they are is in the certificate.

use aldis_proto::v1::agent_service_server::AgentService;
use aldis_proto::v1::{LogsRequest, SessionRequest};
use tonic::{Request, Response, Status, Streaming};

use super::caller;
use crate::identity::Identity;
use crate::sessions::{Frames, LogAnswers, Sessions};

/// Serves agents.
pub struct AgentServer {
    sessions: Sessions,
}

impl AgentServer {
    /// Hands every stream to the sessions.
    pub fn new(sessions: Sessions) -> Self {
        Self { sessions }
    }
}

#[tonic::async_trait]
impl AgentService for AgentServer {
    type SessionStream = Frames;
    type LogsStream = LogAnswers;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Frames>, Status> {
        let Identity::Agent { target, .. } = caller(&request)? else {
            return Err(Status::permission_denied("only agents have sessions"));
        };
        Ok(Response::new(
            self.sessions.serve(target, request.into_inner()),
        ))
    }

    async fn logs(
        &self,
        request: Request<Streaming<LogsRequest>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let Identity::Agent { target, .. } = caller(&request)? else {
            return Err(Status::permission_denied("only agents have log streams"));
        };
        let lines = request.into_inner();
        Ok(Response::new(self.sessions.take_logs(target, lines)))
    }
}
