//! Runs one attempt: asks core what is next, does it, writes it down, says it.
//!
//! ```text
//! core::segment::advance ─▶ rest here? ─▶ capture ─▶ │intent│ ─▶ apply ─▶ conclude ─▶ │outcome│ ─▶ report ─▶ advance
//!                            hold, stop,                             └ unsure: observe, fence, observe
//!                            no permit
//! ```
//!
//! | file | does |
//! |---|---|
//! | `forward.rs` | the steps of a segment |
//! | `undo.rs` | the way back over a whole target |
//! | `lost.rs` | attempts of which nobody can say how far they came: looks for their effects and closes them |
//! | `effect.rs` | one effect between its intent and its outcome |
//! | `settle.rs` | what became of an effect whose end nobody saw |
//! | `control.rs` | where the attempt may rest, and until when |
//! | `pen.rs` | writes down and reports |
//! | `cut.rs` | keeps what is written below the room that was reserved for it |
//!
//! A runner that is dropped at any await leaves a journal from which the next one goes on. Only a failed journal makes
//! it return an error; everything else is an outcome.

mod control;
pub(crate) mod cut;
mod effect;
mod forward;
mod lost;
mod pen;
mod settle;
#[cfg(test)]
mod tests;
mod undo;

use std::sync::Arc;
use std::time::Duration;

use aldis_core::assignments::Assignment;
use aldis_core::ids::{JobId, StepId};
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::plan::ClusterIdentity;
use serde_json::Value;
use tokio::sync::watch;

use crate::actions::{Call, Stamp, Trouble};
use crate::ledger::{self, notes};
use crate::parts::Parts;

use control::Control;
pub use control::Told;
use pen::Pen;

/// Why a runner returned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Left {
    /// The attempt has ended, by the journal.
    Ended,
    /// It rests at a safe point, since the process ends. The next process goes on.
    Resting,
}

/// An attempt that is in the journal, and who says what is wanted of it.
pub struct Run {
    parts: Parts,
    assignment: Arc<Assignment>,
    pen: Pen,
    control: Control,
}

impl Run {
    /// Of an accepted attempt: one that has just been accepted, or one that a process before this one left.
    pub fn new(parts: Parts, assignment: Assignment, told: watch::Receiver<Told>) -> Self {
        Self {
            pen: Pen::new(parts.clone(), &assignment.order),
            control: Control::new(told, parts.permits.clone()),
            assignment: Arc::new(assignment),
            parts,
        }
    }

    /// Runs it to its end, as far as it is told to and permitted.
    pub async fn run(self) -> Result<Left, ledger::Error> {
        match self.assignment.order.direction {
            Direction::Forward => forward::run(self).await,
            Direction::Undo => undo::run(self).await,
        }
    }

    /// Looks for the effects of an attempt that another journal may have held, and closes it with what it finds.
    /// Where nobody can say it looks again after `pause`, and then less and less often.
    pub async fn observe(self, pause: Duration) -> Result<Left, ledger::Error> {
        lost::run(self, lost::First::AtOnce, pause).await
    }

    /// Goes on looking for an effect of which this journal's own attempt ended as unknown.
    pub async fn doubt(self, pause: Duration) -> Result<Left, ledger::Error> {
        lost::run(self, lost::First::Later, pause).await
    }

    /// A call of one step, stamped with this attempt.
    fn call(&self, step: &StepId, action: aldis_core::action::Action, with: Value) -> Call {
        let order = &self.assignment.order;
        Call {
            action,
            with,
            stamp: Stamp {
                job: order.job.clone(),
                target: order.target.clone(),
                step: step.clone(),
                attempt: order.attempt,
                direction: order.direction,
            },
            planned: None,
            left: None,
            timeout: aldis_core::segment::DEFAULT_TIMEOUT,
        }
    }

    /// The local policy's word on a call.
    fn allowed(&self, call: &Call) -> Result<(), Failure> {
        let namespace = call.with.get("namespace").and_then(Value::as_str);
        let checked = self.parts.policy.check(call.action.name(), namespace);
        checked.map_err(|refusal| {
            Failure::new("policy", refusal.to_string())
                .with_hint("the cluster's own operators decide in that file what agents may do")
        })
    }

    async fn right_cluster(&self) -> Result<(), Trouble> {
        right_cluster(&self.parts, &self.assignment).await
    }

    /// The job whose effects stand here: this one, or the one that this one puts back.
    fn whose(&self) -> &JobId {
        let left = self.assignment.part.left.as_ref();
        left.map_or(&self.assignment.order.job, |left| &left.job)
    }

    /// The effect of a step that may stand, as journalled by this agent.
    fn effect_of(&self, step: &StepId) -> Option<notes::Effect> {
        let target = self.assignment.order.target.to_string();
        self.parts
            .ledger
            .read(|attempts| notes::effect(attempts.of_job(self.whose().as_str(), &target), step))
    }
}

/// Whether the cluster is the one that was planned, and the one that is pinned.
async fn right_cluster(parts: &Parts, assignment: &Assignment) -> Result<(), Trouble> {
    let found = parts.actions.identity().await?;
    let planned = &assignment.part.identity;
    let pinned = parts.pin.as_ref().unwrap_or(planned);
    for expected in [planned, pinned] {
        if *expected != found {
            return Err(Trouble::refused(wrong_cluster(expected, &found)));
        }
    }
    Ok(())
}

/// Another cluster than the one that was planned.
pub(crate) fn wrong_cluster(planned: &ClusterIdentity, found: &ClusterIdentity) -> Failure {
    let cause = "the cluster behind this agent is not the one that was planned".to_owned();
    Failure::new("identity", cause)
        .with_evidence(vec![
            format!(
                "planned: uid {}, CA {}",
                planned.cluster_uid, planned.ca_fingerprint
            ),
            format!(
                "found: uid {}, CA {}",
                found.cluster_uid, found.ca_fingerprint
            ),
        ])
        .with_hint(
            "point the agent at its own cluster, or plan again where the cluster was rebuilt",
        )
}
