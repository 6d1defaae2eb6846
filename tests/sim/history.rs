//! Everything that happened in a story, line by line, with its digest; and the end of a story that broke
//! a promise.

use std::sync::{Arc, Mutex, PoisonError};

use aldis_core::canonical;

use crate::clock::StoryClock;

/// The history. Clones are the same.
#[derive(Clone)]
pub(crate) struct History {
    clock: StoryClock,
    lines: Arc<Mutex<Vec<String>>>,
}

impl History {
    pub(crate) fn begin(clock: StoryClock) -> Self {
        let lines = Arc::default();
        Self { clock, lines }
    }

    /// Adds a line, with its time.
    pub(crate) fn say(&self, line: impl AsRef<str>) {
        let at = self.clock.passed().as_millis();
        let line = format!("{:>7}.{:03} {}", at / 1000, at % 1000, line.as_ref());
        let mut lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        lines.push(line);
    }

    /// What a person reads, ended by the digest of it.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.lock().unwrap_or_else(PoisonError::into_inner);
        let text = lines.join("\n");
        let digest = canonical::hash(text.as_bytes());
        format!(
            "{text}\nhistory {} of {} lines",
            digest.short(),
            lines.len()
        )
    }
}
