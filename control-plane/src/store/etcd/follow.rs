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

use super::{Etcd, MAX_ANSWER_BYTES, bounded, record};
use crate::store::{Error, Event, Listing, Result, Revision};

/// Pause before a broken watch is made again: short beside the 2 s that a view may be old, long
/// beside the round trip that a refused connection costs.
const AGAIN_AFTER: Duration = Duration::from_millis(250);

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
    loop {
        // Progress of a stream counts only once all its watchers exist.
        let all_created = created == prefixes.len();
        tokio::select! {
            () = reader.events.closed() => return End::Unwanted,
            () = reader.asked.notified(), if all_created => {
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
                if !deliver(&answer, reader).await {
                    return End::Unwanted;
                }
            }
        }
    }
}

async fn pause(reader: &Reader) -> End {
    tokio::select! {
        () = reader.events.closed() => End::Unwanted,
        () = tokio::time::sleep(AGAIN_AFTER) => End::Broken,
    }
}

async fn open(etcd: &Etcd, prefixes: &[String], after: Revision) -> Option<WatchStream> {
    let client = etcd.client.watch_client();
    let mut client = client.max_decoding_message_size(MAX_ANSWER_BYTES);
    let options = |number: usize| {
        WatchOptions::new()
            .with_prefix()
            .with_start_revision(after.0 + 1)
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
async fn deliver(answer: &WatchResponse, reader: &Reader) -> bool {
    for event in answer.events() {
        let Some(stored) = event.kv() else { continue };
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
    let about_all = answer.watch_id() == WHOLE_STREAM && answer.events().is_empty();
    match answer.header() {
        Some(header) if about_all && !answer.created() => {
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
