//! What became of the requests.
//!
//! Every request that was sent is, at any moment, in exactly one place: served, failed, or under way.
//! `sent = served + failed + under way` holds for every reading, since each change is made under one lock.

use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::net::SocketAddr;
use std::time::Duration;

use jiff::Timestamp;
use serde::{Serialize, Serializer};

use super::latency::Latency;

/// Stands for the release of requests that nobody answered.
pub const NO_RELEASE: &str = "(no answer)";

/// Failures that are kept with their circumstances. Enough to see what happened, of any number of them.
const KEPT: usize = 20;

/// Why a request failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Cause {
    /// Nobody listened at the address.
    Refused,
    /// The connection ended before the whole answer had come.
    Reset,
    /// No whole answer within the limit.
    Timeout,
    /// The answer was an error of this status.
    Status(u16),
    /// No way leads to the address.
    Unreachable,
    /// The Service had no address to send it to.
    NoAddress,
    /// What a server should never do, such as an answer that is no HTTP; or trouble on this machine.
    Other,
}

/// A request that failed, and its circumstances.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Failure {
    /// Counts the failures of its cluster, from 1.
    pub number: u64,
    /// When that was known.
    pub at: Timestamp,
    /// Where it was sent.
    pub address: Option<SocketAddr>,
    /// Why it failed.
    pub cause: Cause,
    /// In more words.
    pub detail: String,
}

/// How a request ended.
#[derive(Clone, Debug)]
pub(super) struct Outcome {
    /// Where it was sent.
    pub(super) address: Option<SocketAddr>,
    /// Who answered, if the head of an answer came.
    pub(super) release: Option<String>,
    /// Whether it was served; if not, why not.
    pub(super) result: Result<(), (Cause, String)>,
    /// From before it connected.
    pub(super) took: Duration,
}

/// What became of the requests of one release.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Tally {
    /// Answered whole, and not by an error.
    pub served: u64,
    /// By cause.
    pub failed: BTreeMap<Cause, u64>,
    /// Of those that were served.
    pub latency: Latency,
}

/// What became of the requests to one cluster.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Counts {
    /// All that were begun.
    pub sent: u64,
    /// Those that are not ended.
    pub under_way: u64,
    /// Those that were due and never begun, since too many were under way. Not among `sent`.
    pub held_back: u64,
    /// By the release that answered.
    pub releases: BTreeMap<String, Tally>,
    /// The last ones.
    pub failures: VecDeque<Failure>,
}

impl Counts {
    /// How many were served.
    pub fn served(&self) -> u64 {
        self.releases.values().map(|tally| tally.served).sum()
    }

    /// How many failed.
    pub fn failed(&self) -> u64 {
        self.releases.values().map(Tally::failures).sum()
    }

    /// How many failed by this cause.
    pub fn failed_by(&self, cause: Cause) -> u64 {
        let all = self.releases.values();
        all.filter_map(|tally| tally.failed.get(&cause)).sum()
    }

    /// Of all that were served.
    pub fn latency(&self) -> Latency {
        let mut all = Latency::default();
        for tally in self.releases.values() {
            all.add(&tally.latency);
        }
        all
    }

    pub(super) fn begin(&mut self) {
        self.sent += 1;
        self.under_way += 1;
    }

    pub(super) fn end(&mut self, outcome: Outcome) {
        self.under_way -= 1;
        let release = outcome.release.unwrap_or_else(|| NO_RELEASE.to_owned());
        let tally = self.releases.entry(release).or_default();
        match outcome.result {
            Ok(()) => {
                tally.served += 1;
                tally.latency.note(outcome.took);
            }
            Err((cause, detail)) => {
                *tally.failed.entry(cause).or_default() += 1;
                self.keep(outcome.address, cause, detail);
            }
        }
    }

    fn keep(&mut self, address: Option<SocketAddr>, cause: Cause, detail: String) {
        let (number, at) = (self.failed(), Timestamp::now());
        self.failures.push_back(Failure {
            number,
            at,
            address,
            cause,
            detail,
        });
        if self.failures.len() > KEPT {
            self.failures.pop_front();
        }
    }

    /// What was counted after an earlier reading. A request that was under way then is counted where it ended.
    pub fn since(&self, earlier: &Self) -> Self {
        let none = Tally::default();
        let releases = self.releases.iter().map(|(release, tally)| {
            let before = earlier.releases.get(release).unwrap_or(&none);
            (release.clone(), tally.since(before))
        });
        let seen = earlier.failed();
        let failures = self.failures.iter().filter(|failure| failure.number > seen);
        Self {
            sent: self.sent - earlier.sent,
            under_way: self.under_way,
            held_back: self.held_back - earlier.held_back,
            releases: releases.filter(|(_, tally)| !tally.is_empty()).collect(),
            failures: failures.cloned().collect(),
        }
    }

    /// Counts those of another cluster, too. Failures keep the number that their own cluster gave them.
    pub fn add(&mut self, other: &Self) {
        self.sent += other.sent;
        self.under_way += other.under_way;
        self.held_back += other.held_back;
        for (release, tally) in &other.releases {
            self.releases.entry(release.clone()).or_default().add(tally);
        }
        self.failures.extend(other.failures.iter().cloned());
    }
}

impl Tally {
    /// All that failed.
    pub fn failures(&self) -> u64 {
        self.failed.values().sum()
    }

    fn is_empty(&self) -> bool {
        self.served == 0 && self.failed.is_empty()
    }

    fn since(&self, earlier: &Self) -> Self {
        let before = |cause: &Cause| earlier.failed.get(cause).copied().unwrap_or(0);
        let failed = self
            .failed
            .iter()
            .map(|(cause, count)| (*cause, count - before(cause)));
        Self {
            served: self.served - earlier.served,
            failed: failed.filter(|(_, count)| *count > 0).collect(),
            latency: self.latency.since(&earlier.latency),
        }
    }

    fn add(&mut self, other: &Self) {
        self.served += other.served;
        for (cause, count) in &other.failed {
            *self.failed.entry(*cause).or_default() += count;
        }
        self.latency.add(&other.latency);
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => formatter.write_str("refused"),
            Self::Reset => formatter.write_str("reset"),
            Self::Timeout => formatter.write_str("timeout"),
            Self::Status(status) => write!(formatter, "status {status}"),
            Self::Unreachable => formatter.write_str("unreachable"),
            Self::NoAddress => formatter.write_str("no address"),
            Self::Other => formatter.write_str("other"),
        }
    }
}

/// As a text, also as a key.
impl Serialize for Cause {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(release: Option<&str>, result: Result<(), Cause>) -> Outcome {
        Outcome {
            address: None,
            release: release.map(str::to_owned),
            result: result.map_err(|cause| (cause, String::new())),
            took: Duration::from_millis(2),
        }
    }

    fn some() -> Counts {
        let mut counts = Counts::default();
        for outcome in [
            ended(Some("v1"), Ok(())),
            ended(Some("v2"), Err(Cause::Status(500))),
            ended(None, Err(Cause::Refused)),
        ] {
            counts.begin();
            counts.end(outcome);
        }
        counts
    }

    #[test]
    fn every_request_is_in_one_place() {
        let mut counts = some();
        counts.begin();
        assert_eq!(counts.sent, 4);
        assert_eq!(
            (counts.served(), counts.failed(), counts.under_way),
            (1, 2, 1)
        );
        assert_eq!(counts.failed_by(Cause::Refused), 1);
        assert_eq!(counts.releases[NO_RELEASE].failures(), 1);
    }

    #[test]
    fn a_request_that_was_under_way_is_counted_where_it_ended() {
        let mut counts = some();
        counts.begin();
        let earlier = counts.clone();
        counts.end(ended(Some("v2"), Err(Cause::Reset)));
        let since = counts.since(&earlier);
        assert_eq!((since.sent, since.served(), since.failed()), (0, 0, 1));
        let releases: Vec<&String> = since.releases.keys().collect();
        assert_eq!(releases, ["v2"]);
        let causes: Vec<Cause> = since.failures.iter().map(|failure| failure.cause).collect();
        assert_eq!(causes, [Cause::Reset]);
    }

    #[test]
    fn only_the_last_failures_are_kept_and_all_are_counted() {
        let mut counts = Counts::default();
        for _ in 0..100 {
            counts.begin();
            counts.end(ended(None, Err(Cause::Timeout)));
        }
        assert_eq!(counts.failed(), 100);
        assert_eq!(counts.failures.len(), KEPT);
        assert_eq!(counts.failures.back().unwrap().number, 100);
    }
}
