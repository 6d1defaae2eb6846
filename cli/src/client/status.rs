//! What a server's refusal means for the command: translated here, once.
//!
//! A server of ours says in metadata what to exit with (`aldis-exit`), a way forward (`aldis-hint`)
//! and the request's id (`aldis-request`). Without these the gRPC code decides.

use tonic::{Code, Status};

use crate::error::Error;
use crate::exit::Exit;

/// The status as an error of ours.
pub(super) fn error(status: &Status) -> Error {
    let text = |key: &str| {
        let value = status.metadata().get(key)?.to_str().ok()?;
        Some(decoded(value)).filter(|value| !value.is_empty())
    };
    let said = text("aldis-exit").and_then(|code| code.parse().ok());
    let exit = said
        .and_then(Exit::from_code)
        // An error that ends in success would be a lie, whoever tells it.
        .filter(|exit| *exit != Exit::Ok)
        .unwrap_or_else(|| by_code(status.code()));
    let mut lines = status.message().lines();
    let first = lines.next().unwrap_or_default();
    let message = if first.is_empty() {
        format!("the server answered {:?} and no reason", status.code())
    } else {
        first.to_owned()
    };
    let mut error = Error::new(exit, message).details(lines.map(str::to_owned).collect());
    let hint_of_ours = text("aldis-hint").map(|hint| decoded(&hint));
    error.hint = hint_of_ours.or_else(|| hint(status.code()).map(str::to_owned));
    error.request = text("aldis-request");
    error
}

/// Metadata is ASCII: a server of ours writes other bytes, and `%`, as `%XX`. Anything else stays as it is.
fn decoded(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2);
        match digits.and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8(bytes).unwrap_or_else(|_| text.to_owned())
}

fn by_code(code: Code) -> Exit {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => Exit::NotAllowed,
        Code::Unavailable | Code::DeadlineExceeded => Exit::Unreachable,
        Code::FailedPrecondition => Exit::Refused,
        Code::InvalidArgument => Exit::Usage,
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::Aborted
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::Internal
        | Code::DataLoss => Exit::Other,
    }
}

fn hint(code: Code) -> Option<&'static str> {
    match code {
        Code::Unauthenticated | Code::PermissionDenied => {
            Some("`aldis whoami` says who the control plane takes you for")
        }
        Code::Unavailable | Code::DeadlineExceeded => Some("try again; nothing is lost meanwhile"),
        Code::Unimplemented => {
            Some("the server is of another version: `aldis version` prints both")
        }
        Code::Ok
        | Code::Cancelled
        | Code::Unknown
        | Code::InvalidArgument
        | Code::NotFound
        | Code::AlreadyExists
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::Aborted
        | Code::OutOfRange
        | Code::Internal
        | Code::DataLoss => None,
    }
}

/// Whether trying again can help: the server, or the way to it, was not there.
pub(super) fn is_passing(status: &Status) -> bool {
    match status.code() {
        Code::Unavailable | Code::Aborted => true,
        // How a connection that breaks under a call shows itself.
        Code::Unknown | Code::Cancelled | Code::Internal => is_transport(status),
        Code::Ok
        | Code::InvalidArgument
        | Code::DeadlineExceeded
        | Code::NotFound
        | Code::AlreadyExists
        | Code::PermissionDenied
        | Code::ResourceExhausted
        | Code::FailedPrecondition
        | Code::OutOfRange
        | Code::Unimplemented
        | Code::DataLoss
        | Code::Unauthenticated => false,
    }
}

/// Whether no server said this: it comes from our own side of the connection.
pub(super) fn is_transport(status: &Status) -> bool {
    std::error::Error::source(status).is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(code: Code, exit: &str) -> Status {
        let mut status = Status::new(code, "runbook `x.yaml` is invalid\nerror[AL0005]: …");
        let metadata = status.metadata_mut();
        metadata.insert("aldis-exit", exit.parse().unwrap());
        metadata.insert(
            "aldis-hint",
            "see `aldis runbook validate`".parse().unwrap(),
        );
        metadata.insert("aldis-request", "8f3a".parse().unwrap());
        status
    }

    #[test]
    fn the_server_says_what_to_exit_with() {
        let error = error(&status(Code::InvalidArgument, "9"));
        assert_eq!(error.exit, Exit::Invalid);
        assert_eq!(error.message, "runbook `x.yaml` is invalid");
        assert_eq!(error.details, ["error[AL0005]: …"]);
        assert_eq!(error.hint.as_deref(), Some("see `aldis runbook validate`"));
        assert_eq!(error.request.as_deref(), Some("8f3a"));
    }

    #[test]
    fn a_way_forward_is_read_as_it_was_meant() {
        for (sent, meant) in [
            ("100%25 sure%0A%C3%A4", "100% sure\nä"),
            ("accept 25% of them", "accept 25% of them"),
            ("%", "%"),
        ] {
            let mut status = status(Code::FailedPrecondition, "13");
            status
                .metadata_mut()
                .insert("aldis-hint", sent.parse().unwrap());
            assert_eq!(error(&status).hint.as_deref(), Some(meant), "{sent}");
        }
    }

    #[test]
    fn a_number_that_is_no_error_is_not_believed() {
        for exit in ["0", "77", "x"] {
            assert_eq!(
                error(&status(Code::FailedPrecondition, exit)).exit,
                Exit::Refused
            );
        }
    }

    #[test]
    fn without_a_word_of_the_server_the_code_decides() {
        let exits = [
            (Code::Unauthenticated, Exit::NotAllowed),
            (Code::PermissionDenied, Exit::NotAllowed),
            (Code::Unavailable, Exit::Unreachable),
            (Code::FailedPrecondition, Exit::Refused),
            (Code::InvalidArgument, Exit::Usage),
            (Code::Internal, Exit::Other),
        ];
        for (code, exit) in exits {
            assert_eq!(error(&Status::new(code, "x")).exit, exit);
        }
    }
}
