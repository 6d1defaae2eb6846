//! Refusals as gRPC statuses, with what the command line needs beside the text.
//!
//! | metadata | holds |
//! |---|---|
//! | `aldis-exit` | the exit code that the command line should end with |
//! | `aldis-hint` | a way forward, percent-encoded |
//! | `aldis-request` | a number to find the refusal by in this replica's log |

use aldis_proto::convert;
use tonic::metadata::{MetadataMap, MetadataValue};
use tonic::{Code, Status};
use tracing::info;

use crate::services::{Error, Kind};

/// A service's refusal.
pub(super) fn of(error: &Error) -> Status {
    let (code, exit) = match error.kind {
        Kind::Usage => (Code::InvalidArgument, "2"),
        Kind::NotFound => (Code::NotFound, "1"),
        Kind::Runbook => (Code::InvalidArgument, "9"),
        Kind::Refused => (Code::FailedPrecondition, "13"),
        Kind::Unavailable => (Code::Unavailable, "12"),
        Kind::Corrupt => (Code::DataLoss, "1"),
    };
    let request = hex::encode(rand::random::<[u8; 6]>());
    info!(request, kind = ?error.kind, problem = error.problem, "refused");
    let mut metadata = MetadataMap::new();
    metadata.insert("aldis-exit", MetadataValue::from_static(exit));
    if let Ok(value) = request.parse() {
        metadata.insert("aldis-request", value);
    }
    if let Some(value) = error
        .hint
        .as_deref()
        .and_then(|hint| encode(hint).parse().ok())
    {
        metadata.insert("aldis-hint", value);
    }
    Status::with_metadata(code, error.problem.clone(), metadata)
}

/// A message that cannot be read.
pub(super) fn unreadable(error: &convert::Error) -> Status {
    Status::invalid_argument(error.to_string())
}

/// Metadata is ASCII: other bytes, and `%`, are written `%XX`.
fn encode(text: &str) -> String {
    let plain = |byte: u8| (0x20..0x7f).contains(&byte) && byte != b'%';
    text.bytes()
        .map(|byte| {
            if plain(byte) {
                char::from(byte).to_string()
            } else {
                format!("%{byte:02X}")
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_survives_metadata_whatever_it_holds() {
        assert_eq!(encode("100% sure\nä"), "100%25 sure%0A%C3%A4");
    }
}
