//! What changes between plan and job, and clusters that are away.

use aldis_core::job::TargetState;
use aldis_tests::practice::rests;

use aldis_tests::runbooks;
use aldis_tests::stage::{ALL, Stage, joined, name, state};

use crate::fleet;

const GOOD: &str = "shop/checkout:v2.17.4";
const BAD: &str = "shop/checkout:v2.18.0-failing";

/// A remedy in one wave, with a policy for what is away.
fn rollback(stage: &Stage, when_unreachable: &str) -> Vec<String> {
    let text = runbooks::rollback_at_once()
        .replace(
            "whenUnreachable: defer",
            &format!("whenUnreachable: {when_unreachable}"),
        )
        .replace(
            "rollback-at-once",
            &format!("rollback-or-{when_unreachable}"),
        );
    let file = stage.file("rollback.yaml", &text).unwrap();
    let from = format!("from={BAD}");
    stage.words(file.to_str().unwrap(), &[&from])
}

#[tokio::test]
async fn an_object_changed_since_the_plan_stops_a_change_before_anything_is_touched() {
    let stage = Stage::shared(fleet().await, "drift-refuses-job").await;
    stage.release(&["shop/checkout:v1"]).await.unwrap();
    let words = stage.words("deploy-image", &["image=shop/checkout:v2"]);
    let plan = stage.plan(&words).await.unwrap().plan.id.to_string();
    let client = stage.fleet.cluster("us-east/prod-2").unwrap().client();
    stage
        .application(&[])
        .apply(&client, "shop/checkout:v9")
        .await
        .unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let (code, view) = stage.run(&["--plan", &plan]).await.unwrap();
    assert_eq!(code, 13, "{:?}", view.header.state);
    assert_eq!(rests(&view), ["untouched"; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
    let said = stage
        .aldis(&["status", view.header.id.as_str()])
        .await
        .unwrap();
    assert!(
        said.out.contains("us-east/prod-2"),
        "the cluster that changed is named: {said}"
    );
}

#[tokio::test]
async fn an_object_changed_since_the_plan_leaves_its_cluster_out_of_a_remedy() {
    let stage = Stage::shared(fleet().await, "drift-refuses-target").await;
    stage.release(&[GOOD, BAD]).await.unwrap();
    let plan = stage
        .plan(&rollback(&stage, "fail"))
        .await
        .unwrap()
        .plan
        .id
        .to_string();
    let client = stage.fleet.cluster("eu-west/prod-2").unwrap().client();
    stage
        .application(&[])
        .apply(&client, "shop/checkout:v9")
        .await
        .unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let (_, view) = stage.run(&["--plan", &plan]).await.unwrap();
    assert_eq!(rests(&view), ["changed", "untouched", "changed", "changed"]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1, 0, 1, 1]);
    let left = view.targets[&name("eu-west/prod-2")]
        .failure
        .as_ref()
        .unwrap();
    assert_eq!(left.failure.kind, "drift");
}

/// Stops an agent, so that it neither answers nor loses anything.
async fn away(stage: &Stage, target: &str) {
    let agent = stage.system().agent(target).unwrap();
    agent.process().unwrap().kill();
    let listed = |said: &aldis_tests::fleet::system::command_line::Said| {
        said.out
            .lines()
            .any(|line| line.contains("absent") || line.contains("lost"))
    };
    aldis_tests::fleet::ready::eventually(
        aldis_tests::stage::PATIENCE,
        "it is seen to be away",
        || async {
            let said = stage.aldis(&["agents", "list"]).await?;
            anyhow::ensure!(listed(&said), "{said}");
            Ok(())
        },
    )
    .await
    .unwrap();
}

#[tokio::test]
async fn a_cluster_that_is_away_fails_the_plan_is_skipped_or_deferred_as_declared() {
    let stage = Stage::alone(fleet().await, "one-is-away").await;
    stage.release(&[GOOD, BAD]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    away(&stage, "us-east/prod-2").await;

    let words = rollback(&stage, "fail");
    let said = stage
        .aldis(&joined(&["submit", "--yes"], &words))
        .await
        .unwrap();
    let said = said.ended(13).unwrap();
    assert!(said.err.contains("us-east/prod-2"), "{said}");
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);

    let words = rollback(&stage, "skip");
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!(code, 0, "{:?}", view.header.state);
    assert_eq!(rests(&view), ["changed", "changed", "changed", "untouched"]);
    let skipped = view.targets[&name("us-east/prod-2")]
        .left_out
        .clone()
        .unwrap();
    assert!(!skipped.is_empty());
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1, 1, 1, 0]);

    // The others are put back to the bad release, so that the same job has something to do there.
    for target in &ALL[..3] {
        let client = stage.fleet.cluster(target).unwrap().client();
        stage.application(&[]).apply(&client, BAD).await.unwrap();
        aldis_tests::fleet::application::rolled_out(
            &client,
            &stage.namespace,
            aldis_tests::stage::SERVICE,
        )
        .await
        .unwrap();
    }
    let before = stage.seen_everywhere().await.unwrap();
    let job = stage.submit(&rollback(&stage, "defer")).await.unwrap();
    let deferred = |view: &aldis_core::view::JobView| {
        matches!(state(view, "us-east/prod-2"), TargetState::Deferred { .. })
            && rests(view)[..3] == ["changed"; 3]
    };
    let view = stage
        .until(&job, "the others are done and it is deferred", deferred)
        .await
        .unwrap();
    assert!(
        view.waiting
            .iter()
            .any(|waiting| waiting.text.contains("us-east/prod-2")),
        "{:?}",
        view.waiting
    );
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1, 1, 1, 0]);
    stage
        .system()
        .agent("us-east/prod-2")
        .unwrap()
        .process()
        .unwrap()
        .start_again()
        .unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!(code, 0, "{:?}", view.header.state);
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
}
