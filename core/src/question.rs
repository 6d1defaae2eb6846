//! What the control plane asks an agent without changing anything, and the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::TargetName;
use crate::plan::{RunbookRef, TargetPart};
use crate::reconcile::AttemptList;
use crate::runbook::Runbook;
use crate::soak::SoakReading;

/// A question. Asking twice is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Question {
    /// What would this runbook do here?
    Plan(Box<Planning>),
    /// Does this part still hold?
    Drift {
        /// As planned.
        part: Box<TargetPart>,
    },
    /// What do the checks after a wave read?
    Soak(Box<Planning>),
    /// Which attempts does the journal hold?
    Attempts,
}

/// A runbook with all that its expressions need on one target.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Planning {
    /// Which.
    pub runbook: RunbookRef,
    /// Its body.
    pub body: Runbook,
    /// Parameters with defaults.
    pub params: Value,
    /// Whom it is asked of: the agent refuses another's name.
    pub target: TargetName,
    /// The target's labels.
    pub labels: BTreeMap<String, String>,
}

/// An answer, of the question's kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Answer {
    /// To `Plan`.
    Plan(Box<TargetPart>),
    /// To `Drift`: what changed, if anything.
    Drift {
        /// One sentence.
        found: Option<String>,
    },
    /// To `Soak`.
    Soak(SoakReading),
    /// To `Attempts`.
    Attempts(AttemptList),
}
