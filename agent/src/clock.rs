//! The agent's two clocks, by argument wherever something is decided.
//!
//! Durations that safety rests on (permits, deadlines) are read from CLOCK_BOOTTIME, which no one sets and which goes
//! on in suspend; `std::time::Instant` stops there, and a resumed machine would take an ended permit for a valid one.
//! The wall clock is for people and for retention.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::ClockId;

/// A point on the boot clock of this machine: the time since it started, suspended time included.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct BootTime(pub Duration);

impl BootTime {
    /// The point `later` than this.
    pub fn plus(self, later: Duration) -> Self {
        Self(self.0.saturating_add(later))
    }

    /// How long ago `earlier` was; zero if it lies ahead.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.saturating_sub(earlier.0)
    }
}

/// Where time comes from.
pub trait Clock: Send + Sync {
    /// The boot clock.
    fn boot_now(&self) -> BootTime;
    /// The wall clock, in milliseconds since 1970. It may jump either way at any time.
    fn wall_now_ms(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boot_now(&self) -> BootTime {
        let now = rustix::time::clock_gettime(ClockId::Boottime);
        BootTime(Duration::new(
            now.tv_sec.unsigned_abs(),
            now.tv_nsec.unsigned_abs() as u32,
        ))
    }

    fn wall_now_ms(&self) -> u64 {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(0, |since| since.as_millis() as u64)
    }
}

/// A clock that goes only when told to. Clones show the same time.
#[derive(Clone, Debug)]
pub struct ManualClock {
    times: Arc<Mutex<(Duration, u64)>>,
}

impl ManualClock {
    /// A clock at these times.
    pub fn new(boot: Duration, wall_ms: u64) -> Self {
        Self {
            times: Arc::new(Mutex::new((boot, wall_ms))),
        }
    }

    /// Lets both clocks go on.
    pub fn advance(&self, by: Duration) {
        let mut times = self.times.lock().unwrap_or_else(PoisonError::into_inner);
        times.0 += by;
        times.1 += by.as_millis() as u64;
    }

    /// Sets the wall clock alone, as an administrator or NTP does.
    pub fn set_wall_ms(&self, wall_ms: u64) {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).1 = wall_ms;
    }
}

impl Clock for ManualClock {
    fn boot_now(&self) -> BootTime {
        BootTime(self.times.lock().unwrap_or_else(PoisonError::into_inner).0)
    }

    fn wall_now_ms(&self) -> u64 {
        self.times.lock().unwrap_or_else(PoisonError::into_inner).1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_is_the_kernels() {
        let uptime = std::fs::read_to_string("/proc/uptime").expect("linux");
        let seconds: f64 = uptime
            .split(' ')
            .next()
            .expect("two numbers")
            .parse()
            .expect("seconds");
        let ours = SystemClock.boot_now().0.as_secs_f64();
        assert!((ours - seconds).abs() < 5.0, "{ours} is not {seconds}");
    }

    #[test]
    fn a_wall_clock_jump_leaves_the_boot_clock_alone() {
        let clock = ManualClock::new(Duration::from_secs(10), 1_000);
        clock.set_wall_ms(0);
        clock.advance(Duration::from_secs(1));
        assert_eq!(
            (clock.boot_now(), clock.wall_now_ms()),
            (BootTime(Duration::from_secs(11)), 1_000)
        );
    }
}
