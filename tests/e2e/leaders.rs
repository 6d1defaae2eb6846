//! A leader is killed, at every point and in every phase of a job. The other replica goes on, and no cluster is
//! changed once too often, by the word of a reader that knows nothing of us.

use aldis_core::job::{JobState, TargetState};
use aldis_core::view::JobView;
use aldis_tests::practice::rests;
use rustix::process::Signal;

use aldis_tests::runbooks;
use aldis_tests::stage::{Stage, state};

use crate::fleet;

const GOOD: &str = "shop/checkout:v2.17.4";
const BAD: &str = "shop/checkout:v2.18.0-failing";

/// Points on the way of work from decision to agent, and on the way of a rollout.
const POINTS: [&str; 6] = [
    "commit-before",
    "commit-after",
    "dispatch-before",
    "dispatch-after",
    "between-waves",
    "soak",
];

async fn bad_release(namespace: &str, runbook: &str) -> (Stage, Vec<String>) {
    let stage = Stage::alone(fleet().await, namespace).await;
    stage.release(&[GOOD, BAD]).await.unwrap();
    let file = stage.file("rollback.yaml", runbook).unwrap();
    let from = format!("from={BAD}");
    let words = stage.words(file.to_str().unwrap(), &[&from]);
    (stage, words)
}

fn runbook_for(point: &str) -> String {
    if point == "soak" {
        runbooks::rollback_with_a_long_soak()
    } else {
        runbooks::rollback()
    }
}

/// Arms a point in every replica: the one that passes it first dies, and so does the other if it does.
fn arm(stage: &Stage, point: &str) -> Vec<std::path::PathBuf> {
    let system = stage.system();
    let names = system
        .plane()
        .replicas()
        .iter()
        .map(|replica| replica.name());
    names
        .map(|name| system.programs().arm(name, point).unwrap())
        .collect()
}

fn disarm(stage: &Stage) {
    let system = stage.system();
    system
        .plane()
        .replicas()
        .iter()
        .for_each(|replica| system.programs().disarm(replica.name()));
}

#[tokio::test]
async fn killed_at_any_crash_point_of_a_rollback_it_is_replaced_and_every_cluster_changes_once() {
    for point in POINTS {
        let (stage, words) = bad_release(&format!("leader-{point}"), &runbook_for(point)).await;
        let before = stage.seen_everywhere().await.unwrap();
        let plan = stage.plan(&words).await.unwrap().plan.id.to_string();
        let marks = arm(&stage, point);
        let job = stage.submit(&["--plan", &plan]).await.unwrap();
        let (code, view) = stage.ended(&job).await.unwrap();
        disarm(&stage);
        assert!(
            marks.iter().any(|mark| mark.exists()),
            "{point}: nobody was killed there"
        );
        assert_eq!(code, 0, "{point}");
        assert_eq!(rests(&view), ["changed"; 4], "{point}");
        assert_eq!(
            stage.changes_since(&before).await.unwrap(),
            [1; 4],
            "{point}"
        );
        for (target, seen) in stage.seen_everywhere().await.unwrap() {
            assert_eq!(
                (seen.history.len(), seen.revision),
                (2, 3),
                "{point} {target}"
            );
            assert_eq!(seen.marks["aldis.dev/job"], job, "{point} {target}");
        }
        stage.system().until_live().await.unwrap();
    }
}

async fn kill_leader(stage: &Stage) -> String {
    let plane = stage.system().plane();
    let leader = plane.leader().await.unwrap();
    plane
        .replica(&leader)
        .unwrap()
        .process()
        .signal(Signal::KILL)
        .unwrap();
    leader
}

#[tokio::test]
async fn killed_in_the_middle_of_a_segment_it_is_replaced_and_the_agent_goes_on() {
    let stage = Stage::alone(fleet().await, "leader-mid-segment").await;
    let mut app = stage.application(&["shop/checkout:v1"]);
    app.pod_annotations
        .insert("fleet.aldis.dev/ready-after".to_owned(), "3s".to_owned());
    stage.release_as(&app).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let words = stage.words("deploy-image", &["image=shop/checkout:v2"]);
    let job = stage.submit(&words).await.unwrap();
    let at_work =
        |view: &JobView| matches!(state(view, "eu-west/prod-1"), TargetState::Running { .. });
    stage
        .until(&job, "the canary is at work", at_work)
        .await
        .unwrap();
    kill_leader(&stage).await;
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    assert_eq!(stage.images().await.unwrap(), ["shop/checkout:v2"; 4]);
}

#[tokio::test]
async fn killed_while_a_job_goes_back_it_is_replaced_and_everything_is_put_back_once() {
    let stage = Stage::alone(fleet().await, "leader-unwinding").await;
    stage.release(&["shop/checkout:v1"]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let image = "image=shop/checkout:v2-only-in-eu-west-prod-1";
    let plan_words = stage.words("deploy-image", &[image]);
    let plan = stage.plan(&plan_words).await.unwrap().plan.id.to_string();
    let marks = arm(&stage, "unwind");
    let job = stage.submit(&["--plan", &plan]).await.unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    disarm(&stage);
    assert!(
        marks.iter().any(|mark| mark.exists()),
        "nobody was killed on the way back"
    );
    assert_eq!(code, 4);
    assert!(
        matches!(view.header.state, JobState::Undone { .. }),
        "{:?}",
        view.header.state
    );
    assert_eq!(
        rests(&view),
        ["restored", "restored", "untouched", "untouched"]
    );
    assert_eq!(stage.changes_since(&before).await.unwrap(), [2, 2, 0, 0]);
    assert_eq!(stage.images().await.unwrap(), ["shop/checkout:v1"; 4]);
}

#[tokio::test]
async fn frozen_beyond_its_lease_it_writes_nothing_when_it_thaws_and_ends() {
    let (stage, words) = bad_release("leader-frozen", &runbooks::rollback()).await;
    let before = stage.seen_everywhere().await.unwrap();
    let plane = stage.system().plane();
    let frozen = plane.leader().await.unwrap();
    let replica = plane.replica(&frozen).unwrap();
    let starts = replica.process().starts();
    let job = stage.submit(&words).await.unwrap();
    stage
        .until(&job, "it runs", |view| {
            view.header.state == JobState::Running
        })
        .await
        .unwrap();
    replica.process().signal(Signal::STOP).unwrap();
    aldis_tests::fleet::ready::eventually(
        aldis_tests::stage::PATIENCE,
        "another leads",
        || async {
            let leader = plane.leader().await?;
            anyhow::ensure!(leader != frozen, "{leader} leads");
            Ok(())
        },
    )
    .await
    .unwrap();
    replica.process().signal(Signal::CONT).unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    aldis_tests::fleet::ready::eventually(
        aldis_tests::stage::PATIENCE,
        "it ended and was started again",
        || async {
            anyhow::ensure!(replica.process().starts() > starts, "it still runs");
            Ok(())
        },
    )
    .await
    .unwrap();
}
