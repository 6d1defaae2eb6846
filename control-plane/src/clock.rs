//! The two clocks of the control plane, by argument, so that tests hold the hands.
//!
//! Deadlines (leases, permits, proofs of freshness) are on the boot clock, which goes on while the
//! machine is suspended; `std::time::Instant` stops there and would call a lease alive that ended
//! hours ago. The wall clock is for people to read: no safety property depends on it.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

/// What time it is.
pub trait Clock: Send + Sync + 'static {
    /// Time since the machine started, suspended time included. Means nothing on another machine
    /// or after a reboot.
    fn boot_now(&self) -> Duration;

    /// Milliseconds since 1970. May jump either way at any time.
    fn wall_now(&self) -> u64;
}

/// The machine's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

impl Clock for SystemClock {
    fn boot_now(&self) -> Duration {
        since_zero(ClockId::Boottime)
    }

    fn wall_now(&self) -> u64 {
        millis(since_zero(ClockId::Realtime))
    }
}

fn since_zero(clock: ClockId) -> Duration {
    let time = clock_gettime(clock);
    Duration::new(
        u64::try_from(time.tv_sec).unwrap_or(0),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Clocks that stand still until a test moves them.
#[derive(Debug)]
pub struct ManualClock {
    boot_ms: AtomicU64,
    wall_ms: AtomicU64,
}

impl ManualClock {
    /// Starts some way into the life of a machine, so that subtracting a little is no underflow.
    pub fn starting_at(wall_ms: u64) -> Self {
        Self {
            boot_ms: AtomicU64::new(1_000_000),
            wall_ms: AtomicU64::new(wall_ms),
        }
    }

    /// Time passes, on both clocks.
    pub fn advance(&self, by: Duration) {
        self.boot_ms.fetch_add(millis(by), Ordering::SeqCst);
        self.wall_ms.fetch_add(millis(by), Ordering::SeqCst);
    }

    /// Somebody sets the wall clock, forwards or back.
    pub fn set_wall(&self, wall_ms: u64) {
        self.wall_ms.store(wall_ms, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn boot_now(&self) -> Duration {
        Duration::from_millis(self.boot_ms.load(Ordering::SeqCst))
    }

    fn wall_now(&self) -> u64 {
        self.wall_ms.load(Ordering::SeqCst)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_boot_clock_moves_forward() {
        let before = SystemClock.boot_now();
        assert!(SystemClock.boot_now() >= before);
        assert!(before > Duration::ZERO);
    }

    #[test]
    fn setting_the_wall_clock_leaves_deadlines_alone() {
        let clock = ManualClock::starting_at(5_000);
        let before = clock.boot_now();
        clock.set_wall(0);
        assert_eq!(clock.boot_now(), before);
        clock.advance(Duration::from_millis(7));
        assert_eq!(clock.wall_now(), 7);
        assert_eq!(clock.boot_now(), before + Duration::from_millis(7));
    }
}
