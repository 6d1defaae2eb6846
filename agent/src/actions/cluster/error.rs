//! What the API server or the way to it said, translated once into the few kinds that decide what may be done next.
//!
//! | kind | a read | a write |
//! |---|---|---|
//! | not found, invalid, refused | decided | decided: nothing was changed |
//! | not sent, busy | try again | try again: nothing was changed |
//! | unanswered, corrupt | try again | unknown |
//! | conflict | | read again, then try again |
//!
//! A validation error of the server quotes the values that it found wrong, and those may be secret: only fields and
//! reasons are kept of it.

use aldis_core::outcome::Failure;
use hyper_util::client::legacy;
use serde::Deserialize;

use super::super::Trouble;

/// Longer than any sentence of an API server that helps somebody.
const LONGEST_TEXT: usize = 400;

/// Why a request did not work.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Error {
    /// 404.
    #[error("it does not exist")]
    NotFound,
    /// 409: somebody wrote in between.
    #[error("it changed while it was written")]
    Conflict,
    /// 422, or a request that cannot be built.
    #[error("the API server finds it invalid: {0}")]
    Invalid(String),
    /// 400: also what a dry run gets where an admission webhook does not support dry runs.
    #[error("the API server does not take the request: {0}")]
    NotTaken(String),
    /// 401, 403 and other decided answers.
    #[error("the API server refuses it: {0}")]
    Refused(String),
    /// No connection could be made.
    #[error("the API server cannot be reached: {0}")]
    NotSent(String),
    /// 429: turned away before anything was done.
    #[error("the API server is busy: {0}")]
    Busy(String),
    /// Sent, and no answer that decides.
    #[error("the API server gave no answer: {0}")]
    Unanswered(String),
    /// An answer that cannot be read.
    #[error("the API server gave an answer that cannot be read: {0}")]
    Corrupt(String),
}

/// The body of an answer that is an error.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Status {
    message: String,
    details: Option<Details>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Details {
    causes: Vec<Cause>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Cause {
    reason: String,
    field: String,
}

impl Error {
    /// From an HTTP status and its body.
    pub(super) fn answered(code: u16, body: &[u8]) -> Self {
        let status: Status = serde_json::from_slice(body).unwrap_or_default();
        let said = || cut(&status.message, code);
        match code {
            400 => Self::NotTaken(status.without_values(code)),
            404 => Self::NotFound,
            409 => Self::Conflict,
            422 => Self::Invalid(status.without_values(code)),
            429 => Self::Busy(said()),
            // A proxy that waited in vain for the request, a page of a list that grew too old: neither is a decision.
            408 | 410 => Self::Unanswered(said()),
            _ if (400..500).contains(&code) => Self::Refused(said()),
            _ => Self::Unanswered(said()),
        }
    }

    /// From what the client reports when there is no answer.
    pub(super) fn unanswered(error: &kube::Error) -> Self {
        let said = chain(error);
        match error {
            kube::Error::Auth(_) | kube::Error::BuildRequest(_) => Self::NotSent(said),
            error if never_connected(error) => Self::NotSent(said),
            _ => Self::Unanswered(said),
        }
    }

    /// What became of a reading. `what` is such as "read Deployment shop/checkout".
    pub(super) fn reading(self, what: &str) -> Trouble {
        match self {
            decided
            @ (Self::NotFound | Self::Invalid(_) | Self::NotTaken(_) | Self::Refused(_)) => {
                Trouble::refused(decided.failure(what))
            }
            passing @ (Self::Conflict
            | Self::NotSent(_)
            | Self::Busy(_)
            | Self::Unanswered(_)
            | Self::Corrupt(_)) => Trouble::Retriable {
                failure: passing.failure(what),
            },
        }
    }

    /// What became of a write.
    pub(super) fn writing(self, what: &str) -> Trouble {
        match self {
            open @ (Self::Unanswered(_) | Self::Corrupt(_)) => Trouble::Unknown {
                evidence: vec![format!("{what}: {open}")],
            },
            other @ (Self::NotFound
            | Self::Conflict
            | Self::Invalid(_)
            | Self::NotTaken(_)
            | Self::Refused(_)
            | Self::NotSent(_)
            | Self::Busy(_)) => other.reading(what),
        }
    }

    /// One sentence and what to do.
    pub(super) fn failure(&self, what: &str) -> Failure {
        let cause = format!("cannot {what}: {self}");
        match self {
            Self::NotFound => Failure::new("notFound", cause),
            Self::Invalid(_) | Self::NotTaken(_) => Failure::new("invalid", cause),
            Self::Refused(_) => Failure::new("refused", cause).with_hint(
                "give the agent's account in the cluster this right, or take the step out",
            ),
            Self::NotSent(_) => Failure::new("unavailable", cause)
                .with_hint("check the API server and the agent's way and credentials to it"),
            Self::Conflict | Self::Busy(_) | Self::Unanswered(_) | Self::Corrupt(_) => {
                Failure::new("unavailable", cause)
            }
        }
    }
}

impl Status {
    /// Fields and reasons. Where no field is named it was not the schema: an admission policy explains itself in the
    /// message, in words that its author chose to show.
    fn without_values(&self, code: u16) -> String {
        let causes = self.details.iter().flat_map(|details| &details.causes);
        let causes: Vec<_> = causes
            .filter(|cause| !cause.field.is_empty())
            .map(|cause| format!("{}: {}", cause.field, cause.reason))
            .collect();
        if causes.is_empty() {
            cut(&self.message, code)
        } else {
            cut(&causes.join(", "), code)
        }
    }
}

fn cut(text: &str, code: u16) -> String {
    if text.is_empty() {
        return format!("HTTP {code}");
    }
    text.chars().take(LONGEST_TEXT).collect()
}

/// The sentence of an error and of what caused it, each once.
pub(super) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let said = source.to_string();
        if !text.contains(&said) {
            text = format!("{text}: {said}");
        }
        next = source.source();
    }
    text.chars().take(LONGEST_TEXT).collect()
}

/// Whether the client failed before it had a connection: then nothing was sent.
fn never_connected(error: &kube::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if let Some(error) = error.downcast_ref::<legacy::Error>() {
            return error.is_connect();
        }
        next = error.source();
    }
    false
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn body(value: &serde_json::Value) -> Vec<u8> {
        value.to_string().into_bytes()
    }

    #[test]
    fn a_write_without_an_answer_is_unknown_and_a_read_is_tried_again() {
        for code in [408, 410, 500, 502, 503, 504] {
            let error = Error::answered(code, b"upstream died");
            assert!(matches!(
                error.clone().writing("patch it"),
                Trouble::Unknown { .. }
            ));
            assert!(matches!(
                error.reading("read it"),
                Trouble::Retriable { .. }
            ));
        }
    }

    #[test]
    fn what_the_server_turned_away_was_not_done() {
        assert!(matches!(
            Error::answered(429, b"{}").writing("patch it"),
            Trouble::Retriable { .. }
        ));
        assert!(matches!(
            Error::NotSent("refused".into()).writing("patch it"),
            Trouble::Retriable { .. }
        ));
    }

    #[test]
    fn a_missing_right_says_which() {
        let said = json!({"message": "deployments.apps \"checkout\" is forbidden: User \"agent\" cannot patch", "reason": "Forbidden"});
        let Trouble::Failed { failure, applied } =
            Error::answered(403, &body(&said)).writing("patch Deployment shop/checkout")
        else {
            panic!("decided");
        };
        assert!(!applied);
        assert_eq!(failure.kind, "refused");
        assert!(failure.cause.contains("User \"agent\" cannot patch"));
    }

    #[test]
    fn a_validation_error_keeps_no_values() {
        let said = json!({
            "message": "Deployment is invalid: spec.template.spec.containers[0].env[0]: Invalid value: \"hunter2\"",
            "reason": "Invalid",
            "details": {"causes": [{
                "reason": "FieldValueInvalid",
                "message": "Invalid value: \"hunter2\"",
                "field": "spec.template.spec.containers[0].env[0]",
            }]},
        });
        let error = Error::answered(422, &body(&said));
        assert_eq!(
            error,
            Error::Invalid("spec.template.spec.containers[0].env[0]: FieldValueInvalid".into())
        );
        let policy = json!({
            "message": "ValidatingAdmissionPolicy 'pinned' denied request: images must be pinned",
            "reason": "Invalid",
            "details": {"causes": [{"message": "images must be pinned"}]},
        });
        let told = Error::answered(422, &body(&policy)).to_string();
        assert!(told.contains("images must be pinned"), "{told}");
    }
}
