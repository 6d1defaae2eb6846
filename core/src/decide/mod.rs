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
//! | `forward.rs` | running: drift, budget, waves, soak |
//! | `barriers.rs`, `deferred.rs` | running: who waits for whom, and who was away |
//! | `back.rs` | stopping or unwinding |
//! | `ending.rs` | at rest everywhere: which word the job ends with |

mod back;
mod barriers;
mod deferred;
mod ending;
mod forward;
mod waiting;

#[cfg(test)]
mod properties;
#[cfg(test)]
mod tests;

use std::collections::BTreeSet;

use crate::ids::{JournalId, TargetName, Timestamp};
use crate::inventory::{Inventory, Presence};
use crate::job::{
    Commitment, Event, HeaderEvent, Job, JobState, Request, Resolution, Target, TargetEvent,
    TargetState, Verdict, Wish,
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
        said: BTreeSet::new(),
        touched: BTreeSet::new(),
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
    /// The reasons among them, since one may come from many targets.
    said: BTreeSet<WaitingOn>,
    /// Whom the events are about.
    touched: BTreeSet<TargetName>,
    /// Set once this round spends of the budget: what is left of it is known when that is committed.
    spends: bool,
}

impl Round<'_> {
    fn emit(&mut self, target: &TargetName, event: TargetEvent) {
        self.spends |= matches!(
            event,
            TargetEvent::Lost { .. } | TargetEvent::LeftOut { .. } | TargetEvent::TooLate { .. }
        );
        self.touched.insert(target.clone());
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
        if self.said.insert(reason.clone()) {
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
        // What makes no sense any more is folded in too, and changes nothing.
        let led = self
            .job
            .leads_to(&request.wish, &request.by, &request.reason);
        let makes_sense = led.is_ok();
        let (ends, goes) = match led.ok().flatten() {
            Some(state) if state.is_ended() => (Some(state), None),
            state => (None, state),
        };
        self.emit_header(HeaderEvent::Folded {
            request: request.id.clone(),
            state: goes,
            at: self.now,
        });
        if let Some(state) = ends {
            self.move_to(state);
        }
        if makes_sense {
            self.answer(request);
        }
        true
    }

    /// What a request says of open questions.
    fn answer(&mut self, request: &Request) {
        match &request.wish {
            Wish::Resolve {
                target, verdict, ..
            } => self.resolve(target, *verdict, request, request.reason.clone()),
            Wish::Cancel { undo: false } => {
                let waits = matches!(self.job.header.state, JobState::NeedsOperator { .. });
                let targets = self.job.targets.values().filter(|_| waits);
                for target in targets.filter(|target| target.is_open_question()) {
                    let reason = match request.reason.as_str() {
                        "" => "the job was cancelled".to_owned(),
                        why => format!("the job was cancelled: {why}"),
                    };
                    self.resolve(&target.name, Verdict::Abandon, request, reason);
                }
            }
            Wish::Cancel { undo: true } | Wish::Pause | Wish::Resume => {}
        }
    }

    fn resolve(
        &mut self,
        target: &TargetName,
        verdict: Verdict,
        request: &Request,
        reason: String,
    ) {
        let Some(step) = self.job.in_doubt(target).cloned() else {
            return;
        };
        let resolution = Resolution {
            step,
            verdict,
            by: request.by.clone(),
            reason,
            unheard: None,
            contradicted_by: None,
        };
        self.emit(target, TargetEvent::Resolved(resolution));
    }

    fn queued(&mut self) {
        match WaitingOn::from_turn(&self.inventory.turn) {
            None => self.emit_header(HeaderEvent::Started { at: self.now }),
            Some(reason) => self.wait(reason),
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
            Presence::Live { .. } => {}
            Presence::Absent { .. }
            | Presence::NotMerged
            | Presence::Contested { .. }
            | Presence::Held { .. } => {
                if let Some(since) = self.inventory.away_since(name) {
                    self.give_up_in_time(name, target, since);
                }
            }
        }
    }

    /// Away for longer than the segment's own timeouts plus one permit: unknown. Who is there and may not
    /// be listened to is as good as away.
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
                    step: self.job.in_doubt(name).cloned(),
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

    /// Waits for an agent that may not be given work, and looks again at a time.
    fn wait_for_agent(&mut self, name: &TargetName, until: Option<Timestamp>) {
        let presence = self.inventory.presence(name);
        self.wait(WaitingOn::from_presence(name, &presence));
        if let Some(until) = until {
            self.wake(until);
        }
    }

    /// In words, why an agent may not be given work.
    fn away(&self, name: &TargetName, since: Timestamp) -> String {
        let seconds = self.now.since(since).as_secs();
        match self.inventory.presence(name) {
            Presence::Absent {
                since: Timestamp(0),
            } => "its agent was never seen".to_owned(),
            Presence::Absent { .. } => format!("its agent is away for {seconds} s"),
            Presence::Contested { why } | Presence::Held { why } => {
                format!("its agent gets no work for {seconds} s: {why}")
            }
            Presence::NotMerged | Presence::Live { .. } => {
                format!("its agent has not said for {seconds} s what it has in hand")
            }
        }
    }

    fn unreachable(&self, name: &TargetName, since: Timestamp) -> Failure {
        Failure::new("unreachable", self.away(name, since))
            .with_hint("start the agent, then `aldis retry` the job for what it left")
    }
}
