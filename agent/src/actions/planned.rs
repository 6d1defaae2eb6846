//! The parts of a plan, built from what a dry run or a reading found.

use aldis_core::ids::Digest;
use aldis_core::plan::part::{Basis, DiffLine, Feasibility, ObjectOwner};
use aldis_core::plan::{ObjectRef, StepPlan};
use serde_json::Value;

use super::template::Change;
use super::{Call, Planned};

/// What was found out about a write before it is planned.
pub(super) struct WriteFacts {
    /// The Deployment.
    pub(super) object: ObjectRef,
    /// Hash of its pod template, sealed.
    pub(super) touched: Digest,
    /// Hash of the one that the step would send, sealed.
    pub(super) becomes: Digest,
    /// What would change, redacted.
    pub(super) diff: Vec<DiffLine>,
    /// Who else owns it.
    pub(super) owners: Vec<ObjectOwner>,
    /// How it is known.
    pub(super) basis: Basis,
    /// Whether the template that is there now could be put back.
    pub(super) undo: Feasibility,
    /// What to know before approving.
    pub(super) warnings: Vec<String>,
}

/// A step that would change a pod template, or leave it as it is.
pub(super) fn write(call: &Call, change: &Change, facts: WriteFacts) -> Planned {
    let changes = change.unchanged.is_none();
    Planned {
        plan: StepPlan {
            step: call.stamp.step.clone(),
            action: call.action,
            with: Some(call.with.clone()),
            object: Some(facts.object),
            touched: Some(facts.touched),
            becomes: changes.then_some(facts.becomes),
            changes,
            diff: facts.diff,
            owners: facts.owners,
            undo: if changes {
                facts.undo
            } else {
                Feasibility::NotNeeded
            },
            basis: facts.basis,
            outputs: None,
        },
        outputs: Some(change.outputs.clone()),
        warnings: facts.warnings,
        unchanged: change.unchanged.clone(),
    }
}

/// A step that reads. `outputs` is none where it can only be read when its turn comes.
pub(super) fn read(call: &Call, outputs: Option<Value>, warnings: Vec<String>) -> Planned {
    Planned {
        plan: StepPlan {
            step: call.stamp.step.clone(),
            action: call.action,
            with: Some(call.with.clone()),
            object: None,
            touched: None,
            becomes: None,
            changes: false,
            diff: Vec::new(),
            owners: Vec::new(),
            undo: Feasibility::NotNeeded,
            basis: if outputs.is_some() {
                Basis::Read
            } else {
                Basis::Assumed
            },
            outputs: outputs.clone(),
        },
        outputs,
        warnings,
        unchanged: None,
    }
}
