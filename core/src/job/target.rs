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
//! A late truth is always welcome: the agent's own journalled outcome ends an `Unknown`, also one that
//! an operator had settled otherwise; the contradiction is then kept in the record.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, Fence, JournalId, StepId, TargetName, Timestamp};
use crate::outcome::{Failure, SegmentOutcome, StepState};

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
    /// it: what was called unknown because nobody heard of it is in work as before.
    Returned,
    /// Its agent is away and the runbook says to wait for it.
    Deferred {
        /// Since when.
        since: Timestamp,
    },
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
            ) if self.waits_for_its_agent() => {
                self.state = match direction {
                    Direction::Forward => T::Assigned { segment },
                    Direction::Undo => T::UndoAssigned,
                };
            }
            (T::NotStarted, E::TakenOver { steps }) => {
                self.steps = steps;
                self.state = T::Rest(Rest::Changed);
            }
            (T::NotStarted, E::Deferred { since }) => self.state = T::Deferred { since },
            (T::NotStarted | T::Deferred { .. }, E::LeftOut { failure }) => {
                self.failure = Some(TargetFailure {
                    step: None,
                    failure,
                });
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
            let unheard = self.resolutions.last()?.unheard.as_ref()?;
            let newest = unheard.attempt == self.attempt;
            (says && newest).then_some((unheard.direction, unheard.segment))
        };
        self.state.in_work().or_else(settled)
    }

    fn open(&mut self, state: TargetState, attempt: Attempt, commitment: Commitment) {
        self.state = state;
        self.attempt = attempt;
        self.commitment = Some(commitment);
        self.parked = false;
        self.late = false;
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
                        self.steps.insert(step, state);
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
        self.steps.insert(step.clone(), from.next(to)?);
        Ok(())
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

    fn resolve(&mut self, direction: Direction, segment: usize, mut resolution: Resolution) {
        if let TargetState::Unknown { .. } = self.state {
            let attempt = self.attempt;
            resolution.unheard = Some(Unheard {
                attempt,
                direction,
                segment,
            });
        }
        let reason = resolution.reason.clone();
        let state = match (resolution.verdict, direction) {
            (Verdict::Done, Direction::Forward) => StepState::Succeeded {
                outputs: serde_json::Value::Null,
                changed: true,
            },
            (Verdict::Done, Direction::Undo) => StepState::Undone,
            (Verdict::NotDone, Direction::Forward) => StepState::NotStarted,
            (Verdict::NotDone, Direction::Undo) => StepState::Succeeded {
                outputs: serde_json::Value::Null,
                changed: true,
            },
            (Verdict::Abandon, _) => StepState::Abandoned {
                why: reason.clone(),
            },
        };
        self.steps.insert(resolution.step.clone(), state);
        self.observe = false;
        self.state = match (resolution.verdict, direction) {
            (Verdict::Abandon, _) => TargetState::Rest(Rest::NeedsOperator {
                why: format!("step `{}` was abandoned: {reason}", resolution.step),
            }),
            (Verdict::Done, Direction::Undo) if !self.may_have_effect() => {
                TargetState::Rest(Rest::Restored)
            }
            // Whoever was on the way back never goes forward from there.
            (Verdict::Done | Verdict::NotDone, Direction::Undo) => TargetState::Failed { segment },
            (Verdict::Done | Verdict::NotDone, Direction::Forward) => {
                TargetState::Stopped { segment }
            }
        };
        self.resolutions.push(resolution);
    }

    fn note_contradictions(&mut self, steps: &BTreeMap<StepId, StepState>) {
        for resolution in &mut self.resolutions {
            resolution.unheard = None;
            let Some(reported) = steps.get(&resolution.step) else {
                continue;
            };
            let agrees = match resolution.verdict {
                Verdict::Done => reported.may_have_effect(),
                Verdict::NotDone => !reported.may_have_effect(),
                Verdict::Abandon => true,
            };
            if !agrees {
                resolution.contradicted_by = Some(format!("{reported:?}"));
            }
        }
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
mod tests {
    use super::*;
    use crate::ids::Fence;

    fn commitment(epoch: u64) -> Commitment {
        Commitment {
            fence: Fence {
                incarnation: 1,
                epoch,
            },
            journal: JournalId::from("journal-a"),
            at: Timestamp(1),
        }
    }

    fn fresh() -> Target {
        Target::new("eu-west/prod-1".parse().unwrap())
    }

    fn opened() -> Target {
        let event = TargetEvent::Opened {
            segment: 0,
            attempt: Attempt(1),
            commitment: commitment(3),
        };
        fresh().next(event, 2).unwrap()
    }

    fn reported(target: Target, attempt: u32, report: Report) -> Result<Target, IllegalTransition> {
        let event = TargetEvent::Reported {
            attempt: Attempt(attempt),
            report,
            at: Timestamp(9),
        };
        target.next(event, 2)
    }

    fn ended(outcome: SegmentOutcome, step: &str, state: StepState) -> Report {
        Report::Ended {
            outcome,
            steps: [(StepId::from(step), state)].into(),
        }
    }

    fn changed() -> StepState {
        StepState::Succeeded {
            outputs: serde_json::Value::Null,
            changed: true,
        }
    }

    #[test]
    fn a_lost_agent_makes_the_outcome_unknown_and_never_failed() {
        let lost = TargetEvent::Lost {
            evidence: vec!["no word for 95 s".into()],
        };
        let after = opened().next(lost, 2).unwrap();
        assert!(
            matches!(after.state, TargetState::Unknown { segment: 0, .. }),
            "{after:?}"
        );
    }

    #[test]
    fn a_report_of_an_older_attempt_changes_nothing() {
        let error = reported(opened(), 0, Report::Accepted).unwrap_err();
        assert_eq!(error.attempt, Attempt(1));
    }

    #[test]
    fn an_attempt_number_is_never_given_twice_nor_skipped() {
        for number in [1, 3] {
            let again = TargetEvent::UndoOpened {
                attempt: Attempt(number),
                commitment: commitment(3),
            };
            let stopped = reported(
                opened(),
                1,
                ended(
                    SegmentOutcome::Stopped { after: None },
                    "a",
                    StepState::NotStarted,
                ),
            )
            .unwrap();
            assert!(stopped.next(again, 2).is_err(), "attempt {number}");
        }
    }

    #[test]
    fn the_last_segment_ends_changed_and_the_first_waits_at_its_barrier() {
        let end = || ended(SegmentOutcome::Succeeded, "a", changed());
        let waiting = reported(opened(), 1, end()).unwrap();
        assert_eq!(
            waiting.state,
            TargetState::AtBarrier {
                segment: 0,
                since: Timestamp(9)
            }
        );
        let second = TargetEvent::Opened {
            segment: 1,
            attempt: Attempt(2),
            commitment: commitment(3),
        };
        let done = reported(waiting.next(second, 2).unwrap(), 2, end()).unwrap();
        assert_eq!(done.state, TargetState::Rest(Rest::Changed));
    }

    #[test]
    fn a_late_truth_ends_the_need_for_an_operator_and_names_the_contradiction() {
        let lost = TargetEvent::Lost { evidence: vec![] };
        let resolution = Resolution {
            step: "a".into(),
            verdict: Verdict::NotDone,
            by: "mei".into(),
            reason: "looked".into(),
            unheard: None,
            contradicted_by: None,
        };
        let settled = opened()
            .next(lost, 2)
            .unwrap()
            .next(TargetEvent::Resolved(resolution), 2)
            .unwrap();
        assert_eq!(settled.state, TargetState::Stopped { segment: 0 });
        let truth = reported(settled, 1, ended(SegmentOutcome::Succeeded, "a", changed())).unwrap();
        assert!(
            matches!(truth.state, TargetState::AtBarrier { .. }),
            "{truth:?}"
        );
        assert!(truth.resolutions[0].contradicted_by.is_some());
    }

    #[test]
    fn an_end_is_heard_once() {
        let failure = Failure::new("noProgress", "pod x");
        let end = || {
            let failed = StepState::Failed {
                failure: failure.clone(),
                applied: true,
            };
            let outcome = SegmentOutcome::Failed {
                step: "a".into(),
                failure: failure.clone(),
            };
            ended(outcome, "a", failed)
        };
        let failed = reported(opened(), 1, end()).unwrap();
        let why = "failed at `a`: pod x".to_owned();
        let rest = Rest::NeedsOperator { why };
        let settled = failed.next(TargetEvent::Settled { rest }, 2).unwrap();
        assert!(
            reported(settled, 1, end()).is_err(),
            "a repeat moves nothing"
        );
    }

    #[test]
    fn an_agent_that_cannot_say_either_does_not_ask_the_operator_again() {
        let end = || {
            let evidence = vec!["no answer".to_owned()];
            let unknown = StepState::Unknown {
                evidence: evidence.clone(),
            };
            let outcome = SegmentOutcome::Unknown {
                step: "a".into(),
                evidence,
            };
            ended(outcome, "a", unknown)
        };
        let resolution = Resolution {
            step: "a".into(),
            verdict: Verdict::NotDone,
            by: "mei".into(),
            reason: "looked".into(),
            unheard: None,
            contradicted_by: None,
        };
        let settled = reported(opened(), 1, end())
            .unwrap()
            .next(TargetEvent::Resolved(resolution), 2)
            .unwrap();
        assert!(reported(settled.clone(), 1, end()).is_err());
        let untouched = TargetEvent::Settled {
            rest: Rest::Untouched,
        };
        let at_rest = settled.next(untouched, 2).unwrap();
        let truth = ended(SegmentOutcome::Succeeded, "a", changed());
        let after = reported(at_rest, 1, truth).unwrap();
        assert!(after.resolutions[0].contradicted_by.is_some(), "{after:?}");
    }

    #[test]
    fn a_later_leader_commits_the_same_number_again_and_an_older_one_cannot() {
        let raise = |epoch| TargetEvent::Recommitted {
            fence: Fence {
                incarnation: 1,
                epoch,
            },
        };
        let after = opened().next(raise(4), 2).unwrap();
        assert_eq!(after.attempt, Attempt(1));
        assert_eq!(after.commitment.as_ref().unwrap().fence.epoch, 4);
        assert!(after.next(raise(4), 2).is_err());
    }

    #[test]
    fn what_was_put_back_stays() {
        let mut target = fresh();
        target.state = TargetState::Rest(Rest::Restored);
        assert!(
            target
                .next(
                    TargetEvent::Settled {
                        rest: Rest::Changed
                    },
                    2
                )
                .is_err()
        );
    }
}
