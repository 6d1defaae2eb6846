//! What must hold of every job at every moment, whoever acts and whatever fails.
//!
//! [`crate::decide`] and [`crate::job`] say what happens; this says what must never. It is written
//! from the promises and not from that code, so that one can be held against the other. The property
//! tests and the simulation call it after each event; programs do not.
//!
//! | function | holds |
//! |---|---|
//! | [`state`] | a job as it stands |
//! | [`apply`] | one event on it |
//! | [`decision`] | all events of one decision, and that it says what is waited for |
//! | [`settle`] | decisions until there are none: they must end, and stay ended |
//! | [`written`] | a job as stored before and after one write, whoever made it |

use std::sync::Arc;

use crate::assignments::assignments;
use crate::decide::{Decision, decide};
use crate::ids::{Attempt, TargetName, Timestamp};
use crate::inventory::Inventory;
use crate::job::{
    Direction, Event, HeaderEvent, Job, JobState, Link, Rest, Target, TargetEvent, TargetState,
};
use crate::outcome::StepState;
use crate::plan::Disposition;
use crate::runbook::OnFailure;

/// A promise that was broken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{rule:?}: {what}")]
pub struct Broken {
    /// Which.
    pub rule: Rule,
    /// By what.
    pub what: String,
}

/// The promises.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Rule {
    /// Whatever is decided can be applied.
    Legal,
    /// An attempt has a commitment, and its number is the one after the newest.
    Attempts,
    /// No step is reached before its predecessors are done or left out.
    StepOrder,
    /// Nothing is opened that its agent has not planned, or that the plan does not run.
    Planned,
    /// No wave is opened over an undecided one.
    WaveOrder,
    /// Nobody goes past a barrier that somebody who counts has not reached.
    Barrier,
    /// Nothing is opened once failures plus unknowns exceed the budget, so that at most as many more
    /// fail as were in work.
    Budget,
    /// At most `maxParallel` targets of a wave are in work.
    Slots,
    /// The way back is last wave first, only over what was changed, and leaves nothing changed.
    Unwind,
    /// An unknown outcome is left by a report, an operator, or the return of its own journal.
    NoGuess,
    /// Where a target rests is what its steps say.
    HonestRest,
    /// At its end every target of a job rests, and the job's word fits their rests.
    End,
    /// What was stopped is never opened again, and what has ended has ended.
    StopMeansStop,
    /// Work is only to be had from jobs under way, for the newest attempt.
    Orders,
    /// No job without a live owner, a timer, or a next command for somebody.
    Owned,
    /// Deciding ends, and deciding again says the same.
    Idempotent,
}

/// How many decisions in a row a job may need for each of its targets, and in all beside that.
const ROUNDS_PER_TARGET: usize = 8;
const ROUNDS: usize = 64;

fn broken<T>(rule: Rule, what: impl Into<String>) -> Result<T, Broken> {
    Err(Broken {
        rule,
        what: what.into(),
    })
}

/// Breaks `rule` unless it holds.
fn must(holds: bool, rule: Rule, what: impl FnOnce() -> String) -> Result<(), Broken> {
    if holds { Ok(()) } else { broken(rule, what()) }
}

/// Decides until there is nothing left to decide, applying as it goes; the last decision.
pub fn settle(job: &mut Job, inventory: &Inventory, now: Timestamp) -> Result<Decision, Broken> {
    let rounds = ROUNDS + ROUNDS_PER_TARGET * job.plan.parts.len();
    for _ in 0..rounds {
        let (after, decided) = decision(job, inventory, now)?;
        if decided.events.is_empty() {
            let again = decide(job, inventory, now);
            let same = again == decided;
            must(same, Rule::Idempotent, || {
                format!("{decided:?}, then {again:?}")
            })?;
            return Ok(decided);
        }
        *job = after;
    }
    broken(
        Rule::Idempotent,
        format!("no end after {rounds} decisions in {:?}", job.header.state),
    )
}

/// One decision with the job that it leads to.
pub fn decision(
    job: &Job,
    inventory: &Inventory,
    now: Timestamp,
) -> Result<(Job, Decision), Broken> {
    let decided = decide(job, inventory, now);
    let mut after = job.clone();
    for event in &decided.events {
        apply(&mut after, event.clone())?;
    }
    let ended = job.header.state.is_ended();
    must(
        !ended || decided.events.is_empty(),
        Rule::StopMeansStop,
        || format!("{:?} after its end", decided.events),
    )?;
    let says_why = !decided.waiting.is_empty() || !decided.events.is_empty();
    must(says_why || ended, Rule::Owned, || {
        format!("nobody owns {:?}", job.header.state)
    })?;
    Ok((after, decided))
}

/// Applies one event of a decision, a report or an operator, and holds what comes of it.
pub fn apply(job: &mut Job, event: Event) -> Result<(), Broken> {
    let mut after = job.clone();
    if let Err(error) = after.apply(event.clone()) {
        return broken(Rule::Legal, error.to_string());
    }
    match &event {
        Event::Header(event) => header_move(job, event, &after)?,
        Event::Target(name, event) => target_move(job, name, event, &after)?,
    }
    state(&after)?;
    *job = after;
    Ok(())
}

/// A job before and after one write of its records. What happened is read off the two: the events are
/// known to nobody but who wrote.
pub fn written(before: &Job, after: &Job) -> Result<(), Broken> {
    let event = match after.header.wave > before.header.wave {
        true => HeaderEvent::WaveDone,
        false => HeaderEvent::DriftChecked,
    };
    header_move(before, &event, after)?;
    for (name, is) in &after.targets {
        let was = before.target(name);
        left_unknown(&was, is)?;
        if is.attempt == was.attempt {
            continue;
        }
        next_number(&was, is.attempt)?;
        // Others of the same write may have made way for it.
        let mut beside = after.clone();
        beside.targets.insert(name.clone(), Arc::new(was.clone()));
        match is.state.in_work() {
            Some((Direction::Forward, segment)) => {
                may_open(&beside, &was, segment)?;
                slots(after, name)?;
            }
            Some((Direction::Undo, _)) => may_undo(&beside, &was)?,
            None => return broken(Rule::Attempts, format!("{is:?} was given a number")),
        }
    }
    state(after)
}

/// An unknown outcome is not replaced by another attempt, nor called a success that nobody reported.
fn left_unknown(was: &Target, is: &Target) -> Result<(), Broken> {
    let unknown = matches!(was.state, TargetState::Unknown { .. });
    must(!unknown || is.attempt == was.attempt, Rule::NoGuess, || {
        format!("{was:?} was given attempt {}", is.attempt)
    })
}

/// A job as it stands.
pub fn state(job: &Job) -> Result<(), Broken> {
    for target in job.targets.values() {
        attempts(target)?;
        honest_rest(target)?;
        step_order(job, target)?;
        within_wave(job, target)?;
    }
    orders(job)?;
    budget(job)?;
    end(job)
}

fn attempts(target: &Target) -> Result<(), Broken> {
    let committed = target.commitment.is_some();
    must(
        committed == (target.attempt > Attempt(0)),
        Rule::Attempts,
        || format!("{target:?}"),
    )
}

fn honest_rest(target: &Target) -> Result<(), Broken> {
    let effect = target.may_have_effect();
    let honest = match &target.state {
        TargetState::Rest(Rest::Changed) => effect,
        TargetState::Rest(Rest::Restored | Rest::Untouched) => !effect,
        _ => true,
    };
    must(honest, Rule::HonestRest, || format!("{target:?}"))
}

/// What one step shows of how far its target came.
fn is_reached(step: &StepState) -> bool {
    !matches!(step, StepState::NotStarted)
}

fn may_be_gone_past(step: &StepState) -> bool {
    match step {
        StepState::Succeeded { .. }
        | StepState::Skipped { .. }
        | StepState::Undone
        | StepState::Passed
        | StepState::UndoFailed { .. }
        | StepState::Abandoned { .. } => true,
        StepState::NotStarted
        | StepState::Running { .. }
        | StepState::Failed { .. }
        | StepState::Unknown { .. } => false,
    }
}

fn step_order(job: &Job, target: &Target) -> Result<(), Broken> {
    if undoes_another(job) {
        return Ok(());
    }
    let segments = &job.plan.phase().segments;
    let mut all_before = true;
    for planned in segments.iter().flat_map(|segment| &segment.steps) {
        let step = target.steps.get(&planned.step.id);
        let step = step.unwrap_or(&StepState::NotStarted);
        must(all_before || !is_reached(step), Rule::StepOrder, || {
            format!("{} of {target:?}", planned.step.id)
        })?;
        // On the way back a read that was under way, or did not hold, stays as it is.
        let back = target_goes_back(target);
        all_before &= may_be_gone_past(step) || (back && is_reached(step));
    }
    Ok(())
}

fn target_goes_back(target: &Target) -> bool {
    let undone = |step: &StepState| {
        matches!(
            step,
            StepState::Undone
                | StepState::Passed
                | StepState::UndoFailed { .. }
                | StepState::Abandoned { .. }
        )
    };
    let doubted = matches!(
        target.state,
        TargetState::Unknown {
            direction: Direction::Undo,
            ..
        }
    );
    doubted || target.steps.values().any(undone)
}

fn undoes_another(job: &Job) -> bool {
    matches!(job.header.link, Some(Link::Undoes { .. }))
}

fn wave_of(job: &Job, name: &TargetName) -> Option<usize> {
    let waves = &job.plan.phase().waves;
    waves.iter().position(|wave| wave.targets.contains(name))
}

fn within_wave(job: &Job, target: &Target) -> Result<(), Broken> {
    let Some(wave) = wave_of(job, &target.name) else {
        return broken(Rule::WaveOrder, format!("{} is in no wave", target.name));
    };
    let opened = target.attempt > Attempt(0);
    let reached = wave <= job.header.wave || undoes_another(job);
    must(reached || !opened, Rule::WaveOrder, || {
        format!("{} of wave {wave} in wave {}", target.name, job.header.wave)
    })
}

fn orders(job: &Job) -> Result<(), Broken> {
    let orders = assignments(job);
    let state = &job.header.state;
    let idle = state.is_ended() || *state == JobState::Queued;
    must(!idle || orders.is_empty(), Rule::Orders, || {
        format!("{orders:?} of a job that is {}", state.word())
    })?;
    for order in orders {
        let target = job.target(&order.target);
        must(order.attempt == target.attempt, Rule::Orders, || {
            format!("{order:?} beside {target:?}")
        })?;
        let stopped = stops(state) && order.direction == Direction::Forward;
        let goes = order.wanted == crate::assignments::Wanted::Go;
        must(!(stopped && goes), Rule::StopMeansStop, || {
            format!("{order:?} while {state:?}")
        })?;
    }
    Ok(())
}

/// While nothing is put back yet: what was in work when the budget was exceeded may fail too.
fn budget(job: &Job) -> Result<(), Broken> {
    let phase = job.plan.phase();
    let counts = matches!(
        job.header.state,
        JobState::Running | JobState::Paused | JobState::Stopping { .. }
    );
    let spent = attempted(job);
    let slots: usize = phase
        .waves
        .iter()
        .map(|wave| wave.max_parallel)
        .max()
        .unwrap_or(0);
    // Deferred targets come back while a later wave is in work, beside that wave's own.
    let late = job
        .plan
        .parts
        .values()
        .filter(|part| could_be_deferred(job, part.disposition.clone()))
        .count();
    must(
        !counts || spent <= phase.budget + slots + late,
        Rule::Budget,
        || {
            format!(
                "{spent} failed or unknown, {} accepted, {slots} at once",
                phase.budget
            )
        },
    )
}

fn could_be_deferred(job: &Job, disposition: Disposition) -> bool {
    use crate::runbook::WhenUnreachable;
    let defers = job.plan.scope.body.when_unreachable() == WhenUnreachable::Defer;
    defers || matches!(disposition, Disposition::Deferred { .. })
}

/// Targets that were given work and failed, or whose outcome is unknown.
fn attempted(job: &Job) -> usize {
    let targets = job.targets.values();
    targets
        .filter(|target| target.attempt > Attempt(0))
        .filter(|target| target.failure.is_some() || target.is_open_question())
        .count()
}

fn end(job: &Job) -> Result<(), Broken> {
    if !job.header.state.is_ended() {
        return Ok(());
    }
    for target in job.targets.values() {
        let at_rest = matches!(target.state, TargetState::Rest(_));
        must(at_rest, Rule::End, || {
            format!("{} is {:?} at the end", target.name, target.state)
        })?;
    }
    must(job.header.ended_at.is_some(), Rule::End, || {
        "no time of its end".to_owned()
    })?;
    let rests = || job.targets.values().map(|target| &target.state);
    let fits = match &job.header.state {
        JobState::Undone { .. } => rests().all(is_back),
        JobState::Succeeded if undoes_another(job) => rests().all(is_back),
        JobState::Succeeded => {
            let all = job.targets.values().all(|target| target.failure.is_none());
            all && rests()
                .all(|rest| !matches!(rest, TargetState::Rest(Rest::NeedsOperator { .. })))
        }
        _ => true,
    };
    must(fits, Rule::End, || {
        format!(
            "{} with {:?}",
            job.header.state.word(),
            rests().collect::<Vec<_>>()
        )
    })
}

fn is_back(state: &TargetState) -> bool {
    matches!(state, TargetState::Rest(Rest::Restored | Rest::Untouched))
}

fn header_move(before: &Job, event: &HeaderEvent, after: &Job) -> Result<(), Broken> {
    let (from, to) = (&before.header.state, &after.header.state);
    let goes_on = matches!(to, JobState::Queued | JobState::Running | JobState::Paused);
    must(!(stops(from) && goes_on), Rule::StopMeansStop, || {
        format!("{from:?} became {to:?}")
    })?;
    if *event == HeaderEvent::WaveDone {
        for name in before.participants(before.header.wave) {
            let target = before.target(name);
            let decided =
                target.is_at_rest() || matches!(target.state, TargetState::Deferred { .. });
            must(decided, Rule::WaveOrder, || {
                format!("wave done over {target:?}")
            })?;
        }
    }
    let unwound = unwinds(from) && to.is_ended();
    for target in before.targets.values().filter(|_| unwound) {
        let left = target.state == TargetState::Rest(Rest::Changed);
        must(!left, Rule::Unwind, || {
            format!("{} was not put back", target.name)
        })?;
    }
    Ok(())
}

/// Whether nothing forward may be opened any more.
fn stops(state: &JobState) -> bool {
    match state {
        JobState::Queued | JobState::Running | JobState::Paused => false,
        JobState::NeedsOperator { after } => stops(after),
        _ => true,
    }
}

fn unwinds(state: &JobState) -> bool {
    match state {
        JobState::NeedsOperator { after } => unwinds(after),
        JobState::Unwinding { .. } => true,
        _ => false,
    }
}

fn target_move(
    before: &Job,
    name: &TargetName,
    event: &TargetEvent,
    after: &Job,
) -> Result<(), Broken> {
    let (was, is) = (before.target(name), after.target(name));
    let known = |target: &Target| !matches!(target.state, TargetState::Unknown { .. });
    let told = matches!(
        event,
        TargetEvent::Reported { .. } | TargetEvent::Resolved(_) | TargetEvent::Returned
    );
    must(known(&was) || !known(&is) || told, Rule::NoGuess, || {
        format!("{name} left unknown by {event:?}")
    })?;
    match event {
        TargetEvent::Opened {
            segment, attempt, ..
        } => {
            next_number(&was, *attempt)?;
            may_open(before, &was, *segment)?;
            slots(after, name)
        }
        TargetEvent::UndoOpened { attempt, .. } => {
            next_number(&was, *attempt)?;
            may_undo(before, &was)
        }
        _ => Ok(()),
    }
}

fn next_number(was: &Target, attempt: Attempt) -> Result<(), Broken> {
    must(attempt == was.attempt.next(), Rule::Attempts, || {
        format!("attempt {attempt} after {was:?}")
    })
}

fn may_open(before: &Job, was: &Target, segment: usize) -> Result<(), Broken> {
    let name = &was.name;
    let running = before.header.state == JobState::Running && before.header.drift_checked;
    must(running, Rule::StopMeansStop, || {
        format!("{name} opened while {:?}", before.header.state)
    })?;
    let part = before.part(name).map(|part| &part.disposition);
    must(part == Some(&Disposition::Run), Rule::Planned, || {
        format!("{name} opened, and its part of the plan is {part:?}")
    })?;
    must(!target_goes_back(was), Rule::Unwind, || {
        format!("opened again after its way back: {was:?}")
    })?;
    let spent = before.spent();
    let budget = before.plan.phase().budget;
    must(spent.total() <= budget, Rule::Budget, || {
        format!("{name} opened with {spent:?} of {budget}")
    })?;
    let failed = attempted(before);
    must(failed <= budget, Rule::Budget, || {
        format!("{name} opened after {failed} of {budget} were given work and failed")
    })?;
    let wave = wave_of(before, name);
    let late = wave < Some(before.header.wave);
    must(
        !late || was.state != TargetState::NotStarted,
        Rule::WaveOrder,
        || format!("{name} opened after its wave"),
    )?;
    // Who is opened again after a stop went past its barrier before.
    if !matches!(was.state, TargetState::AtBarrier { .. }) {
        return Ok(());
    }
    for mate in before.participants(wave.unwrap_or_default()) {
        let mate = before.target(mate);
        must(!is_awaited(&mate, segment - 1), Rule::Barrier, || {
            format!("{name} went on to segment {segment} before {mate:?}")
        })?;
    }
    Ok(())
}

/// Whether the target still counts at the barrier that ends `segment`, and has not reached it.
fn is_awaited(target: &Target, segment: usize) -> bool {
    match &target.state {
        TargetState::NotStarted => true,
        TargetState::Assigned { segment: at }
        | TargetState::Running { segment: at }
        | TargetState::Stopped { segment: at } => *at <= segment,
        TargetState::AtBarrier { segment: at, .. } => *at < segment,
        TargetState::Deferred { .. }
        | TargetState::Failed { .. }
        | TargetState::UndoAssigned
        | TargetState::Undoing
        | TargetState::Unknown { .. }
        | TargetState::Stuck { .. }
        | TargetState::Rest(_) => false,
    }
}

fn slots(after: &Job, name: &TargetName) -> Result<(), Broken> {
    let Some(wave) = wave_of(after, name) else {
        return Ok(());
    };
    let max = after.plan.phase().waves[wave].max_parallel;
    let participants = after.participants(wave);
    let in_work = participants
        .iter()
        .filter(|name| after.target(name).state.in_work().is_some())
        .count();
    must(in_work <= max, Rule::Slots, || {
        format!("{in_work} of wave {wave} in work, {max} allowed")
    })
}

fn may_undo(before: &Job, was: &Target) -> Result<(), Broken> {
    let name = &was.name;
    must(was.may_have_effect(), Rule::Unwind, || {
        format!("nothing to put back: {was:?}")
    })?;
    match &before.header.state {
        JobState::Running => {
            let alone = matches!(was.state, TargetState::Failed { .. });
            let policy = before.plan.phase().on_failure == OnFailure::Undo;
            must(alone && policy, Rule::Unwind, || {
                format!("{was:?} put back in a running job")
            })
        }
        JobState::Unwinding { .. } => {
            let waves = before.plan.phase().waves.len();
            let later = wave_of(before, name).map_or(waves, |wave| wave + 1)..waves;
            for name in later.flat_map(|wave| before.participants(wave)) {
                let later = before.target(name);
                must(is_out_of_the_way(&later), Rule::Unwind, || {
                    format!("{} put back before {later:?}", was.name)
                })?;
            }
            Ok(())
        }
        other => broken(Rule::Unwind, format!("{name} put back while {other:?}")),
    }
}

/// Nothing is left to go back over, or nobody can say.
fn is_out_of_the_way(target: &Target) -> bool {
    match &target.state {
        TargetState::NotStarted | TargetState::Deferred { .. } => true,
        TargetState::Unknown { .. } | TargetState::Stuck { .. } => true,
        TargetState::Rest(rest) => *rest != Rest::Changed,
        TargetState::Assigned { .. }
        | TargetState::Running { .. }
        | TargetState::AtBarrier { .. }
        | TargetState::Failed { .. }
        | TargetState::Stopped { .. }
        | TargetState::UndoAssigned
        | TargetState::Undoing => false,
    }
}
