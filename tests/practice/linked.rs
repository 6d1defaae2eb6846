//! Jobs over what other jobs left.

use aldis_core::job::JobState;
use aldis_tests::practice::{Practice, rests};
use serde_json::json;

use crate::{FOUR, ROLLBACK};

#[tokio::test]
async fn an_undo_puts_back_what_an_ended_job_left_and_nothing_else() {
    let practice = Practice::start(&FOUR).await.unwrap();
    practice
        .cluster("us-east/prod-1")
        .create("shop", "checkout", &["checkout:v2.19.0"]);
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    let plan = practice
        .plan_linked(view.header.id.as_str(), "undoes")
        .await
        .unwrap();
    assert_eq!(plan.plan.refusals(), Vec::<String>::new());
    assert_eq!(plan.plan.runs().count(), 3);
    let job = practice.submit(&plan).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(rests(&view), ["restored"; 3]);
    let v2 = ("checkout:v2.18.0".to_owned(), 2);
    let left = ("checkout:v2.19.0".to_owned(), 0);
    assert_eq!(practice.images(), [v2.clone(), v2.clone(), left, v2]);
}

#[tokio::test]
async fn an_undo_where_somebody_changed_the_object_since_is_refused_in_its_plan() {
    let practice = Practice::start(&FOUR[..2]).await.unwrap();
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    practice
        .cluster("eu-west/prod-2")
        .interfere("shop", "checkout", "checkout:v9", "somebody");
    let plan = practice
        .plan_linked(view.header.id.as_str(), "undoes")
        .await
        .unwrap();
    let refusals = plan.plan.refusals();
    assert_eq!(refusals.len(), 1, "{refusals:?}");
    assert!(refusals[0].starts_with("eu-west/prod-2"), "{refusals:?}");
}

#[tokio::test]
async fn a_retry_goes_only_where_the_job_did_not_help() {
    let practice = Practice::start(&FOUR).await.unwrap();
    let images = ["checkout:broken", "checkout:v2.18.0"];
    practice
        .cluster("us-east/prod-2")
        .create("shop", "checkout", &images);
    let view = practice.run(ROLLBACK, json!({})).await.unwrap();
    practice.cluster("us-east/prod-2").create(
        "shop",
        "checkout",
        &["checkout:v2.17.4", "checkout:v2.18.0"],
    );
    let plan = practice
        .plan_linked(view.header.id.as_str(), "retries")
        .await
        .unwrap();
    let selected: Vec<String> = plan
        .plan
        .scope
        .selection
        .keys()
        .map(ToString::to_string)
        .collect();
    assert_eq!(selected, ["us-east/prod-2"]);
    let job = practice.submit(&plan).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(rests(&view), ["changed"]);
}
