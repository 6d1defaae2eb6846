//! Proves again and again that the view is complete.

use std::sync::Arc;
use std::time::Duration;

use super::{FRESH_FOR, Shared};
use crate::clock::Clock;
use crate::store::{Result, Revision, Store};

/// How often a proof is sought: a quarter of how long one is good for, so that three may fail.
const EVERY: Duration = Duration::from_millis(500);

/// How often progress is asked for while waiting: a watch that was made again has forgotten the
/// question.
const ASK_EVERY: Duration = Duration::from_millis(50);

/// Proves for as long as the view lives.
pub(super) async fn prove(store: Arc<dyn Store>, clock: Arc<dyn Clock>, shared: Arc<Shared>) {
    let mut ticks = tokio::time::interval(EVERY);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let sent = clock.boot_now();
        match tokio::time::timeout(FRESH_FOR, prove_once(&*store, &shared)).await {
            Ok(Ok(())) => proved(&shared, sent),
            Ok(Err(error)) => tracing::debug!(
                error = crate::telemetry::chain(&error),
                "cannot prove the view fresh"
            ),
            Err(_elapsed) => tracing::debug!("the watch does not catch up"),
        }
    }
}

async fn prove_once(store: &dyn Store, shared: &Shared) -> Result<()> {
    let revision = store.read_revision().await?;
    let mut reached = shared.reached.subscribe();
    loop {
        if has_reached(*reached.borrow_and_update(), revision) {
            return Ok(());
        }
        if let Some(progress) = &*shared.progress.borrow() {
            progress.request();
        }
        // Woken or not, look again.
        let _ = tokio::time::timeout(ASK_EVERY, reached.changed()).await;
    }
}

fn has_reached(reached: Option<Revision>, revision: Revision) -> bool {
    reached.is_some_and(|reached| reached >= revision)
}

fn proved(shared: &Shared, sent: Duration) {
    shared.proved.send_replace(Some(sent));
}
