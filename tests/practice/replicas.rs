//! Two replicas on a real etcd: one is started again while a job runs, and etcd goes back to an old snapshot.

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::leadership::raise_incarnation;
use aldis_control_plane::store::{Commit, Store, Write, keys};
use aldis_core::job::JobState;
use aldis_core::view::{JobView, PlanView};
use aldis_tests::etcd::Server;
use aldis_tests::plane::Plane;
use aldis_tests::practice::{PATIENCE, Practice, rests};
use serde_json::json;

use crate::{FOUR, ROLLBACK};

async fn two_replicas() -> (Server, Practice) {
    let etcd = Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 2).await.unwrap();
    // Everything here may have to wait for one leader after another.
    let practice = Practice::on(plane, &FOUR, PATIENCE * 2).await.unwrap();
    (etcd, practice)
}

/// Waits in every target until its gate is there.
fn with_a_gate() -> String {
    ROLLBACK.replace(
        "for: rolledOut}}\n",
        "for: rolledOut}}\n    - {id: until, use: kube.get@v1, with: {kind: Deployment, name: gate, namespace: shop}, until: steps.until.outputs.found, retry: {max: 1000, delay: 50ms}, timeout: 60s}\n",
    )
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_started_again_in_mid_segment_change_every_target_once() {
    let (_etcd, mut practice) = two_replicas().await;
    let plan = practice.plan(&with_a_gate(), json!({})).await.unwrap();
    let job = practice.submit(&plan).await.unwrap();
    let begun = |_: &JobView| practice.images()[0].1 == 1;
    practice.until(&job, begun).await.unwrap();

    practice.plane.restart(1).await.unwrap();
    practice.plane.restart(0).await.unwrap();
    practice.connect_again().await.unwrap();
    for name in FOUR {
        practice.cluster(name).create("shop", "gate", &["gate:1"]);
    }
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(
        practice.images(),
        vec![("checkout:v2.17.4".to_owned(), 1); 4]
    );
}

/// What a restore leaves: a job that the store does not know any more, a plan that it still knows.
struct Left {
    lost: String,
    later: PlanView,
}

/// A job is run that the snapshot does not know; then the snapshot is all there is.
async fn restored(bumped: bool) -> (Server, Practice, Left) {
    let (mut etcd, practice) = two_replicas().await;
    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let later = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let snapshot = etcd.snapshot().await.unwrap();
    let job = practice.submit(&plan).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(rests(&view), ["changed"; 4]);
    match bumped {
        true => etcd.restore_bumped(&snapshot).await.unwrap(),
        false => etcd.restore(&snapshot).await.unwrap(),
    }
    (etcd, practice, Left { lost: job, later })
}

async fn nothing_goes_on_before_the_incarnation_is_raised(
    etcd: &Server,
    practice: &mut Practice,
    Left { lost, later }: Left,
) {
    // Whoever is started now has seen nothing.
    practice.plane.restart(0).await.unwrap();
    practice.plane.restart(1).await.unwrap();
    practice.connect_again().await.unwrap();
    practice.until_states(&FOUR, "held").await.unwrap();
    let job = practice.submit(&later).await.unwrap();
    let halted = |view: &JobView| {
        let mut waiting = view.waiting.iter();
        waiting.any(|on| on.text.contains("all dispatch, stopped"))
    };
    practice.until(&job, halted).await.unwrap();

    let store = etcd.store().await.unwrap();
    raise_incarnation(&store, &SystemClock, 0, "restored from a backup")
        .await
        .unwrap();
    practice.connect_again().await.unwrap();
    practice.until_live(&FOUR).await.unwrap();
    for agent in practice.agents().await.unwrap() {
        let lost = |orphan: &String| orphan.contains(&format!("job {lost}"));
        assert!(agent.orphans.iter().any(lost), "{agent:?}");
    }
    practice.until_ended(&job).await.unwrap();
    assert_eq!(
        practice.images(),
        vec![("checkout:v2.17.4".to_owned(), 1); 4]
    );
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_stops_all_dispatch_until_the_incarnation_is_raised() {
    let (etcd, mut practice, left) = restored(false).await;
    nothing_goes_on_before_the_incarnation_is_raised(&etcd, &mut practice, left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_store_that_went_back_under_higher_revisions_stops_it_too() {
    let (etcd, mut practice, left) = restored(true).await;
    nothing_goes_on_before_the_incarnation_is_raised(&etcd, &mut practice, left).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_is_passed_over_and_every_other_job_goes_on() {
    let etcd = Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let store = etcd.store().await.unwrap();
    let without_plan = include_str!("../records/v1/header.json");
    let mut without_plan: Vec<serde_json::Value> = serde_json::from_str(without_plan).unwrap();
    let queued = without_plan
        .iter_mut()
        .find(|header| header["state"]["kind"] == "queued")
        .unwrap();
    queued["id"] = "j-1".into();
    for (key, value) in [
        (keys::job_header("j-0"), "{}".to_owned()),
        (keys::job_header("j-1"), queued.to_string()),
        (keys::job_target("j-2", "eu-west/prod-1"), "{}".to_owned()),
        (keys::fleet("eu-west/garbled"), "{}".to_owned()),
        (
            keys::lock("uid", "Deployment", "shop", "x"),
            "{}".to_owned(),
        ),
        (keys::ended("j-3"), "{}".to_owned()),
    ] {
        let commit = Commit {
            preconditions: vec![],
            writes: vec![Write::put(key, value)],
        };
        store.commit(commit).await.unwrap();
    }
    let practice = Practice::on(plane, &FOUR, PATIENCE).await.unwrap();
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    // Shown as not read, not left out.
    let agents = practice.agents().await.unwrap();
    let garbled = agents
        .iter()
        .find(|agent| agent.target == "eu-west/garbled");
    assert!(
        garbled.unwrap().detail.contains("cannot be read"),
        "{garbled:?}"
    );
}
