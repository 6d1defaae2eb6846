//! Orders, sent because they are committed.
//!
//! One task per replica reads the jobs once after each change and gives every agent here what it should
//! hold and was not told on this stream. Sent only on a fresh view, only under the newest leader, only to
//! sessions whose list that leader has merged. A repeat is harmless.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aldis_core::assignments::{self, Order, Wanted};
use aldis_core::ids::{Attempt, Fence, JobId, TargetName};
use aldis_core::inventory::Presence;
use aldis_proto::convert::document;
use aldis_proto::v1;
use aldis_proto::v1::session_response::Message as Out;
use tokio::time::Instant;
use tracing::{debug, error, warn};

use super::{Live, Shared};
use crate::jobs::{self, Loaded};
use crate::presence;
use crate::store::{Key, Record, keys};
use crate::telemetry::chain;
use crate::view;

/// Changes that come within this are handled together.
const TOGETHER: Duration = Duration::from_millis(2);

/// Looked at anyway: freshness comes and goes without a change.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);

/// Which attempt an order is about.
pub(super) type Slot = (JobId, Attempt);

/// Before an order that an agent refused is sent again: what it had against it may have passed.
const REFUSED_AGAIN: Duration = Duration::from_secs(5);

/// An agent's no.
#[derive(Clone, Debug)]
pub(super) struct Refused {
    /// In its words.
    pub(super) why: String,
    /// When it was said, or the order was sent again since, on the boot clock.
    pub(super) at: Duration,
}

/// What was said of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sent {
    fence: Fence,
    wanted: Wanted,
}

/// Sends until the sessions are gone.
pub(super) async fn send_all(shared: Weak<Shared>) {
    let mut changed = match shared.upgrade() {
        Some(shared) => shared.parts.view.changed(),
        None => return,
    };
    let mut kept = BTreeMap::new();
    loop {
        changed.borrow_and_update();
        let began = Instant::now();
        {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            shared.send_orders(&mut kept).await;
        }
        let rested = Instant::now() + began.elapsed().max(TOGETHER);
        let ended = tokio::select! {
            changed = changed.changed() => changed.is_err(),
            () = tokio::time::sleep(AT_LEAST_EVERY) => false,
        };
        if ended {
            return;
        }
        // A pass over a thousand agents takes a while: it rests as long as that, so that it takes half a core
        // at most.
        tokio::time::sleep_until(rested).await;
    }
}

/// Jobs as read last; none for one that cannot be read.
type Kept = BTreeMap<JobId, (Version, Option<Arc<Loaded>>)>;

/// What tells one reading of a job from the next: how many records it had, and their revisions added up.
/// Not the newest revision alone: records of one transaction share theirs, and the view takes them in one
/// after the other, so that a job may be read when it has some of them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Version {
    records: usize,
    revisions: i64,
}

impl Shared {
    async fn send_orders(&self, kept: &mut Kept) {
        let here: Vec<Arc<Live>> = self.live().values().cloned().collect();
        if here.is_empty() {
            return;
        }
        let fence = self.fence();
        let orders = match self.orders(kept, fence).await {
            Ok(orders) => orders,
            Err(error) => return warn!(error = chain(&error), "orders not read"),
        };
        for live in here {
            let wanted = orders.get(&live.target).map_or(&[][..], Vec::as_slice);
            self.tell(&live, wanted, fence).await;
        }
    }

    async fn orders(
        &self,
        kept: &mut Kept,
        fence: Fence,
    ) -> Result<BTreeMap<TargetName, Vec<(Arc<Loaded>, Order)>>, jobs::Error> {
        let versions = self.parts.view.read(version_of_each_job);
        kept.retain(|job, _| versions.contains_key(job));
        let mut orders: BTreeMap<TargetName, Vec<(Arc<Loaded>, Order)>> = BTreeMap::new();
        for (job, version) in versions {
            if kept.get(&job).is_none_or(|(read, _)| *read != version) {
                let read = match jobs::load(&self.parts.view, &self.parts.plans, &job).await {
                    Ok(loaded) => loaded.map(Arc::new),
                    Err(error @ jobs::Error::Store(_)) => return Err(error),
                    // Its own agents wait; those of other jobs must not.
                    Err(error) => {
                        error!(%job, error = chain(&error), "orders of this job not read");
                        None
                    }
                };
                kept.insert(job.clone(), (version, read));
            }
            let Some((_, Some(loaded))) = kept.get(&job) else {
                continue;
            };
            for order in assignments::assignments(&loaded.job) {
                if order.fence == fence {
                    let target = order.target.clone();
                    orders
                        .entry(target)
                        .or_default()
                        .push((loaded.clone(), order));
                }
            }
        }
        Ok(orders)
    }

    async fn tell(&self, live: &Arc<Live>, orders: &[(Arc<Loaded>, Order)], fence: Fence) {
        let current: Vec<Slot> = orders
            .iter()
            .map(|(_, order)| (order.job.clone(), order.attempt))
            .collect();
        live.sent().retain(|slot, _| current.contains(slot));
        live.refused().retain(|slot, _| current.contains(slot));
        for (loaded, order) in orders {
            let slot = (order.job.clone(), order.attempt);
            let sent = Sent {
                fence: order.fence,
                wanted: order.wanted,
            };
            if !self.is_due(live, &slot, sent) {
                continue;
            }
            if self.halt.why(&self.parts.view).is_some() || !self.may_tell(live, fence) {
                continue;
            }
            let Some(assignment) = assignments::assignment(&loaded.job, order.clone()) else {
                warn!(job = %order.job, target = %order.target, "order without a plan part");
                continue;
            };
            aldis_proto::failpoint::hit("dispatch-before");
            let frame = v1::OrderFrame {
                assignment: Some(document(&assignment)),
            };
            if self.send(live, Out::Order(frame)).await {
                let trace = loaded.job.header.trace.as_deref().unwrap_or_default();
                debug!(job = %order.job, trace, target = %order.target, attempt = %order.attempt, wanted = ?order.wanted, "order sent");
                live.sent().insert(slot, sent);
            }
            aldis_proto::failpoint::hit("dispatch-after");
        }
    }

    /// Not said on this stream yet, or refused some time ago.
    fn is_due(&self, live: &Live, slot: &Slot, sent: Sent) -> bool {
        let now = self.parts.clock.boot_now();
        match live.refused().get_mut(slot) {
            Some(refused) if now.saturating_sub(refused.at) < REFUSED_AGAIN => false,
            Some(refused) => {
                refused.at = now;
                true
            }
            None => live.sent().get(slot) != Some(&sent),
        }
    }

    /// A fresh view, and a session that this leader has merged and nobody contests.
    fn may_tell(&self, live: &Live, fence: Fence) -> bool {
        let now = self.parts.clock.boot_now();
        self.parts.view.freshness(now).is_some()
            && self.parts.view.read(|all| {
                let known = presence::one(all, &live.target).ok().flatten();
                let current = known.filter(|known| known.is_session(live.generation));
                current.is_some_and(|known| matches!(known.presence(fence), Presence::Live { .. }))
            })
    }
}

/// The version of each hot job, by all its records.
fn version_of_each_job(all: &BTreeMap<Key, Record>) -> BTreeMap<JobId, Version> {
    let version = |job: JobId| {
        let mut version = Version::default();
        for record in view::under(all, &keys::job_prefix(job.as_str())) {
            version.records += 1;
            version.revisions = version.revisions.wrapping_add(record.modified.0);
        }
        (job, version)
    };
    jobs::ids(all).into_iter().map(version).collect()
}
