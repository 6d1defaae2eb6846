//! One agent's stream, from its first frame to its last.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId, JournalId, TargetName, Timestamp};
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as In;
use aldis_proto::v1::session_response::Message as Out;
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;
use tracing::{info, warn};

use super::orders::Refused;
use super::register::{self, Registration};
use super::reports::Reported;
use super::{FRAMES, Live, Sessions, Shared};
use crate::presence;
use crate::records::{self, RefusedOrder, Session};
use crate::store::{Commit, Precondition, Write, keys};
use crate::telemetry::chain;
use crate::view::HOPELESS_AFTER;

/// For the first frame: a handshake that takes longer is no agent of ours.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// How often a stream looks whether it should still be there.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// An agent asks for a permit every third of one; silent for so long, its stream is half open.
const SILENT_AFTER: Duration = Duration::from_secs(45);

/// What an agent is told that comes too late.
const SUPERSEDED: &str = "another stream took its place";
const LEAVING: &str = "this replica is leaving; connect to another one";

/// Changes of one session's record against others who change it.
const TRIES: usize = 4;

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
        if shared.is_leaving() {
            // The channel has room for all of its first frames.
            let _ = frames.try_send(Err(Status::unavailable(LEAVING)));
            return ReceiverStream::new(outgoing);
        }
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
            warn!(%target, error = chain(&error), "registration refused");
            status_of(&error)
        })?;
        let live = |generation| Live {
            target: target.clone(),
            generation,
            journal: JournalId::new(register.journal_id.clone()),
            recorded: Default::default(),
            frames,
            asked: Default::default(),
            heard_ms: AtomicU64::new(self.boot_ms()),
            sent: Default::default(),
            refused: Default::default(),
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
                if !self.admit(&live) {
                    return Err(Status::unavailable(SUPERSEDED));
                }
                if self.is_leaving() {
                    self.ask_to_move(&live, FIRST_FRAME).await;
                }
                Ok(Some(live))
            }
        }
    }

    /// Makes this the target's stream, unless a later registration was quicker.
    fn admit(&self, live: &Arc<Live>) -> bool {
        let mut all = self.live();
        let other = all.get(&live.target);
        let is_newest = other.is_none_or(|other| other.generation < live.generation);
        if is_newest {
            all.insert(live.target.clone(), live.clone());
        }
        is_newest
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
                    self.note_refusals(live).await;
                }
            }
        }
    }

    /// Handles one frame; true for goodbye.
    async fn hear(&self, live: &Arc<Live>, request: v1::SessionRequest) -> bool {
        match request.message {
            Some(In::PermitRequest(request)) => {
                let permit = self.permit(live, &request);
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
                        let slot = (reported.job.clone(), reported.attempt);
                        // It took the order after all.
                        live.refused().remove(&slot);
                        // Full means that the store is slow: the agent sends again what is not
                        // acknowledged.
                        if self.reports.try_send(reported).is_err() {
                            warn!(target = %live.target, "report not taken: too many wait");
                        }
                    }
                    Err(error) => {
                        warn!(target = %live.target, error = chain(&error), "report not readable");
                    }
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
                let slot = (JobId::new(refused.job), Attempt(refused.attempt));
                let refused = Refused {
                    why: refused.reason,
                    at: self.parts.clock.boot_now(),
                };
                live.refused().insert(slot, refused);
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
        let known = self.parts.view.read(|all| presence::one(all, &live.target));
        let known = match known {
            Ok(known) => known,
            // Not read is not gone.
            Err(_) => return None,
        };
        let reached = self.parts.view.revision().unwrap_or_default();
        if known
            .as_ref()
            .is_some_and(|known| live.is_lost(reached, &known.fleet))
        {
            // It lists what it holds, and that says what the store has lost.
            return Some("the store has lost what was recorded of this session; register again");
        }
        let session = known
            .and_then(|known| known.session)
            .map(|(session, _)| session);
        match session {
            // The store may have been put back to before this registration: then nobody is to be given
            // work on its strength.
            None => Some("the store does not know this session"),
            Some(session) if session.generation != live.generation => Some(SUPERSEDED),
            Some(session) if !self.is_ours(&session) => {
                Some("this session was given up; register again")
            }
            // The leader took this replica for gone. Only a registration makes the session count again.
            Some(session) if session.replica.is_empty() => {
                Some("this session was ended while its replica was away; connect again")
            }
            Some(session) => {
                self.end_contest(live, &session).await;
                None
            }
        }
    }

    /// Lifts a contest once the other process was silent for a permit.
    async fn end_contest(&self, live: &Live, session: &Session) {
        let Some(contested) = &session.contested else {
            return self.contests.forget(&live.target);
        };
        if !self.is_over(&live.target, contested) {
            return;
        }
        let lifted = self.change_session(&live.target, live.generation, |session| {
            if session.contested.as_ref() == Some(contested) {
                session.contested = None;
            }
        });
        match lifted.await {
            Ok(true) => info!(target = %live.target, "contest over: the other process is silent"),
            Ok(false) => {}
            Err(error) => {
                warn!(target = %live.target, error = chain(&error), "contest not lifted");
            }
        }
    }

    /// Keeps in the session's record what the agent refuses to do, for operators at any replica.
    async fn note_refusals(&self, live: &Live) {
        let refused: Vec<RefusedOrder> = live
            .refused()
            .iter()
            .map(|((job, attempt), refused)| RefusedOrder {
                job: job.clone(),
                attempt: *attempt,
                why: refused.why.clone(),
            })
            .collect();
        let known = self.parts.view.read(|all| presence::one(all, &live.target));
        let known = known.ok().flatten().and_then(|known| known.session);
        if known.is_none_or(|(session, _)| session.refused == refused) {
            return;
        }
        let noted = self.change_session(&live.target, live.generation, |session| {
            session.refused.clone_from(&refused);
        });
        if let Err(error) = noted.await {
            warn!(target = %live.target, error = chain(&error), "refusal not recorded");
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
        let ended = self.end_session(&live.target, live.generation, said_goodbye);
        if let Err(error) = ended.await {
            // `leftovers` ends it when the store is back, the leader when this replica is gone.
            warn!(target = %live.target, error = chain(&error), "end of the stream not recorded");
        }
    }

    /// Records that nobody holds the stream of this session any more.
    pub(super) async fn end_session(
        &self,
        target: &TargetName,
        generation: u64,
        said_goodbye: bool,
    ) -> Result<bool, crate::store::Error> {
        let now = Timestamp(self.parts.clock.wall_now());
        self.change_session(target, generation, |session| {
            session.replica = String::new();
            session.absent_since = Some(now);
            session.said_goodbye = said_goodbye;
            session.refused.clear();
        })
        .await
    }

    /// Changes a session's record as it stands in the store, while it is this generation's and hangs
    /// here. What others wrote of it meanwhile stays.
    async fn change_session(
        &self,
        target: &TargetName,
        generation: u64,
        change: impl Fn(&mut Session),
    ) -> Result<bool, crate::store::Error> {
        let key = keys::session(&target.to_string());
        for _ in 0..TRIES {
            let Some(record) = self.parts.store.get(&key).await? else {
                return Ok(false);
            };
            let session = records::read::<Session>(&record).ok();
            let ours =
                |session: &Session| session.generation == generation && self.is_ours(session);
            let Some(mut session) = session.filter(ours) else {
                return Ok(false);
            };
            change(&mut session);
            let commit = Commit {
                preconditions: vec![Precondition::unchanged(&key, Some(&record))],
                writes: vec![Write::put(key.clone(), records::write(&session))],
            };
            if self.parts.store.commit(commit).await?.is_committed() {
                return Ok(true);
            }
        }
        Ok(false)
    }

    pub(super) fn boot_ms(&self) -> u64 {
        u64::try_from(self.parts.clock.boot_now().as_millis()).unwrap_or(u64::MAX)
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
