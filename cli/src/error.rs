//! What a command says when it could not do what was asked: what failed, on what, and a way forward.

use serde::Serialize;

use crate::exit::Exit;

/// An error as it is printed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What the command exits with.
    pub exit: Exit,
    /// One sentence: what failed, on what.
    pub message: String,
    /// Facts beside it, one a line.
    pub details: Vec<String>,
    /// What the operator can do.
    pub hint: Option<String>,
    /// The server's name for the call, to be found in its log.
    pub request: Option<String>,
}

impl Error {
    /// An error with a sentence and nothing more.
    pub fn new(exit: Exit, message: impl Into<String>) -> Self {
        Self {
            exit,
            message: message.into(),
            details: Vec::new(),
            hint: None,
            request: None,
        }
    }

    /// A command line that cannot be understood.
    pub fn usage(message: impl Into<String>) -> Self {
        Self::new(Exit::Usage, message)
    }

    /// The same with a way forward.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same with facts.
    #[must_use]
    pub fn details(mut self, details: Vec<String>) -> Self {
        self.details = details;
        self
    }

    /// The same of a call that changes something: where no answer came, nobody can say whether it did,
    /// and that is neither success nor failure. `find_out` says how to know.
    #[must_use]
    pub fn of_a_change(self, what: &str, find_out: impl Into<String>) -> Self {
        if self.exit != Exit::Unreachable {
            return self;
        }
        let mut details = vec![self.message];
        details.extend(self.details);
        Self {
            request: self.request,
            ..Self::new(self.exit, format!("whether {what} is not known"))
                .details(details)
                .hint(find_out)
        }
    }

    /// For `-o json`.
    pub fn document(&self) -> impl Serialize + use<> {
        serde_json::json!({
            "error": {
                "exit": self.exit.code(),
                "message": self.message,
                "details": self.details,
                "hint": self.hint,
                "request": self.request,
            }
        })
    }
}
