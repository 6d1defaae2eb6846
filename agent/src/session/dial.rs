//! Which replica next, and how long to wait before it.

use std::time::Duration;

use crate::config::Endpoint;

/// After the first failure: short, since most are one replica that restarts while another serves.
const SHORTEST: Duration = Duration::from_millis(200);

/// No wait is longer: an agent is back within this of a control plane that was away.
const LONGEST: Duration = Duration::from_secs(15);

/// Replicas in turn, from a random one, so that a thousand agents do not all ask the first.
pub(super) struct Dial {
    endpoints: Vec<Endpoint>,
    next: usize,
    failures: u32,
    /// Wait at least a random part of this once: everybody was asked to move at one moment.
    spread: Duration,
}

impl Dial {
    pub(super) fn new(endpoints: Vec<Endpoint>) -> Self {
        Self {
            next: rand::random_range(0..endpoints.len().max(1)),
            endpoints,
            failures: 0,
            spread: Duration::ZERO,
        }
    }

    /// Waits as long as it should, and names the replica to try.
    pub(super) async fn next(&mut self) -> Endpoint {
        let spread = std::mem::take(&mut self.spread).mul_f64(rand::random_range(0.0..0.5));
        tokio::time::sleep(pause(self.failures, self.endpoints.len(), rand::random()) + spread)
            .await;
        self.turn()
    }

    fn turn(&mut self) -> Endpoint {
        let endpoint = self.endpoints[self.next % self.endpoints.len()].clone();
        self.next = (self.next + 1) % self.endpoints.len();
        endpoint
    }

    /// No stream, or one that broke.
    pub(super) fn failed(&mut self) {
        self.failures = self.failures.saturating_add(1);
    }

    /// A stream has lived.
    pub(super) fn lived(&mut self) {
        self.failures = 0;
    }

    /// Everybody moves within so long.
    pub(super) fn moved(&mut self, within: Duration) {
        self.failures = 0;
        self.spread = within;
    }
}

/// Doubled with each round over all replicas; half of it at random.
fn pause(failures: u32, replicas: usize, random: f64) -> Duration {
    if failures == 0 {
        return Duration::ZERO;
    }
    let rounds = (failures - 1) / u32::try_from(replicas.max(1)).unwrap_or(u32::MAX);
    let full = SHORTEST
        .saturating_mul(2_u32.saturating_pow(rounds))
        .min(LONGEST);
    full.mul_f64(0.5 + random / 2.0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_with_each_round_and_have_an_end() {
        let pauses: Vec<u128> = [0, 1, 2, 3, 5, 7, 100]
            .map(|failures| pause(failures, 2, 1.0).as_millis())
            .to_vec();
        assert_eq!(pauses, [0, 200, 200, 400, 800, 1600, 15_000]);
        assert_eq!(pause(1, 2, 0.0).as_millis(), 100, "half of it is random");
    }

    #[test]
    fn every_replica_gets_its_turn() {
        let endpoints: Vec<Endpoint> = ["a:1", "b:1", "c:1"]
            .map(|text| text.parse().unwrap())
            .to_vec();
        let mut dial = Dial::new(endpoints.clone());
        let mut tried: Vec<Endpoint> = (0..3).map(|_| dial.turn()).collect();
        tried.sort_by_key(ToString::to_string);
        assert_eq!(tried, endpoints);
    }
}
