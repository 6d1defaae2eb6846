//! A watch that mends itself.
//!
//! All prefixes are watchers of one gRPC stream, since etcd answers a progress request only for a
//! whole stream. When the stream ends, for whatever reason, everything is listed again and handed
//! over as a `Reset`. Resuming at the last revision would be cheaper, and wrong in the one case that
//! matters: a restored etcd would fill the gap with another history.

use std::sync::Arc;
use std::time::Duration;

use etcd_client::{EventType, WatchOptions, WatchResponse, WatchStream};
use tokio::sync::{Notify, mpsc};
use tokio::time::Instant;

use super::{Etcd, MAX_ANSWER_BYTES, bounded, record};
use crate::store::{Error, Event, Listing, Result, Revision};

/// Pause before a broken watch is made again: short beside the 2 s that a view may be old, long
/// beside the round trip that a refused connection costs.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

/// How often a watch says something although nobody asked: less than the silence after which the
/// connection would ping, and be closed for it.
const TALK_EVERY: Duration = Duration::from_secs(1);

/// How often progress that somebody waits for is asked again: etcd gives no answer while one of the
/// watchers lags, and forgets the question.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// The watch id of answers that are about the whole stream.
const WHOLE_STREAM: i64 = -1;

/// Whoever reads the watch.
pub(super) struct Reader {
    pub(super) events: mpsc::Sender<Result<Event>>,
    pub(super) asked: Arc<Notify>,
}

/// Why a stream is over.
enum End {
    /// Nobody reads any more.
    Unwanted,
    /// The connection, or etcd's memory of that revision, is gone.
    Broken,
}

/// Delivers until nobody reads, or until there is an error that no repeating mends.
pub(super) async fn follow(etcd: Etcd, prefixes: Vec<String>, after: Revision, reader: Reader) {
    let mut from = Some(after);
    loop {
        let start = match from.take() {
            Some(after) => after,
            None => match reset(&etcd, &prefixes, &reader).await {
                Listed::At(revision) => revision,
                Listed::Over => return,
                Listed::NotYet => {
                    tokio::time::sleep(AGAIN_AFTER).await;
                    continue;
                }
            },
        };
        match stream(&etcd, &prefixes, start, &reader).await {
            End::Unwanted => return,
            End::Broken => tracing::debug!(%start, "watch broke; listing again"),
        }
    }
}

/// What came of listing afresh.
enum Listed {
    At(Revision),
    NotYet,
    /// Nobody reads, or the last word is said.
    Over,
}

async fn reset(etcd: &Etcd, prefixes: &[String], reader: &Reader) -> Listed {
    match etcd.list_all(prefixes).await {
        Ok(Some(Listing { records, revision })) => {
            if reader.send(Event::Reset { records, revision }).await {
                Listed::At(revision)
            } else {
                Listed::Over
            }
        }
        Ok(None) | Err(Error::Unavailable { .. } | Error::Unknown { .. }) if reader.is_gone() => {
            Listed::Over
        }
        Ok(None) | Err(Error::Unavailable { .. } | Error::Unknown { .. }) => Listed::NotYet,
        Err(last_word) => {
            reader.end_with(last_word).await;
            Listed::Over
        }
    }
}

async fn stream(etcd: &Etcd, prefixes: &[String], after: Revision, reader: &Reader) -> End {
    let Some(mut stream) = open(etcd, prefixes, after).await else {
        return pause(reader).await;
    };
    let mut created = 0;
    let mut asking = Asking::new();
    loop {
        // Progress of a stream counts only once all its watchers exist.
        let all_created = created == prefixes.len();
        tokio::select! {
            () = reader.events.closed() => return End::Unwanted,
            () = asking.due(reader), if all_created => {
                asking.asked();
                if stream.request_progress().await.is_err() {
                    return End::Broken;
                }
            }
            message = stream.message() => {
                let Ok(Some(answer)) = message else { return End::Broken };
                if answer.canceled() {
                    return End::Broken;
                }
                created += usize::from(answer.created());
                if is_progress(&answer) {
                    asking.answered();
                }
                if !deliver(&answer, after, reader).await {
                    return End::Unwanted;
                }
            }
        }
    }
}

/// When to ask for progress: when somebody wants it, again while that is not answered, and when nobody
/// asked for long. By a deadline, so that a stream of events does not put the asking off.
struct Asking {
    wanted: bool,
    at: Instant,
}

impl Asking {
    fn new() -> Self {
        Self {
            wanted: false,
            at: Instant::now() + TALK_EVERY,
        }
    }

    async fn due(&mut self, reader: &Reader) {
        tokio::select! {
            () = reader.asked.notified() => self.wanted = true,
            () = tokio::time::sleep_until(self.at) => {}
        }
    }

    fn asked(&mut self) {
        let pause = if self.wanted { ASK_EVERY } else { TALK_EVERY };
        self.at = Instant::now() + pause;
    }

    fn answered(&mut self) {
        self.wanted = false;
        self.at = Instant::now() + TALK_EVERY;
    }
}

/// Whether an answer is about the whole stream, and so says how far it is.
fn is_progress(answer: &WatchResponse) -> bool {
    answer.watch_id() == WHOLE_STREAM && !answer.created() && answer.events().is_empty()
}

async fn pause(reader: &Reader) -> End {
    tokio::select! {
        () = reader.events.closed() => End::Unwanted,
        () = tokio::time::sleep(AGAIN_AFTER) => End::Broken,
    }
}

/// Opens one watcher a prefix. They start *at* the revision that is known, though only what comes after
/// it is delivered: etcd answers no progress request while a watcher's start lies in the future.
async fn open(etcd: &Etcd, prefixes: &[String], after: Revision) -> Option<WatchStream> {
    let client = etcd.client.watch_client();
    let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
    let options = |number: usize| {
        WatchOptions::new()
            .with_prefix()
            .with_start_revision(after.0.max(1))
            .with_watch_id(i64::try_from(number + 1).unwrap_or(i64::MAX))
    };
    let opened = bounded("watch", async {
        let (first, others) = prefixes.split_first().ok_or_else(nothing_to_watch)?;
        let mut stream = client.watch(first.as_str(), Some(options(0))).await?;
        for (number, prefix) in others.iter().enumerate() {
            stream
                .watch(prefix.as_str(), Some(options(number + 1)))
                .await?;
        }
        Ok(stream)
    });
    opened.await.ok()
}

fn nothing_to_watch() -> etcd_client::Error {
    etcd_client::Error::InvalidArgs("no prefixes".to_owned())
}

/// Hands on what an answer says; false where nobody reads.
async fn deliver(answer: &WatchResponse, after: Revision, reader: &Reader) -> bool {
    for event in answer.events() {
        let Some(stored) = event.kv() else { continue };
        if stored.mod_revision() <= after.0 {
            continue;
        }
        let event = match record(stored) {
            Err(unreadable) => return reader.end_with(unreadable).await,
            Ok(record) => Event::Changed {
                key: record.key.clone(),
                revision: record.modified,
                record: (event.event_type() == EventType::Put).then_some(record),
            },
        };
        if !reader.send(event).await {
            return false;
        }
    }
    match answer.header() {
        Some(header) if is_progress(answer) => {
            let revision = Revision(header.revision());
            reader.send(Event::Progress { revision }).await
        }
        _ => true,
    }
}

impl Reader {
    fn is_gone(&self) -> bool {
        self.events.is_closed()
    }

    async fn send(&self, event: Event) -> bool {
        self.events.send(Ok(event)).await.is_ok()
    }

    /// The last word. Always false: nothing more is to be sent.
    async fn end_with(&self, error: Error) -> bool {
        // Whoever stopped reading misses nothing.
        let _ = self.events.send(Err(error)).await;
        false
    }
}
