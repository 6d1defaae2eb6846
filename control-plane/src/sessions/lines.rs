//! Log streams: asked for on an agent's session, opened by that agent on a connection of its own.
//!
//! A stream is known by its number. The number alone lets nobody in: the certificate of whoever opens
//! it must be that of the agent that was asked, and what its lines say of themselves is written over
//! with what was asked for. Whatever goes wrong ends as a gap, never as silence.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_core::ids::{JobId, TargetName};
use aldis_proto::v1::logs_request::Message;
use aldis_proto::v1::{LogLine, LogsRequest, LogsResponse};
use futures::{Stream, StreamExt};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::Status;

use super::{Sessions, Shared};
use crate::agents::{AskError, Logged};

/// Log lines that may wait for one reader.
const LINES: usize = 256;

/// For an agent to open the stream that it was asked for.
const OPEN_WITHIN: Duration = Duration::from_secs(10);

/// For the frame that says which stream it is.
const FIRST_FRAME: Duration = Duration::from_secs(10);

/// What the agent of a log stream is answered: nothing, until nobody reads any more.
pub type LogAnswers = ReceiverStream<Result<LogsResponse, Status>>;

/// A stream that was asked for.
pub(super) struct Expected {
    target: TargetName,
    job: JobId,
    lines: mpsc::Sender<Logged>,
}

/// Streams that were asked for and are not open yet.
#[derive(Default)]
pub(super) struct LogStreams(Mutex<BTreeMap<u64, Expected>>);

impl LogStreams {
    fn expect(&self, number: u64, target: &TargetName, job: &JobId) -> mpsc::Receiver<Logged> {
        let (lines, reader) = mpsc::channel(LINES);
        let expected = Expected {
            target: target.clone(),
            job: job.clone(),
            lines,
        };
        self.all().insert(number, expected);
        reader
    }

    fn forget(&self, number: u64) -> Option<Expected> {
        self.all().remove(&number)
    }

    /// The stream of that number, for the agent that was asked and for nobody else.
    fn take(&self, number: u64, caller: &TargetName) -> Option<Expected> {
        let mut all = self.all();
        let is_theirs = all.get(&number)?.target == *caller;
        is_theirs.then(|| all.remove(&number)).flatten()
    }

    fn all(&self) -> MutexGuard<'_, BTreeMap<u64, Expected>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Shared {
    /// A number for a log stream that is about to be asked for, and what comes of it.
    pub(super) fn expect_logs(
        &self,
        target: &TargetName,
        job: &JobId,
    ) -> (u64, mpsc::Receiver<Logged>) {
        let number = self.number();
        (number, self.logs.expect(number, target, job))
    }

    /// It could not be asked for.
    pub(super) fn forget_logs(&self, number: u64) {
        self.logs.forget(number);
    }

    /// Ends the wait for a stream that is not opened in time.
    pub(super) fn give_up_logs_in_time(self: &Arc<Self>, number: u64) {
        let shared = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep(OPEN_WITHIN).await;
            if let Some(expected) = shared.logs.forget(number) {
                let why = format!(
                    "its agent opened no log stream within {} s",
                    OPEN_WITHIN.as_secs()
                );
                expected.cut(why).await;
            }
        });
    }

    async fn read_lines<S>(&self, caller: &TargetName, mut incoming: S) -> Result<(), Status>
    where
        S: Stream<Item = Result<LogsRequest, Status>> + Send + Unpin,
    {
        let first = tokio::time::timeout(FIRST_FRAME, incoming.next()).await;
        let first =
            first.map_err(|_| Status::deadline_exceeded("no number of a log stream came"))?;
        let message = first.transpose()?.and_then(|request| request.message);
        let Some(Message::Stream(number)) = message else {
            return Err(Status::invalid_argument(
                "the first frame of a log stream is its number",
            ));
        };
        let expected = self.logs.take(number, caller);
        let expected =
            expected.ok_or_else(|| Status::not_found("nobody asked for this log stream"))?;
        if let Err(why) = expected.copy(incoming).await {
            expected.cut(why).await;
        }
        Ok(())
    }
}

impl Expected {
    /// Hands lines on until all were sent or nobody reads them. A slow reader slows this stream alone:
    /// the control lane is another one.
    async fn copy<S>(&self, mut incoming: S) -> Result<(), String>
    where
        S: Stream<Item = Result<LogsRequest, Status>> + Send + Unpin,
    {
        loop {
            let frame = tokio::select! {
                frame = incoming.next() => frame,
                () = self.lines.closed() => return Ok(()),
            };
            let message = match frame {
                Some(Ok(request)) => request.message,
                Some(Err(status)) => {
                    return Err(format!("its log stream broke: {}", status.message()));
                }
                None => return Err("its log stream broke".to_owned()),
            };
            match message {
                Some(Message::Line(line)) => {
                    let line = LogLine {
                        target: self.target.to_string(),
                        job: self.job.to_string(),
                        ..line
                    };
                    if self.lines.send(Ok(line)).await.is_err() {
                        return Ok(());
                    }
                }
                Some(Message::End(_)) => return Ok(()),
                Some(Message::Stream(_)) | None => {
                    return Err("its agent sent something else than lines".to_owned());
                }
            }
        }
    }

    async fn cut(&self, why: String) {
        let target = self.target.clone();
        // The reader may have left.
        let _ = self.lines.send(Err(AskError::Cut { target, why })).await;
    }
}

impl Sessions {
    /// Takes the lines of one log stream, of the agent that the certificate names. Answered at once: the
    /// stream may be open for hours, and a handler only for as long as a call may take. The answer ends
    /// when nobody reads any more.
    pub fn take_logs<S>(&self, caller: TargetName, incoming: S) -> LogAnswers
    where
        S: Stream<Item = Result<LogsRequest, Status>> + Send + Unpin + 'static,
    {
        let (answers, stream) = mpsc::channel(1);
        let shared = self.0.clone();
        tokio::spawn(async move {
            if let Err(status) = shared.read_lines(&caller, incoming).await {
                // The agent may be gone already.
                let _ = answers.send(Err(status)).await;
            }
        });
        ReceiverStream::new(stream)
    }
}
