//! Who holds an object, while others wait for it or for a person.

use std::time::Duration;

use aldis_core::job::{JobState, Rest, TargetState, Verdict, Wish};
use aldis_core::outcome::StepState;
use aldis_core::view::JobView;
use aldis_tests::practice::{PATIENCE, Practice, rests};
use serde_json::json;

use crate::{DEPLOY, FOUR, ROLLBACK};

/// Waits behind its change until another Deployment is there, for some seconds.
fn deploy_that_waits(seconds: u64) -> String {
    let gate = format!(
        "    - {{id: until, use: kube.get@v1, with: {{kind: Deployment, name: gate, namespace: shop}}, until: steps.until.outputs.found, retry: {{max: 1000, delay: 50ms}}, timeout: {seconds}s}}\n"
    );
    DEPLOY
        .replace("'${params.image}'}}", "'${params.image}'}, timeout: 5s}")
        .replace(
            "for: rolledOut}}\n",
            &format!("for: rolledOut}}, timeout: 5s}}\n{gate}"),
        )
}

fn waits_for(text: &str) -> impl Fn(&JobView) -> bool {
    move |view| view.waiting.iter().any(|on| on.text.contains(text))
}

#[tokio::test]
async fn a_deferred_target_is_planned_when_it_is_back_and_waits_for_who_holds_its_object() {
    let mut practice = Practice::start_patiently(&FOUR, PATIENCE * 4)
        .await
        .unwrap();
    let slow = deploy_that_waits(60);
    let image = json!({"image": "checkout:v3"});
    let first = practice.plan_on(&slow, image, &[FOUR[3]]).await.unwrap();
    let first = practice.submit(&first).await.unwrap();
    let changed = |_: &JobView| practice.images()[3].1 == 1;
    practice.until(&first, changed).await.unwrap();
    practice.end(FOUR[3]).await.unwrap();

    let from = json!({"from": "checkout:v3"});
    let second = practice.plan(ROLLBACK, from).await.unwrap();
    let second = practice.submit(&second).await.unwrap();
    let deferred = |view: &JobView| {
        let last = view.targets.values().last().map(|target| &target.state);
        matches!(last, Some(TargetState::Deferred { .. }))
    };
    practice.until(&second, deferred).await.unwrap();
    practice.begin(FOUR[3]).await.unwrap();
    let held = format!("held by job {}", &first[..14]);
    practice.until(&second, waits_for(&held)).await.unwrap();

    practice
        .cluster(FOUR[3])
        .create("shop", "gate", &["gate:1"]);
    practice.until_ended(&first).await.unwrap();
    let view = practice.until_ended(&second).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(rests(&view)[3], "changed");
}

#[tokio::test]
async fn a_job_that_waits_for_an_operator_holds_only_what_is_in_doubt() {
    let mut practice = Practice::start_patiently(&FOUR[..2], Duration::from_secs(90))
        .await
        .unwrap();
    // The first target is changed; on the second the agent dies over its work.
    let text = deploy_that_waits(10).replace("maxFailures: 0", "maxFailures: 1");
    practice
        .cluster(FOUR[0])
        .create("shop", "gate", &["gate:1"]);
    let plan = practice
        .plan(&text, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    let first = practice.submit(&plan).await.unwrap();
    // In its last step: how long an absent agent is waited for is the time of the steps that are left.
    let waits = |view: &JobView| {
        let steps = &view.targets[&FOUR[1].parse().unwrap()].steps;
        let begun = |state: &StepState| matches!(state, StepState::Running { .. });
        steps
            .iter()
            .any(|(id, state)| id.as_str() == "until" && begun(state))
    };
    practice.until(&first, waits).await.unwrap();
    practice.end(FOUR[1]).await.unwrap();
    let asks = |view: &JobView| matches!(view.header.state, JobState::NeedsOperator { .. });
    let view = practice.until(&first, asks).await.unwrap();
    assert_eq!(rests(&view), ["changed", "unknown"]);

    let back = json!({"from": "checkout:v3"});
    let other = practice.plan_on(ROLLBACK, back, &[FOUR[0]]).await.unwrap();
    let other = practice.submit(&other).await.unwrap();
    let view = practice.until_ended(&other).await.unwrap();
    assert_eq!(
        view.header.state,
        JobState::Succeeded,
        "it need not wait for a person"
    );

    let question = practice.job(&first).await.unwrap();
    let next = question
        .waiting
        .iter()
        .find_map(|on| on.next.clone())
        .unwrap();
    assert!(next.contains("--step "), "{next}");
    practice
        .request(&first, &Wish::Cancel { undo: false })
        .await
        .unwrap();
    let view = practice.until_ended(&first).await.unwrap();
    let closed = &view.targets[&FOUR[1].parse().unwrap()];
    let why = TargetState::Rest(Rest::NeedsOperator { why: String::new() });
    assert_eq!(
        std::mem::discriminant(&closed.state),
        std::mem::discriminant(&why)
    );
    assert_eq!(closed.resolutions[0].verdict, Verdict::Abandon);
}
