//! What operators ask of jobs that run, and two jobs that want one object.

use aldis_core::job::{JobState, TargetState};
use aldis_core::view::JobView;
use aldis_tests::practice::rests;

use aldis_tests::stage::{Stage, joined, state};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";
const NEW: &str = "shop/checkout:v2";

/// A deploy whose canary takes seconds to get ready: time to ask something of it.
async fn at_work(namespace: &str) -> (Stage, String) {
    let stage = Stage::shared(fleet().await, namespace).await;
    let mut app = stage.application(&[OLD]);
    app.pod_annotations
        .insert("fleet.aldis.dev/ready-after".to_owned(), "4s".to_owned());
    stage.release_as(&app).await.unwrap();
    let image = format!("image={NEW}");
    let words = stage.words("deploy-image", &[&image]);
    let job = stage.submit(&words).await.unwrap();
    let running = |view: &JobView| {
        let canary = &view.targets.values().next().unwrap().steps;
        matches!(state(view, "eu-west/prod-1"), TargetState::Running { .. })
            && canary
                .iter()
                .any(|(id, step)| id.as_str() == "set_image" && step.may_have_effect())
    };
    stage
        .until(&job, "the canary is changed and not ready yet", running)
        .await
        .unwrap();
    (stage, job)
}

#[tokio::test]
async fn a_cancel_in_the_middle_of_a_segment_leaves_it_and_says_how_far_it_came() {
    let (stage, job) = at_work("cancelled").await;
    let said = stage
        .aldis(&["cancel", &job, "--yes", "--reason", "wrong image"])
        .await
        .unwrap();
    assert_eq!(said.code, 0, "{said}");
    let (code, view) = stage.ended(&job).await.unwrap();
    assert!(
        matches!(view.header.state, JobState::Cancelled { .. }),
        "{:?}",
        view.header.state
    );
    assert_eq!(code, 6);
    assert_eq!(
        rests(&view),
        ["needs-operator", "untouched", "untouched", "untouched"]
    );
    assert_eq!(stage.images().await.unwrap(), [NEW, OLD, OLD, OLD]);
}

#[tokio::test]
async fn a_cancel_with_undo_in_the_middle_of_a_segment_puts_back_what_was_changed() {
    let (stage, job) = at_work("cancelled-undone").await;
    let said = stage
        .aldis(&["cancel", &job, "--undo", "--yes", "--reason", "wrong image"])
        .await
        .unwrap();
    assert_eq!(said.code, 0, "{said}");
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!(code, 6, "{:?}", view.header.state);
    assert_eq!(
        rests(&view),
        ["restored", "untouched", "untouched", "untouched"]
    );
    assert_eq!(stage.images().await.unwrap(), [OLD; 4]);
}

#[tokio::test]
async fn a_paused_job_rests_at_a_safe_point_until_it_is_resumed() {
    let (stage, job) = at_work("paused").await;
    stage
        .aldis(&["pause", &job, "--yes"])
        .await
        .unwrap()
        .ended(0)
        .unwrap();
    let resting = |view: &JobView| {
        view.header.state == JobState::Paused
            && view.waiting.iter().any(|waiting| {
                waiting
                    .next
                    .as_deref()
                    .is_some_and(|next| next.contains("aldis resume"))
            })
            && view
                .waiting
                .iter()
                .all(|waiting| !waiting.text.ends_with("at work"))
    };
    let view = stage.until(&job, "it rests", resting).await.unwrap();
    assert_eq!(
        stage.images().await.unwrap()[1..],
        [OLD; 3],
        "{:?}",
        view.waiting
    );
    stage
        .aldis(&["resume", &job, "--yes"])
        .await
        .unwrap()
        .ended(0)
        .unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
    assert_eq!(stage.images().await.unwrap(), [NEW; 4]);
}

#[tokio::test]
async fn a_second_job_on_the_same_object_is_queued_and_its_plan_says_for_whom() {
    let (stage, first) = at_work("queued").await;
    let words = stage.words("deploy-image", &["image=shop/checkout:v3"]);
    let plan = stage.aldis(&joined(&["plan"], &words)).await.unwrap();
    let short = &first[..14];
    assert!(
        plan.out.contains(short),
        "the plan names the job in its way: {plan}"
    );
    let second = stage.plan(&words).await.unwrap().plan.id.to_string();
    let second = stage.submit(&["--plan", &second]).await.unwrap();
    let queued = |view: &JobView| {
        view.header.state == JobState::Queued
            && view
                .waiting
                .iter()
                .any(|waiting| waiting.text.contains(short))
    };
    stage
        .until(&second, "it is queued behind the first", queued)
        .await
        .unwrap();
    let (code, _) = stage.ended(&first).await.unwrap();
    assert_eq!(code, 0);
    // Its plan was made of what the first has changed meanwhile: drift refuses it, and nothing is touched.
    let before = stage.seen_everywhere().await.unwrap();
    let (code, view) = stage.ended(&second).await.unwrap();
    assert_eq!(code, 13, "{:?}", view.header.state);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
}
