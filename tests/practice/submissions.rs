//! A plan becomes one job, and only while it holds.

use aldis_proto::v1::SubmitRequest;
use aldis_tests::practice::Practice;
use serde_json::json;
use tonic::Code;

use crate::{DEPLOY, FOUR, ROLLBACK};

#[tokio::test]
async fn the_same_key_twice_is_one_job_and_with_another_body_it_is_refused() {
    let practice = Practice::start(&FOUR[..1]).await.unwrap();
    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let other = practice
        .plan(DEPLOY, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    let request = |plan: &str| SubmitRequest {
        plan: plan.to_owned(),
        idempotency_key: "friday".to_owned(),
        ..SubmitRequest::default()
    };
    let first = practice
        .submit_as(request(plan.plan.id.as_str()))
        .await
        .unwrap();
    let again = practice
        .submit_as(request(plan.plan.id.as_str()))
        .await
        .unwrap();
    assert!(!first.existed && again.existed);
    assert_eq!(first.job, again.job);
    let refused = practice
        .submit_as(request(other.plan.id.as_str()))
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    let planned_again = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let again = practice
        .submit_as(request(planned_again.plan.id.as_str()))
        .await
        .unwrap();
    assert!(again.existed && again.job == first.job);

    practice.until_ended(&first.job).await.unwrap();
    let after_its_end = practice
        .submit_as(request(plan.plan.id.as_str()))
        .await
        .unwrap();
    assert!(after_its_end.existed && after_its_end.job == first.job);
    assert_eq!(practice.images()[0].1, 1);
}

#[tokio::test]
async fn a_plan_that_an_agent_refuses_is_shown_and_makes_no_job() {
    let practice = Practice::start(&FOUR[..1]).await.unwrap();
    let missing = DEPLOY.replace("deployment: checkout", "deployment: chekout");
    let plan = practice
        .plan(&missing, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    assert_eq!(plan.plan.refusals().len(), 1, "{:?}", plan.plan.parts);
    let refused = practice.submit(&plan).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
    assert!(
        refused.message().contains("chekout"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn another_digest_than_the_one_shown_is_refused() {
    let practice = Practice::start(&FOUR[..1]).await.unwrap();
    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let request = SubmitRequest {
        plan: plan.plan.id.to_string(),
        digest: "0".repeat(64),
        ..SubmitRequest::default()
    };
    let refused = practice.submit_as(request).await.unwrap_err();
    assert_eq!(refused.code(), Code::FailedPrecondition);
}

#[tokio::test]
async fn an_agent_that_is_away_fails_the_plan_of_a_change_and_is_deferred_by_a_remedy() {
    let mut practice = Practice::start(&FOUR).await.unwrap();
    practice.end("us-east/prod-2").await.unwrap();
    practice
        .until_states(&["us-east/prod-2"], "lost")
        .await
        .unwrap();
    let plan = practice
        .plan(DEPLOY, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    assert!(plan.plan.refusals()[0].contains("whenUnreachable: fail"));

    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let job = practice.submit(&plan).await.unwrap();
    let waits = |view: &aldis_core::view::JobView| {
        view.waiting
            .iter()
            .any(|waiting| waiting.text.contains("us-east/prod-2"))
            && practice
                .images()
                .iter()
                .filter(|(_, writes)| *writes == 1)
                .count()
                == 3
    };
    practice.until(&job, waits).await.unwrap();
    practice.begin("us-east/prod-2").await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(aldis_tests::practice::rests(&view), ["changed"; 4]);
    assert_eq!(
        practice.images(),
        vec![("checkout:v2.17.4".to_owned(), 1); 4]
    );
}
