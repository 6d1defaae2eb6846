//! Asking an agent wherever its session hangs: here, or one hop over the replica that holds it.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use aldis_core::ids::{JobId, JournalId, TargetName, Timestamp};
use aldis_core::inventory::Presence;
use aldis_core::job::Target;
use aldis_core::plan::ClusterIdentity;
use aldis_core::question::{Answer, Question};
use aldis_core::reconcile::RecordedJournal;
use aldis_proto::convert::{document, parse};
use aldis_proto::v1::{self, LogLine};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;

use super::Sessions;
use crate::agents::{AgentFacts, Agents, AskError, Logged};
use crate::presence::{self, Known};
use crate::records::{self, Fleet, Layout, Replica};
use crate::store::keys::{self, Name};
use crate::trace;
use crate::view;

/// One hop to another replica.
#[async_trait]
pub trait Hop: Send + Sync {
    /// Asks over the replica at this address; it answers for the session of this generation only.
    async fn ask(
        &self,
        address: &str,
        request: v1::AskAgentRequest,
        within: Duration,
    ) -> Result<v1::AskAgentResponse, tonic::Status>;

    /// Log lines over the replica at this address.
    async fn logs(
        &self,
        address: &str,
        request: v1::AgentLogsRequest,
    ) -> Result<BoxStream<'static, Result<LogLine, tonic::Status>>, tonic::Status>;
}

/// Every agent of the fleet.
pub struct Directory<H> {
    sessions: Sessions,
    hop: H,
}

impl<H: Hop> Directory<H> {
    /// Asks here where it can, else by that hop.
    pub fn new(sessions: Sessions, hop: H) -> Self {
        Self { sessions, hop }
    }

    fn known(&self, target: &TargetName) -> Result<Known, AskError> {
        let known = self
            .sessions
            .0
            .parts
            .view
            .read(|all| presence::one(all, target));
        known.ok().flatten().ok_or_else(|| AskError::Absent {
            target: target.clone(),
        })
    }

    /// Generation of the session and the address of the replica that holds it.
    fn elsewhere(&self, target: &TargetName) -> Result<(u64, String), AskError> {
        let absent = || AskError::Absent {
            target: target.clone(),
        };
        let known = self.known(target)?;
        let (session, _) = known.session.ok_or_else(absent)?;
        let parts = &self.sessions.0.parts;
        if session.replica.is_empty() || session.replica == parts.replica {
            return Err(absent());
        }
        let record = parts
            .view
            .get(&keys::replica(&session.replica))
            .ok_or_else(absent)?;
        let replica: Replica = records::read(&record).map_err(|_| absent())?;
        Ok((session.generation, replica.address))
    }
}

impl Sessions {
    /// Asks an agent whose session hangs here. With a generation, only that session.
    pub async fn ask_here(
        &self,
        target: &TargetName,
        generation: Option<u64>,
        question: &Question,
        within: Duration,
    ) -> Result<Answer, AskError> {
        let absent = || AskError::Absent {
            target: target.clone(),
        };
        let live = self.0.session(target).ok_or_else(absent)?;
        if generation.is_some_and(|generation| generation != live.generation) {
            return Err(absent());
        }
        let id = self.0.number();
        let (sender, answer) = oneshot::channel();
        live.asked().insert(id, sender);
        let ask = v1::Ask {
            id,
            timeout_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            question: Some(document(question)),
            trace: trace::current().unwrap_or_default(),
        };
        if !self
            .0
            .send(&live, v1::session_response::Message::Ask(ask))
            .await
        {
            live.asked().remove(&id);
            return Err(absent());
        }
        let answered = tokio::time::timeout(within, answer).await;
        live.asked().remove(&id);
        match answered {
            Ok(Ok(answer)) => read_answer(answer.result.map(|result| match result {
                v1::answer::Result::Answer(document) => Ok(document),
                v1::answer::Result::Error(problem) => Err(problem),
            })),
            Ok(Err(_)) => Err(absent()),
            Err(_) => Err(AskError::Silent {
                target: target.clone(),
                within,
            }),
        }
    }

    /// Log lines of an agent whose session hangs here.
    pub async fn logs_here(
        &self,
        target: &TargetName,
        job: &JobId,
        after: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, Logged>, AskError> {
        let absent = || AskError::Absent {
            target: target.clone(),
        };
        let live = self.0.session(target).ok_or_else(absent)?;
        let (stream, lines) = self.0.expect_logs(target, job);
        let open = v1::OpenLogs {
            stream,
            job: job.to_string(),
            after,
            follow,
        };
        if self
            .0
            .send(&live, v1::session_response::Message::OpenLogs(open))
            .await
        {
            self.0.give_up_logs_in_time(stream);
            Ok(ReceiverStream::new(lines).boxed())
        } else {
            self.0.forget_logs(stream);
            Err(absent())
        }
    }
}

fn read_answer(result: Option<Result<v1::Document, String>>) -> Result<Answer, AskError> {
    match result {
        Some(Ok(answer)) => {
            parse(Some(&answer), "answer.answer").map_err(|error| AskError::Refused {
                problem: error.to_string(),
            })
        }
        Some(Err(problem)) => Err(AskError::Refused { problem }),
        None => Err(AskError::Refused {
            problem: "the agent sent an empty answer".to_owned(),
        }),
    }
}

#[async_trait]
impl<H: Hop> Agents for Directory<H> {
    async fn ask(
        &self,
        target: &TargetName,
        question: Question,
        within: Duration,
    ) -> Result<Answer, AskError> {
        if self.sessions.0.session(target).is_some() {
            return self
                .sessions
                .ask_here(target, None, &question, within)
                .await;
        }
        let (generation, address) = self.elsewhere(target)?;
        let request = v1::AskAgentRequest {
            target: target.to_string(),
            generation,
            timeout_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            question: Some(document(&question)),
            trace: trace::current().unwrap_or_default(),
        };
        let response = self
            .hop
            .ask(&address, request, within)
            .await
            .map_err(|status| {
                let target = target.clone();
                match status.code() {
                    tonic::Code::DeadlineExceeded => AskError::Silent { target, within },
                    _ => AskError::NotReady {
                        target,
                        why: status.message().to_owned(),
                    },
                }
            })?;
        read_answer(response.result.map(|result| match result {
            v1::ask_agent_response::Result::Answer(document) => Ok(document),
            v1::ask_agent_response::Result::Error(problem) => Err(problem),
        }))
    }

    async fn logs(
        &self,
        target: &TargetName,
        job: &JobId,
        after: u64,
        follow: bool,
    ) -> Result<BoxStream<'static, Logged>, AskError> {
        if self.sessions.0.session(target).is_some() {
            return self.sessions.logs_here(target, job, after, follow).await;
        }
        let (_, address) = self.elsewhere(target)?;
        let request = v1::AgentLogsRequest {
            target: target.to_string(),
            job: job.to_string(),
            after,
            follow,
        };
        let lines = self.hop.logs(&address, request).await;
        let lines = lines.map_err(|status| AskError::NotReady {
            target: target.clone(),
            why: status.message().to_owned(),
        })?;
        let target = target.clone();
        let lines = lines.map(move |line| {
            line.map_err(|status| AskError::Cut {
                target: target.clone(),
                why: status.message().to_owned(),
            })
        });
        Ok(lines.boxed())
    }

    fn fleet(&self) -> Vec<AgentFacts> {
        let shared = &self.sessions.0;
        let fence = shared.fence();
        let (known, open) = shared.parts.view.read(|all| {
            let mut open: BTreeMap<TargetName, usize> = BTreeMap::new();
            for record in view::under(all, keys::JOBS) {
                if let Some(Name::JobTarget { .. }) = record.key.name()
                    && let Ok(target) = records::shared::<Target>(record)
                    && target.state.in_work().is_some()
                {
                    *open.entry(target.name.clone()).or_default() += 1;
                }
            }
            (presence::fleet(all), open)
        });
        let now = shared.parts.clock.boot_now();
        let today = Timestamp(shared.parts.clock.wall_now());
        known
            .into_iter()
            .map(|(target, known)| {
                let heard = shared
                    .session(&target)
                    .map(|live| Duration::from_millis(live.heard_ms.load(Ordering::Relaxed)));
                let presence: Presence = presence::of(&known, fence);
                let absent = match &presence {
                    Presence::Absent { since } if *since != Timestamp(0) => {
                        Some(today.since(*since))
                    }
                    _ => None,
                };
                let (fleet, session) = match known {
                    Ok(known) => (known.fleet, known.session),
                    Err(_) => (Arc::new(unread(&target)), None),
                };
                AgentFacts {
                    open_attempts: open.get(&target).copied().unwrap_or(0),
                    last_seen: heard.map(|heard| now.saturating_sub(heard)).or(absent),
                    session: session.map(|(session, _)| session),
                    fleet,
                    presence,
                }
            })
            .collect()
    }
}

/// What is shown of an agent whose record cannot be read: its name, and nothing that might be wrong.
fn unread(target: &TargetName) -> Fleet {
    Fleet {
        format: Fleet::FORMAT,
        target: target.clone(),
        identity: ClusterIdentity {
            cluster_uid: String::new(),
            ca_fingerprint: String::new(),
        },
        offered: None,
        labels: BTreeMap::new(),
        version: String::new(),
        simulated: false,
        journal: RecordedJournal {
            id: JournalId::new(""),
            sequence: 0,
        },
        orphans: vec![],
        held: None,
        merged_in: None,
    }
}
