//! What may happen next.

use std::time::Duration;

use proptest::prelude::*;
use proptest::sample::Index;

use super::world::{Ending, World};
use crate::action::Effect;
use crate::ids::StepId;
use crate::inventory::{Presence, Turn};
use crate::job::{Report, Verdict, Wish};
use crate::outcome::StepState;
use crate::plan::Disposition;

/// One thing that happens.
#[derive(Clone, Debug)]
pub(super) enum Act {
    /// An agent journals an order.
    Accept(Index),
    /// A step of an order begins.
    Begin(Index),
    /// A step of an order is done, and its agent says so before it says how the order ended.
    Finish(Index),
    /// An agent rests at a safe point, or goes on.
    Park(Index, bool),
    /// An order is carried out and its end reported.
    End(Index, Ending),
    /// A report comes once more, however old.
    Repeat(Index),
    /// An agent is gone.
    Leave(Index),
    /// An agent is gone for good.
    Die(Index),
    /// It is back; `true`: without its journal.
    Return(Index, bool),
    /// Its list is merged.
    Merge(Index),
    /// It is held, or two processes use its identity.
    Hold(Index, bool),
    /// Another leader.
    ChangeLeader,
    /// Time passes.
    Wait(Duration),
    /// An operator stops the job; `true`: and wants it back.
    Cancel(bool),
    /// An operator lets it rest, or go on.
    Pause(bool),
    /// An operator says of a step what became of it.
    Resolve(Index, Index, Verdict),
    /// An agent says whether the plan still holds.
    Drift(bool),
    /// A deferred target is planned.
    Plan(u8),
    /// A round of a soak; `None` = nobody answered.
    Soak(Option<bool>),
    /// The store went back in time, or that is settled.
    Halt(bool),
    /// The job's turn comes, or not yet.
    Turn(bool),
}

pub(super) fn act() -> impl Strategy<Value = Act> {
    let index = any::<Index>;
    let wait = prop::sample::select(vec![1, 5, 31, 61, 400, 90_000]).prop_map(Duration::from_secs);
    let verdict = prop::sample::select(vec![Verdict::Done, Verdict::NotDone, Verdict::Abandon]);
    prop_oneof![
        6 => index().prop_map(Act::Accept),
        2 => index().prop_map(Act::Begin),
        4 => index().prop_map(Act::Finish),
        1 => (index(), any::<bool>()).prop_map(|(at, parked)| Act::Park(at, parked)),
        20 => (index(), ending()).prop_map(|(at, ending)| Act::End(at, ending)),
        3 => index().prop_map(Act::Repeat),
        3 => index().prop_map(Act::Leave),
        1 => index().prop_map(Act::Die),
        4 => (index(), prop::bool::weighted(0.3)).prop_map(|(at, lost)| Act::Return(at, lost)),
        6 => index().prop_map(Act::Merge),
        1 => (index(), any::<bool>()).prop_map(|(at, two)| Act::Hold(at, two)),
        1 => Just(Act::ChangeLeader),
        4 => wait.prop_map(Act::Wait),
        1 => any::<bool>().prop_map(Act::Cancel),
        1 => any::<bool>().prop_map(Act::Pause),
        2 => (index(), index(), verdict).prop_map(|(at, step, said)| Act::Resolve(at, step, said)),
        8 => prop::bool::weighted(0.9).prop_map(Act::Drift),
        2 => (0u8..3).prop_map(Act::Plan),
        6 => prop::option::weighted(0.8, prop::bool::weighted(0.9)).prop_map(Act::Soak),
        1 => any::<bool>().prop_map(Act::Halt),
        1 => any::<bool>().prop_map(Act::Turn),
    ]
}

fn ending() -> impl Strategy<Value = Ending> {
    prop_oneof![
        6 => Just(Ending::Well),
        1 => (0usize..3).prop_map(Ending::Badly),
        1 => (0usize..3).prop_map(Ending::Drifted),
        1 => (0usize..3).prop_map(Ending::HalfDone),
        1 => (0usize..3).prop_map(Ending::Unknown),
    ]
}

impl Act {
    pub(super) fn happen(&self, world: &mut World) {
        match self {
            Self::Accept(at)
            | Self::Begin(at)
            | Self::Finish(at)
            | Self::Park(at, _)
            | Self::End(at, _) => {
                let orders = world.orders();
                if orders.is_empty() || !world.reaches(at.get(&orders)) {
                    return;
                }
                self.of_agent(at.get(&orders), world);
            }
            Self::Repeat(at) => {
                if !world.reported.is_empty() {
                    let (name, attempt, report) = at.get(&world.reported).clone();
                    world.deliver(&name, attempt, report);
                }
            }
            Self::Leave(at) => world.leave(at.get(&world.names())),
            Self::Die(at) => world.die(at.get(&world.names())),
            Self::Return(at, lost) => world.come_back(at.get(&world.names()), *lost),
            Self::Merge(at) => world.merge(at.get(&world.names())),
            Self::Hold(at, two) => {
                let why = "drawn so".to_owned();
                let held = match two {
                    true => Presence::Contested { why },
                    false => Presence::Held { why },
                };
                let name = at.get(&world.names()).clone();
                if world.dead.as_ref() != Some(&name) {
                    world.inventory.agents.insert(name, held);
                }
            }
            Self::ChangeLeader => world.change_leader(),
            Self::Wait(time) => world.now = world.now.plus(*time),
            Self::Cancel(undo) => world.ask(Wish::Cancel { undo: *undo }),
            Self::Pause(true) => world.ask(Wish::Pause),
            Self::Pause(false) => world.ask(Wish::Resume),
            Self::Resolve(at, step, verdict) => {
                let segments = &world.job.plan.phase().segments;
                let steps = segments.iter().flat_map(|segment| &segment.steps);
                let steps: Vec<_> = steps.map(|planned| planned.step.id.clone()).collect();
                let target = at.get(&world.names()).clone();
                let any = step.get(&steps).clone();
                world.ask(Wish::Resolve {
                    step: world.job.in_doubt(&target).cloned().unwrap_or(any),
                    target,
                    verdict: *verdict,
                });
            }
            Self::Drift(holds) => {
                world.answer_drift((!holds).then(|| "image is v3".to_owned()));
            }
            Self::Plan(kind) => {
                let why = "drawn so".to_owned();
                world.answer_plan(match kind {
                    0 => Disposition::Run,
                    1 => Disposition::Unchanged { why },
                    _ => Disposition::Refused { why, hint: None },
                });
            }
            Self::Soak(reading) => {
                let reading = reading.map(|well| if well { (20, 0) } else { (20, 20) });
                world.answer_soak(&reading.ok_or_else(|| "no answer".to_owned()));
            }
            Self::Halt(halted) => {
                world.inventory.halted = halted.then(|| "it went back".to_owned());
            }
            Self::Turn(ours) => {
                world.inventory.turn = if *ours { Turn::Yes } else { Turn::NotYet };
            }
        }
    }

    fn of_agent(&self, order: &crate::assignments::Order, world: &mut World) {
        match self {
            Self::Accept(_) => world.accept(order),
            Self::Begin(_) => world.begin(order),
            Self::Finish(_) => world.finish(order),
            Self::Park(_, parked) => {
                let report = Report::Parked { parked: *parked };
                world.report(&order.target, order.attempt, report);
            }
            Self::End(_, ending) => world.end(order, *ending),
            _ => {}
        }
    }
}

impl World {
    /// The first step that is still to do begins.
    fn begin(&mut self, order: &crate::assignments::Order) {
        if let Some((step, _)) = self.to_do(order) {
            let state = StepState::Running { tries: 1 };
            self.report(&order.target, order.attempt, Report::Step { step, state });
        }
    }

    fn finish(&mut self, order: &crate::assignments::Order) {
        if let Some((step, changed)) = self.to_do(order) {
            self.done_by(order, step, changed);
        }
    }

    /// The first step of an order that is still to do, and whether it writes.
    fn to_do(&self, order: &crate::assignments::Order) -> Option<(StepId, bool)> {
        let forward = order.direction == crate::job::Direction::Forward;
        if !forward || order.wanted != crate::assignments::Wanted::Go {
            return None;
        }
        let known = &self.job.target(&order.target).steps;
        let segments = &self.job.plan.phase().segments;
        let mut steps = segments[order.segment].steps.iter();
        let is_done = |id: &StepId| known.get(id).is_some_and(StepState::is_done);
        let first = steps.find(|planned| !is_done(&planned.step.id))?;
        let writes = first.step.uses.effect() == Effect::Write;
        Some((first.step.id.clone(), writes))
    }
}
