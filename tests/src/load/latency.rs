//! How long requests took, in buckets: sixteen to each doubling, so that what is read is at most a sixteenth more
//! than what was. Two can be added and taken from each other, which exact quantiles cannot.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::Serialize;

/// Buckets to a doubling, as a power of two.
const FINE: u32 = 4;

/// Counted durations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Latency {
    /// By the greatest microsecond of a bucket.
    buckets: BTreeMap<u64, u64>,
}

impl Latency {
    /// Counts one.
    pub fn note(&mut self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        *self.buckets.entry(last_of_bucket(micros)).or_default() += 1;
    }

    /// How many were counted.
    pub fn count(&self) -> u64 {
        self.buckets.values().sum()
    }

    /// The time within which this share of all ended, such as 0.99. `None` when none was counted.
    pub fn quantile(&self, share: f64) -> Option<Duration> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        let found = self.buckets.iter().find(|(_, count)| {
            seen += *count;
            seen >= wanted
        });
        found.map(|(micros, _)| Duration::from_micros(*micros))
    }

    /// Counts those of another, too.
    pub fn add(&mut self, other: &Self) {
        for (micros, count) in &other.buckets {
            *self.buckets.entry(*micros).or_default() += count;
        }
    }

    /// What was counted after an earlier reading of the same.
    pub fn since(&self, earlier: &Self) -> Self {
        let before = |micros: &u64| earlier.buckets.get(micros).copied().unwrap_or(0);
        let buckets = self.buckets.iter();
        let counted = buckets.map(|(micros, count)| (*micros, count - before(micros)));
        Self {
            buckets: counted.filter(|(_, count)| *count > 0).collect(),
        }
    }
}

/// The greatest value that shares a bucket with this one.
fn last_of_bucket(micros: u64) -> u64 {
    let doublings = micros.checked_ilog2().unwrap_or(0);
    let width = doublings.saturating_sub(FINE);
    micros | ((1 << width) - 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn micros(latency: &Latency, share: f64) -> u64 {
        latency.quantile(share).unwrap().as_micros() as u64
    }

    #[test]
    fn quantiles_are_true_to_a_sixteenth() {
        let mut latency = Latency::default();
        for number in 1..=10_000 {
            latency.note(Duration::from_micros(number));
        }
        for (share, exact) in [(0.5, 5_000), (0.9, 9_000), (0.99, 9_900), (1.0, 10_000)] {
            let read = micros(&latency, share);
            assert!(
                (exact..=exact + exact / 16).contains(&read),
                "{share}: {read}"
            );
        }
        assert_eq!(micros(&latency, 0.0), 1);
        assert_eq!(Latency::default().quantile(0.5), None);
    }

    #[test]
    fn what_was_counted_since_is_what_was_added() {
        let mut latency = Latency::default();
        latency.note(Duration::from_millis(1));
        let earlier = latency.clone();
        let mut added = Latency::default();
        for millis in [1, 7, 3000] {
            latency.note(Duration::from_millis(millis));
            added.note(Duration::from_millis(millis));
        }
        assert_eq!(latency.since(&earlier), added);
        let mut sum = earlier.clone();
        sum.add(&added);
        assert_eq!(sum, latency);
    }

    #[test]
    fn no_duration_is_out_of_range() {
        assert_eq!(last_of_bucket(0), 0);
        assert_eq!(last_of_bucket(u64::MAX), u64::MAX);
        assert_eq!(last_of_bucket(31), 31);
        assert_eq!(last_of_bucket(32), 33);
    }
}
