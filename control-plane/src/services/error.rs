//! Why a service says no: what failed, on what, and a way forward.

use crate::store;
use crate::telemetry::chain;
use crate::{jobs, records};

/// Kinds of refusal, each with an exit code of its own on the command line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The question itself is wrong.
    Usage,
    /// There is no such thing.
    NotFound,
    /// The runbook is none.
    Runbook,
    /// It may not be done as things stand; nothing was touched.
    Refused,
    /// No answer now; asking again may help.
    Unavailable,
    /// What is stored cannot be read.
    Corrupt,
}

/// A refusal in words.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{problem}")]
pub struct Error {
    /// What sort of refusal.
    pub kind: Kind,
    /// What failed, on what.
    pub problem: String,
    /// What the caller can do.
    pub hint: Option<String>,
}

impl Error {
    pub(super) fn new(kind: Kind, problem: impl Into<String>) -> Self {
        Self {
            kind,
            problem: problem.into(),
            hint: None,
        }
    }

    pub(super) fn usage(problem: impl Into<String>) -> Self {
        Self::new(Kind::Usage, problem)
    }

    pub(super) fn not_found(problem: impl Into<String>) -> Self {
        Self::new(Kind::NotFound, problem)
    }

    pub(super) fn refused(problem: impl Into<String>) -> Self {
        Self::new(Kind::Refused, problem)
    }

    pub(super) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl From<store::Error> for Error {
    fn from(error: store::Error) -> Self {
        let kind = match &error {
            store::Error::Unavailable { .. } | store::Error::Unknown { .. } => Kind::Unavailable,
            store::Error::WentBack { .. } => Kind::Unavailable,
            store::Error::Refused { .. } => Kind::Refused,
            store::Error::Corrupt { .. } => Kind::Corrupt,
        };
        let hint = match &error {
            store::Error::WentBack { .. } => {
                Some("`aldis-control-plane raise-incarnation` after a restore".to_owned())
            }
            store::Error::Unavailable { .. } | store::Error::Unknown { .. } => {
                Some("try again; the same submission never makes a second job".to_owned())
            }
            store::Error::Refused { .. } | store::Error::Corrupt { .. } => None,
        };
        Self {
            kind,
            problem: chain(&error),
            hint,
        }
    }
}

impl From<records::Error> for Error {
    fn from(error: records::Error) -> Self {
        Self::new(Kind::Corrupt, error.to_string())
    }
}

impl From<jobs::Error> for Error {
    fn from(error: jobs::Error) -> Self {
        match error {
            jobs::Error::Store(error) => error.into(),
            jobs::Error::Record(error) => error.into(),
            jobs::Error::NoPlan { .. } => Self::not_found(error.to_string()),
        }
    }
}
