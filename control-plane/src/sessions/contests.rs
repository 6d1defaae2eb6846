//! Since when a contest is known here, on this machine's own clock.
//!
//! Two processes under one identity wait until one of them was silent for a permit. How long that is may
//! not hang on a wall clock, which anybody can set: each replica counts from when it saw the contest
//! first. A replica that sees it late waits longer, which harms nobody.

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aldis_core::ids::TargetName;

use crate::records::Contested;

/// For the older process's clock, which may run slower than ours.
const MARGIN: Duration = Duration::from_secs(1);

/// Contests under way, with the boot clock's time at the first sight of each.
#[derive(Default)]
pub(super) struct Contests(Mutex<BTreeMap<TargetName, (Contested, Duration)>>);

impl Contests {
    /// Whether nobody has renewed this contest for a permit since it was seen here first.
    pub(super) fn is_over(
        &self,
        target: &TargetName,
        contested: &Contested,
        permit: Duration,
        boot_now: Duration,
    ) -> bool {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let first = || (contested.clone(), boot_now);
        let known = seen.entry(target.clone()).or_insert_with(first);
        if known.0 != *contested {
            *known = first();
        }
        boot_now.saturating_sub(known.1) > permit + MARGIN
    }

    /// There is none any more.
    pub(super) fn forget(&self, target: &TargetName) {
        let mut seen = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        seen.remove(target);
    }
}

#[cfg(test)]
mod tests {
    use aldis_core::ids::Timestamp;

    use super::*;

    const PERMIT: Duration = Duration::from_secs(30);

    fn contested(newest: &str, wall: u64) -> Contested {
        Contested {
            processes: vec![newest.to_owned(), "older".to_owned()],
            seen_at: Timestamp(wall),
            why: "two".to_owned(),
        }
    }

    #[test]
    fn a_contest_counts_from_its_first_sight_whatever_the_wall_clock_says() {
        let (contests, target) = (Contests::default(), "eu/prod".parse().unwrap());
        let at = |seconds| Duration::from_secs(1_000_u64 + seconds);
        // By its wall clock it was seen half a century ago.
        let contest = contested("a", 1);
        assert!(!contests.is_over(&target, &contest, PERMIT, at(0)));
        assert!(!contests.is_over(&target, &contest, PERMIT, at(31)));
        assert!(contests.is_over(&target, &contest, PERMIT, at(32)));
    }

    #[test]
    fn a_contest_that_was_renewed_counts_anew() {
        let (contests, target) = (Contests::default(), "eu/prod".parse().unwrap());
        let at = |seconds| Duration::from_secs(1_000_u64 + seconds);
        assert!(!contests.is_over(&target, &contested("a", 1), PERMIT, at(0)));
        assert!(!contests.is_over(&target, &contested("b", 2), PERMIT, at(40)));
        assert!(!contests.is_over(&target, &contested("b", 2), PERMIT, at(60)));
        assert!(contests.is_over(&target, &contested("b", 2), PERMIT, at(72)));
        contests.forget(&target);
        assert!(!contests.is_over(&target, &contested("b", 2), PERMIT, at(100)));
    }
}
