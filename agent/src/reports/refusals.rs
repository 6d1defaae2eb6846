//! Orders that the agent does not carry out, and why, said for as long as they stand.
//!
//! Nothing acknowledges a refusal, and one that is lost leaves a job waiting without a reason. So each is said again
//! with growing pauses until the order is taken, a newer attempt takes its place, or the stream that it was for ends.
//! The same refusal again is no reason to say it sooner: a control plane that orders again at once would be answered at
//! once, for ever.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId};
use aldis_proto::v1::OrderRefused;
use tokio::time::Instant;

use super::{FIRST_PAUSE, LONGEST_PAUSE};

/// By attempt.
#[derive(Default)]
pub(super) struct Refusals(BTreeMap<(JobId, Attempt), Refusal>);

struct Refusal {
    reason: String,
    /// On which stream it was said last, and when it is due again there.
    said: Option<(u64, Instant)>,
    pause: Duration,
}

impl Refusals {
    /// True where it is news.
    pub(super) fn add(&mut self, job: JobId, attempt: Attempt, reason: String) -> bool {
        let key = (job, attempt);
        if self.0.get(&key).is_some_and(|known| known.reason == reason) {
            return false;
        }
        let refusal = Refusal {
            reason,
            said: None,
            pause: FIRST_PAUSE,
        };
        self.0.insert(key, refusal);
        true
    }

    /// The agent holds this attempt of the job, or a newer one: nothing stands against it or what came before it.
    pub(super) fn withdraw(&mut self, job: &JobId, attempt: Attempt) {
        self.0
            .retain(|(of, number), _| of != job || *number > attempt);
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    /// What is to be said on stream `stream` now.
    pub(super) fn due(&mut self, stream: u64, now: Instant) -> Vec<OrderRefused> {
        let mut due = Vec::new();
        for ((job, attempt), refusal) in &mut self.0 {
            if refusal.due_at(stream, now) > now {
                continue;
            }
            refusal.pause = match refusal.said {
                Some((on, _)) if on == stream => (refusal.pause * 2).min(LONGEST_PAUSE),
                Some(_) | None => FIRST_PAUSE,
            };
            refusal.said = Some((stream, now + refusal.pause));
            due.push(OrderRefused {
                job: job.to_string(),
                attempt: attempt.0,
                reason: refusal.reason.clone(),
            });
        }
        due
    }

    /// When the next is due on stream `stream`.
    pub(super) fn next_due(&self, stream: u64, now: Instant) -> Option<Instant> {
        let due = self.0.values().map(|refusal| refusal.due_at(stream, now));
        due.min()
    }
}

impl Refusal {
    fn due_at(&self, stream: u64, now: Instant) -> Instant {
        match self.said {
            Some((on, again)) if on == stream => again,
            Some(_) | None => now,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reasons(refusals: &mut Refusals, now: Instant) -> Vec<String> {
        let due = refusals.due(1, now);
        due.into_iter().map(|refused| refused.reason).collect()
    }

    #[test]
    fn it_is_said_again_with_growing_pauses_however_often_it_is_ordered() {
        let mut refusals = Refusals::default();
        let start = Instant::now();
        let at = |ms: u64| start + Duration::from_millis(ms);
        assert!(refusals.add("j-1".into(), Attempt(2), "full".into()));
        assert_eq!(reasons(&mut refusals, at(0)), ["full"]);
        assert!(!refusals.add("j-1".into(), Attempt(2), "full".into()));
        assert!(reasons(&mut refusals, at(999)).is_empty());
        assert_eq!(reasons(&mut refusals, at(1000)), ["full"]);
        assert!(reasons(&mut refusals, at(2999)).is_empty());
        assert!(refusals.add("j-1".into(), Attempt(2), "broken".into()));
        assert_eq!(reasons(&mut refusals, at(2999)), ["broken"], "news");
        assert_eq!(refusals.next_due(1, at(2999)), Some(at(3999)));
    }

    #[test]
    fn an_order_that_is_taken_ends_the_refusals_of_it_and_of_older_ones() {
        let mut refusals = Refusals::default();
        let now = Instant::now();
        for (job, attempt) in [("j-1", 1), ("j-1", 2), ("j-1", 3), ("j-2", 1)] {
            refusals.add(job.into(), Attempt(attempt), format!("{job} {attempt}"));
        }
        refusals.withdraw(&"j-1".into(), Attempt(2));
        assert_eq!(reasons(&mut refusals, now), ["j-1 3", "j-2 1"]);
    }
}
