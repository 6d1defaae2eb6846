//! All that is known of the requests at one moment, to read, to compare and to print.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use serde::Serialize;

use super::count::{Counts, Tally};

/// The counts of each cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Report {
    /// By `region/cluster`.
    pub clusters: BTreeMap<String, Counts>,
}

impl Report {
    /// What was counted after an earlier report of the same load.
    pub fn since(&self, earlier: &Self) -> Self {
        let none = Counts::default();
        let clusters = self.clusters.iter().map(|(name, counts)| {
            let before = earlier.clusters.get(name).unwrap_or(&none);
            (name.clone(), counts.since(before))
        });
        Self {
            clusters: clusters.collect(),
        }
    }

    /// The same by region, which is what stands before the `/`.
    pub fn by_region(&self) -> Self {
        let mut regions = BTreeMap::<String, Counts>::new();
        for (name, counts) in &self.clusters {
            let region = name
                .split_once('/')
                .map_or(name.as_str(), |(region, _)| region);
            regions.entry(region.to_owned()).or_default().add(counts);
        }
        Self { clusters: regions }
    }

    /// All together.
    pub fn total(&self) -> Counts {
        let mut total = Counts::default();
        for counts in self.clusters.values() {
            total.add(counts);
        }
        total
    }
}

/// A line a cluster, and below it a line for each release that failed requests or is not alone.
impl fmt::Display for Report {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let width = self.clusters.keys().map(String::len).max().unwrap_or(0);
        for (name, counts) in &self.clusters {
            let latency = counts.latency();
            writeln!(
                formatter,
                "{name:width$}  {} requests: {} served, {} failed{}{}, p50 {}, p99 {}",
                counts.sent,
                counts.served(),
                counts.failed(),
                more(counts.under_way, "under way"),
                more(counts.held_back, "held back"),
                shown(latency.quantile(0.5)),
                shown(latency.quantile(0.99)),
            )?;
            let alone = counts.releases.len() == 1 && counts.failed() == 0;
            for (release, tally) in counts.releases.iter().filter(|_| !alone) {
                writeln!(formatter, "{:width$}    {release}: {}", "", line(tally))?;
            }
        }
        Ok(())
    }
}

fn more(count: u64, what: &str) -> String {
    match count {
        0 => String::new(),
        _ => format!(", {count} {what}"),
    }
}

fn line(tally: &Tally) -> String {
    let failed = tally
        .failed
        .iter()
        .map(|(cause, count)| format!("{count} {cause}"));
    let failed: Vec<String> = failed.collect();
    let failed = match failed.as_slice() {
        [] => "0 failed".to_owned(),
        some => format!("{} failed ({})", tally.failures(), some.join(", ")),
    };
    format!("{} served, {failed}", tally.served)
}

fn shown(time: Option<Duration>) -> String {
    time.map_or("-".to_owned(), |time| {
        format!("{:.1} ms", time.as_secs_f64() * 1e3)
    })
}

#[cfg(test)]
mod tests {
    use super::super::count::{Cause, NO_RELEASE};
    use super::*;

    fn counts(served: u64, refused: u64) -> Counts {
        let mut counts = Counts {
            sent: served + refused,
            ..Counts::default()
        };
        let mut tally = Tally {
            served,
            ..Tally::default()
        };
        (0..served).for_each(|_| tally.latency.note(Duration::from_millis(1)));
        counts.releases.insert("v1".to_owned(), tally);
        if refused > 0 {
            let failed = [(Cause::Refused, refused)].into();
            let tally = Tally {
                failed,
                ..Tally::default()
            };
            counts.releases.insert(NO_RELEASE.to_owned(), tally);
        }
        counts
    }

    fn report() -> Report {
        let clusters = [
            ("eu/a", counts(10, 0)),
            ("eu/b", counts(7, 2)),
            ("us/a", counts(1, 0)),
        ];
        Report {
            clusters: clusters
                .map(|(name, counts)| (name.to_owned(), counts))
                .into(),
        }
    }

    #[test]
    fn a_region_is_the_sum_of_its_clusters() {
        let regions = report().by_region();
        let names: Vec<&String> = regions.clusters.keys().collect();
        assert_eq!(names, ["eu", "us"]);
        let eu = &regions.clusters["eu"];
        assert_eq!((eu.sent, eu.served(), eu.failed()), (19, 17, 2));
        assert_eq!(report().total().sent, 20);
    }

    #[test]
    fn what_failed_is_shown_by_cause_and_a_quiet_cluster_takes_a_line() {
        insta::assert_snapshot!(report(), @r"
        eu/a  10 requests: 10 served, 0 failed, p50 1.0 ms, p99 1.0 ms
        eu/b  9 requests: 7 served, 2 failed, p50 1.0 ms, p99 1.0 ms
                (no answer): 0 served, 2 failed (2 refused)
                v1: 7 served, 0 failed
        us/a  1 requests: 1 served, 0 failed, p50 1.0 ms, p99 1.0 ms
        ");
    }
}
