//! What surrounds a job: the leader's memory, agents with journals, operators, time.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use serde_json::{Value, json};

use super::plans;
use crate::action::Effect;
use crate::assignments::{Assignment, Order, Wanted, assignment, assignments};
use crate::check;
use crate::decide::Decision;
use crate::ids::{Attempt, Fence, JournalId, StepId, TargetName, Timestamp};
use crate::inventory::{Inventory, Presence, Turn};
use crate::job::{
    Direction, Event, Job, Report, Request, Target, TargetEvent, TargetState, Verdict, Wish,
};
use crate::outcome::{Failure, SegmentOutcome, StepState};
use crate::plan::Disposition;
use crate::reconcile::{AttemptList, Listed, Merge, merge};
use crate::segment::{NextUndo, advance_undo};
use crate::soak::{SoakProgress, SoakReading};

/// Rounds of good luck after which a job must have ended: each target needs a few for each segment,
/// there and back, and a soak needs some of its own.
const CALM_ROUNDS: usize = 600;

/// Days after which a job that is cancelled whenever that makes sense must have ended: one to give up on
/// agents, one to give up on questions, one more.
const CLOSING_ROUNDS: usize = 3;

/// A day and an hour, in seconds: longer than a deferred target is waited for.
const DAY: u64 = 90_000;

/// A job with all that it meets.
pub(super) struct World {
    pub(super) job: Job,
    pub(super) inventory: Inventory,
    pub(super) now: Timestamp,
    pub(super) agents: BTreeMap<TargetName, Agent>,
    /// An agent that never returns.
    pub(super) dead: Option<TargetName>,
    pub(super) last: Decision,
    /// Everything that was ever reported, for repeats.
    pub(super) reported: Vec<(TargetName, Attempt, Report)>,
    requests: usize,
}

/// An agent's journal.
#[derive(Debug, Default)]
pub(super) struct Agent {
    number: u32,
    held: BTreeMap<Attempt, Listed>,
}

/// How an attempt ends.
#[derive(Clone, Copy, Debug)]
pub(super) enum Ending {
    /// As it should.
    Well,
    /// At the step of this number, among those still to do.
    Badly(usize),
    /// The same: the agent found that somebody else had changed the object meanwhile.
    Drifted(usize),
    /// The same, with its effect begun.
    HalfDone(usize),
    /// The same, and nobody can say.
    Unknown(usize),
}

impl World {
    pub(super) fn new(job: Job) -> Self {
        let names: Vec<TargetName> = job.plan.parts.keys().cloned().collect();
        let deferred = |name: &TargetName| {
            let part = job.plan.part(name).map(|part| &part.disposition);
            matches!(
                part,
                Some(Disposition::Deferred { .. } | Disposition::Skipped { .. })
            )
        };
        let presence = names.iter().filter(|name| !deferred(name)).map(|name| {
            let journal = journal(0);
            (name.clone(), Presence::Live { journal })
        });
        let inventory = Inventory {
            fence: Fence {
                incarnation: 1,
                epoch: 1,
            },
            agents: presence.collect(),
            turn: Turn::Yes,
            ..Inventory::default()
        };
        Self {
            inventory,
            now: Timestamp(1_000_000),
            agents: names
                .into_iter()
                .map(|name| (name, Agent::default()))
                .collect(),
            dead: None,
            last: Decision::default(),
            reported: Vec::new(),
            requests: 0,
            job,
        }
    }

    /// Decides to the end, with every check.
    pub(super) fn settle(&mut self) {
        self.watch_agents();
        let settled = check::settle(&mut self.job, &self.inventory, self.now);
        self.last = settled.unwrap_or_else(|broken| panic!("{broken}"));
    }

    /// The leader remembers since when an agent that is there may not be given work.
    fn watch_agents(&mut self) {
        for (name, presence) in &self.inventory.agents {
            let withheld = &mut self.inventory.withheld;
            match presence {
                Presence::NotMerged | Presence::Contested { .. } | Presence::Held { .. } => {
                    withheld.entry(name.clone()).or_insert(self.now);
                }
                Presence::Live { .. } | Presence::Absent { .. } => {
                    withheld.remove(name);
                }
            }
        }
    }

    pub(super) fn orders(&self) -> Vec<Order> {
        assignments(&self.job)
    }

    pub(super) fn names(&self) -> Vec<TargetName> {
        self.agents.keys().cloned().collect()
    }

    /// Applies what is no decision of ours; false when the job cannot take it any more.
    fn take(&mut self, name: &TargetName, event: TargetEvent) -> bool {
        let segments = self.job.segments();
        if self.job.target(name).next(event.clone(), segments).is_err() {
            return false;
        }
        let applied = check::apply(&mut self.job, Event::Target(name.clone(), event));
        applied.unwrap_or_else(|broken| panic!("{broken}"));
        true
    }

    /// A report reaches the store. A job that has ended takes none.
    pub(super) fn report(&mut self, name: &TargetName, attempt: Attempt, report: Report) -> bool {
        self.reported.push((name.clone(), attempt, report.clone()));
        self.deliver(name, attempt, report)
    }

    pub(super) fn deliver(&mut self, name: &TargetName, attempt: Attempt, report: Report) -> bool {
        let at = self.now;
        let event = TargetEvent::Reported {
            attempt,
            report,
            at,
        };
        !self.job.header.state.is_ended() && self.take(name, event)
    }

    /// Whether an agent may be told the order and takes it.
    pub(super) fn reaches(&self, order: &Order) -> bool {
        let live = self.inventory.live(&order.target) == Some(&order.journal);
        live && order.fence == self.inventory.fence
    }

    pub(super) fn accept(&mut self, order: &Order) {
        let agent = self.agents.get_mut(&order.target).unwrap();
        agent.held.entry(order.attempt).or_insert_with(|| Listed {
            job: order.job.clone(),
            attempt: order.attempt,
            direction: order.direction,
            segment: order.segment,
            steps: BTreeMap::new(),
            outcome: None,
            acknowledged: false,
        });
        self.report(&order.target, order.attempt, Report::Accepted);
    }

    /// A step is done, journalled and reported; the order goes on.
    pub(super) fn done_by(&mut self, order: &Order, step: StepId, changed: bool) {
        self.accept(order);
        let state = done(changed);
        let agent = self.agents.get_mut(&order.target).unwrap();
        let held = agent.held.get_mut(&order.attempt).unwrap();
        if held.outcome.is_none() {
            held.steps.insert(step.clone(), state.clone());
            self.report(&order.target, order.attempt, Report::Step { step, state });
        }
    }

    /// The agent does as much of the order as `ending` lets it, and reports its end.
    pub(super) fn end(&mut self, order: &Order, ending: Ending) {
        let held = self.agents[&order.target].held.get(&order.attempt);
        if let Some(outcome) = held.and_then(|held| held.outcome.clone()) {
            // A repeat is answered from the journal.
            let steps = held.map(|held| held.steps.clone()).unwrap_or_default();
            self.report(
                &order.target,
                order.attempt,
                Report::Ended { outcome, steps },
            );
            return;
        }
        let (outcome, steps) = self.carry_out(order, ending);
        self.accept(order);
        let agent = self.agents.get_mut(&order.target).unwrap();
        let held = agent.held.get_mut(&order.attempt).unwrap();
        held.steps.clone_from(&steps);
        held.outcome = Some(outcome.clone());
        let in_work = self.job.target(&order.target).state.in_work().is_some();
        let heard = self.report(
            &order.target,
            order.attempt,
            Report::Ended { outcome, steps },
        );
        assert!(
            heard || !in_work,
            "the end of open work was not heard: {order:?}"
        );
    }

    fn carry_out(&self, order: &Order, ending: Ending) -> (SegmentOutcome, Known) {
        let assignment = assignment(&self.job, order.clone()).expect("an order has a part");
        let writes = |id: &StepId| {
            let planned = assignment
                .steps
                .iter()
                .find(|planned| &planned.step.id == id);
            planned.is_some_and(|planned| planned.step.uses.effect() == Effect::Write)
        };
        let steps: Vec<StepId> = assignment
            .steps
            .iter()
            .map(|planned| planned.step.id.clone())
            .collect();
        match (order.direction, order.wanted) {
            (Direction::Undo, _) => back(&assignment, ending),
            (Direction::Forward, Wanted::Stop) => {
                let held = self.agents[&order.target].held.get(&order.attempt);
                let known = held.map(|held| held.steps.clone()).unwrap_or_default();
                let after = known.keys().next_back().cloned();
                (SegmentOutcome::Stopped { after }, known)
            }
            (Direction::Forward, Wanted::Observe) => {
                let (outcome, known) = forward(&steps, assignment.known, ending, writes);
                let after = known.keys().next_back().cloned();
                let seen = match outcome {
                    SegmentOutcome::Unknown { .. } => outcome,
                    _ => SegmentOutcome::Stopped { after },
                };
                (seen, known)
            }
            (Direction::Forward, Wanted::Go | Wanted::Hold) => {
                forward(&steps, assignment.known, ending, writes)
            }
        }
    }

    pub(super) fn leave(&mut self, name: &TargetName) {
        let since = self.now;
        self.inventory
            .agents
            .insert(name.clone(), Presence::Absent { since });
    }

    /// The agent is gone for good, with its machine. One in a fleet is enough.
    pub(super) fn die(&mut self, name: &TargetName) {
        if self.dead.is_none() {
            self.dead = Some(name.clone());
            self.leave(name);
        }
    }

    /// The agent is back, with its journal or without.
    pub(super) fn come_back(&mut self, name: &TargetName, journal_lost: bool) {
        if self.dead.as_ref() == Some(name) {
            return;
        }
        if journal_lost {
            let agent = self.agents.get_mut(name).unwrap();
            agent.number += 1;
            agent.held.clear();
        }
        self.inventory
            .agents
            .insert(name.clone(), Presence::NotMerged);
    }

    /// The leader merges the agent's list; from then on it may be given work.
    pub(super) fn merge(&mut self, name: &TargetName) {
        if self.inventory.agents.get(name) != Some(&Presence::NotMerged) {
            return;
        }
        let agent = &self.agents[name];
        let list = AttemptList {
            journal: journal(agent.number),
            sequence: 1,
            damage: None,
            attempts: agent.held.values().cloned().collect(),
        };
        let ended = self.job.header.state.is_ended();
        let record = self.job.targets.get(name).filter(|_| !ended);
        let id = self.job.header.id.clone();
        let records = record
            .map(|record| (id.clone(), Target::clone(record)))
            .into_iter()
            .collect();
        let gone = BTreeSet::from_iter(ended.then_some(id));
        let Merge::Merged(merged) = merge(name, None, &list, &records, &gone, self.now) else {
            panic!("a whole journal was to be set aside")
        };
        assert!(merged.orphans.is_empty(), "{merged:?}");
        for (_, event) in merged.events {
            let taken = self.take(name, event.clone());
            assert!(taken, "a merge that cannot be applied: {event:?}");
        }
        let journal = journal(self.agents[name].number);
        self.inventory
            .agents
            .insert(name.clone(), Presence::Live { journal });
    }

    /// Another leader begins, with nothing in memory.
    pub(super) fn change_leader(&mut self) {
        self.inventory.fence.epoch += 1;
        self.inventory.led_since = self.now;
        self.inventory.withheld.clear();
        self.inventory.drift.clear();
        self.inventory.soak = None;
        for presence in self.inventory.agents.values_mut() {
            if matches!(presence, Presence::Live { .. }) {
                *presence = Presence::NotMerged;
            }
        }
    }

    /// An operator's wish, where it is not refused at once.
    pub(super) fn ask(&mut self, wish: Wish) {
        if self.job.makes_sense(&wish).is_err() {
            return;
        }
        self.requests += 1;
        self.inventory.requests.push(Request {
            format: 1,
            id: format!("r-{}", self.requests).as_str().into(),
            by: "mei".into(),
            reason: "drawn so".into(),
            wish,
            at: self.now,
        });
    }

    pub(super) fn answer_drift(&mut self, found: Option<String>) {
        let asked = self.last.reads.drift.iter().next().cloned();
        if let Some(name) = asked {
            self.inventory.drift.insert(name, found);
        }
    }

    pub(super) fn answer_plan(&mut self, disposition: Disposition) {
        let asked = self.last.reads.plan.iter().next().cloned();
        if let Some(name) = asked {
            let part = plans::part(&name, disposition);
            self.job.late_parts.entry(name).or_insert(part);
        }
    }

    /// One round of checks; every target reads this.
    pub(super) fn answer_soak(&mut self, reading: &Result<(u64, u64), String>) {
        let Some(wanted) = self.last.reads.soak.clone() else {
            return;
        };
        let read = |(samples, errors): &(u64, u64)| {
            let outputs = json!({"samples": samples, "errors": errors});
            BTreeMap::from([("health".into(), outputs)])
        };
        let steps = reading.as_ref().map(read).map_err(Clone::clone);
        let round = wanted
            .targets
            .into_iter()
            .map(|name| {
                let steps = steps.clone();
                (name, SoakReading { steps })
            })
            .collect();
        let committed = self.job.header.soak.clone();
        let begin = || {
            let committed = committed.filter(|progress| progress.wave == wanted.wave);
            committed.unwrap_or_else(|| SoakProgress::begin(wanted.wave))
        };
        let counted = self.inventory.soak.take();
        let counted = counted.filter(|progress| progress.wave == wanted.wave);
        let mut progress = counted.unwrap_or_else(begin);
        let soak = self.job.plan.phase().waves[wanted.wave].soak.clone();
        let body = &self.job.plan.scope.body;
        if let Some(soak) = soak {
            progress.add(body, &soak, Duration::from_secs(5), &round);
        }
        self.inventory.soak = Some(progress);
    }

    /// All bad luck ends: the job must too.
    pub(super) fn calm_down(&mut self) {
        self.inventory.halted = None;
        self.inventory.turn = Turn::Yes;
        for name in self.names() {
            if self.inventory.live(&name).is_none() {
                self.come_back(&name, false);
            }
        }
        for round in 0..CALM_ROUNDS {
            self.settle();
            if self.job.header.state.is_ended() {
                return;
            }
            self.calm_round(round);
        }
        panic!(
            "no end in sight: {:?}, waiting for {:?}",
            self.job.header.state, self.last.waiting
        );
    }

    /// Nobody ever returns, and the operator wants to be done with it: the job must end all the same.
    pub(super) fn close(&mut self) {
        self.inventory.halted = None;
        for name in self.names() {
            self.leave(&name);
        }
        for _ in 0..CLOSING_ROUNDS {
            self.settle();
            if self.job.header.state.is_ended() {
                return;
            }
            self.ask(Wish::Cancel { undo: false });
            self.settle();
            self.now = self.now.plus(Duration::from_secs(DAY));
        }
        panic!(
            "not closed: {:?}, waiting for {:?}",
            self.job.header.state, self.last.waiting
        );
    }

    fn calm_round(&mut self, round: usize) {
        for name in self.names() {
            self.merge(&name);
        }
        self.answer_drift(None);
        self.answer_plan(Disposition::Run);
        self.answer_soak(&Ok((100, 0)));
        // In the end whoever is gone for good was waited for long enough.
        let days = u64::try_from(round / 64).unwrap_or(u64::MAX);
        let pause = if round % 64 == 63 { days * DAY } else { 5 };
        self.now = self.now.plus(Duration::from_secs(pause));
        self.ask(Wish::Resume);
        for order in self.orders() {
            if self.reaches(&order) {
                self.end(&order, Ending::Well);
            }
        }
        if round % 8 == 7 {
            self.settle_questions();
        }
    }

    /// Operators settle what agents cannot.
    fn settle_questions(&mut self) {
        let open: Vec<_> = self
            .job
            .targets
            .values()
            .filter(|t| t.is_open_question())
            .cloned()
            .collect();
        for (index, target) in open.into_iter().enumerate() {
            let Some(step) = self.job.in_doubt(&target.name).cloned() else {
                continue;
            };
            let verdict = match (&target.state, index % 3) {
                (TargetState::Stuck { .. }, _) | (_, 0) => Verdict::Done,
                (_, 1) => Verdict::NotDone,
                _ => Verdict::Abandon,
            };
            self.ask(Wish::Resolve {
                target: target.name.clone(),
                step,
                verdict,
            });
        }
    }
}

type Known = BTreeMap<StepId, StepState>;

fn journal(number: u32) -> JournalId {
    JournalId::new(format!("journal-{number}"))
}

fn why() -> Failure {
    Failure::new("noProgress", "drawn so")
}

fn done(changed: bool) -> StepState {
    StepState::Succeeded {
        outputs: Value::Null,
        changed,
    }
}

fn forward(
    steps: &[StepId],
    known: Known,
    ending: Ending,
    writes: impl Fn(&StepId) -> bool,
) -> (SegmentOutcome, Known) {
    let is_done = |known: &Known, id: &StepId| {
        matches!(
            known.get(id),
            Some(StepState::Succeeded { .. } | StepState::Skipped { .. })
        )
    };
    let to_do: Vec<&StepId> = steps.iter().filter(|id| !is_done(&known, id)).collect();
    let mut known: Known = known
        .into_iter()
        .filter(|(id, _)| steps.contains(id))
        .collect();
    for (at, id) in to_do.into_iter().enumerate() {
        let (step, evidence) = (id.clone(), vec!["drawn so".to_owned()]);
        match ending {
            Ending::Badly(end) | Ending::Drifted(end) | Ending::HalfDone(end) if end == at => {
                let applied = matches!(ending, Ending::HalfDone(_)) && writes(id);
                let mut failure = why();
                if matches!(ending, Ending::Drifted(_)) {
                    failure.kind = "drift".to_owned();
                }
                let state = StepState::Failed {
                    failure: failure.clone(),
                    applied,
                };
                known.insert(step.clone(), state);
                return (SegmentOutcome::Failed { step, failure }, known);
            }
            Ending::Unknown(end) if end == at && writes(id) => {
                let state = StepState::Unknown {
                    evidence: evidence.clone(),
                };
                known.insert(step.clone(), state);
                return (SegmentOutcome::Unknown { step, evidence }, known);
            }
            _ => known.insert(step, done(writes(id))),
        };
    }
    (SegmentOutcome::Succeeded, known)
}

/// As an agent goes back: what it passes over it says nothing of.
fn back(assignment: &Assignment, ending: Ending) -> (SegmentOutcome, Known) {
    let mut known = assignment.known.clone();
    let mut decided = Known::new();
    for at in 0.. {
        let step = match advance_undo(assignment, &known) {
            NextUndo::Finished(outcome) => return (outcome, decided),
            NextUndo::Pass { step } => {
                known.insert(step, StepState::Undone);
                continue;
            }
            NextUndo::Undo { step, .. } => step,
        };
        let state = match ending {
            Ending::Badly(end) | Ending::Drifted(end) | Ending::HalfDone(end) if end == at => {
                StepState::UndoFailed { failure: why() }
            }
            Ending::Unknown(end) if end == at => StepState::Unknown {
                evidence: vec!["drawn so".to_owned()],
            },
            _ => StepState::Undone,
        };
        known.insert(step.clone(), state.clone());
        decided.insert(step, state);
    }
    unreachable!("the way back has as many steps as there are")
}
