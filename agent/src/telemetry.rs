//! The agent's own log: lines for people or JSON for collectors, to standard error.
//!
//! Log lines of jobs are another thing: see [`crate::logs`].

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;

use crate::config::{Log, LogFormat};

/// What is logged where the configuration says nothing.
const DEFAULT_LEVEL: &str = "info";

/// Begins to log. `ALDIS_LOG` in the environment goes before the configured level. Harmless when called twice.
pub fn start(log: &Log) {
    let level = log.level.as_deref().unwrap_or(DEFAULT_LEVEL);
    let filter = EnvFilter::try_from_env("ALDIS_LOG").unwrap_or_else(|_| EnvFilter::new(level));
    let lines = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    // A second call, as of several agents in one test process, finds the first one's lines good enough.
    let _ = match log.format {
        LogFormat::Human => lines.with_ansi(std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
