//! What one agent found when it planned: its part of the plan, made and judged on its own cluster.
//!
//! A part holds what an approver must see and what the agent must find again before it acts. It
//! never holds what may be secret: diffs show an allow-list of fields in clear (image, replicas,
//! revision, names) and keyed hashes of the rest; prior state in full stays on the agent.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::action::Action;
use crate::canonical;
use crate::ids::{Digest, JobId, StepId, TargetName};
use crate::outcome::StepState;

/// Immutable identity of a cluster, recomputed by the agent before each effect.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ClusterIdentity {
    /// UID of namespace `kube-system`.
    pub cluster_uid: String,
    /// SHA-256 of the API server's CA certificate, in hex.
    pub ca_fingerprint: String,
}

/// One agent's part of a plan.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetPart {
    /// Whom it is about.
    pub target: TargetName,
    /// The cluster behind that name.
    pub identity: ClusterIdentity,
    /// True for a practice cluster without Kubernetes; shown in every output.
    #[serde(default)]
    pub simulated: bool,
    /// What will become of the target when the job runs.
    pub disposition: Disposition,
    /// The steps in order, preflight and verify included.
    pub steps: Vec<StepPlan>,
    /// What the operator should know before approving.
    #[serde(default)]
    pub warnings: Vec<String>,
    /// What another job left here, where this one is to put it back.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub left: Option<Left>,
}

/// What a job left on a target when it ended.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Left {
    /// Which job. Its agent finds what it captured under this id.
    pub job: JobId,
    /// Its steps as they ended.
    pub steps: BTreeMap<StepId, StepState>,
}

/// Whether a target takes part.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Disposition {
    /// It runs the steps.
    Run,
    /// Nothing to change here, so nothing is run.
    Unchanged {
        /// Such as "does not run v2.18.0".
        why: String,
    },
    /// The plan cannot be run on it. One such target refuses the whole plan.
    Refused {
        /// What was found, with the name of the rule that refuses.
        why: String,
        /// What the operator can do.
        hint: Option<String>,
    },
    /// Its agent did not answer; `whenUnreachable: defer` plans it when it returns.
    Deferred {
        /// Since when, as far as known.
        why: String,
    },
    /// Its agent did not answer; `whenUnreachable: skip` leaves it out.
    Skipped {
        /// Why it could not be asked.
        why: String,
    },
}

/// One step on one target, as planned.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepPlan {
    /// The step of the runbook.
    pub step: StepId,
    /// What it does.
    pub action: Action,
    /// Its resolved input, where it can be known before the job runs.
    #[serde(default)]
    pub with: Option<serde_json::Value>,
    /// The object it changes; none for a step that only reads.
    #[serde(default)]
    pub object: Option<ObjectRef>,
    /// Digest of the part of the object that the step touches, as found, under a key of its agent: of a part with a
    /// short secret in it the plain one would tell which. Drift is judged on it, by that agent alone.
    #[serde(default)]
    pub touched: Option<Digest>,
    /// The same of that part as the step would send it: what was approved. An agent that would send another one refuses,
    /// so that `previous` cannot come to mean something else between plan and run.
    #[serde(default)]
    pub becomes: Option<Digest>,
    /// Whether the step would change something now.
    pub changes: bool,
    /// What would change, redacted.
    #[serde(default)]
    pub diff: Vec<DiffLine>,
    /// Who else owns the object.
    #[serde(default)]
    pub owners: Vec<ObjectOwner>,
    /// Whether the change could be undone.
    pub undo: Feasibility,
    /// How the agent knows.
    pub basis: Basis,
    /// What the step read, for steps that only read.
    #[serde(default)]
    pub outputs: Option<serde_json::Value>,
}

/// A Kubernetes object; with the cluster's UID before it, the name of a lock.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct ObjectRef {
    /// Such as `Deployment`.
    pub kind: String,
    /// Namespace; empty for objects of the whole cluster.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl std::fmt::Display for ObjectRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}/{}", self.kind, self.namespace, self.name)
    }
}

/// One changed field.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DiffLine {
    /// Path within the object, such as `containers[app].image`.
    pub field: String,
    /// Value as found, or a keyed hash such as `hash:3f2a…` for a field that is not on the allow-list.
    pub from: Option<String>,
    /// Value as it would be, or its keyed hash.
    pub to: Option<String>,
}

/// Somebody besides us who writes the object.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ObjectOwner {
    /// Such as `Argo CD`, `Flux`, `Helm`, `HorizontalPodAutoscaler`, or a field manager's name.
    pub system: String,
    /// Which one of them: application, release, autoscaler.
    pub name: String,
    /// Whether it would put our change back. "Tracked, policy unreadable" counts as yes.
    pub would_revert: bool,
    /// What was read to know that.
    pub evidence: String,
}

/// Whether an undo can work.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Feasibility {
    /// Checked: what it needs is there.
    Possible,
    /// It cannot be undone.
    Impossible {
        /// Why not.
        why: String,
    },
    /// The step changes nothing.
    NotNeeded,
}

/// How sure a line of the plan is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Basis {
    /// The API server ran it dry.
    DryRun,
    /// Read from the cluster.
    Read,
    /// Follows from the runbook; depends on what earlier steps will find.
    Assumed,
    /// Could not be read.
    NotRead,
}

impl TargetPart {
    /// The digest that goes into the plan's.
    pub fn digest(&self) -> Digest {
        canonical::digest(self)
    }

    /// The planned form of one step.
    pub fn step(&self, id: &StepId) -> Option<&StepPlan> {
        self.steps.iter().find(|step| &step.step == id)
    }

    /// Why it is not the part of this target on the cluster that is pinned to its name, if it is not.
    pub fn foreign(&self, target: &TargetName, pinned: &ClusterIdentity) -> Option<String> {
        if self.target != *target {
            return Some(format!("the agent of {target} planned for {}", self.target));
        }
        (self.identity != *pinned).then(|| {
            format!(
                "the cluster behind {target} has UID {}, and {} is pinned to that name",
                self.identity.cluster_uid, pinned.cluster_uid
            )
        })
    }

    /// The objects it writes, sorted: what the job must lock here.
    pub fn writes(&self) -> Vec<ObjectRef> {
        let mut objects: Vec<_> = self
            .steps
            .iter()
            .filter_map(|step| step.object.clone())
            .collect();
        objects.sort();
        objects.dedup();
        objects
    }
}
