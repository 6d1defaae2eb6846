//! What becomes of a fleet.

use aldis_core::job::JobState;
use aldis_tests::practice::{Practice, rests};
use serde_json::json;

use crate::{DEPLOY, FOUR, ROLLBACK};

#[tokio::test]
async fn a_bad_release_is_taken_out_everywhere_by_one_change_each() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(view.exit_code, Some(0));
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(
        practice.images(),
        vec![("checkout:v2.17.4".to_owned(), 1); 4]
    );
}

#[tokio::test]
async fn a_cluster_that_does_not_run_the_bad_image_is_left_alone_and_named() {
    let practice = Practice::start(&FOUR).await.unwrap();
    practice
        .cluster("us-east/prod-1")
        .create("shop", "checkout", &["checkout:v2.19.0"]);
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(rests(&view), ["changed", "changed", "untouched", "changed"]);
    let left = &view.targets[&"us-east/prod-1".parse().unwrap()];
    assert!(
        left.left_out.as_ref().unwrap().contains("v2.18.0"),
        "{left:?}"
    );
    assert_eq!(
        practice
            .cluster("us-east/prod-1")
            .writes("shop", "checkout"),
        Some(0)
    );
}

#[tokio::test]
async fn a_release_that_cannot_start_is_put_back_where_it_was_and_goes_nowhere_else() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let view = practice
        .run(DEPLOY, json!({"image": "checkout:broken"}))
        .await
        .unwrap();
    assert!(
        matches!(view.header.state, JobState::Undone { .. }),
        "{:?}",
        view.header.state
    );
    assert_eq!(view.exit_code, Some(4));
    assert_eq!(
        rests(&view),
        ["restored", "untouched", "untouched", "untouched"]
    );
    let v2 = "checkout:v2.18.0".to_owned();
    assert_eq!(
        practice.images(),
        [(v2.clone(), 2), (v2.clone(), 0), (v2.clone(), 0), (v2, 0)]
    );
    let failed = &view.targets[&"eu-west/prod-1".parse().unwrap()];
    let failure = failed.failure.as_ref().unwrap();
    assert_eq!(failure.step.as_ref().unwrap().as_str(), "wait");
}

#[tokio::test]
async fn one_that_cannot_be_helped_is_named_and_the_others_stay_changed() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let images = ["checkout:broken", "checkout:v2.18.0"];
    practice
        .cluster("us-east/prod-2")
        .create("shop", "checkout", &images);
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    assert_eq!(view.header.state, JobState::PartlyDone);
    assert_eq!(view.exit_code, Some(5));
    assert_eq!(
        rests(&view),
        ["changed", "changed", "changed", "needs-operator"]
    );
}

#[tokio::test]
async fn an_object_changed_since_the_plan_refuses_a_change_and_leaves_a_target_out_of_a_remedy() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let plan = practice
        .plan(DEPLOY, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    practice
        .cluster("us-east/prod-2")
        .interfere("shop", "checkout", "checkout:v9", "somebody");
    let job = practice.submit(&plan).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.exit_code, Some(13), "{:?}", view.header.state);
    let touched: u64 = practice.images().iter().map(|(_, writes)| writes).sum();
    assert_eq!(touched, 1, "only somebody's own change");

    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    practice
        .cluster("eu-west/prod-2")
        .interfere("shop", "checkout", "checkout:v8", "somebody");
    let job = practice.submit(&plan).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(
        rests(&view),
        ["changed", "untouched", "changed", "untouched"]
    );
    let left = &view.targets[&"eu-west/prod-2".parse().unwrap()];
    assert_eq!(left.failure.as_ref().unwrap().failure.kind, "drift");
    assert_eq!(
        practice
            .cluster("eu-west/prod-2")
            .image("shop", "checkout")
            .unwrap(),
        "checkout:v8"
    );
}

#[tokio::test]
async fn logs_of_every_target_come_numbered_without_gaps() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    let lines = practice.logs(view.header.id.as_str()).await.unwrap();
    for target in FOUR {
        let numbers: Vec<u64> = lines
            .iter()
            .filter(|line| line.target == target)
            .map(|line| line.sequence)
            .collect();
        let whole: Vec<u64> = (1..=numbers.len() as u64).collect();
        assert!(!numbers.is_empty(), "{target}");
        assert_eq!(numbers, whole, "{target}");
    }
}
