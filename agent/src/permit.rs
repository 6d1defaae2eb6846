//! For how long this agent may start new segments without hearing from the control plane again.
//!
//! A replica answers the agent's request with the age of its own proof that it sees the store as it is. The permit
//! lasts for what is left of 30 s, counted **from the moment the agent sent its request**, not from the answer: an
//! answer that was long on its way, or was held back, then grants less, down to nothing. Everything here is arithmetic
//! on the boot clock; the agent asks [`Permit::holds`] before each segment and between the steps of a running one.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::{BootTime, Clock};

/// How long a proof of the store's state is good for. An agent that is cut off stops starting work after this long,
/// and the control plane counts on it before it lets another agent of the same identity act.
pub const FULL: Duration = Duration::from_secs(30);

/// What the agent may do by itself, and until when.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Permit {
    until: Option<BootTime>,
}

impl Permit {
    /// Nothing may start. An agent begins with this, also after a restart.
    pub const NONE: Self = Self { until: None };

    /// What the answer to a request sent at `sent` grants, when the replica's proof was `age_of_proof` old. `full` is
    /// [`FULL`] outside tests.
    pub fn granted(full: Duration, sent: BootTime, age_of_proof: Duration) -> Self {
        let left = full.saturating_sub(age_of_proof);
        Self {
            until: (!left.is_zero()).then(|| sent.plus(left)),
        }
    }

    /// The permit after another one was granted. Answers may overtake each other: the later end counts.
    pub fn extended(self, by: Self) -> Self {
        Self {
            until: self.until.max(by.until),
        }
    }

    /// Whether a segment may start at `now`.
    pub fn holds(&self, now: BootTime) -> bool {
        self.until.is_some_and(|until| now < until)
    }

    /// How long it still holds; zero when it does not.
    pub fn left(&self, now: BootTime) -> Duration {
        self.until.map_or(Duration::ZERO, |until| until.since(now))
    }
}

/// The agent's one permit, as everybody who must ask for it sees it. Clones are the same.
#[derive(Clone)]
pub struct Permits {
    current: Arc<watch::Sender<Permit>>,
    clock: Arc<dyn Clock>,
}

impl Permits {
    /// Nothing may start yet.
    pub fn new(clock: Arc<dyn Clock>) -> Self {
        Self {
            current: Arc::new(watch::Sender::new(Permit::NONE)),
            clock,
        }
    }

    /// The answer to a request sent at `sent` grants so long from there.
    pub fn grant(&self, sent: BootTime, length: Duration) {
        // A clock that the request was not sent by grants nothing.
        if sent <= self.clock.boot_now() {
            let granted = Permit::granted(length, sent, Duration::ZERO);
            self.current
                .send_modify(|permit| *permit = permit.extended(granted));
        }
    }

    /// Whether something may start now.
    pub fn holds(&self) -> bool {
        self.current.borrow().holds(self.clock.boot_now())
    }

    /// How long it still holds.
    pub fn left(&self) -> Duration {
        self.current.borrow().left(self.clock.boot_now())
    }

    /// Returns when something may start.
    pub async fn held(&self) {
        let mut current = self.current.subscribe();
        let holds = |permit: &Permit| permit.holds(self.clock.boot_now());
        if current.wait_for(holds).await.is_err() {
            // Without its sender, which `self` holds, this cannot be; and nothing may start.
            std::future::pending().await
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> BootTime {
        BootTime(Duration::from_secs(seconds))
    }

    fn granted(sent: u64, age: u64) -> Permit {
        Permit::granted(FULL, at(sent), Duration::from_secs(age))
    }

    #[test]
    fn it_lasts_thirty_seconds_less_the_age_of_the_proof_from_the_sending() {
        let permit = granted(100, 2);
        assert!(permit.holds(at(127)));
        assert!(!permit.holds(at(128)), "the end itself is outside");
        assert_eq!(permit.left(at(120)), Duration::from_secs(8));
    }

    #[test]
    fn an_old_proof_grants_nothing() {
        assert_eq!(granted(100, 30), Permit::NONE);
        assert_eq!(granted(100, 300), Permit::NONE);
        assert!(!Permit::NONE.holds(at(0)));
    }

    #[test]
    fn an_answer_that_was_long_on_its_way_grants_what_is_left() {
        let asked_long_ago = granted(100, 0);
        assert!(!asked_long_ago.holds(at(131)));
    }

    #[test]
    fn an_overtaken_answer_takes_nothing_away() {
        assert_eq!(granted(110, 0).extended(granted(100, 0)), granted(110, 0));
        assert_eq!(granted(110, 0).extended(Permit::NONE), granted(110, 0));
    }
}
