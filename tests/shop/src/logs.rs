//! The log: JSON, a line an event, on stdout as a container's log is. Of requests only so many are said in a second,
//! and how many were left out is said with the next one: a busy shop must not fill its node's disk.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use http::StatusCode;
use tokio::time::Instant;

const WINDOW: Duration = Duration::from_secs(1);

/// Sends all lines to stdout.
pub(crate) fn start() {
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_target(false)
        .with_writer(std::io::stdout)
        .init();
}

/// The log of requests. Failed ones have a share of their own: they are rarer, and looked for.
pub(crate) struct Requests {
    limit: u32,
    served: Mutex<Window>,
    failed: Mutex<Window>,
}

/// One answered request.
pub(crate) struct Answered<'a> {
    pub(crate) method: &'a str,
    pub(crate) path: &'a str,
    pub(crate) status: StatusCode,
    pub(crate) took: Duration,
}

impl Requests {
    /// At most so many of each kind in a second.
    pub(crate) fn new(limit: u32) -> Self {
        Self {
            limit,
            served: Mutex::default(),
            failed: Mutex::default(),
        }
    }

    /// Says a request, if it is its turn.
    pub(crate) fn say(&self, answered: &Answered<'_>) {
        let failed = answered.status.is_server_error();
        let window = if failed { &self.failed } else { &self.served };
        let admitted = window
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .admit(Instant::now(), self.limit);
        let Some(unsaid) = admitted else { return };
        let Answered {
            method,
            path,
            status,
            took,
        } = answered;
        let (status, took_ms) = (status.as_u16(), took.as_secs_f64() * 1e3);
        if failed {
            tracing::warn!(status, took_ms, unsaid, "{method} {path} {status}");
        } else {
            tracing::info!(status, took_ms, unsaid, "{method} {path} {status}");
        }
    }
}

/// What was said of one kind in the last second.
#[derive(Default)]
struct Window {
    since: Option<Instant>,
    said: u32,
    unsaid: u64,
}

impl Window {
    /// Whether one more is said; if so, how many were not since the last one that was.
    fn admit(&mut self, now: Instant, limit: u32) -> Option<u64> {
        if self.since.is_none_or(|since| now - since >= WINDOW) {
            self.since = Some(now);
            self.said = 0;
        }
        if self.said >= limit {
            self.unsaid += 1;
            return None;
        }
        self.said += 1;
        Some(std::mem::take(&mut self.unsaid))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_left_out_is_said_with_the_next_line() {
        let mut window = Window::default();
        let start = Instant::now();
        let admitted: Vec<_> = (0..5).map(|_| window.admit(start, 2)).collect();
        assert_eq!(admitted, [Some(0), Some(0), None, None, None]);
        assert_eq!(window.admit(start + WINDOW, 2), Some(3));
        assert_eq!(window.admit(start + WINDOW, 2), Some(0));
    }
}
