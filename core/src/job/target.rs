//! The life of one target of one job: which moves exist, and nothing else.
//!
//! It does not decide when to make them (`decide`), send anything, or look at a clock.
//!
//! ```text
//! NotStarted ─opened▶ Assigned ─accepted▶ Running ─succeeded▶ AtBarrier ─opened▶ …  or Rest(Changed)
//!   │   ▲                │                  ├─failed──▶ Failed ──┐
//!   │   └─returned─ Deferred                ├─stopped─▶ Stopped ─┼─undo opened▶ UndoAssigned ▶ Undoing
//!   └─left out▶ Rest(Untouched)             │   AtBarrier, Changed┘                │        ├▶ Rest(Restored)
//!                                           └─lost───▶ Unknown ◀────────lost──────┘        └▶ Stuck
//!                                                        ├─returned▶ Assigned | UndoAssigned
//!                                                        └─resolved▶ Stopped | Failed | Rest(NeedsOperator)
//! ```
//!
//! Where nothing is under way the leader may let a target rest ([`TargetEvent::Settled`]): a changed one
//! only as needs-operator, when it was to be put back and its agent stays away.
//!
//! A late truth is always welcome: the agent's own journalled outcome ends an `Unknown`, also one that
//! an operator had settled otherwise; the contradiction is then kept in the record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::ids::{Attempt, Fence, JobId, JournalId, StepId, TargetName, Timestamp};
use crate::outcome::{DRIFT, Failure, SegmentOutcome, StepState};
use crate::plan::ObjectRef;

/// What is known of a target. A record of its own in the store; a target without one is `NotStarted`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Target {
    /// Layout of this record.
    pub format: u32,
    /// Who it is about.
    pub name: TargetName,
    /// Where it stands.
    pub state: TargetState,
    /// The newest attempt number given; 0 = none.
    pub attempt: Attempt,
    /// How the newest attempt was committed. Only the leader writes it.
    pub commitment: Option<Commitment>,
    /// What is known of each step that was reached.
    pub steps: BTreeMap<StepId, StepState>,
    /// Why it failed, was stopped late at a barrier, or was left out.
    pub failure: Option<TargetFailure>,
    /// Why it was passed over, where the runbook says that this is no failure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub skipped: Option<String>,
    /// Outputs of steps whose state does not show them any more, for another try of their undo.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub outputs: BTreeMap<StepId, Value>,
    /// What kept it from being planned when its agent returned: another job's lock.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub late_lock: Option<HeldBy>,
    /// Set when this target alone is to stop at its next safe point (it came too late to a barrier).
    pub late: bool,
    /// True while the agent rests at a safe point because it was told to hold or has no permit.
    pub parked: bool,
    /// True when the attempt committed last is to be observed and not run: the agent's journal that
    /// might hold it is gone.
    pub observe: bool,
    /// What operators said of unknown steps, and what contradicted it later.
    pub resolutions: Vec<Resolution>,
}

/// Under which leader, and for which journal, an attempt was committed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Commitment {
    /// Incarnation and epoch of the leader. Rises when a later leader commits the same attempt again.
    pub fence: Fence,
    /// The journal that may hold it. An agent with another journal refuses it.
    pub journal: JournalId,
    /// When it was first committed, by the leader's clock.
    pub at: Timestamp,
}

/// An object that another job holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HeldBy {
    /// Which.
    pub object: ObjectRef,
    /// Who holds it.
    pub by: JobId,
}

/// Why a target failed.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TargetFailure {
    /// The step, where one failed.
    pub step: Option<StepId>,
    /// Cause and evidence.
    pub failure: Failure,
}

/// What an operator said of an unknown step.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Resolution {
    /// The step.
    pub step: StepId,
    /// What they said.
    pub verdict: Verdict,
    /// Who.
    pub by: String,
    /// Why.
    pub reason: String,
    /// The attempt it was about, until its agent says how that ended: its word is still news.
    pub unheard: Option<Unheard>,
    /// A later outcome from the agent's journal that says otherwise.
    pub contradicted_by: Option<String>,
}

/// An attempt whose end nobody has heard of.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Unheard {
    /// Its number.
    pub attempt: Attempt,
    /// Which way it went.
    pub direction: Direction,
    /// In which segment.
    pub segment: usize,
}

/// What an operator may say of an unknown step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Verdict {
    /// Its effect is there.
    Done,
    /// Its effect is not there and will not come.
    NotDone,
    /// Leave it as it is; the target rests as needs-operator.
    Abandon,
}

impl Verdict {
    /// In words.
    pub fn word(self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::NotDone => "not done",
            Self::Abandon => "abandoned",
        }
    }

    /// Whether an agent that says this of the step says the same.
    fn agrees(self, direction: Direction, reported: &StepState) -> bool {
        let stands = reported.may_have_effect();
        match (self, direction) {
            (Self::Done, Direction::Forward) => stands || reported.is_done(),
            (Self::NotDone, Direction::Forward) | (Self::Done, Direction::Undo) => !stands,
            (Self::NotDone, Direction::Undo) => stands,
            (Self::Abandon, _) => true,
        }
    }
}

/// Where a target stands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum TargetState {
    /// Nothing was ever sent.
    NotStarted,
    /// Its agent is away; it runs when it returns.
    Deferred {
        /// Since when.
        since: Timestamp,
    },
    /// Committed, so that any replica may send it. Whether the agent has it is not known yet.
    Assigned {
        /// Which segment.
        segment: usize,
    },
    /// The agent has journalled it.
    Running {
        /// Which segment.
        segment: usize,
    },
    /// This segment is done; the next waits for the other targets of the wave.
    AtBarrier {
        /// The segment that is done.
        segment: usize,
        /// Since when.
        since: Timestamp,
    },
    /// A step failed, or the way back was left half way; what stood before it is still in place.
    Failed {
        /// In which segment.
        segment: usize,
    },
    /// At a safe point, with nothing under way.
    Stopped {
        /// In which segment.
        segment: usize,
    },
    /// The way back is committed.
    UndoAssigned,
    /// The agent goes back.
    Undoing,
    /// An effect may or may not have happened. Holds its locks.
    Unknown {
        /// Which way the attempt went.
        direction: Direction,
        /// In which segment.
        segment: usize,
        /// What was seen.
        evidence: Vec<String>,
    },
    /// The undo failed. Holds its locks.
    Stuck {
        /// The step that stands.
        step: Option<StepId>,
        /// Why.
        failure: Failure,
    },
    /// At rest.
    Rest(Rest),
}

/// Which way an attempt goes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Direction {
    /// Runs a segment.
    Forward,
    /// Undoes every step of the target, last first.
    Undo,
}

/// Where a target may rest. Only `NeedsOperator` can still change.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "rest", rename_all = "camelCase")]
pub enum Rest {
    /// Changed, and verified.
    Changed,
    /// Put back, and verified.
    Restored,
    /// No effect began.
    Untouched,
    /// Everything else that rests.
    NeedsOperator {
        /// One sentence.
        why: String,
    },
}

/// What happened to a target.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TargetEvent {
    /// The leader commits an attempt of a segment.
    Opened {
        /// Which segment.
        segment: usize,
        /// The number after the newest.
        attempt: Attempt,
        /// Under which leader, for which journal.
        commitment: Commitment,
    },
    /// The leader commits the way back.
    UndoOpened {
        /// The number after the newest.
        attempt: Attempt,
        /// Under which leader, for which journal.
        commitment: Commitment,
    },
    /// A later leader commits the open attempt again, under its own epoch.
    Recommitted {
        /// Its fence.
        fence: Fence,
    },
    /// The open attempt is to be observed by an agent with another journal.
    ObservationOpened {
        /// Under which leader, for which journal.
        commitment: Commitment,
    },
    /// The agent's word on an attempt.
    Reported {
        /// Of which attempt.
        attempt: Attempt,
        /// What it says.
        report: Report,
        /// When the replica received it.
        at: Timestamp,
    },
    /// Nobody can say what became of the attempt.
    Lost {
        /// What is known.
        evidence: Vec<String>,
    },
    /// Its agent is back with the journal that the attempt was committed for, so that it can answer for
    /// it: what was called unknown because nobody heard of it is in work as before, also where an operator
    /// has answered in its place meanwhile and nothing came of that yet.
    Returned,
    /// Its agent is away and the runbook says to wait for it.
    Deferred {
        /// Since when.
        since: Timestamp,
    },
    /// Its agent is back and has planned it, and another job holds what it would write.
    LateLocked(HeldBy),
    /// Another job's work stands here, and this one is to put it back.
    TakenOver {
        /// The other job's steps as they ended.
        steps: BTreeMap<StepId, StepState>,
    },
    /// It never begins, for this reason.
    LeftOut {
        /// Why.
        failure: Failure,
    },
    /// It never begins, and the runbook says that this is no failure.
    Skipped {
        /// Why.
        why: String,
    },
    /// It came too late to a barrier: it is to stop, or has failed where nothing of it is under way.
    TooLate {
        /// What was waited for.
        failure: Failure,
    },
    /// The leader lets it rest.
    Settled {
        /// Where.
        rest: Rest,
    },
    /// An operator ends an unknown.
    Resolved(Resolution),
}

/// What an agent says of an attempt, from its journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "camelCase")]
pub enum Report {
    /// It is journalled.
    Accepted,
    /// A step moved.
    Step {
        /// Which.
        step: StepId,
        /// To where.
        state: StepState,
    },
    /// It rests at a safe point, or goes on from there.
    Parked {
        /// Whether it rests.
        parked: bool,
    },
    /// It ended, with all that is known of its steps.
    Ended {
        /// How.
        outcome: SegmentOutcome,
        /// Every step it reached.
        steps: BTreeMap<StepId, StepState>,
    },
}

/// A move that does not exist: a bug of ours, or a report that came too late. The caller knows which.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("target {target} cannot take {event} while {state:?} at attempt {attempt}")]
pub struct IllegalTransition {
    /// Which target.
    pub target: TargetName,
    /// Its state.
    pub state: TargetState,
    /// Its newest attempt.
    pub attempt: Attempt,
    /// What was tried.
    pub event: String,
}

impl Target {
    /// Layout written by this build.
    pub const FORMAT: u32 = 1;

    /// A target that nothing was sent to.
    pub fn new(name: TargetName) -> Self {
        Self {
            format: Self::FORMAT,
            name,
            state: TargetState::NotStarted,
            attempt: Attempt(0),
            commitment: None,
            steps: BTreeMap::new(),
            failure: None,
            skipped: None,
            outputs: BTreeMap::new(),
            late_lock: None,
            late: false,
            parked: false,
            observe: false,
            resolutions: Vec::new(),
        }
    }

    /// The only place where a target changes. `segments` is the number of segments of its phase.
    pub fn next(mut self, event: TargetEvent, segments: usize) -> Result<Self, IllegalTransition> {
        use {TargetEvent as E, TargetState as T};
        let described = format!("{event:?}");
        let state = self.state.clone();
        match (state, event) {
            (
                from,
                E::Opened {
                    segment,
                    attempt,
                    commitment,
                },
            ) if attempt == self.attempt.next() && opens(&from, segment) => {
                self.open(T::Assigned { segment }, attempt, commitment);
                self.failure = None;
            }
            (
                T::Failed { .. }
                | T::Stopped { .. }
                | T::AtBarrier { .. }
                | T::Stuck { .. }
                | T::Rest(Rest::Changed | Rest::NeedsOperator { .. }),
                E::UndoOpened {
                    attempt,
                    commitment,
                },
            ) if attempt == self.attempt.next() => {
                self.open(T::UndoAssigned, attempt, commitment);
            }
            (from, E::Recommitted { fence }) if from.in_work().is_some() => {
                match &mut self.commitment {
                    Some(commitment) if commitment.fence < fence => commitment.fence = fence,
                    _ => return Err(self.illegal(described)),
                }
            }
            (T::Unknown { .. }, E::ObservationOpened { commitment }) => {
                self.commitment = Some(commitment);
                self.observe = true;
            }
            (
                _,
                E::Reported {
                    attempt,
                    report,
                    at,
                },
            ) => {
                return self.reported(attempt, report, at, segments, described);
            }
            (from, E::Lost { evidence }) => match from.in_work() {
                Some((direction, segment)) => {
                    self.state = T::Unknown {
                        direction,
                        segment,
                        evidence,
                    };
                    self.parked = false;
                }
                None => return Err(self.illegal(described)),
            },
            (
                T::Unknown {
                    direction, segment, ..
                },
                E::Returned,
            ) if self.waits_for_its_agent() => self.state = in_work_again(direction, segment),
            (T::Stopped { .. } | T::Failed { .. }, E::Returned) if self.unheard().is_some() => {
                let unheard = self.unheard().expect("just looked at");
                self.state = in_work_again(unheard.direction, unheard.segment);
            }
            (T::NotStarted, E::TakenOver { steps }) => {
                self.steps = steps;
                self.state = T::Rest(Rest::Changed);
            }
            (T::NotStarted, E::Deferred { since }) => self.state = T::Deferred { since },
            (T::Deferred { .. }, E::LateLocked(held)) => self.late_lock = Some(held),
            (T::NotStarted | T::Deferred { .. }, E::LeftOut { failure }) => {
                self.failure = Some(TargetFailure {
                    step: None,
                    failure,
                });
                self.state = T::Rest(Rest::Untouched);
            }
            (T::NotStarted, E::Skipped { why }) => {
                self.skipped = Some(why);
                self.state = T::Rest(Rest::Untouched);
            }
            (T::Assigned { .. } | T::Running { .. }, E::TooLate { failure }) if !self.late => {
                self.failure = Some(TargetFailure {
                    step: None,
                    failure,
                });
                self.late = true;
            }
            // Nothing is under way that could be told to stop.
            (T::Stopped { segment } | T::AtBarrier { segment, .. }, E::TooLate { failure }) => {
                self.failure = Some(TargetFailure {
                    step: None,
                    failure,
                });
                self.state = T::Failed { segment };
            }
            (
                T::NotStarted
                | T::Deferred { .. }
                | T::AtBarrier { .. }
                | T::Failed { .. }
                | T::Stopped { .. }
                | T::Rest(Rest::NeedsOperator { .. }),
                E::Settled { rest },
            ) => self.state = T::Rest(rest),
            // It was to be put back, and nobody is there to do it.
            (T::Rest(Rest::Changed), E::Settled { rest }) if rest.needs_operator() => {
                self.state = T::Rest(rest);
            }
            (
                T::Unknown {
                    direction, segment, ..
                },
                E::Resolved(resolution),
            ) => {
                self.resolve(direction, segment, resolution);
            }
            (T::Stuck { .. }, E::Resolved(resolution)) => {
                self.resolve(Direction::Undo, 0, resolution);
            }
            _ => return Err(self.illegal(described)),
        }
        Ok(self)
    }

    /// Whether something of this job may stand on the target.
    pub fn may_have_effect(&self) -> bool {
        self.steps.values().any(StepState::may_have_effect)
    }

    /// Whether it was left out before anything was sent, since something had changed since the plan.
    pub fn drifted_before(&self) -> bool {
        let drifted = |failed: &TargetFailure| failed.failure.kind == DRIFT;
        self.attempt == Attempt(0) && self.failure.as_ref().is_some_and(drifted)
    }

    /// Its steps as another job takes them over: what could not be put back stands as it was done.
    pub fn left(&self) -> BTreeMap<StepId, StepState> {
        let mut steps = self.steps.clone();
        for (step, state) in &mut steps {
            if matches!(state, StepState::UndoFailed { .. }) {
                *state = self.stands(step);
            }
        }
        steps
    }

    /// True while nothing more happens here without a word from an operator, a leader or a late report.
    pub fn is_at_rest(&self) -> bool {
        use TargetState as T;
        matches!(self.state, T::Rest(_) | T::Unknown { .. } | T::Stuck { .. })
    }

    /// True where the outcome needs a person or a late report before locks may be freed.
    pub fn is_open_question(&self) -> bool {
        matches!(
            self.state,
            TargetState::Unknown { .. } | TargetState::Stuck { .. }
        )
    }

    /// Which way the attempt went whose outcome needs a person, and in which segment.
    pub fn question(&self) -> Option<(Direction, usize)> {
        match &self.state {
            TargetState::Unknown {
                direction, segment, ..
            } => Some((*direction, *segment)),
            TargetState::Stuck { .. } => Some((Direction::Undo, 0)),
            _ => None,
        }
    }

    /// Whether the outcome is unknown only because nobody heard of its agent: not because that agent
    /// cannot say, nor because the journal that could is gone.
    pub fn waits_for_its_agent(&self) -> bool {
        let cannot_say = |step: &StepState| matches!(step, StepState::Unknown { .. });
        let unknown = matches!(self.state, TargetState::Unknown { .. });
        unknown && !self.observe && !self.steps.values().any(cannot_say)
    }

    /// Direction and segment of the newest attempt where this end of it is still news: while it is in
    /// work or unknown, and where an operator settled it in its agent's place, unless the agent cannot
    /// say either.
    pub fn hears_of(&self, outcome: &SegmentOutcome) -> Option<(Direction, usize)> {
        if let TargetState::Unknown {
            direction, segment, ..
        } = &self.state
        {
            return Some((*direction, *segment));
        }
        let settled = || {
            let says = !matches!(outcome, SegmentOutcome::Unknown { .. });
            let unheard = self.unheard()?;
            says.then_some((unheard.direction, unheard.segment))
        };
        self.state.in_work().or_else(settled)
    }

    /// The newest attempt, where an operator has settled it in its agent's place and the agent has not
    /// said how it ended. It may be open there still.
    pub fn unheard(&self) -> Option<&Unheard> {
        let unheard = self.resolutions.last()?.unheard.as_ref()?;
        (unheard.attempt == self.attempt).then_some(unheard)
    }

    /// The same, where the target would go on with another attempt.
    pub fn goes_on_unheard(&self) -> bool {
        let goes_on = matches!(
            self.state,
            TargetState::Stopped { .. } | TargetState::Failed { .. }
        );
        goes_on && self.unheard().is_some()
    }

    fn open(&mut self, state: TargetState, attempt: Attempt, commitment: Commitment) {
        self.state = state;
        self.attempt = attempt;
        self.commitment = Some(commitment);
        self.parked = false;
        self.late = false;
        self.late_lock = None;
        self.observe = false;
    }

    fn illegal(&self, event: String) -> IllegalTransition {
        IllegalTransition {
            target: self.name.clone(),
            state: self.state.clone(),
            attempt: self.attempt,
            event,
        }
    }

    /// A report of an older attempt is illegal here; the agent's journal has made it harmless.
    fn reported(
        mut self,
        attempt: Attempt,
        report: Report,
        at: Timestamp,
        segments: usize,
        described: String,
    ) -> Result<Self, IllegalTransition> {
        use TargetState as T;
        if attempt != self.attempt || attempt == Attempt(0) {
            return Err(self.illegal(described));
        }
        match (self.state.clone(), report) {
            (T::Assigned { segment }, Report::Accepted) => self.state = T::Running { segment },
            (T::UndoAssigned, Report::Accepted) => self.state = T::Undoing,
            (T::Running { .. } | T::Undoing, Report::Accepted) => {}
            (from, Report::Step { step, state }) if from.in_work().is_some() => {
                if self.step(&step, state).is_err() {
                    return Err(self.illegal(described));
                }
                // A step that moves proves that the attempt is journalled.
                self.state = match from {
                    T::Assigned { segment } => T::Running { segment },
                    T::UndoAssigned => T::Undoing,
                    other => other,
                };
            }
            (from, Report::Parked { parked }) if from.in_work().is_some() => self.parked = parked,
            (_, Report::Ended { outcome, steps }) => {
                let Some((direction, segment)) = self.hears_of(&outcome) else {
                    return Err(self.illegal(described));
                };
                self.note_contradictions(&steps);
                for (step, state) in steps {
                    if self.step(&step, state.clone()).is_err() {
                        // The journal is the source: what it says of a step stands.
                        self.set(step, state);
                    }
                }
                self.parked = false;
                self.end(direction, segment, outcome, at, segments);
            }
            _ => return Err(self.illegal(described)),
        }
        Ok(self)
    }

    fn step(&mut self, step: &StepId, to: StepState) -> Result<(), crate::outcome::IllegalStep> {
        let from = self
            .steps
            .get(step)
            .cloned()
            .unwrap_or(StepState::NotStarted);
        self.set(step.clone(), from.next(to)?);
        Ok(())
    }

    fn set(&mut self, step: StepId, to: StepState) {
        if let Some(StepState::Succeeded { outputs, .. }) = self.steps.insert(step.clone(), to)
            && !outputs.is_null()
        {
            self.outputs.insert(step, outputs);
        }
    }

    /// The step as one that is done and stands.
    fn stands(&self, step: &StepId) -> StepState {
        StepState::Succeeded {
            outputs: self.outputs.get(step).cloned().unwrap_or(Value::Null),
            changed: true,
        }
    }

    fn end(
        &mut self,
        direction: Direction,
        segment: usize,
        outcome: SegmentOutcome,
        at: Timestamp,
        segments: usize,
    ) {
        use TargetState as T;
        let late = std::mem::take(&mut self.late);
        if outcome == SegmentOutcome::Undone {
            self.pass_over();
        }
        self.state = match outcome {
            SegmentOutcome::Succeeded if segment + 1 < segments => {
                T::AtBarrier { segment, since: at }
            }
            SegmentOutcome::Succeeded if self.may_have_effect() => T::Rest(Rest::Changed),
            SegmentOutcome::Succeeded => T::Rest(Rest::Untouched),
            SegmentOutcome::Failed { step, failure } => {
                self.failure = Some(TargetFailure {
                    step: Some(step),
                    failure,
                });
                T::Failed { segment }
            }
            SegmentOutcome::Stopped { .. } if late || direction == Direction::Undo => {
                T::Failed { segment }
            }
            SegmentOutcome::Stopped { .. } => T::Stopped { segment },
            SegmentOutcome::Unknown { evidence, .. } => T::Unknown {
                direction,
                segment,
                evidence,
            },
            SegmentOutcome::Undone => T::Rest(Rest::Restored),
            SegmentOutcome::Stuck { step, failure } => T::Stuck {
                step: Some(step),
                failure,
            },
        };
    }

    /// The way back is over: what still stands was gone past, and is named so.
    fn pass_over(&mut self) {
        for state in self.steps.values_mut().filter(|s| s.may_have_effect()) {
            *state = StepState::Passed;
        }
    }

    fn resolve(&mut self, direction: Direction, segment: usize, mut resolution: Resolution) {
        if let TargetState::Unknown { .. } = self.state {
            let attempt = self.attempt;
            resolution.unheard = Some(Unheard {
                attempt,
                direction,
                segment,
            });
        }
        let state = self.resolved(direction, &resolution);
        self.set(resolution.step.clone(), state);
        self.observe = false;
        let late = std::mem::take(&mut self.late);
        let reason = &resolution.reason;
        self.state = match (resolution.verdict, direction) {
            (Verdict::Abandon, _) => TargetState::Rest(Rest::NeedsOperator {
                why: format!("step `{}` was abandoned: {reason}", resolution.step),
            }),
            (Verdict::Done | Verdict::NotDone, Direction::Undo) if !self.may_have_effect() => {
                TargetState::Rest(Rest::Restored)
            }
            // Whoever was on the way back never goes forward from there.
            (Verdict::Done | Verdict::NotDone, Direction::Undo) => TargetState::Failed { segment },
            // Nor does who came too late to its barrier, as when its agent had said that it stopped.
            (Verdict::Done | Verdict::NotDone, Direction::Forward) if late => {
                TargetState::Failed { segment }
            }
            (Verdict::Done | Verdict::NotDone, Direction::Forward) => {
                TargetState::Stopped { segment }
            }
        };
        self.resolutions.push(resolution);
    }

    /// What an operator's word makes of a step. What its agent said for certain stays: then only the
    /// end of the attempt was not known.
    fn resolved(&self, direction: Direction, resolution: &Resolution) -> StepState {
        let known = self.steps.get(&resolution.step);
        let known = known.cloned().unwrap_or(StepState::NotStarted);
        match (resolution.verdict, direction) {
            (Verdict::Abandon, _) => StepState::Abandoned {
                why: resolution.reason.clone(),
            },
            (Verdict::Done | Verdict::NotDone, Direction::Forward) if known.is_done() => known,
            (Verdict::Done | Verdict::NotDone, Direction::Undo) if known == StepState::Undone => {
                known
            }
            (Verdict::NotDone, Direction::Undo) if known.is_done() => known,
            (Verdict::Done, Direction::Undo) => StepState::Undone,
            (Verdict::NotDone, Direction::Forward) => StepState::NotStarted,
            (Verdict::Done, Direction::Forward) | (Verdict::NotDone, Direction::Undo) => {
                self.stands(&resolution.step)
            }
        }
    }

    /// What operators said of this attempt is held against its end. What they said of an older one the
    /// agent can say nothing of any more.
    fn note_contradictions(&mut self, steps: &BTreeMap<StepId, StepState>) {
        for resolution in &mut self.resolutions {
            let Some(unheard) = resolution.unheard.take() else {
                continue;
            };
            let reported = steps.get(&resolution.step);
            let reported = reported.filter(|_| unheard.attempt == self.attempt);
            if let Some(reported) = reported
                && !resolution.verdict.agrees(unheard.direction, reported)
            {
                resolution.contradicted_by = Some(format!("{reported:?}"));
            }
        }
    }
}

fn in_work_again(direction: Direction, segment: usize) -> TargetState {
    match direction {
        Direction::Forward => TargetState::Assigned { segment },
        Direction::Undo => TargetState::UndoAssigned,
    }
}

/// A segment opens where its predecessor ended, again after a stop, and first of all.
fn opens(from: &TargetState, segment: usize) -> bool {
    use TargetState as T;
    match from {
        T::NotStarted | T::Deferred { .. } => segment == 0,
        T::AtBarrier { segment: done, .. } => segment == done + 1,
        T::Stopped { segment: stopped } => segment == *stopped,
        T::Assigned { .. }
        | T::Running { .. }
        | T::Failed { .. }
        | T::UndoAssigned
        | T::Undoing
        | T::Unknown { .. }
        | T::Stuck { .. }
        | T::Rest(_) => false,
    }
}

impl Rest {
    /// Whether a person is to look at it.
    pub fn needs_operator(&self) -> bool {
        matches!(self, Self::NeedsOperator { .. })
    }
}

impl TargetState {
    /// Direction and segment of the attempt that an agent should now hold, if any.
    pub fn in_work(&self) -> Option<(Direction, usize)> {
        match self {
            Self::Assigned { segment } | Self::Running { segment } => {
                Some((Direction::Forward, *segment))
            }
            Self::UndoAssigned | Self::Undoing => Some((Direction::Undo, 0)),
            Self::NotStarted
            | Self::Deferred { .. }
            | Self::AtBarrier { .. }
            | Self::Failed { .. }
            | Self::Stopped { .. }
            | Self::Unknown { .. }
            | Self::Stuck { .. }
            | Self::Rest(_) => None,
        }
    }
}

#[cfg(test)]
mod tests;
