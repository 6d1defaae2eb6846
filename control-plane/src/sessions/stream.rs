//! One agent's stream, from its first frame to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId, TargetName, Timestamp};
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as In;
use aldis_proto::v1::session_response::Message as Out;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::register::{self, Registration};
use super::reports::Reported;
use super::{FRAMES, LINES, Live, Sessions, Shared};
use crate::records::{self, Session};
use crate::store::{Commit, Precondition, Write, keys};
use crate::view::HOPELESS_AFTER;

/// For the first frame: a handshake that takes longer is no agent of ours.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// How often a stream looks whether it should still be there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An agent asks for a permit every third of one; silent for so long, its stream is half open.
const SILENT_AFTER: Duration = Duration::from_secs(45);

/// Frames to one agent.
pub type Frames = ReceiverStream<Result<v1::SessionResponse, Status>>;

impl Sessions {
    /// Serves one agent, known by its certificate, until either side ends the stream.
    pub fn serve<S>(&self, target: TargetName, incoming: S) -> Frames
    where
        S: Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin + 'static,
    {
        let (frames, outgoing) = mpsc::channel(FRAMES);
        let shared = self.0.clone();
        tokio::spawn(async move {
            if let Err(status) = shared
                .clone()
                .converse(target, incoming, frames.clone())
                .await
            {
                // The agent may be gone already.
                let _ = frames.send(Err(status)).await;
            }
        });
        ReceiverStream::new(outgoing)
    }

    /// Takes the lines of one log stream that was asked for.
    pub async fn take_logs<S>(&self, mut incoming: S) -> Result<(), Status>
    where
        S: Stream<Item = Result<v1::LogsRequest, Status>> + Send + Unpin,
    {
        use v1::logs_request::Message;
        let first = incoming
            .next()
            .await
            .transpose()?
            .and_then(|request| request.message);
        let Some(Message::Stream(number)) = first else {
            return Err(Status::invalid_argument(
                "the first frame of a log stream is its number",
            ));
        };
        let reader = {
            let mut logs = self
                .0
                .logs
                .lock()
                .unwrap_or_else(std::sync::PoisonError::into_inner);
            logs.remove(&number)
        };
        let reader = reader.ok_or_else(|| Status::not_found("nobody asked for this log stream"))?;
        while let Some(request) = incoming.next().await.transpose()? {
            match request.message {
                // A slow reader slows this stream alone; the control lane is another one.
                Some(Message::Line(line)) => {
                    if reader.send(line).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Message::End(_)) | None => return Ok(()),
                Some(Message::Stream(_)) => {
                    return Err(Status::invalid_argument("a log stream has one number"));
                }
            }
        }
        Ok(())
    }
}

impl Shared {
    async fn converse<S>(
        self: Arc<Self>,
        target: TargetName,
        mut incoming: S,
        frames: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    ) -> Result<(), Status>
    where
        S: Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin,
    {
        let Some(live) = self.open(&target, &mut incoming, frames).await? else {
            return Ok(());
        };
        let goodbye = self.listen(&live, &mut incoming).await;
        self.close(&live, goodbye.is_ok_and(|said| said)).await;
        Ok(())
    }

    /// Reads the first frame and registers; none when the agent is to come again.
    async fn open<S>(
        self: &Arc<Self>,
        target: &TargetName,
        incoming: &mut S,
        frames: mpsc::Sender<Result<v1::SessionResponse, Status>>,
    ) -> Result<Option<Arc<Live>>, Status>
    where
        S: Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin,
    {
        let first = tokio::time::timeout(FIRST_FRAME, incoming.next())
            .await
            .map_err(|_| Status::deadline_exceeded("no registration came"))?;
        let message = first.transpose()?.and_then(|request| request.message);
        let Some(In::Register(register)) = message else {
            return Err(Status::invalid_argument(
                "the first frame of a session is `register`",
            ));
        };
        let registration = self.register(target, &register).await.map_err(|error| {
            warn!(%target, %error, "registration refused");
            status_of(&error)
        })?;
        let live = |generation| Live {
            target: target.clone(),
            generation,
            frames,
            asked: Default::default(),
            heard_ms: AtomicU64::new(self.boot_ms()),
            sent: Default::default(),
        };
        match registration {
            Registration::SetAside { reason } => {
                warn!(%target, reason, "journal is to be set aside");
                let live = live(0);
                self.send(&live, Out::SetAside(v1::SetAside { reason }))
                    .await;
                Ok(None)
            }
            Registration::Registered { generation } => {
                info!(%target, generation, version = register.version, "agent registered");
                let live = Arc::new(live(generation));
                let replica = self.parts.replica.clone();
                self.send(
                    &live,
                    Out::Registered(v1::Registered {
                        generation,
                        replica,
                    }),
                )
                .await;
                self.live().insert(target.clone(), live.clone());
                Ok(Some(live))
            }
        }
    }

    /// Reads frames until the stream ends or should. True when the agent said goodbye.
    async fn listen<S>(&self, live: &Arc<Live>, incoming: &mut S) -> Result<bool, Status>
    where
        S: Stream<Item = Result<v1::SessionRequest, Status>> + Send + Unpin,
    {
        let mut look = tokio::time::interval(LOOK_EVERY);
        loop {
            tokio::select! {
                frame = incoming.next() => {
                    let Some(request) = frame.transpose()? else { return Ok(false) };
                    live.heard_ms.store(self.boot_ms(), Ordering::Relaxed);
                    if self.hear(live, request).await {
                        return Ok(true);
                    }
                }
                _ = look.tick() => {
                    if let Some(why) = self.should_end(live).await {
                        info!(target = %live.target, why, "stream ends");
                        let _ = live.frames.try_send(Err(Status::unavailable(why)));
                        return Ok(false);
                    }
                }
            }
        }
    }

    /// Handles one frame; true for goodbye.
    async fn hear(&self, live: &Arc<Live>, request: v1::SessionRequest) -> bool {
        match request.message {
            Some(In::PermitRequest(request)) => {
                let permit = self.permit(&live.target, &request);
                self.send(live, Out::Permit(permit)).await;
            }
            Some(In::Report(report)) => {
                match aldis_proto::convert::parse(report.report.as_ref(), "report.report") {
                    Ok(parsed) => {
                        let reported = Reported {
                            target: live.target.clone(),
                            generation: live.generation,
                            job: JobId::new(report.job),
                            attempt: Attempt(report.attempt),
                            sequence: report.sequence,
                            report: parsed,
                        };
                        // Full means that the store is slow: the agent sends again what is not
                        // acknowledged.
                        if self.reports.try_send(reported).is_err() {
                            warn!(target = %live.target, "report not taken: too many wait");
                        }
                    }
                    Err(error) => warn!(target = %live.target, %error, "report not readable"),
                }
            }
            Some(In::Answer(answer)) => {
                if let Some(asker) = live.asked().remove(&answer.id) {
                    // The asker may have given up.
                    let _ = asker.send(answer);
                }
            }
            Some(In::OrderRefused(refused)) => {
                warn!(
                    target = %live.target, job = refused.job, attempt = refused.attempt,
                    reason = refused.reason, "agent refuses an order"
                );
            }
            Some(In::Goodbye(goodbye)) => {
                info!(target = %live.target, reason = goodbye.reason, "agent leaves");
                return true;
            }
            Some(In::Register(_)) | None => {
                warn!(target = %live.target, "frame out of place");
            }
        }
        false
    }

    /// Why this stream should not be there any more.
    async fn should_end(&self, live: &Live) -> Option<&'static str> {
        let now = self.parts.clock.boot_now();
        if self.parts.view.stale_for(now) > HOPELESS_AFTER {
            return Some("this replica cannot see the store; connect to another one");
        }
        let heard = Duration::from_millis(live.heard_ms.load(Ordering::Relaxed));
        if now.saturating_sub(heard) > SILENT_AFTER {
            return Some("nothing was heard of the agent");
        }
        let key = keys::session(&live.target.to_string());
        let session = self
            .parts
            .view
            .get(&key)
            .and_then(|record| records::read::<Session>(&record).ok());
        match session {
            Some(session) if session.generation > live.generation => {
                Some("another stream took its place")
            }
            Some(session) => {
                self.end_contest(live, &session).await;
                None
            }
            None => None,
        }
    }

    /// Lifts a contest once the other process was silent for a permit.
    async fn end_contest(&self, live: &Live, session: &Session) {
        let Some(contested) = &session.contested else {
            return;
        };
        if !self.is_over(contested, Timestamp(self.parts.clock.wall_now())) {
            return;
        }
        let free = Session {
            contested: None,
            ..session.clone()
        };
        match self.write_session(live, &free).await {
            Ok(true) => info!(target = %live.target, "contest over: the other process is silent"),
            Ok(false) => {}
            Err(error) => warn!(target = %live.target, %error, "contest not lifted"),
        }
    }

    /// Records that nobody holds a stream, unless another one took its place.
    async fn close(&self, live: &Arc<Live>, said_goodbye: bool) {
        {
            let mut all = self.live();
            if all
                .get(&live.target)
                .is_some_and(|other| Arc::ptr_eq(other, live))
            {
                all.remove(&live.target);
            }
        }
        live.asked().clear();
        let key = keys::session(&live.target.to_string());
        let read = self.parts.store.get(&key).await.ok().flatten();
        let session = read.and_then(|record| records::read::<Session>(&record).ok());
        let Some(session) = session.filter(|s| s.generation == live.generation) else {
            return;
        };
        let ended = Session {
            replica: String::new(),
            absent_since: Some(Timestamp(self.parts.clock.wall_now())),
            said_goodbye,
            ..session
        };
        if let Err(error) = self.write_session(live, &ended).await {
            // The leader ends it when this replica is gone; until then the agent's next
            // registration does.
            warn!(target = %live.target, %error, "end of the stream not recorded");
        }
    }

    async fn write_session(
        &self,
        live: &Live,
        session: &Session,
    ) -> Result<bool, crate::store::Error> {
        let key = keys::session(&live.target.to_string());
        let Some(record) = self.parts.store.get(&key).await? else {
            return Ok(false);
        };
        let ours = records::read::<Session>(&record)
            .is_ok_and(|recorded| recorded.generation == live.generation);
        if !ours {
            return Ok(false);
        }
        let commit = Commit {
            preconditions: vec![Precondition::unchanged(&key, Some(&record))],
            writes: vec![Write::put(key, records::write(session))],
        };
        Ok(self.parts.store.commit(commit).await?.is_committed())
    }

    pub(super) fn boot_ms(&self) -> u64 {
        u64::try_from(self.parts.clock.boot_now().as_millis()).unwrap_or(u64::MAX)
    }

    /// A channel for the lines of a log stream that is about to be asked for.
    pub(super) fn expect_logs(&self) -> (u64, mpsc::Receiver<v1::LogLine>) {
        let number = self.number();
        let (sender, lines) = mpsc::channel(LINES);
        let mut logs = self
            .logs
            .lock()
            .unwrap_or_else(std::sync::PoisonError::into_inner);
        logs.insert(number, sender);
        (number, lines)
    }
}

fn status_of(error: &register::Error) -> Status {
    use register::Error as E;
    match error {
        E::Message(_) => Status::invalid_argument(error.to_string()),
        E::WrongCluster { .. } => Status::failed_precondition(error.to_string()),
        E::Store(_) | E::Raced { .. } => Status::unavailable(error.to_string()),
        E::Record(_) => Status::data_loss(error.to_string()),
    }
}
