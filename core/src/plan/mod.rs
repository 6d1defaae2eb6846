//! The immutable result of planning: who, in which order, from which state, by which runbook.
//!
//! ```text
//! scope  = runbook, parameters, selection, waves, expiry ─┐
//! parts  = one digest per target, sorted by target ───────┴─▶ digest (what an approval binds to)
//! ```
//!
//! A plan holds several phases, run in order, each with targets, waves and segments of its own; a
//! runbook of today's format has the one phase `main`. This file does not ask agents ([`part`]) and
//! does not choose waves ([`waves`]).

pub mod part;
pub mod waves;

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::canonical;
use crate::ids::{Digest, PlanId, TargetName, Timestamp};
use crate::runbook::{OnFailure, Runbook, Soak, Step};
pub use part::{ClusterIdentity, Disposition, Left, ObjectRef, StepPlan, TargetPart};

/// A runbook as a job refers to it for ever.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct RunbookRef {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Digest of its content.
    pub digest: Digest,
}

impl std::fmt::Display for RunbookRef {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}@{}", self.name, self.version)
    }
}

/// What a job's digest covers beyond the targets planned so far.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Scope {
    /// Which runbook.
    pub runbook: RunbookRef,
    /// Its body: a job never depends on what the runbook becomes later.
    pub body: Runbook,
    /// Parameters with defaults filled in.
    pub params: Value,
    /// Labels that selected, as `key=value`, the runbook's and the command line's.
    pub selector: BTreeMap<String, String>,
    /// Every selected target with its labels, whether it could be planned or not.
    pub selection: BTreeMap<TargetName, BTreeMap<String, String>>,
    /// Phases in order.
    pub phases: Vec<Phase>,
    /// After this no job can be made of the plan.
    pub expires_at: Timestamp,
}

/// A part of the plan with targets, waves and segments of its own.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Phase {
    /// `main` where the runbook names none.
    pub name: String,
    /// Waves in order. Every selected target is in exactly one.
    pub waves: Vec<Wave>,
    /// Steps of one target between two points where it must wait for others.
    pub segments: Vec<Segment>,
    /// Failures plus unknowns that are still accepted.
    pub budget: usize,
    /// What happens to what was changed when the budget is exceeded.
    pub on_failure: OnFailure,
}

/// Targets worked on together.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Wave {
    /// From the runbook, else `wave-1`, `wave-2`, ….
    pub name: String,
    /// In order of region, then cluster.
    pub targets: Vec<TargetName>,
    /// How many may be in work at once.
    pub max_parallel: usize,
    /// Watched after the last target of the wave.
    pub soak: Option<Soak>,
}

/// The unit of dispatch. Its steps run in order on one target without a word from the leader.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Segment {
    /// Steps with the part of the runbook they come from.
    pub steps: Vec<SegmentStep>,
    /// Set when the segment ends at a barrier; a limit where the runbook gives one.
    pub barrier: Option<BarrierLimit>,
}

/// The end of a segment that waits for the other targets of the wave.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct BarrierLimit {
    /// How long the first to arrive waits for the last; none = without limit.
    pub timeout_ms: Option<u64>,
}

/// A step and where it stands in the runbook.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SegmentStep {
    /// Preflight, main or verify.
    pub part: StepPart,
    /// As written.
    pub step: Step,
}

/// Where a step stands in its runbook.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum StepPart {
    /// Reads, before anything is touched; run when planning and again at the start of the job.
    Preflight,
    /// The work.
    Main,
    /// Reads, after the work and during soaks.
    Verify,
}

/// Everything a job is made from.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Plan {
    /// Layout of this document.
    pub format: u32,
    /// Its name.
    pub id: PlanId,
    /// What the digest covers beside the parts.
    pub scope: Scope,
    /// One part per selected target.
    pub parts: BTreeMap<TargetName, TargetPart>,
    /// Over scope and parts.
    pub digest: Digest,
    /// Who asked for it.
    pub planned_by: String,
    /// When.
    pub planned_at: Timestamp,
}

impl Plan {
    /// Layout written by this build.
    pub const FORMAT: u32 = 1;

    /// Joins scope and parts under their digest.
    pub fn new(
        id: PlanId,
        scope: Scope,
        parts: BTreeMap<TargetName, TargetPart>,
        planned_by: String,
        planned_at: Timestamp,
    ) -> Self {
        let digest = digest(&scope, &parts);
        Self {
            format: Self::FORMAT,
            id,
            scope,
            parts,
            digest,
            planned_by,
            planned_at,
        }
    }

    /// The reasons why no job can be made of it; empty when it is ready. A reason that many targets give
    /// is said once, with how many and the first of them: so what runs where can be read off a plan that
    /// is refused everywhere.
    pub fn refusals(&self) -> Vec<String> {
        let mut reasons: Vec<(&str, Vec<String>)> = Vec::new();
        let mut places: BTreeMap<&str, usize> = BTreeMap::new();
        for part in self.parts.values() {
            let Disposition::Refused { why, .. } = &part.disposition else {
                continue;
            };
            let simulated = if part.simulated { " (simulated)" } else { "" };
            let name = format!("{}{simulated}", part.target);
            let place = *places.entry(why).or_insert(reasons.len());
            match reasons.get_mut(place) {
                Some((_, names)) => names.push(name),
                None => reasons.push((why, vec![name])),
            }
        }
        let said = reasons.into_iter();
        said.map(|(why, names)| format!("{}: {why}", some_of(&names)))
            .collect()
    }

    /// The phase that runs. Plans of today's runbooks have exactly one.
    ///
    /// # Panics
    /// Never: a plan is made with at least one phase.
    pub fn phase(&self) -> &Phase {
        self.scope
            .phases
            .first()
            .expect("a plan is made with at least one phase")
    }

    /// The part of one target.
    pub fn part(&self, target: &TargetName) -> Option<&TargetPart> {
        self.parts.get(target)
    }

    /// Targets that will run steps, in order of the waves.
    pub fn runs(&self) -> impl Iterator<Item = &TargetName> {
        let waves = self.phase().waves.iter().flat_map(|wave| &wave.targets);
        waves.filter(|target| {
            self.part(target)
                .is_some_and(|part| matches!(part.disposition, Disposition::Run))
        })
    }

    /// True when the digest is the one of the content.
    pub fn is_whole(&self) -> bool {
        self.digest == digest(&self.scope, &self.parts)
    }
}

/// One by its name; more by their number and the first names.
fn some_of(names: &[String]) -> String {
    const SHOWN: usize = 3;
    if let [one] = names {
        return one.clone();
    }
    let (count, first) = (names.len(), names.iter().take(SHOWN));
    let first: Vec<&str> = first.map(String::as_str).collect();
    match count.saturating_sub(first.len()) {
        0 => format!("{count} targets ({})", first.join(", ")),
        more => format!("{count} targets ({} and {more} more)", first.join(", ")),
    }
}

/// H(scope ‖ sorted digests of target parts).
fn digest(scope: &Scope, parts: &BTreeMap<TargetName, TargetPart>) -> Digest {
    let mut pieces = vec![canonical::encode(scope)];
    pieces.extend(
        parts
            .iter()
            .map(|(target, part)| format!("{target} {}", part.digest()).into_bytes()),
    );
    let pieces: Vec<&[u8]> = pieces.iter().map(Vec::as_slice).collect();
    canonical::hash_parts(&pieces)
}
