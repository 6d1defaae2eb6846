//! What operators ask of a job that runs.

use aldis_core::job::{JobState, Wish};
use aldis_tests::practice::{Practice, rests};
use serde_json::json;

use crate::{DEPLOY, FOUR, ROLLBACK};

/// Waits in its second wave until told otherwise: the image of the first is never what it waits for.
fn deploy_that_waits() -> String {
    DEPLOY.replace(
        "for: rolledOut}}\n",
        "for: rolledOut}}\n    - {id: until, use: kube.get@v1, with: {kind: Deployment, name: gate, namespace: shop}, until: steps.until.outputs.found, retry: {max: 1000, delay: 50ms}, timeout: 60s}\n",
    )
}

pub(crate) async fn waiting_at_the_gate() -> (Practice, String) {
    let practice = Practice::start(&FOUR).await.unwrap();
    let job = waits_at_the_gate(&practice).await;
    (practice, job)
}

/// A job whose canary is changed and waits for its gate.
pub(crate) async fn waits_at_the_gate(practice: &Practice) -> String {
    let plan = practice
        .plan(&deploy_that_waits(), json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    assert_eq!(plan.plan.refusals(), Vec::<String>::new());
    let job = practice.submit(&plan).await.unwrap();
    let changed = |_: &aldis_core::view::JobView| practice.images()[0].1 == 1;
    practice.until(&job, changed).await.unwrap();
    job
}

pub(crate) fn open_gates(practice: &Practice) {
    for name in FOUR {
        practice.cluster(name).create("shop", "gate", &["gate:1"]);
    }
}

#[tokio::test]
async fn a_cancel_with_undo_puts_back_what_was_changed() {
    let (practice, job) = waiting_at_the_gate().await;
    practice
        .request(&job, &Wish::Cancel { undo: true })
        .await
        .unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert!(
        matches!(view.header.state, JobState::Cancelled { .. }),
        "{:?}",
        view.header.state
    );
    assert_eq!(view.exit_code, Some(6));
    assert_eq!(
        rests(&view),
        ["restored", "untouched", "untouched", "untouched"]
    );
    assert_eq!(practice.images()[0], ("checkout:v2.18.0".to_owned(), 2));
}

#[tokio::test]
async fn a_cancel_without_undo_leaves_it_and_says_so() {
    let (practice, job) = waiting_at_the_gate().await;
    practice
        .request(&job, &Wish::Cancel { undo: false })
        .await
        .unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert!(
        matches!(view.header.state, JobState::Cancelled { .. }),
        "{:?}",
        view.header.state
    );
    assert_eq!(
        rests(&view),
        ["needs-operator", "untouched", "untouched", "untouched"]
    );
    assert_eq!(practice.images()[0], ("checkout:v3".to_owned(), 1));
}

#[tokio::test]
async fn a_cancel_that_would_change_nothing_is_refused_with_what_to_do_instead() {
    let (mut practice, job) = waiting_at_the_gate().await;
    let refused = async |practice: &Practice, undo| {
        let refused = practice.request(&job, &Wish::Cancel { undo }).await;
        let refused = refused.unwrap_err();
        assert_eq!(refused.code(), tonic::Code::FailedPrecondition);
        refused.message().to_owned()
    };
    practice.end(FOUR[0]).await.unwrap();
    practice
        .request(&job, &Wish::Cancel { undo: true })
        .await
        .unwrap();
    let unwinds =
        |view: &aldis_core::view::JobView| matches!(view.header.state, JobState::Unwinding { .. });
    practice.until(&job, unwinds).await.unwrap();
    let said = refused(&practice, true).await;
    assert!(said.contains("goes back already"), "{said}");
    let close = Wish::Cancel { undo: false };
    practice.request(&job, &close).await.unwrap();
    let stops =
        |view: &aldis_core::view::JobView| !matches!(view.header.state, JobState::Unwinding { .. });
    practice.until(&job, stops).await.unwrap();
    practice.begin(FOUR[0]).await.unwrap();
    practice.until_ended(&job).await.unwrap();
    assert!(refused(&practice, false).await.contains("has ended"));
}

#[tokio::test]
async fn a_paused_job_rests_until_it_is_resumed() {
    let (practice, job) = waiting_at_the_gate().await;
    practice.request(&job, &Wish::Pause).await.unwrap();
    let parked = |view: &aldis_core::view::JobView| {
        view.header.state == JobState::Paused && !view.waiting.is_empty()
    };
    practice.until(&job, parked).await.unwrap();
    open_gates(&practice);
    practice.request(&job, &Wish::Resume).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(practice.images(), vec![("checkout:v3".to_owned(), 1); 4]);
}

#[tokio::test]
async fn a_second_job_on_the_same_object_waits_and_its_plan_said_so() {
    let (practice, first) = waiting_at_the_gate().await;
    let plan = practice
        .plan(ROLLBACK, json!({"from": "checkout:v3"}))
        .await
        .unwrap();
    assert_eq!(plan.conflicts[0].job.as_str(), first);
    let second = practice.submit(&plan).await.unwrap();
    let view = practice
        .until(&second, |view| !view.waiting.is_empty())
        .await
        .unwrap();
    assert_eq!(view.header.state, JobState::Queued);
    assert!(
        view.waiting[0].text.contains(&first[..14]),
        "{:?}",
        view.waiting
    );
    open_gates(&practice);
    practice.until_ended(&first).await.unwrap();
    practice.until_ended(&second).await.unwrap();
}

#[tokio::test]
async fn a_cancelled_queue_place_touches_nothing() {
    let (practice, first) = waiting_at_the_gate().await;
    let plan = practice.plan(ROLLBACK, json!({})).await.unwrap();
    let second = practice.submit(&plan).await.unwrap();
    practice
        .request(&second, &Wish::Cancel { undo: false })
        .await
        .unwrap();
    let view = practice.until_ended(&second).await.unwrap();
    assert_eq!(rests(&view), ["untouched"; 4]);
    practice
        .request(&first, &Wish::Cancel { undo: true })
        .await
        .unwrap();
    practice.until_ended(&first).await.unwrap();
}
