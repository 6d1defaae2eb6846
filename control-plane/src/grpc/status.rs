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
use tracing::{info, warn};

use crate::services::{Error, Kind};

/// Bytes of a message or a hint. Both travel in headers, where three bytes stand for one that is not
/// ASCII; clients take 16 KiB of headers and fail the call over more.
const LONGEST: usize = 2048;

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
        .and_then(|hint| encode(&cut(hint, LONGEST)).parse().ok())
    {
        metadata.insert("aldis-hint", value);
    }
    Status::with_metadata(code, cut(&error.problem, LONGEST), metadata)
}

/// A refusal of the authorization table, with a number to find it by.
pub(crate) fn not_allowed(code: Code, problem: &str, about: &dyn std::fmt::Display) -> Status {
    let request = hex::encode(rand::random::<[u8; 6]>());
    warn!(request, call = %about, problem, "call refused");
    let mut metadata = MetadataMap::new();
    metadata.insert("aldis-exit", MetadataValue::from_static("11"));
    if let Ok(value) = request.parse() {
        metadata.insert("aldis-request", value);
    }
    Status::with_metadata(code, cut(problem, LONGEST), metadata)
}

/// The beginning of a text, at a line's end where it has lines.
fn cut(text: &str, longest: usize) -> String {
    if text.len() <= longest {
        return text.to_owned();
    }
    let mut end = longest;
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    let kept = text[..end]
        .rfind('\n')
        .map_or(&text[..end], |at| &text[..at]);
    format!("{kept}\n… and more")
}

/// A message that cannot be read.
pub(super) fn unreadable(error: &convert::Error) -> Status {
    of(&Error {
        kind: Kind::Usage,
        problem: error.to_string(),
        hint: None,
    })
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
    fn what_a_thousand_clusters_say_fits_into_headers() {
        let lines: Vec<String> = (0..1000).map(|n| format!("eu-west/c{n}: ä")).collect();
        let error = Error {
            kind: Kind::Refused,
            problem: lines.join("\n"),
            hint: Some(lines.join(", ")),
        };
        let status = of(&error);
        assert!(status.message().len() <= LONGEST + 16);
        assert!(status.message().ends_with("\n… and more"));
        let hint = status.metadata().get("aldis-hint").unwrap();
        assert!(hint.len() <= 3 * LONGEST + 64);
    }

    #[test]
    fn a_hint_survives_metadata_whatever_it_holds() {
        assert_eq!(encode("100% sure\nä"), "100%25 sure%0A%C3%A4");
    }
}
