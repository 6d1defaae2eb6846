//! Ends sessions that the store says hang on this very process and no stream stands for.
//!
//! The end of a stream is written when it ends. Where the store was away just then, the record would
//! show an agent as connected for as long as this process lives: jobs would wait for it without end,
//! and never as for somebody who is absent.

use std::collections::BTreeSet;
use std::sync::Weak;
use std::time::Duration;

use aldis_core::ids::TargetName;
use tracing::{info, warn};

use super::Shared;
use crate::presence;
use crate::records::Session;
use crate::telemetry::chain;

/// Between two looks. A session that is there at both without a stream is not just being opened.
const EVERY: Duration = Duration::from_secs(5);

type Leftover = (TargetName, u64);

/// Looks until the sessions are gone.
pub(super) async fn end_all(shared: Weak<Shared>) {
    let mut before = BTreeSet::new();
    loop {
        tokio::time::sleep(EVERY).await;
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let found = shared.leftovers();
        for (target, generation) in found.intersection(&before) {
            shared.end_leftover(target, *generation).await;
        }
        before = found;
    }
}

impl Shared {
    fn leftovers(&self) -> BTreeSet<Leftover> {
        let known = self.parts.view.read(presence::readable);
        let live = self.live();
        known
            .into_iter()
            .filter_map(|(target, known)| {
                let (session, _) = known.session?;
                let here = live.get(&target).map(|live| live.generation);
                let alone = self.is_ours(&session) && here != Some(session.generation);
                alone.then_some((target, session.generation))
            })
            .collect()
    }

    /// Whether this process holds the stream, by the record.
    pub(super) fn is_ours(&self, session: &Session) -> bool {
        session.replica == self.parts.replica && session.replica_boot == self.parts.boot_id
    }

    async fn end_leftover(&self, target: &TargetName, generation: u64) {
        match self.end_session(target, generation, false).await {
            Ok(true) => info!(%target, generation, "session ends without a stream"),
            Ok(false) => {}
            Err(error) => {
                warn!(%target, error = chain(&error), "session without a stream not ended")
            }
        }
    }
}
