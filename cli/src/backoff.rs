//! Growing waits between tries to open a stream again.

use std::time::Duration;

use tokio::time::Instant;

use crate::client::Broken;
use crate::error::Error;

/// First and longest wait. A replica that takes over needs some 5 s.
const WAIT: (Duration, Duration) = (Duration::from_millis(250), Duration::from_secs(5));

/// Without contact for so long, somebody should look at the control plane instead.
const PATIENCE: Duration = Duration::from_secs(10 * 60);

/// Waits that grow while there is no contact.
#[derive(Debug)]
pub struct Backoff {
    next: Duration,
    silent_since: Option<Instant>,
}

impl Default for Backoff {
    fn default() -> Self {
        Self {
            next: WAIT.0,
            silent_since: None,
        }
    }
}

impl Backoff {
    /// Something was heard.
    pub fn contact(&mut self) {
        *self = Self::default();
    }

    /// How long to wait after a break, or the error to give up with.
    pub fn after(&mut self, broken: &Broken, now: Instant) -> Result<Duration, Error> {
        let since = *self.silent_since.get_or_insert(now);
        if !broken.passing || now.duration_since(since) > PATIENCE {
            return Err(broken.error.clone());
        }
        let wait = self.next;
        self.next = (self.next * 2).min(WAIT.1);
        // Up to a quarter more, so that a hundred watchers do not come back at once.
        Ok(wait + wait.mul_f64(rand::random::<f64>() / 4.0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::exit::Exit;

    fn broken(passing: bool) -> Broken {
        Broken {
            error: Error::new(Exit::Unreachable, "gone"),
            passing,
        }
    }

    #[test]
    fn waits_grow_to_a_bound_and_end_after_ten_minutes() {
        let start = Instant::now();
        let mut backoff = Backoff::default();
        let (mut waited, mut longest) = (Duration::ZERO, Duration::ZERO);
        while let Ok(wait) = backoff.after(&broken(true), start + waited) {
            (waited, longest) = (waited + wait, longest.max(wait));
            assert!(waited < PATIENCE * 2);
        }
        assert!(waited > PATIENCE && longest <= WAIT.1.mul_f64(1.25));
    }

    #[test]
    fn contact_starts_over_and_a_refusal_ends_at_once() {
        let now = Instant::now();
        let mut backoff = Backoff::default();
        for _ in 0..8 {
            backoff.after(&broken(true), now).unwrap();
        }
        backoff.contact();
        let wait = backoff.after(&broken(true), now).unwrap();
        assert!(wait <= WAIT.0.mul_f64(1.25));
        assert!(backoff.after(&broken(false), now).is_err());
    }
}
