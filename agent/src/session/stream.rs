//! One registered stream: reads frames, sends what is due, asks for permits in time.

use std::sync::Arc;
use std::time::Duration;

use aldis_core::assignments::Assignment;
use aldis_core::ids::{Attempt, JobId};
use aldis_core::question::Question;
use aldis_proto::convert::{document, fence_from, parse};
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as Out;
use aldis_proto::v1::session_response::Message as In;
use futures::TryStreamExt;
use tokio::sync::{Semaphore, watch};
use tokio::time::Instant;
use tracing::{Instrument, debug, info, warn};

use super::lines;
use super::open::Stream;
use crate::clock::BootTime;
use crate::desk::Desk;
use crate::journal::{AttemptKey, Entry};
use crate::ledger::{self, Token};
use crate::parts::Parts;
use crate::planner;

/// A permit is asked for again when a third of it is over, so that two answers may be lost.
const PERMIT_SHARE: u32 = 3;

/// The longest between two requests; the control plane takes more than four of them without a word for a stream that
/// is half open.
const PERMIT_AT_MOST: Duration = Duration::from_secs(10);

/// Before asking again after a refusal; doubled up to [`REFUSED_AT_MOST`]. Most refusals are a merge under way.
const REFUSED: Duration = Duration::from_millis(100);
const REFUSED_AT_MOST: Duration = Duration::from_secs(1);

/// A frame that could not be handed over for so long: the stream is stuck.
const STUCK: Duration = Duration::from_secs(10);

/// Questions answered at once: each is some requests to the API server.
const QUESTIONS: usize = 8;

/// Log streams at once: each is a connection.
const LINES: usize = 16;

/// For the control plane to read a goodbye.
const FAREWELL: Duration = Duration::from_secs(1);

/// How a stream ended.
#[derive(Debug)]
pub(super) enum End {
    /// The agent closes, and said so.
    Goodbye,
    /// It broke, or was closed by the other end.
    Broken(String),
    /// The replica asks to be left. The stream still serves.
    Move {
        /// All its agents leave within so long.
        within: Duration,
        /// Why.
        reason: String,
    },
}

/// When which request is due, and what runs beside the stream.
pub(super) struct Pace {
    permit_at: Instant,
    refused: Duration,
    refusal: String,
    merged: bool,
    questions: Arc<Semaphore>,
    lines: Arc<Semaphore>,
}

impl Pace {
    pub(super) fn new() -> Self {
        Self {
            permit_at: Instant::now(),
            refused: REFUSED,
            refusal: String::new(),
            merged: false,
            questions: Arc::new(Semaphore::new(QUESTIONS)),
            lines: Arc::new(Semaphore::new(LINES)),
        }
    }
}

impl Stream {
    /// Serves until it ends or is to be left. May be called again after [`End::Move`], and dropped at any await.
    pub(super) async fn serve(
        &mut self,
        parts: &Parts,
        desk: &Desk,
        closing: &mut watch::Receiver<bool>,
    ) -> End {
        loop {
            let done = tokio::select! {
                frame = self.incoming.try_next() => match frame {
                    Ok(Some(frame)) => self.hear(parts, desk, frame, closing).await,
                    Ok(None) => Err(End::Broken("closed by the replica".to_owned())),
                    Err(status) => Err(End::Broken(status.message().to_owned())),
                },
                () = parts.reports.wait(self.number) => self.report(parts).await,
                () = tokio::time::sleep_until(self.pace.permit_at) => self.ask_for_permit(parts).await,
                () = super::closed(closing) => {
                    self.say_goodbye().await;
                    return End::Goodbye;
                }
            };
            if let Err(end) = done {
                return end;
            }
        }
    }

    async fn report(&mut self, parts: &Parts) -> Result<(), End> {
        for frame in parts.reports.due(self.number, Instant::now()) {
            self.send(Out::Report(frame)).await?;
        }
        for refused in parts.reports.refusals_due(self.number, Instant::now()) {
            self.send(Out::OrderRefused(refused)).await?;
        }
        Ok(())
    }

    async fn ask_for_permit(&mut self, parts: &Parts) -> Result<(), End> {
        self.pace.permit_at = Instant::now() + PERMIT_AT_MOST;
        let sent = parts.clock.boot_now().0.as_millis();
        let sent_boot_ms = u64::try_from(sent).unwrap_or(u64::MAX);
        self.send(Out::PermitRequest(v1::PermitRequest { sent_boot_ms }))
            .await
    }

    async fn send(&self, message: Out) -> Result<(), End> {
        let frame = v1::SessionRequest {
            message: Some(message),
        };
        match tokio::time::timeout(STUCK, self.outgoing.send(frame)).await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(_)) => Err(End::Broken("closed by the replica".to_owned())),
            Err(_) => Err(End::Broken("the replica reads nothing".to_owned())),
        }
    }

    async fn say_goodbye(&mut self) {
        let goodbye = v1::Goodbye {
            reason: "the agent was told to end".to_owned(),
        };
        if self.send(Out::Goodbye(goodbye)).await.is_err() {
            return;
        }
        // The replica ends the stream once it has read that.
        let ended = async { while let Ok(Some(_)) = self.incoming.try_next().await {} };
        let _ = tokio::time::timeout(FAREWELL, ended).await;
    }

    /// One frame. The token first: what an older leader says is not acted on.
    async fn hear(
        &mut self,
        parts: &Parts,
        desk: &Desk,
        frame: v1::SessionResponse,
        closing: &watch::Receiver<bool>,
    ) -> Result<(), End> {
        let token = fence_from(frame.fence.as_ref());
        let revision = u64::try_from(frame.store_revision).unwrap_or(0);
        match parts.ledger.notice(token, revision).await {
            Ok(Token::Current) => {}
            Ok(Token::Older) => {
                debug!(%token, "frame of an older leader dropped");
                return Ok(());
            }
            Err(error) => return Err(End::Broken(format!("note the leader's token: {error}"))),
        }
        match frame.message {
            Some(In::Permit(permit)) => self.permit(parts, desk, &permit).await,
            Some(In::Order(order)) => self.order(parts, desk, &order).await,
            Some(In::Acknowledge(acknowledge)) => acknowledged(parts, &acknowledge).await,
            Some(In::Ask(ask)) => self.answer(parts, ask),
            Some(In::OpenLogs(open)) => self.open_lines(parts, open, closing.clone()),
            Some(In::Move(moved)) => {
                return Err(End::Move {
                    within: Duration::from_millis(moved.within_ms),
                    reason: moved.reason,
                });
            }
            Some(In::SetAside(aside)) => {
                if let Err(error) = desk.set_aside(aside.reason).await {
                    warn!(%error, "journal not set aside");
                }
                return Err(End::Broken("the journal was set aside".to_owned()));
            }
            Some(In::Registered(_)) | None => debug!("frame out of place"),
        }
        Ok(())
    }

    async fn permit(&mut self, parts: &Parts, desk: &Desk, permit: &v1::Permit) {
        let pace = &mut self.pace;
        if permit.duration_ms == 0 {
            if pace.refusal != permit.refusal {
                info!(why = permit.refusal, "no permit");
                pace.refusal.clone_from(&permit.refusal);
            }
            pace.permit_at = Instant::now() + pace.refused;
            pace.refused = (pace.refused * 2).min(REFUSED_AT_MOST);
            return;
        }
        let length = Duration::from_millis(permit.duration_ms);
        let sent = BootTime(Duration::from_millis(permit.sent_boot_ms));
        pace.refusal.clear();
        pace.refused = REFUSED;
        pace.permit_at = Instant::now() + (length / PERMIT_SHARE).min(PERMIT_AT_MOST);
        if !pace.merged {
            // Permits are granted to merged sessions only: from here on reports count, and so do orders.
            pace.merged = true;
            if let Err(error) = parts.ledger.heard().await {
                warn!(%error, "that a leader heard of the damage is not noted; the next start says it again");
            }
            parts.reports.hurry();
            desk.merged().await;
        }
        parts.permits.grant(sent, length);
    }

    async fn order(&mut self, parts: &Parts, desk: &Desk, frame: &v1::OrderFrame) {
        match parse::<Assignment>(frame.assignment.as_ref(), "order.assignment") {
            Ok(assignment) => desk.order(assignment).await,
            Err(error) => {
                warn!(%error, "order not readable");
                if let Some((job, attempt)) = whose(frame) {
                    let reason = format!("this agent cannot read it: {error}");
                    parts.reports.refuse(job, attempt, reason);
                }
            }
        }
    }

    /// Answers beside the stream: an order must not wait for a plan.
    fn answer(&self, parts: &Parts, ask: v1::Ask) {
        let (parts, outgoing) = (parts.clone(), self.outgoing.clone());
        let questions = self.pace.questions.clone();
        let within = Duration::from_millis(ask.timeout_ms);
        let span = tracing::info_span!("question", trace = ask.trace);
        let answering = async move {
            let question = parse::<Question>(ask.question.as_ref(), "ask.question");
            let answered = async {
                let question = match question {
                    Ok(question) => question,
                    Err(error) => return Some(Err(error.to_string())),
                };
                // The list costs nothing and everybody waits for it.
                let _turn = match &question {
                    Question::Attempts => None,
                    Question::Plan(_)
                    | Question::Undo(_)
                    | Question::Drift { .. }
                    | Question::Soak(_) => questions.acquire_owned().await.ok(),
                };
                let answer = planner::answer(&parts, question, within).await?;
                Some(answer.map_err(|error| error.to_string()))
            };
            // After its patience nobody listens.
            if let Ok(Some(answer)) = tokio::time::timeout(within, answered).await {
                let result = match answer {
                    Ok(answer) => v1::answer::Result::Answer(document(&answer)),
                    Err(problem) => v1::answer::Result::Error(problem),
                };
                let answer = v1::Answer {
                    id: ask.id,
                    result: Some(result),
                };
                // A stream that is gone has nobody who asks.
                let _ = outgoing
                    .send(v1::SessionRequest {
                        message: Some(Out::Answer(answer)),
                    })
                    .await;
            }
        };
        tokio::spawn(answering.instrument(span));
    }

    /// Lines go on over a move of the session, and end with the agent: whoever reads them must not take its silence
    /// for nothing to say.
    fn open_lines(&self, parts: &Parts, open: v1::OpenLogs, mut closing: watch::Receiver<bool>) {
        let Ok(place) = self.pace.lines.clone().try_acquire_owned() else {
            return warn!(job = open.job, "more than {LINES} log streams at once");
        };
        let (parts, settings) = (parts.clone(), self.settings.clone());
        let endpoint = self.endpoint.clone();
        tokio::spawn(async move {
            let sent = tokio::select! {
                sent = lines::send(&parts, &settings, &endpoint, &open) => sent,
                () = super::closed(&mut closing) => Ok(()),
            };
            if let Err(error) = sent {
                debug!(job = open.job, %error, "log stream ends");
            }
            drop(place);
        });
    }
}

/// The report is in the store. The end of an attempt is noted, so that it is not listed for ever.
async fn acknowledged(parts: &Parts, acknowledge: &v1::Acknowledge) {
    let (job, attempt) = (
        JobId::new(acknowledge.job.clone()),
        Attempt(acknowledge.attempt),
    );
    let was_end = parts
        .reports
        .acknowledge(&job, attempt, acknowledge.sequence, acknowledge.ended);
    if !was_end {
        return;
    }
    let key = AttemptKey {
        job: acknowledge.job.clone(),
        target: parts.target.to_string(),
        number: acknowledge.attempt,
    };
    let (of, is_news) = (
        parts.ledger.id(),
        parts.ledger.read(|attempts| {
            attempts.attempt(&key).is_some_and(|attempt| {
                let ended = attempt.outcome.is_some() || attempt.tombstone.is_some();
                ended && attempt.acked_at.is_none()
            })
        }),
    );
    if is_news {
        let at = parts.clock.wall_now_ms();
        let entry = Entry::Acked { attempt: key, at };
        match parts.ledger.append(of, vec![entry]).await {
            Ok(_) | Err(ledger::Error::SetAside(_)) => {}
            // It is acknowledged again after the next start.
            Err(error) => warn!(%error, "acknowledgement not noted"),
        }
    }
}

/// Whose order it was, read without knowing the rest.
fn whose(frame: &v1::OrderFrame) -> Option<(JobId, Attempt)> {
    let written: serde_json::Value =
        serde_json::from_slice(&frame.assignment.as_ref()?.json).ok()?;
    let order = written.get("order")?;
    let attempt = u32::try_from(order.get("attempt")?.as_u64()?).ok()?;
    Some((JobId::new(order.get("job")?.as_str()?), Attempt(attempt)))
}
