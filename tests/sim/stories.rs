//! The story of a seed: a job over a few clusters, in weather.

use std::sync::Arc;
use std::time::Duration;

use aldis_core::ids::{JobId, TargetName};
use aldis_core::job::{Direction, JobState, Target, TargetState, Verdict, Wish};

use crate::chance::Chance;
use crate::link::Way;
use crate::runbooks;
use crate::world::{Turn, World};

const NAMES: [&str; 5] = ["eu/a", "eu/b", "us/a", "us/b", "us/c"];

/// How long a question stands before an operator looks at it.
const LOOKED_AT_AFTER: Duration = Duration::from_secs(15);

/// How long a job may take once all bad luck has ended.
const AT_LAST: u32 = 900;

/// Tells the story of a seed.
pub(crate) async fn of_seed(seed: u64) {
    let chance = Chance::of(!seed);
    let agents = 2 + chance.below(4);
    let mut world = World::begin(seed, &NAMES[..agents]);
    world.until("all live", World::all_live).await;
    let runbook = runbooks::draw(&chance);
    world.history.say(&runbook);
    let plan = world.plan(&runbook).await;
    if chance.one_in(2) {
        world.storm(true);
    }
    let job = world.submit(&plan).await;
    world.storm(true);
    for _ in 0..8 + chance.below(14) {
        something_happens(&mut world, &job).await;
        let time = world.chance.between(0, 2_000);
        world.pass(time).await;
        if ended(&world, &job) {
            break;
        }
    }
    world.calm_down();
    comes_to_rest(&mut world, &job).await;
}

/// From here on nothing bad happens, and operators answer: the job ends, with every target at rest.
pub(crate) async fn comes_to_rest(world: &mut World, job: &JobId) {
    let mut questions = 0;
    for second in 0..AT_LAST {
        world.pass(Duration::from_secs(1)).await;
        if ended(world, job) {
            // What is on its way lands.
            world.pass(Duration::from_secs(15)).await;
            world.history.say(format!("ended after {second} s"));
            return world.witness.rests(job);
        }
        if world.job(job).header.state == JobState::Paused {
            world.ask(job, Wish::Resume).await;
        }
        questions = answer_in_time(world, job, questions).await;
    }
    let waits = world.waits_for(job).await;
    panic!("LIVENESS: no end: {waits}");
}

fn ended(world: &World, job: &JobId) -> bool {
    world.job(job).header.state.is_ended()
}

/// Counts the seconds that something is asked; answers after a while.
async fn answer_in_time(world: &mut World, job: &JobId, asked_for: u64) -> u64 {
    let known = world.job(job);
    let open: Vec<Arc<Target>> = known
        .targets
        .values()
        .filter(|t| t.is_open_question())
        .cloned()
        .collect();
    if open.is_empty() {
        return 0;
    }
    if asked_for < LOOKED_AT_AFTER.as_secs() {
        return asked_for + 1;
    }
    for target in open {
        answer(world, job, &target).await;
    }
    0
}

/// What an honest operator says after a look at the cluster.
pub(crate) async fn answer(world: &mut World, job: &JobId, target: &Target) {
    let known = world.job(job);
    let Some(step) = known.in_doubt(&target.name).cloned() else {
        return;
    };
    let stands = world.witness.stands(job, &target.name, &step);
    let verdict = match (target.question(), &target.state) {
        (_, TargetState::Stuck { .. }) => {
            world.put_back_by_hand(job, &target.name, &step);
            Verdict::Done
        }
        (Some((Direction::Forward, _)), _) if stands => Verdict::Done,
        (Some((Direction::Undo, _)), _) if !stands => Verdict::Done,
        _ => Verdict::NotDone,
    };
    let target = target.name.clone();
    let wish = Wish::Resolve {
        target,
        step,
        verdict,
    };
    world.ask(job, wish).await;
}

async fn something_happens(world: &mut World, job: &JobId) {
    let replica = *world.chance.one_of(&["r1", "r2"]);
    let targets = world.targets();
    let target = world.chance.one_of(&targets).clone();
    let while_it_lasts = world.chance.between(2_000, 14_000);
    match world.chance.below(24) {
        0..=2 => {
            let leader = world.leader().unwrap_or(replica);
            world.kill_replica(leader);
        }
        3 => world.kill_replica(replica),
        4..=6 => {
            let leader = world.leader().unwrap_or(replica);
            world.hinder(leader, Way::Stale);
            world.later(while_it_lasts, Turn::Opens(leader));
        }
        7 | 8 => {
            world.hinder(replica, Way::Cut);
            world.later(while_it_lasts, Turn::Opens(replica));
        }
        9..=11 => {
            world
                .history
                .say(format!("{replica} and {target} are cut off"));
            world.network.cut(replica, &target);
            world.later(while_it_lasts * 2, Turn::Heals);
        }
        12 | 13 => world.kill_agent(&target),
        14..=16 => {
            let writes = world.chance.below(8);
            world.agent(&target).disk.end_process_after(writes);
        }
        17 => something_happens_to_a_journal(world, &target).await,
        18 => world.agent(&target).cluster.break_rollouts(true),
        19 => world.agent(&target).cluster.break_rollouts(false),
        20 if world.chance.one_in(4) => {
            world
                .history
                .say(format!("somebody writes set1x1 of {target}"));
            world.agent(&target).cluster.interfere("set1x1");
        }
        21 | 22 => somebody_asks(world, job).await,
        _ => {}
    }
}

async fn something_happens_to_a_journal(world: &mut World, target: &TargetName) {
    match world.chance.below(3) {
        0 => {
            world.kill_agent(target);
            world
                .history
                .say(format!("the journal of {target} is deleted"));
            world.agent(target).disk.clear();
        }
        1 => {
            let earlier = world.agent(target).disk.copy();
            world.pass(Duration::from_secs(3)).await;
            world.kill_agent(target);
            world
                .history
                .say(format!("the journal of {target} is what it was"));
            world.agent(target).disk.restore(&earlier);
        }
        _ => {
            let mut copy = world.start_copy(target);
            let time = world.chance.between(5_000, 20_000);
            world.pass(time).await;
            copy.kill();
        }
    }
}

async fn somebody_asks(world: &mut World, job: &JobId) {
    let wish = match world.chance.below(6) {
        0 => Wish::Cancel { undo: true },
        1 => Wish::Cancel { undo: false },
        2 | 3 => Wish::Pause,
        _ => Wish::Resume,
    };
    world.ask(job, wish).await;
    let open = world.job(job);
    let open = open
        .targets
        .values()
        .find(|target| target.is_open_question());
    if let Some(target) = open.cloned() {
        answer(world, job, &target).await;
    }
}
