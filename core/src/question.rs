//! What the control plane asks an agent without changing anything, and the answers.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::TargetName;
use crate::plan::{Left, RunbookRef, TargetPart};
use crate::reconcile::AttemptList;
use crate::runbook::Runbook;
use crate::soak::SoakReading;

/// A question. Asking twice is harmless.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Question {
    /// What would this runbook do here?
    Plan(Box<Planning>),
    /// Could what a job left here be put back?
    Undo(Box<Undoing>),
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

/// A job's work that another one is to put back.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Undoing {
    /// The runbook it ran, with all that its expressions need.
    pub planning: Planning,
    /// The part that it ran by.
    pub part: TargetPart,
    /// What it left.
    pub left: Left,
}

/// An answer, of the question's kind.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Answer {
    /// To `Plan` and `Undo`.
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
