//! The seam between the runner, which decides when something is done, and the clusters, where it is done.
//!
//! One implementation speaks to a Kubernetes API server, one keeps a practice cluster in memory, and the runner's tests
//! bring a scripted one. The runner journals around every call; an implementation journals nothing and keeps nothing.
//!
//! ```text
//! plan ─▶ (approved) ─▶ capture ─▶ │intent on disk│ ─▶ apply ─▶ │outcome on disk│        undo, with what capture found
//!                                        └── crash ──▶ observe ─▶ done / not done (after fence) / unknown
//! ```

pub mod cluster;
mod images;
mod inputs;
mod planned;
pub mod redact;
pub mod revisions;
mod rollout_undo;
mod set_image;
pub mod simulated;
mod template;

use std::sync::Arc;
use std::time::Duration;

use aldis_core::action::Action;
use aldis_core::canonical;
use aldis_core::ids::{Attempt, Digest, JobId, StepId, TargetName};
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::plan::{ClusterIdentity, ObjectRef, StepPlan};
use async_trait::async_trait;
use serde_json::Value;

/// Prior state of what a write touches. It is journalled with the intent and never leaves the agent.
pub type Before = Value;

/// One step to plan, observe, apply or undo.
#[derive(Clone, Debug, PartialEq)]
pub struct Call {
    /// What to do.
    pub action: Action,
    /// Its input, with every expression resolved.
    pub with: Value,
    /// What its effects carry, so that they can be found again.
    pub stamp: Stamp,
    /// The step as planned, for the drift check; none while planning.
    pub planned: Option<StepPlan>,
    /// What an earlier step of the job left of the object ([`left`]): what must be found there instead of what was
    /// planned from, and what a wait waits for.
    pub left: Option<Digest>,
    /// Time for the whole call. The caller stops waiting after it; what was sent may land later.
    pub timeout: Duration,
}

/// Who caused an effect: annotations `aldis.dev/job`, `aldis.dev/step`, and the key as `aldis.dev/attempt`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stamp {
    /// Of which job; empty while planning.
    pub job: JobId,
    /// On which target.
    pub target: TargetName,
    /// Which step.
    pub step: StepId,
    /// Which attempt. All tries below it share the stamp: they are the same effect.
    pub attempt: Attempt,
    /// A step and its undo must never be taken for each other.
    pub direction: Direction,
}

impl Stamp {
    /// The idempotency key: 32 hex digits, the value of annotation `aldis.dev/attempt`.
    pub fn key(&self) -> String {
        let direction = match self.direction {
            Direction::Forward => "forward",
            Direction::Undo => "undo",
        };
        let digest = canonical::hash_parts(&[
            self.job.as_str().as_bytes(),
            self.target.to_string().as_bytes(),
            direction.as_bytes(),
            self.step.as_str().as_bytes(),
            self.attempt.to_string().as_bytes(),
        ]);
        digest.as_str().chars().take(32).collect()
    }
}

/// What a dry run found.
#[derive(Clone, Debug, PartialEq)]
pub struct Planned {
    /// The step's part of the plan: diff, owners, touched digest, whether an undo could work.
    pub plan: StepPlan,
    /// What later expressions may read; none where it is known only after the effect.
    pub outputs: Option<Value>,
    /// What the operator should know before approving.
    pub warnings: Vec<String>,
    /// Why nothing would change here, for a write that would change nothing.
    pub unchanged: Option<String>,
}

/// What an effect left.
#[derive(Clone, Debug, PartialEq)]
pub struct Applied {
    /// The action's outputs. Only declared ones travel to the control plane.
    pub outputs: Value,
    /// Whether anything changed.
    pub changed: bool,
    /// What an undo later compares with: at most 32 KiB, digests rather than objects. It is journalled in the room that
    /// was reserved with the intent, and never leaves the agent; longer ones are dropped.
    pub after: Value,
}

/// The digest of the touched part in what an effect left ([`Applied::after`]), where the action keeps one: what a later
/// step on the same object must find. It is of the plain template, so it never leaves the agent ([`redact::Key::sealed`]).
pub fn left(after: &Value) -> Option<Digest> {
    template::after_hash(Some(after))
}

/// The object whose touched part a call writes or waits for.
pub(crate) fn touches(call: &Call) -> Option<ObjectRef> {
    inputs::deployment(call)
}

/// An effect to put back.
#[derive(Clone, Debug, PartialEq)]
pub struct Effect {
    /// The stamp that it carries.
    pub stamp: Stamp,
    /// What stood there before it.
    pub before: Before,
    /// What it left; none where its end was never recorded.
    pub after: Option<Value>,
}

/// What a look at the cluster says of one call.
#[derive(Clone, Debug, PartialEq)]
pub enum Observed {
    /// Its effect is there.
    Done(Applied),
    /// Its effect is not there. Final only after [`Actions::fence`] returned.
    NotDone,
    /// It cannot be told.
    Indeterminate {
        /// What was seen.
        evidence: Vec<String>,
    },
}

/// Why a call did not end well. The three kinds differ in what may be done next, not in what went wrong.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub enum Trouble {
    /// Decided: it did not work, and trying again would not help.
    #[error("{failure}")]
    Failed {
        /// Why.
        failure: Failure,
        /// Whether an effect began.
        applied: bool,
    },
    /// Something was sent, and nobody can say whether it landed.
    #[error("it is not known whether it happened: {}", evidence.join("; "))]
    Unknown {
        /// What was seen.
        evidence: Vec<String>,
    },
    /// Nothing was sent, or a read failed: trying again is safe.
    #[error("{failure}")]
    Retriable {
        /// Why.
        failure: Failure,
    },
}

impl Trouble {
    /// A decided failure before any effect.
    pub fn refused(failure: Failure) -> Self {
        Self::Failed {
            failure,
            applied: false,
        }
    }
}

/// Takes lines for people while a call runs: they go to the job's log.
#[derive(Clone)]
pub struct Progress(Arc<dyn Fn(String) + Send + Sync>);

impl Progress {
    /// Every line goes to `write`, which must not block.
    pub fn new(write: impl Fn(String) + Send + Sync + 'static) -> Self {
        Self(Arc::new(write))
    }

    /// Nobody listens.
    pub fn none() -> Self {
        Self::new(|_| {})
    }

    /// One line.
    pub fn say(&self, line: impl Into<String>) {
        (self.0)(line.into());
    }
}

/// What can be done to one cluster.
///
/// The law, the unpleasant case first: **a call may be dropped at any await, and what it had sent may land any time
/// later**, also after the process is gone. So an effect carries its [`Stamp`] and a compare, and the same call sent
/// twice has one effect. [`Actions::plan`], [`Actions::capture`], [`Actions::observe`] and [`Actions::identity`] change
/// nothing. Every request has a deadline below [`Call::timeout`] where it has one.
#[async_trait]
pub trait Actions: Send + Sync {
    /// The cluster's identity as read right now: the UID of namespace `kube-system` and the fingerprint of the API
    /// server's CA.
    async fn identity(&self) -> Result<ClusterIdentity, Trouble>;

    /// A dry run: diff, owners, digest of what would be touched, whether an undo could work. For an action that reads,
    /// the reading itself.
    async fn plan(&self, call: &Call) -> Result<Planned, Trouble>;

    /// Reads the prior state of what the call writes, and refuses where it must not be sent: drift against
    /// [`Call::planned`], a paused Deployment.
    async fn capture(&self, call: &Call) -> Result<Before, Trouble>;

    /// The effect of an action that writes, or the reading of one that reads (`before` is then null).
    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble>;

    /// Looks whether the effect of this very call is there, by its stamp. Without `before` (the journal that held it is
    /// gone) the stamp alone must do: one that is there gives [`Observed::Done`].
    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble>;

    /// Makes sure that a request of this call that is still under way cannot land: moves the object on by a guarded
    /// stamp of its own. Only then is an [`Observed::NotDone`] read afterwards final. On an action that reads it does
    /// nothing.
    async fn fence(&self, call: &Call, before: Option<&Before>) -> Result<(), Trouble>;

    /// Puts back what stood before `effect`, where the touched part still equals what it left; where that was never
    /// recorded, only where its stamp is there. `call` is the step with its own stamp for the way back. Harmless on work
    /// that never happened and on work already undone. Returns when what was captured is back and the rollout at least
    /// as complete as it was. Where somebody else changed the object since, [`Trouble::Failed`] names them.
    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble>;

    /// What ails that which a reading was about, for people. Asked once, when what was read does not hold and will not
    /// be read again; it stands beside that failure and never in its place, so where it cannot be told there is none.
    async fn explain(&self, _call: &Call) -> Vec<String> {
        Vec::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stamp() -> Stamp {
        Stamp {
            job: "j-1".into(),
            target: "eu-west/prod-1".parse().unwrap(),
            step: "rollback".into(),
            attempt: Attempt(1),
            direction: Direction::Forward,
        }
    }

    #[test]
    fn a_step_its_undo_and_its_next_attempt_have_keys_of_their_own() {
        let undo = Stamp {
            direction: Direction::Undo,
            ..stamp()
        };
        let next = Stamp {
            attempt: Attempt(2),
            ..stamp()
        };
        let elsewhere = Stamp {
            target: "eu-west/prod-2".parse().unwrap(),
            ..stamp()
        };
        let keys: std::collections::BTreeSet<_> = [stamp(), undo, next, elsewhere]
            .iter()
            .map(Stamp::key)
            .collect();
        assert_eq!(keys.len(), 4);
        assert_eq!(stamp().key(), stamp().key());
        assert_eq!(stamp().key().len(), 32);
    }
}
