//! One execution of a runbook: a header, one small record per target, and the plan it was made of.
//!
//! Facts that follow from these (failures so far, which wave is decided, what to send) are computed
//! here and stored nowhere. What happens next is [`crate::decide`]'s to say.

pub mod target;
mod wishes;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::ids::{Digest, JobId, PlanId, RequestId, TargetName, Timestamp};
use crate::plan::{Disposition, ObjectRef, Plan, RunbookRef, TargetPart};
use crate::soak::SoakProgress;
pub use target::{
    Commitment, Direction, HeldBy, IllegalTransition, Report, Resolution, Rest, Target,
    TargetEvent, TargetFailure, TargetState, Unheard, Verdict,
};
pub use wishes::{Pointless, Request, Wish};

/// A job as the leader holds it in memory.
#[derive(Clone, Debug)]
pub struct Job {
    /// Its own record.
    pub header: Header,
    /// What it runs. Never replanned.
    pub plan: Arc<Plan>,
    /// Parts of deferred targets, made by their agents when they returned.
    pub late_parts: BTreeMap<TargetName, TargetPart>,
    /// One record per target that the leader has touched. Shared with whoever else looks at the same record, since
    /// after most changes all but one of a thousand are as they were.
    pub targets: BTreeMap<TargetName, Arc<Target>>,
}

/// The job's own record.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Header {
    /// Layout of this record.
    pub format: u32,
    /// Its name.
    pub id: JobId,
    /// The plan it was made of.
    pub plan: PlanId,
    /// That plan's digest.
    pub digest: Digest,
    /// Digest of what was submitted: the same key with another body is refused.
    pub body: Digest,
    /// For lists, so that they need not read the plan.
    pub runbook: RunbookRef,
    /// Number of selected targets, for lists.
    pub selected: usize,
    /// True when any target is a practice cluster.
    pub simulated: bool,
    /// Identity that submitted it.
    pub submitted_by: String,
    /// Why, in their words.
    pub reason: Option<String>,
    /// When, by the clock of the replica that accepted it.
    pub submitted_at: Timestamp,
    /// Higher goes first; 0 is usual.
    pub priority: i32,
    /// Trace id carried from the command line.
    pub trace: Option<String>,
    /// The job it undoes or tries again.
    pub link: Option<Link>,
    /// Where it stands.
    pub state: JobState,
    /// Whether every agent has confirmed that nothing changed since the plan.
    pub drift_checked: bool,
    /// Index of the wave in work.
    pub wave: usize,
    /// The wait after that wave, as last committed.
    pub soak: Option<SoakProgress>,
    /// Requests already folded in.
    pub folded: BTreeSet<RequestId>,
    /// When it left the queue.
    pub started_at: Option<Timestamp>,
    /// When it went on after a pause or an operator's answer: no time limit runs meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resumed_at: Option<Timestamp>,
    /// When it ended.
    pub ended_at: Option<Timestamp>,
}

/// Why a job exists beside another.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Link {
    /// It puts back what the other left.
    Undoes {
        /// The other.
        job: JobId,
    },
    /// It tries the targets that the other left behind.
    Retries {
        /// The other.
        job: JobId,
    },
}

/// Where a job stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum JobState {
    /// Accepted; waits for its turn and its locks.
    Queued,
    /// Opens targets wave by wave.
    Running,
    /// Opens nothing; targets rest at their next safe point.
    Paused,
    /// Opens nothing more; ends when every target rests.
    Stopping {
        /// Why.
        cause: StopCause,
    },
    /// Puts back what was changed, last wave first.
    Unwinding {
        /// Why.
        cause: StopCause,
    },
    /// Every target that was to run is changed, or needed no change.
    Succeeded,
    /// Some targets were not helped, within the failure budget.
    PartlyDone,
    /// Stopped; what was changed stands.
    Failed {
        /// Why.
        cause: StopCause,
    },
    /// Everything that was changed is put back.
    Undone {
        /// Why.
        cause: StopCause,
    },
    /// Ended by an operator.
    Cancelled {
        /// Who and why.
        cause: StopCause,
    },
    /// A target rests as unknown or stuck.
    NeedsOperator {
        /// Where the job was going: the state it takes once the question is settled.
        after: Box<JobState>,
    },
}

/// Why a job opens nothing more.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum StopCause {
    /// An operator said so.
    Cancelled {
        /// Who.
        by: String,
        /// Why.
        reason: String,
    },
    /// Failures plus unknowns exceeded the budget.
    Budget {
        /// Targets that failed.
        failed: usize,
        /// Targets whose outcome is not known.
        unknown: usize,
        /// What the runbook accepts.
        budget: usize,
    },
    /// The checks after a wave did not hold.
    Soak {
        /// Which wave.
        wave: String,
        /// What did not hold.
        why: String,
    },
    /// The job is there to put back what another one left.
    Undoes {
        /// The other.
        job: JobId,
    },
    /// Something changed between plan and job, and the runbook says to refuse the job then.
    Drift {
        /// Each target with what was found.
        targets: BTreeMap<TargetName, String>,
    },
}

impl std::fmt::Display for StopCause {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Cancelled { by, reason } if reason.is_empty() => write!(f, "cancelled by {by}"),
            Self::Cancelled { by, reason } => write!(f, "cancelled by {by}: {reason}"),
            Self::Budget {
                failed,
                unknown,
                budget,
            } => write!(
                f,
                "{failed} failed and {unknown} unknown, more than the {budget} that `maxFailures` accepts"
            ),
            Self::Soak { wave, why } => write!(f, "checks after wave `{wave}` did not hold: {why}"),
            Self::Undoes { job } => write!(f, "puts back what job {} left", job.short()),
            Self::Drift { targets } => {
                let found: Vec<_> = targets
                    .iter()
                    .map(|(target, what)| format!("{target}: {what}"))
                    .collect();
                write!(f, "changed since the plan was made: {}", found.join("; "))
            }
        }
    }
}

/// What happened to a job as a whole.
#[derive(Clone, Debug, PartialEq)]
pub enum HeaderEvent {
    /// Its turn came and its locks are held.
    Started {
        /// When.
        at: Timestamp,
    },
    /// Nothing changed since the plan, or what did is named on its target.
    DriftChecked,
    /// The wave is decided; the next one begins.
    WaveDone,
    /// The wait after the wave has come so far.
    Soaked {
        /// Time and counters.
        progress: SoakProgress,
    },
    /// An operator's request was folded in, and changes the state to this, if at all.
    Folded {
        /// Which.
        request: RequestId,
        /// The state it leads to.
        state: Option<JobState>,
        /// When.
        at: Timestamp,
    },
    /// The state changes.
    Moved {
        /// To this.
        state: JobState,
        /// When.
        at: Timestamp,
    },
}

/// One event of a decision.
#[derive(Clone, Debug, PartialEq)]
pub enum Event {
    /// To the header.
    Header(HeaderEvent),
    /// To one target's record.
    Target(TargetName, TargetEvent),
}

/// A move of the job that does not exist.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Of the header.
    #[error("job {job} cannot take {event} while {state:?}")]
    Header {
        /// Which job.
        job: JobId,
        /// Its state.
        state: Box<JobState>,
        /// What was tried.
        event: String,
    },
    /// Of a target.
    #[error(transparent)]
    Target(#[from] Box<IllegalTransition>),
}

impl JobState {
    /// True when nothing happens any more and the record may leave the hot prefix.
    pub fn is_ended(&self) -> bool {
        match self {
            Self::Succeeded
            | Self::PartlyDone
            | Self::Failed { .. }
            | Self::Undone { .. }
            | Self::Cancelled { .. } => true,
            Self::Queued
            | Self::Running
            | Self::Paused
            | Self::Stopping { .. }
            | Self::Unwinding { .. }
            | Self::NeedsOperator { .. } => false,
        }
    }

    /// One word for lists.
    pub fn word(&self) -> &'static str {
        match self {
            Self::Queued => "queued",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping { .. } => "stopping",
            Self::Unwinding { .. } => "unwinding",
            Self::Succeeded => "succeeded",
            Self::PartlyDone => "partly-done",
            Self::Failed { .. } => "failed",
            Self::Undone { .. } => "undone",
            Self::Cancelled { .. } => "cancelled",
            Self::NeedsOperator { .. } => "needs-operator",
        }
    }

    /// Which moves exist. A cancelled job never goes back to running: guarantee STOP-MEANS-STOP.
    fn may_become(&self, to: &JobState) -> bool {
        use JobState as S;
        match (self, to) {
            (S::Queued, S::Cancelled { .. }) => true,
            (
                S::Running,
                S::Paused
                | S::Stopping { .. }
                | S::Unwinding { .. }
                | S::NeedsOperator { .. }
                | S::Succeeded
                | S::PartlyDone
                | S::Failed { .. },
            ) => true,
            (S::Paused, S::Running | S::Stopping { .. } | S::Unwinding { .. }) => true,
            (
                S::Stopping { .. },
                S::Unwinding { .. }
                | S::NeedsOperator { .. }
                | S::Failed { .. }
                | S::Cancelled { .. },
            ) => true,
            (
                S::Unwinding { .. },
                S::Stopping { .. }
                | S::NeedsOperator { .. }
                | S::Undone { .. }
                | S::Cancelled { .. }
                | S::Failed { .. }
                | S::PartlyDone
                | S::Succeeded,
            ) => true,
            // It goes on where it was going, or as that state could; and is always to be closed.
            (S::NeedsOperator { .. }, S::Paused) => false,
            (S::NeedsOperator { .. }, S::Stopping { .. }) => true,
            (S::NeedsOperator { after }, to) => **after == *to || after.may_become(to),
            _ => false,
        }
    }
}

impl Header {
    /// Layout written by this build.
    pub const FORMAT: u32 = 1;

    /// The only place where a header changes.
    pub fn next(mut self, event: HeaderEvent) -> Result<Self, Error> {
        use {HeaderEvent as E, JobState as S};
        let described = format!("{event:?}");
        let legal = match event {
            E::Started { at } if self.state == S::Queued => {
                self.state = S::Running;
                self.started_at = Some(at);
                true
            }
            E::DriftChecked if !self.drift_checked => {
                self.drift_checked = true;
                true
            }
            E::WaveDone if self.state == S::Running => {
                self.wave += 1;
                self.soak = None;
                true
            }
            E::Soaked { progress } if self.state == S::Running || self.state == S::Paused => {
                self.soak = Some(progress);
                true
            }
            E::Folded { request, state, at } => {
                // An end has a time, which a request does not.
                let may = |to: &JobState| self.state.may_become(to) && !to.is_ended();
                let moves = state.as_ref().is_none_or(may);
                if moves {
                    self.folded.insert(request);
                    if let Some(state) = state {
                        self.take(state, at);
                    }
                }
                moves
            }
            E::Moved { state, at } if self.state.may_become(&state) => {
                self.ended_at = state.is_ended().then_some(at);
                self.take(state, at);
                true
            }
            E::Started { .. }
            | E::DriftChecked
            | E::WaveDone
            | E::Soaked { .. }
            | E::Moved { .. } => false,
        };
        if legal {
            return Ok(self);
        }
        let (job, state) = (self.id.clone(), Box::new(self.state));
        Err(Error::Header {
            job,
            state,
            event: described,
        })
    }

    fn take(&mut self, state: JobState, at: Timestamp) {
        if state == JobState::Running {
            self.resumed_at = Some(at);
        }
        self.state = state;
    }
}

impl Job {
    /// The part of a target, planned with the job or when its agent returned.
    pub fn part(&self, target: &TargetName) -> Option<&TargetPart> {
        self.late_parts
            .get(target)
            .or_else(|| self.plan.part(target))
    }

    /// The target's record, or the one it would begin with.
    pub fn record(&self, name: &TargetName) -> Arc<Target> {
        let known = self.targets.get(name).cloned();
        known.unwrap_or_else(|| Arc::new(Target::new(name.clone())))
    }

    /// The same for oneself, such as to change it.
    pub fn target(&self, name: &TargetName) -> Target {
        Arc::unwrap_or_clone(self.record(name))
    }

    /// Number of segments of the phase that runs.
    pub fn segments(&self) -> usize {
        self.plan.phase().segments.len()
    }

    /// Targets of a wave that take part: planned to run, or deferred.
    pub fn participants(&self, wave: usize) -> Vec<&TargetName> {
        let Some(wave) = self.plan.phase().waves.get(wave) else {
            return Vec::new();
        };
        let takes_part = |target: &&TargetName| {
            self.plan
                .part(target)
                .is_some_and(|part| match part.disposition {
                    Disposition::Run | Disposition::Deferred { .. } => true,
                    Disposition::Unchanged { .. }
                    | Disposition::Refused { .. }
                    | Disposition::Skipped { .. } => false,
                })
        };
        wave.targets.iter().filter(takes_part).collect()
    }

    /// Applies one event; the state is unchanged when it is illegal.
    pub fn apply(&mut self, event: Event) -> Result<(), Error> {
        match event {
            Event::Header(event) => self.header = self.header.clone().next(event)?,
            Event::Target(name, event) => {
                let next = self
                    .target(&name)
                    .next(event, self.segments())
                    .map_err(Box::new)?;
                self.targets.insert(name, Arc::new(next));
            }
        }
        Ok(())
    }

    /// Targets that spend the failure budget: decided failures, and unknowns. What was left out
    /// because it drifted is named but spends nothing: nobody tried it.
    pub fn spent(&self) -> Spent {
        let mut spent = Spent::default();
        for target in self.targets.values() {
            match &target.state {
                TargetState::Unknown { .. } => spent.unknown += 1,
                TargetState::Stuck { .. } => spent.failed += 1,
                _ if target.failure.is_some() && !target.drifted_before() => spent.failed += 1,
                _ => {}
            }
        }
        spent
    }

    /// The objects it writes, with the cluster they are in: what it must lock before it starts.
    pub fn locks(&self) -> BTreeSet<LockName> {
        self.locks_on(|_| true)
    }

    /// What it must hold again before it goes on from an operator's answer. Where it rests for good
    /// it touches nothing any more.
    pub fn locks_to_go_on(&self) -> BTreeSet<LockName> {
        self.locks_on(|target| {
            let state = self.targets.get(target).map(|target| &target.state);
            !matches!(
                state,
                Some(TargetState::Rest(Rest::Untouched | Rest::Restored))
            )
        })
    }

    fn locks_on(&self, counts: impl Fn(&TargetName) -> bool) -> BTreeSet<LockName> {
        let parts = self.plan.parts.values().chain(self.late_parts.values());
        let runs = parts.filter(|part| matches!(part.disposition, Disposition::Run));
        runs.filter(|part| counts(&part.target))
            .flat_map(locks_of)
            .collect()
    }
}

/// What a job must hold to run this part.
pub fn locks_of(part: &TargetPart) -> Vec<LockName> {
    let writes = part.writes().into_iter();
    writes
        .map(|object| LockName {
            cluster_uid: part.identity.cluster_uid.clone(),
            target: part.target.clone(),
            object,
        })
        .collect()
}

/// An object that at most one writing job may hold.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct LockName {
    /// UID of the cluster it is in: two names of one cluster share their locks.
    pub cluster_uid: String,
    /// The target through which the job reaches it.
    pub target: TargetName,
    /// The object.
    pub object: ObjectRef,
}

/// How much of the failure budget is gone.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spent {
    /// Decided failures.
    pub failed: usize,
    /// Outcomes that nobody knows.
    pub unknown: usize,
}

impl Spent {
    /// Both together.
    pub fn total(self) -> usize {
        self.failed + self.unknown
    }
}
