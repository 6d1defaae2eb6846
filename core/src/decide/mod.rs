//! What happens next to a job: the one place that decides.
//!
//! Pure and total. It returns events to commit, a named reason for everything that does *not* happen
//! now, checks that it wants read, and when to look again. Work to send is never among the answers:
//! it is read off the committed state ([`crate::assignments`]), so that after any crash the next
//! leader computes the same work.
//!
//! | file | decides while the job is |
//! |---|---|
//! | `mod.rs` | asked something by an operator |
//! | `forward.rs` | running: waves, barriers, budget, soak |
//! | `back.rs` | stopping or unwinding |
//! | `ending.rs` | at rest everywhere: which word the job ends with |

mod back;
mod ending;
mod forward;
mod waiting;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::ids::{JournalId, TargetName, Timestamp};
use crate::inventory::{Inventory, Presence, Turn};
use crate::job::{
    Commitment, Event, HeaderEvent, Job, JobState, Request, Resolution, StopCause, Target,
    TargetEvent, TargetState, Wish,
};
use crate::outcome::Failure;
use crate::runbook::OnFailure;
pub use waiting::WaitingOn;

/// The answer.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Decision {
    /// To be committed, in this order. Stop, cancel and unwind come first by construction.
    pub events: Vec<Event>,
    /// Why nothing more happens now. Empty only when the job has ended.
    pub waiting: Vec<WaitingOn>,
    /// Checks that the next decision depends on.
    pub reads: Reads,
    /// When to look again, should nothing change before.
    pub wake_at: Option<Timestamp>,
}

/// What a decision wants read from agents. Asking twice is harmless.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Reads {
    /// Whether the plan's part still holds, on these.
    pub drift: BTreeSet<TargetName>,
    /// A plan part for these: they were away when the job was planned.
    pub plan: BTreeSet<TargetName>,
    /// The wave whose checks run again and again.
    pub soak: Option<SoakWanted>,
}

/// A soak under way.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SoakWanted {
    /// Which wave.
    pub wave: usize,
    /// Whom to read: every changed target of the wave.
    pub targets: BTreeSet<TargetName>,
}

/// Decides one round. Deciding again on the state that the events lead to is safe, and ends with no
/// more events.
pub fn decide(job: &Job, inventory: &Inventory, now: Timestamp) -> Decision {
    let mut round = Round {
        job,
        inventory,
        now,
        out: Decision::default(),
        spends: false,
    };
    if job.header.state.is_ended() {
        return round.out;
    }
    if round.requests() {
        return round.out;
    }
    if let Some(why) = &inventory.halted {
        round.wait(WaitingOn::DispatchHalted { why: why.clone() });
        return round.out;
    }
    round.open_attempts();
    match &job.header.state {
        JobState::Queued => round.queued(),
        JobState::Running => round.forward(),
        JobState::Paused => {
            round.wait(WaitingOn::Paused);
            round.work_in_progress();
        }
        JobState::Stopping { .. } => round.stopping(),
        JobState::Unwinding { .. } => round.unwinding(),
        JobState::NeedsOperator { after } => round.needs_operator(after),
        JobState::Succeeded
        | JobState::PartlyDone
        | JobState::Failed { .. }
        | JobState::Undone { .. }
        | JobState::Cancelled { .. } => {}
    }
    round.out
}

/// One round of deciding: what is read, and what comes out.
struct Round<'a> {
    job: &'a Job,
    inventory: &'a Inventory,
    now: Timestamp,
    out: Decision,
    /// Set once this round spends of the budget: what is left of it is known when that is committed.
    spends: bool,
}

impl Round<'_> {
    fn emit(&mut self, target: &TargetName, event: TargetEvent) {
        self.spends |= matches!(
            event,
            TargetEvent::Lost { .. } | TargetEvent::LeftOut { .. } | TargetEvent::TooLate { .. }
        );
        self.out.events.push(Event::Target(target.clone(), event));
    }

    fn emit_header(&mut self, event: HeaderEvent) {
        self.out.events.push(Event::Header(event));
    }

    fn move_to(&mut self, state: JobState) {
        self.emit_header(HeaderEvent::Moved {
            state,
            at: self.now,
        });
    }

    fn wait(&mut self, reason: WaitingOn) {
        if !self.out.waiting.contains(&reason) {
            self.out.waiting.push(reason);
        }
    }

    fn wake(&mut self, at: Timestamp) {
        self.out.wake_at = Some(self.out.wake_at.map_or(at, |earlier| earlier.min(at)));
    }

    fn commitment(&self, journal: &JournalId) -> Commitment {
        Commitment {
            fence: self.inventory.fence,
            journal: journal.clone(),
            at: self.now,
        }
    }

    fn on_failure(&self) -> OnFailure {
        self.job.plan.phase().on_failure
    }

    /// Folds what operators ask; true when something was folded, and the round ends there.
    fn requests(&mut self) -> bool {
        let folded = &self.job.header.folded;
        let Some(request) = self
            .inventory
            .requests
            .iter()
            .find(|r| !folded.contains(&r.id))
        else {
            return false;
        };
        let (ends, goes) = match self.state_after(request) {
            Some(state) if state.is_ended() => (Some(state), None),
            state => (None, state),
        };
        self.emit_header(HeaderEvent::Folded {
            request: request.id.clone(),
            state: goes,
        });
        if let Some(state) = ends {
            self.move_to(state);
        }
        if let Wish::Resolve {
            target,
            step,
            verdict,
        } = &request.wish
        {
            // What is known of other steps is not the operator's to change.
            if self.job.in_doubt(target) == Some(step) {
                let resolution = Resolution {
                    step: step.clone(),
                    verdict: *verdict,
                    by: request.by.clone(),
                    reason: request.reason.clone(),
                    unheard: None,
                    contradicted_by: None,
                };
                self.emit(target, TargetEvent::Resolved(resolution));
            }
        }
        true
    }

    fn state_after(&self, request: &Request) -> Option<JobState> {
        use JobState as S;
        let cause = StopCause::Cancelled {
            by: request.by.clone(),
            reason: request.reason.clone(),
        };
        match (&request.wish, &self.job.header.state) {
            (Wish::Cancel { .. }, S::Queued) => Some(S::Cancelled { cause }),
            (
                Wish::Cancel { undo: true },
                S::Running | S::Paused | S::Stopping { .. } | S::NeedsOperator { .. },
            ) => Some(S::Unwinding { cause }),
            (Wish::Cancel { undo: false }, S::Running | S::Paused) => Some(S::Stopping { cause }),
            (Wish::Pause, S::Running) => Some(S::Paused),
            (Wish::Resume, S::Paused) => Some(S::Running),
            _ => None,
        }
    }

    fn queued(&mut self) {
        match self.inventory.turn.clone() {
            Turn::Yes => self.emit_header(HeaderEvent::Started { at: self.now }),
            Turn::NotYet => self.wait(WaitingOn::Turn),
            Turn::Full { running } => self.wait(WaitingOn::RunningJobs { bound: running }),
            Turn::Locked { object, target, by } => {
                self.wait(WaitingOn::Lock { object, target, by });
            }
        }
    }

    /// Keeps every open attempt committed by this leader, asks a changed agent to observe, and gives
    /// up on agents that are away for longer than their segment could take.
    fn open_attempts(&mut self) {
        for (name, target) in &self.job.targets {
            if target.state.in_work().is_some() {
                self.keep_committed(name, target);
            } else if matches!(target.state, TargetState::Unknown { .. }) {
                self.ask_to_observe(name, target);
            }
        }
    }

    fn keep_committed(&mut self, name: &TargetName, target: &Target) {
        let Some(commitment) = &target.commitment else {
            return;
        };
        match self.inventory.presence(name) {
            Presence::Live { journal } if journal != commitment.journal => {
                let evidence = vec![format!(
                    "attempt {} was committed for journal {}, the agent writes to {journal}",
                    target.attempt, commitment.journal
                )];
                self.emit(name, TargetEvent::Lost { evidence });
            }
            Presence::Live { .. } if commitment.fence < self.inventory.fence => {
                self.emit(
                    name,
                    TargetEvent::Recommitted {
                        fence: self.inventory.fence,
                    },
                );
            }
            Presence::Absent { since } => self.give_up_in_time(name, target, since),
            Presence::Live { .. }
            | Presence::NotMerged
            | Presence::Contested { .. }
            | Presence::Held { .. } => {}
        }
    }

    /// Absent for longer than the segment's own timeouts plus one permit: unknown.
    fn give_up_in_time(&mut self, name: &TargetName, target: &Target, since: Timestamp) {
        let away_from = since.max(target.commitment.as_ref().map_or(since, |c| c.at));
        let limit = self.job.longest(target) + self.inventory.limits.permit;
        let given_up_at = away_from.plus(limit);
        if self.now >= given_up_at {
            let evidence = vec![format!(
                "no word from its agent for {} s, longer than its steps may take",
                self.now.since(away_from).as_secs()
            )];
            self.emit(name, TargetEvent::Lost { evidence });
        } else {
            self.wake(given_up_at);
        }
    }

    fn ask_to_observe(&mut self, name: &TargetName, target: &Target) {
        let Some(journal) = self.inventory.live(name).cloned() else {
            return;
        };
        let asked_already = target.observe
            && target.commitment.as_ref().is_some_and(|commitment| {
                commitment.journal == journal && commitment.fence == self.inventory.fence
            });
        let other_journal = target
            .commitment
            .as_ref()
            .is_some_and(|commitment| commitment.journal != journal);
        if !asked_already && (other_journal || target.observe) {
            let commitment = self.commitment(&journal);
            self.emit(name, TargetEvent::ObservationOpened { commitment });
        }
    }

    /// Says of every target in work what it waits for.
    fn work_in_progress(&mut self) {
        for (name, target) in &self.job.targets {
            if let Some((direction, segment)) = target.state.in_work() {
                let refused = self.inventory.refused.get(name);
                let reason = match (self.inventory.presence(name), refused) {
                    (Presence::Live { .. }, Some(why)) => WaitingOn::OrderRefused {
                        target: name.clone(),
                        why: why.clone(),
                    },
                    (Presence::Live { .. }, None) => WaitingOn::Agent {
                        target: name.clone(),
                        segment,
                        direction,
                        parked: target.parked,
                    },
                    (other, _) => WaitingOn::from_presence(name, &other),
                };
                self.wait(reason);
            } else if target.is_open_question() {
                self.wait(WaitingOn::Operator {
                    target: name.clone(),
                });
            }
        }
    }

    /// Opens the way back on one target, or says why it cannot be opened.
    fn open_undo(&mut self, name: &TargetName, target: &Target) {
        match self.inventory.presence(name) {
            Presence::Live { journal } => {
                let commitment = self.commitment(&journal);
                let attempt = target.attempt.next();
                self.emit(
                    name,
                    TargetEvent::UndoOpened {
                        attempt,
                        commitment,
                    },
                );
            }
            other => self.wait(WaitingOn::from_presence(name, &other)),
        }
    }

    fn unreachable(&self, since: Timestamp) -> Failure {
        let away = if since == Timestamp(0) {
            "its agent was never seen".to_owned()
        } else {
            format!(
                "its agent is away for {} s",
                self.now.since(since).as_secs()
            )
        };
        Failure::new("unreachable", away)
            .with_hint("start the agent, then `aldis retry` the job for what it left")
    }
}
