//! What a model check of the protocol found, each as a story: with the rules as they are, none of them
//! breaks a promise. The store that was restored under a living replica is not here: the embedded store
//! cannot be exchanged under a process (`control-plane/src/store/history.rs` holds that rule).

use std::time::Duration;

use aldis_core::ids::{JobId, StepId, TargetName};
use aldis_core::job::{Target, TargetState, Wish};

use crate::stories::{answer, comes_to_rest};
use crate::world::World;

/// One step that writes, and a look behind it; the next segment waits behind a barrier.
const RUNBOOK: &str = r#"
apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: story, version: 1}
spec:
  targets: {select: {matchLabels: {env: prod}}, whenUnreachable: defer}
  rollout: {maxFailures: 1, onFailure: halt}
  steps:
    - {id: first, use: kube.set-image, timeout: 10s, with: {deployment: first, namespace: shop, image: v2}}
    - {id: wait, use: kube.wait, timeout: 10s, with: {deployment: first, namespace: shop, for: rolledOut}, barrier: true}
    - {id: second, use: kube.set-image, timeout: 10s, with: {deployment: second, namespace: shop, image: v2}}
"#;

const TARGET: &str = "eu/a";

/// An effect that takes so long is on its way when everything else has happened.
const LONG: Duration = Duration::from_secs(8);

fn target() -> TargetName {
    TARGET.parse().expect("a target's name")
}

/// A job whose first effect lands so long after it was sent.
async fn one_job(seed: u64, lands_after: Duration) -> (World, JobId) {
    let mut world = World::begin(seed, &[TARGET]);
    world.until("live", World::all_live).await;
    let plan = world.plan(RUNBOOK).await;
    world.agent(&target()).cluster.land_late(Some(lands_after));
    world.agent(&target()).disk.remember();
    let job = world.submit(&plan).await;
    (world, job)
}

fn of(world: &World, job: &JobId) -> Target {
    world.job(job).target(&target())
}

fn has_begun(world: &World, job: &JobId) -> bool {
    of(world, job).steps.contains_key(&StepId::from("first"))
}

fn has_landed(world: &World, job: &JobId) -> bool {
    world.witness.stands(job, &target(), &StepId::from("first"))
}

/// A journal that was reported and then cut, anywhere: with `Accepted` kept and the intent lost among
/// others. `seed` says where.
pub(crate) async fn cut_after_it_was_reported(seed: u64) {
    let (mut world, job) = one_job(seed, Duration::from_millis(300)).await;
    world.until("landed", |world| has_landed(world, &job)).await;
    world.kill_agent(&target());
    let records = usize::try_from(seed).expect("a small seed");
    world.agent(&target()).disk.cut(records);
    world.agent(&target()).cluster.land_late(None);
    comes_to_rest(&mut world, &job).await;
}

/// A cancel that reaches a new session, whose cut journal knows nothing of an effect on its way.
pub(crate) async fn cancelled_over_a_cut_journal(seed: u64) {
    let (mut world, job) = one_job(seed, LONG).await;
    world.until("begun", |world| has_begun(world, &job)).await;
    world.kill_agent(&target());
    let records = usize::try_from(seed).expect("a small seed");
    world.agent(&target()).disk.cut(records);
    world.agent(&target()).cluster.land_late(None);
    world
        .ask(
            &job,
            Wish::Cancel {
                undo: seed.is_multiple_of(2),
            },
        )
        .await;
    comes_to_rest(&mut world, &job).await;
}

/// An agent that is down, an operator who looks and says "not done", and then the effect lands: before the
/// agent is back or after, with its journal or without, as `seed` says.
pub(crate) async fn lands_after_an_honest_not_done(seed: u64) {
    let lands_after = Duration::from_secs(70 + 2 * seed);
    let (mut world, job) = one_job(seed, lands_after).await;
    world.restarts = false;
    world.until("begun", |world| has_begun(world, &job)).await;
    world.kill_agent(&target());
    if seed & 1 == 0 {
        world.agent(&target()).disk.clear();
    }
    world.agent(&target()).cluster.land_late(None);
    let unknown = |world: &World| matches!(of(world, &job).state, TargetState::Unknown { .. });
    world.until("unknown", unknown).await;
    let asked = of(&world, &job);
    answer(&mut world, &job, &asked).await;
    if seed & 2 == 0 {
        world.until("landed", |world| has_landed(world, &job)).await;
    }
    world.restarts = true;
    comes_to_rest(&mut world, &job).await;
}

/// A copy of an agent's machine, made in the middle of an attempt; the first one stops soon after, or
/// runs on.
pub(crate) async fn copied_in_the_middle(seed: u64) {
    let (mut world, job) = one_job(seed, LONG).await;
    world.until("begun", |world| has_begun(world, &job)).await;
    let copy = world.start_copy(&target());
    world.pass(Duration::from_secs(seed)).await;
    if seed.is_multiple_of(2) {
        world.kill_agent(&target());
    }
    world.agent(&target()).cluster.land_late(None);
    world.agents.insert(target(), copy);
    comes_to_rest(&mut world, &job).await;
}

/// A replica that was away for longer than its record lives, and still holds streams when it is back.
pub(crate) async fn back_after_it_was_taken_for_gone(seed: u64) {
    let (mut world, job) = one_job(seed, Duration::from_millis(300)).await;
    for name in ["r1", "r2"] {
        world.hinder(name, crate::link::Way::Stale);
        world.pass(Duration::from_secs(12)).await;
        world.hinder(name, crate::link::Way::Open);
        world.pass(Duration::from_secs(2)).await;
    }
    world.agent(&target()).cluster.land_late(None);
    comes_to_rest(&mut world, &job).await;
    world.until("live", World::all_live).await;
}

/// An agent that was away for so long that its attempt was called unknown and an operator answered for it
/// comes back with that attempt still open, and goes on with it, while the next one waits for its turn.
/// `seed` says how long it waits.
pub(crate) async fn goes_on_with_an_attempt_that_was_answered_for(seed: u64) {
    let pace = Duration::from_millis(900 + 120 * seed);
    let (mut world, job) = given_up(seed, pace).await;
    let asked = of(&world, &job);
    answer(&mut world, &job, &asked).await;
    world.network.heal();
    world.pass(Duration::from_secs(60)).await;
    comes_to_rest(&mut world, &job).await;
}

/// The same, and the job is cancelled and ends before the agent is back.
pub(crate) async fn is_back_after_the_end_of_its_job(seed: u64) {
    let (mut world, job) = given_up(seed, Duration::from_millis(400)).await;
    world.ask(&job, Wish::Cancel { undo: false }).await;
    let asked = of(&world, &job);
    answer(&mut world, &job, &asked).await;
    let ended = |world: &World| world.job(&job).header.state.is_ended();
    world.until("ended", ended).await;
    world.network.heal();
    world.pass(Duration::from_secs(60)).await;
    comes_to_rest(&mut world, &job).await;
}

/// A job over two targets, one at a time, where the first one's agent is cut off in the middle of its
/// attempt until that is called unknown. It is up and rests before its second step, without a permit.
async fn given_up(seed: u64, pace_of_other: Duration) -> (World, JobId) {
    let other = "eu/b";
    let mut world = World::begin(seed, &[TARGET, other]);
    world.until("live", World::all_live).await;
    let plan = world.plan(TWO_WRITES).await;
    let other: TargetName = other.parse().expect("a target's name");
    let slowly = |world: &mut World, target: &TargetName, millis| {
        let pace = Some(Duration::from_millis(millis));
        world.agent(target).cluster.answer_slowly(pace);
    };
    world
        .agent(&other)
        .cluster
        .answer_slowly(Some(pace_of_other));
    slowly(&mut world, &target(), 400);
    let job = world.submit(&plan).await;
    world.until("landed", |world| has_landed(world, &job)).await;
    slowly(&mut world, &target(), 12_000);
    world.network.cut("r1", &target());
    world.network.cut("r2", &target());
    let unknown = |world: &World| matches!(of(world, &job).state, TargetState::Unknown { .. });
    world.until("unknown", unknown).await;
    slowly(&mut world, &target(), 2_000);
    (world, job)
}

/// Two steps that write in one segment, with a place to rest between them; one target at a time.
const TWO_WRITES: &str = r#"
apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: story, version: 1}
spec:
  targets: {select: {matchLabels: {env: prod}}, whenUnreachable: defer}
  rollout:
    waves: [{name: all, pick: {percent: 100}, maxParallel: 1}]
    maxFailures: 1
    onFailure: halt
  steps:
    - {id: first, use: kube.set-image, timeout: 20s, with: {deployment: first, namespace: shop, image: v2}}
    - {id: wait, use: kube.wait, timeout: 40s, with: {deployment: first, namespace: shop, for: rolledOut}}
    - {id: second, use: kube.set-image, timeout: 20s, with: {deployment: second, namespace: shop, image: v2}}
"#;

/// A leader whose decision is written seconds after it heard that nobody knows, and that has decided
/// something else meanwhile.
pub(crate) async fn a_decision_is_written_late(seed: u64) {
    let other = "eu/b";
    let mut world = World::begin(seed, &[TARGET, other]);
    world.until("live", World::all_live).await;
    let plan = world.plan(TWO_WRITES).await;
    let other: TargetName = other.parse().expect("a target's name");
    world
        .agent(&other)
        .cluster
        .answer_slowly(Some(Duration::from_secs(1)));
    world.restarts = false;
    world.write_late(Duration::from_secs(3 + seed));
    let job = world.submit(&plan).await;
    world.until("decided", World::is_decided).await;
    world.kill_agent(&target());
    world.pass(Duration::from_secs(15)).await;
    world.restarts = true;
    comes_to_rest(&mut world, &job).await;
}

/// One write defers a target and opens another: replicas may see the one before the other.
pub(crate) async fn deferred_and_opened_in_one_write(seed: u64) {
    let mut world = World::begin(seed, &[TARGET, "eu/b"]);
    world.until("live", World::all_live).await;
    let plan = world.plan(TWO_WRITES).await;
    world.restarts = false;
    world.kill_agent(&target());
    let job = world.submit(&plan).await;
    // Longer than a target is waited for, shorter than until something else is written of the job.
    world.pass(Duration::from_secs(60)).await;
    let other: TargetName = "eu/b".parse().expect("a target's name");
    let changed = world.witness.stands(&job, &other, &"second".into());
    assert!(changed, "LIVENESS: the order to {other} was not sent");
    world.restarts = true;
    comes_to_rest(&mut world, &job).await;
}
