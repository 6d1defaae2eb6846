//! Holding leadership: renewing the lease, and noticing its end by any of five signs.
//!
//! | sign | why it is one |
//! |---|---|
//! | the store says that nothing of the lease is left | the key is gone |
//! | no renewal until the deadline | the key may be gone |
//! | the leader key was deleted or is another's | an operator, or a raised incarnation |
//! | a fenced write failed on its fence | as above, seen by a decision |
//! | the store went back in time | nothing that was decided is certain |

use std::time::Duration;

use super::{Settings, Token};
use crate::clock::Clock;
use crate::store::{Error, Event, Result, Store, keys};

/// Renewals in the life of a lease: two may fail before the deadline passes.
const RENEWALS: u32 = 3;

/// Pause after a renewal that failed at once, such as on a refused connection.
const RETRY_AFTER: Duration = Duration::from_millis(200);

/// How a tenure ended.
pub(super) enum Ended {
    SteppedDown,
    Lost(String),
    WentBack(String),
}

/// Returns when leadership has ended.
pub(super) async fn hold(
    store: &dyn Store,
    clock: &dyn Clock,
    settings: &Settings,
    token: &Token,
) -> Ended {
    let ended = tokio::select! {
        ended = renew(store, clock, settings, token) => ended,
        ended = key_gone(store, token) => ended,
        () = token.over() => Ended::Lost("a fenced write failed on its fence".to_owned()),
    };
    match ended {
        Ended::Lost(why) => lost_or_went_back(store, why).await,
        other => other,
    }
}

/// A lease or key that is gone may be gone from a restored backup. Whoever exits then has forgotten
/// what it saw, and goes on after its restart as if nothing were wrong.
async fn lost_or_went_back(store: &dyn Store, why: String) -> Ended {
    match store.read_revision().await {
        Err(error @ Error::WentBack { .. }) => Ended::WentBack(error.to_string()),
        Ok(_) | Err(_) => Ended::Lost(why),
    }
}

async fn renew(store: &dyn Store, clock: &dyn Clock, settings: &Settings, token: &Token) -> Ended {
    let mut pause = settings.ttl / RENEWALS;
    loop {
        tokio::time::sleep(pause.min(token.left(clock))).await;
        let sent = clock.boot_now();
        let renewal = tokio::time::timeout(token.left(clock), store.keep_alive(token.lease));
        match renewal.await {
            Ok(Ok(left)) if left.is_zero() => return Ended::Lost("its lease ended".to_owned()),
            // Whoever looked meanwhile has seen the term end, and acts in it no more.
            Ok(Ok(_)) if !token.is_live(clock) => {
                return Ended::Lost("its lease was renewed after its deadline".to_owned());
            }
            Ok(Ok(left)) => {
                let sure = left.min(settings.ttl).saturating_sub(settings.margin);
                token.extend(sent + sure);
                pause = settings.ttl / RENEWALS;
            }
            Ok(Err(Error::WentBack { seen, now })) => {
                return Ended::WentBack(Error::WentBack { seen, now }.to_string());
            }
            Ok(Err(error)) => {
                tracing::warn!(
                    error = crate::telemetry::chain(&error),
                    "cannot renew the leader's lease"
                );
                pause = RETRY_AFTER;
            }
            Err(_too_late) => pause = Duration::ZERO,
        }
        if !token.is_live(clock) {
            return Ended::Lost("its lease could not be renewed in time".to_owned());
        }
    }
}

/// Returns when the leader key is not this term's.
async fn key_gone(store: &dyn Store, token: &Token) -> Ended {
    loop {
        match watch_key(store, token).await {
            Ok(()) => return Ended::Lost("its leader key is gone".to_owned()),
            Err(error @ Error::WentBack { .. }) => return Ended::WentBack(error.to_string()),
            // The renewal sees the same and has the deadline.
            Err(_) => tokio::time::sleep(RETRY_AFTER).await,
        }
    }
}

async fn watch_key(store: &dyn Store, token: &Token) -> Result<()> {
    let prefixes = vec![keys::leader().as_str().to_owned()];
    let mut watch = store.watch(prefixes, token.created).await?;
    while let Some(event) = watch.next().await {
        let ours = match event? {
            Event::Progress { .. } => true,
            Event::Changed { record, .. } => {
                record.is_some_and(|record| record.created == token.created)
            }
            Event::Reset { records, .. } => {
                records.iter().any(|record| record.created == token.created)
            }
        };
        if !ours {
            return Ok(());
        }
    }
    // The watch ended without a word: the adapter is stopping.
    std::future::pending().await
}
