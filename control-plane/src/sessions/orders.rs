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
use tracing::{debug, warn};

use super::{Live, Shared};
use crate::jobs::{self, Loaded};
use crate::presence;
use crate::store::{Revision, keys};
use crate::view;

/// Changes that come within this are handled together.
const TOGETHER: Duration = Duration::from_millis(2);

/// Looked at anyway: freshness comes and goes without a change.
const AT_LEAST_EVERY: Duration = Duration::from_millis(500);

/// Which attempt an order is about.
pub(super) type Slot = (JobId, Attempt);

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
        {
            let Some(shared) = shared.upgrade() else {
                return;
            };
            shared.send_orders(&mut kept).await;
        }
        let ended = tokio::select! {
            changed = changed.changed() => changed.is_err(),
            () = tokio::time::sleep(AT_LEAST_EVERY) => false,
        };
        if ended {
            return;
        }
        tokio::time::sleep(TOGETHER).await;
    }
}

/// Jobs as read last, with the newest revision among their records.
type Kept = BTreeMap<JobId, (Revision, Arc<Loaded>)>;

impl Shared {
    async fn send_orders(&self, kept: &mut Kept) {
        let here: Vec<Arc<Live>> = self.live().values().cloned().collect();
        if here.is_empty() {
            return;
        }
        let fence = self.fence();
        let orders = match self.orders(kept, fence).await {
            Ok(orders) => orders,
            Err(error) => return warn!(%error, "orders not read"),
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
        let newest = self.parts.view.read(newest_of_each_job);
        kept.retain(|job, _| newest.contains_key(job));
        let mut orders: BTreeMap<TargetName, Vec<(Arc<Loaded>, Order)>> = BTreeMap::new();
        for (job, revision) in newest {
            if kept.get(&job).is_none_or(|(read, _)| *read != revision) {
                match jobs::load(&self.parts.view, &self.parts.plans, &job).await? {
                    Some(loaded) => kept.insert(job.clone(), (revision, Arc::new(loaded))),
                    None => kept.remove(&job),
                };
            }
            let Some((_, loaded)) = kept.get(&job) else {
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
        for (loaded, order) in orders {
            let slot = (order.job.clone(), order.attempt);
            let sent = Sent {
                fence: order.fence,
                wanted: order.wanted,
            };
            if live.sent().get(&slot) == Some(&sent) || !self.may_tell(live, fence) {
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
                debug!(job = %order.job, target = %order.target, attempt = %order.attempt, wanted = ?order.wanted, "order sent");
                live.sent().insert(slot, sent);
            }
            aldis_proto::failpoint::hit("dispatch-after");
        }
    }

    /// A fresh view, and a session that this leader has merged and nobody contests.
    fn may_tell(&self, live: &Live, fence: Fence) -> bool {
        if self
            .parts
            .view
            .freshness(self.parts.clock.boot_now())
            .is_none()
        {
            return false;
        }
        self.parts.view.read(|all| {
            let known = presence::one(all, &live.target).ok().flatten();
            known.is_some_and(|known| {
                let ours = known
                    .session
                    .as_ref()
                    .is_some_and(|(session, _)| session.generation == live.generation);
                ours && matches!(known.presence(fence), Presence::Live { .. })
            })
        })
    }
}

/// The newest revision among the records of each hot job.
fn newest_of_each_job(
    all: &BTreeMap<crate::store::Key, crate::store::Record>,
) -> BTreeMap<JobId, Revision> {
    let mut newest: BTreeMap<JobId, Revision> = BTreeMap::new();
    for record in view::under(all, keys::JOBS) {
        let job = match record.key.name() {
            Some(keys::Name::JobHeader { job } | keys::Name::JobTarget { job, .. }) => job,
            _ => continue,
        };
        let so_far = newest.entry(JobId::new(job)).or_default();
        *so_far = (*so_far).max(record.modified);
    }
    newest
}
