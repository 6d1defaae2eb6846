//! Agents as the services see them: whom one can ask, wherever their session hangs.

use std::sync::Arc;
use std::time::Duration;

use aldis_core::ids::{JobId, TargetName};
use aldis_core::inventory::Presence;
use aldis_core::question::{Answer, Question};
use aldis_proto::v1::LogLine;
use async_trait::async_trait;
use futures::stream::BoxStream;

use crate::records::{Fleet, Session};

/// Why a question has no answer.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AskError {
    /// No session, or it ended meanwhile.
    #[error("the agent of {target} is not connected")]
    Absent {
        /// Whose.
        target: TargetName,
    },
    /// Connected, and may not be spoken to yet or at all.
    #[error("the agent of {target} cannot be asked: {why}")]
    NotReady {
        /// Whose.
        target: TargetName,
        /// Why.
        why: String,
    },
    /// It did not answer in time.
    #[error("the agent of {target} did not answer within {} s", within.as_secs())]
    Silent {
        /// Whose.
        target: TargetName,
        /// How long was waited.
        within: Duration,
    },
    /// It answered, and not to the end.
    #[error("lines of {target} are missing: {why}")]
    Cut {
        /// Whose.
        target: TargetName,
        /// What happened.
        why: String,
    },
    /// It answered that it cannot.
    #[error("{problem}")]
    Refused {
        /// In its words.
        problem: String,
    },
}

/// A line of a job's log, or why those that follow are missing: then nothing follows.
pub type Logged = Result<LogLine, AskError>;

/// What is known of one agent.
#[derive(Clone, Debug)]
pub struct AgentFacts {
    /// Its cluster.
    pub fleet: Arc<Fleet>,
    /// Its session record, if it ever had one.
    pub session: Option<Arc<Session>>,
    /// What that amounts to now.
    pub presence: Presence,
    /// Time since it was last heard of, where this replica holds the stream.
    pub last_seen: Option<Duration>,
    /// Attempts it should hold now.
    pub open_attempts: usize,
}

/// The law: an answer may be older than the question by the time it arrives, and an agent may be gone
/// the moment after it answered. Nothing here changes anything.
#[async_trait]
pub trait Agents: Send + Sync {
    /// Asks, here or by one hop over the replica that holds the session.
    async fn ask(
        &self,
        target: &TargetName,
        question: Question,
        within: Duration,
    ) -> Result<Answer, AskError>;

    /// Lines of a job's log on one target, after a sequence number; with `follow`, until nobody reads them.
    async fn logs(
        &self,
        target: &TargetName,
        job: &JobId,
        after: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, Logged>, AskError>;

    /// Every agent ever registered, in order.
    fn fleet(&self) -> Vec<AgentFacts>;
}
