//! The time of a story: tokio's paused clock, which goes on when nobody has anything left to do.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis_agent::clock::BootTime;
use tokio::time::Instant;

/// Where every story begins on the wall clock.
const BEGIN_MS: u64 = 1_800_000_000_000;

/// Some way into the life of a machine.
const UP_FOR: Duration = Duration::from_secs(1_000);

/// A machine's clocks. Clones are the same.
#[derive(Clone)]
pub(crate) struct StoryClock {
    began: Instant,
    /// Set while the boot clock stands still, as on a machine that is stopped and does not know it.
    stopped: Arc<Mutex<Option<Duration>>>,
}

impl StoryClock {
    pub(crate) fn begin() -> Self {
        let began = Instant::now();
        let stopped = Arc::default();
        Self { began, stopped }
    }

    /// The clocks of another machine.
    pub(crate) fn another(&self) -> Self {
        let stopped = Arc::default();
        Self { stopped, ..*self }
    }

    /// Time since the story began.
    pub(crate) fn passed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn stop(&self) {
        *self.lock() = Some(UP_FOR + self.passed());
    }

    pub(crate) fn go_on(&self) {
        *self.lock() = None;
    }

    fn boot(&self) -> Duration {
        (*self.lock()).unwrap_or_else(|| UP_FOR + self.passed())
    }

    fn wall_ms(&self) -> u64 {
        BEGIN_MS + u64::try_from(self.passed().as_millis()).expect("stories are short")
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Option<Duration>> {
        self.stopped.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl aldis_control_plane::clock::Clock for StoryClock {
    fn boot_now(&self) -> Duration {
        self.boot()
    }

    fn wall_now(&self) -> u64 {
        self.wall_ms()
    }
}

impl aldis_agent::clock::Clock for StoryClock {
    fn boot_now(&self) -> BootTime {
        BootTime(self.boot())
    }

    fn wall_now_ms(&self) -> u64 {
        self.wall_ms()
    }
}
