//! Permits: an agent begins segments only while it holds one, so that a replica which cannot see the
//! store cannot let anybody begin anything.

use aldis_core::inventory::Presence;
use aldis_proto::v1;

use super::{Live, Shared};
use crate::presence;

impl Shared {
    /// Answers a request. The length is that of a permit less the age of the proof that this view is
    /// complete, and counts from the moment the agent sent.
    pub(super) fn permit(&self, live: &Live, request: &v1::PermitRequest) -> v1::Permit {
        let answer = |duration_ms: u64, refusal: &str| v1::Permit {
            sent_boot_ms: request.sent_boot_ms,
            duration_ms,
            refusal: refusal.to_owned(),
        };
        let Some(age) = self.parts.view.freshness(self.parts.clock.boot_now()) else {
            return answer(
                0,
                "this replica cannot prove that it knows the store's newest state",
            );
        };
        let fence = self.fence();
        if let Some(why) = self.halt.why(&self.parts.view) {
            return answer(0, &format!("all dispatch is stopped: {why}"));
        }
        let presence = self.parts.view.read(|all| {
            let known = presence::one(all, &live.target).ok().flatten();
            // A stream that another one took the place of speaks for nobody.
            let current = known.filter(|known| known.is_session(live.generation));
            current.map(|known| known.presence(fence))
        });
        match presence {
            Some(Presence::Live { .. }) => {
                let left = self.parts.permit.saturating_sub(age);
                answer(u64::try_from(left.as_millis()).unwrap_or(0), "")
            }
            Some(Presence::Contested { why } | Presence::Held { why }) => answer(0, &why),
            Some(Presence::NotMerged) => answer(
                0,
                "the leader has not compared your attempts with its own yet",
            ),
            Some(Presence::Absent { .. }) | None => answer(0, "your session is not recorded"),
        }
    }
}
