//! How this program logs: lines for people, or one JSON object a line for collectors.

use std::io::IsTerminal;

use tracing_subscriber::EnvFilter;
use tracing_subscriber::filter::ParseError;

use crate::config::{Log, LogFormat};

/// What is logged where nobody says: ours in full, libraries only when something is wrong.
const DEFAULT: &str = "warn,aldis_control_plane=info";

/// Starts logging to standard error. An unreadable level is an error, not silence.
pub fn start(log: &Log) -> anyhow::Result<()> {
    let filter = filter(log)?;
    let builder = tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr);
    let started = match log.format {
        LogFormat::Human => builder
            .with_target(false)
            .with_ansi(std::io::stderr().is_terminal())
            .try_init(),
        LogFormat::Json => builder.json().flatten_event(true).try_init(),
    };
    started.map_err(|error| anyhow::anyhow!("start logging: {error}"))
}

/// What is logged, if its level can be read.
pub fn filter(log: &Log) -> Result<EnvFilter, ParseError> {
    EnvFilter::try_new(log.level.as_deref().unwrap_or(DEFAULT))
}

/// An error with all its causes, for one line of a log: `Display` says only the outermost, and the way
/// out often stands in the innermost.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let said = error.to_string();
        // Transparent wrappers repeat their cause.
        if !text.ends_with(&said) {
            text.push_str(": ");
            text.push_str(&said);
        }
        cause = error.source();
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("cannot commit")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn every_cause_is_said_once() {
        let refused = std::io::Error::other("connection refused");
        assert_eq!(chain(&Outer(refused)), "cannot commit: connection refused");
    }
}
