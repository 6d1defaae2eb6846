//! What an agent may do to find out what became of an effect, and that it does not give up finding out.

use std::cell::Cell;
use std::time::Duration;

use aldis_core::action::Action;
use tokio::time::Instant;

use super::*;
use crate::actions::{Call, Stamp};
use crate::runner::effect::steadily;

const READS_ONLY: &str = "actions: [kube.get]\nnamespaces: ['*']\n";

/// Lets everything that can go on without an answer from outside go on.
async fn nothing_more() {
    for _ in 0..50 {
        tokio::task::yield_now().await;
    }
}

fn is_stopped(report: &Report) -> Option<(SegmentOutcome, Steps)> {
    match report {
        Report::Ended {
            outcome: outcome @ SegmentOutcome::Stopped { .. },
            steps,
        } => Some((outcome.clone(), steps.clone())),
        _ => None,
    }
}

#[tokio::test]
async fn after_a_restart_nothing_is_moved_on_without_an_order_and_a_permit() {
    let (mut rig, assignment) = killed_at(Point::BeforeEffect).await;
    rig.hooked.looked().await;
    nothing_more().await;
    assert_eq!(rig.hooked.calls(), ["apply set"], "a permit, and no order");
    rig.restart_without_permit().await;
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.looked().await;
    nothing_more().await;
    assert_eq!(rig.hooked.calls(), ["apply set"], "an order, and no permit");
    rig.permit();
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.hooked.calls(), ["apply set", "fence set", "apply set"]);
}

#[tokio::test]
async fn told_to_stop_after_a_restart_it_says_that_nothing_was_done_once_nothing_can_come() {
    let (mut rig, assignment) = killed_at(Point::BeforeEffect).await;
    rig.order(&assignment, Wanted::Stop).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Stopped { after: None });
    assert_eq!(rig.hooked.calls(), ["apply set", "fence set"]);
}

#[tokio::test]
async fn what_the_local_policy_forbids_is_not_moved_on_after_a_restart() {
    let (rig, assignment) = killed_at(Point::BeforeEffect).await;
    let mut rig = rig.under_policy(READS_ONLY).await;
    rig.order(&assignment, Wanted::Go).await;
    let told = evidence(&rig.ended(1).await.0);
    assert!(told.contains("rule `actions`"), "{told}");
    assert_eq!(rig.hooked.calls(), ["apply set"]);
}

#[tokio::test]
async fn what_the_local_policy_forbids_is_not_looked_for_when_its_journal_was_lost() {
    let (rig, assignment) = killed_at(Point::BeforeEffect).await;
    let mut rig = rig.under_policy(READS_ONLY).await;
    rig.restart_without_journal().await;
    rig.order(&assignment, Wanted::Observe).await;
    let told = evidence(&rig.ended(1).await.0);
    assert!(told.contains("rule `actions`"), "{told}");
    assert_eq!(rig.hooked.calls(), ["apply set"]);
}

#[tokio::test]
async fn an_unknown_end_is_looked_at_again_until_it_can_be_told() {
    let (mut rig, assignment) = killed_at(Point::BeforeEffect).await;
    rig.cluster.interfere("shop", "checkout", &v(9), "somebody");
    rig.restart().await;
    let told = evidence(&rig.ended(1).await.0);
    assert!(told.contains("somebody"), "{told}");
    // Also a later process goes on looking.
    rig.restart().await;
    rig.cluster
        .interfere("shop", "checkout", "checkout:v2.18.0", "somebody");
    let (outcome, steps) = rig.hears(1, is_stopped).await;
    assert_eq!(outcome, SegmentOutcome::Stopped { after: None });
    assert_eq!(steps[&"set".into()], StepState::NotStarted);
    assert_eq!(rig.hooked.calls(), ["apply set", "fence set"]);
    rig.order(&assignment, Wanted::Go).await;
    rig.restart().await;
    assert_eq!(rig.ended(1).await.0, outcome, "closed for ever");
}

#[tokio::test]
async fn an_unknown_effect_that_is_seen_after_all_is_put_back_from_what_was_captured() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.hang_at(Point::AfterEffect);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.hooked.answer_observe(Ok(Observed::Indeterminate {
        evidence: vec!["neither old nor new".into()],
    }));
    rig.restart().await;
    rig.ended(1).await;
    let (outcome, steps) = rig.hears(1, is_stopped).await;
    let after = Some("set".into());
    assert_eq!(outcome, SegmentOutcome::Stopped { after });
    assert!(is_changed(&steps, "set"));
    rig.order(&back(&assignment, 2, steps), Wanted::Go).await;
    assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone);
    assert_eq!(rig.checkout(), ("checkout:v2.18.0".into(), 2));
}

#[tokio::test]
async fn nobody_looks_any_more_once_a_newer_attempt_has_begun() {
    let (mut rig, assignment) = killed_at(Point::BeforeEffect).await;
    rig.cluster.interfere("shop", "checkout", &v(9), "somebody");
    rig.restart().await;
    rig.ended(1).await;
    let mut next = assignment.clone();
    next.order.attempt = aldis_core::ids::Attempt(2);
    rig.order(&next, Wanted::Go).await;
    assert_eq!(why(&rig.ended(2).await.0).kind, "drift");
    rig.cluster
        .interfere("shop", "checkout", "checkout:v2.18.0", "somebody");
    rig.restart().await;
    rig.ended(2).await;
    nothing_more().await;
    assert_eq!(rig.hooked.calls(), ["apply set"], "nothing was moved on");
}

#[tokio::test]
async fn an_undo_by_another_step_that_a_lost_journal_held_is_looked_for_as_that_step() {
    let mut rig = Rig::new().await;
    let undo = json!({"undo": {"with": {"image": "checkout:v1"}}});
    let assignment = rig
        .assignment(json!([with(set("set", &v(3)), undo)]), 1)
        .await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    let way_back = back(&assignment, 2, known);
    rig.hooked.hang_at(Point::AfterEffect);
    rig.order(&way_back, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart_without_journal().await;
    rig.hooked.forget();
    rig.order(&way_back, Wanted::Observe).await;
    assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone);
    let inputs = rig.hooked.looked_for();
    assert_eq!(inputs[0]["image"], "checkout:v1");
}

#[tokio::test]
async fn a_runner_that_breaks_is_begun_again_as_after_a_restart() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.panic_at(Point::AfterEffect, 1);
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn one_that_breaks_each_time_is_said_to_be_unknown_and_why() {
    let mut rig = Rig::new().await;
    let steps = json!([set("set", &v(3)), wait("wait")]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.panic_at(Point::Reading, 3);
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(1).await;
    let told = evidence(&outcome);
    assert!(told.contains("broke 3 times"), "{told}");
    assert!(is_changed(&steps, "set"));
    rig.order(&assignment, Wanted::Go).await;
    assert!(rig.refusal().await.contains("a restart of the agent"));
    let mut next = assignment.clone();
    next.order.attempt = aldis_core::ids::Attempt(2);
    rig.order(&next, Wanted::Go).await;
    assert!(rig.refusal().await.contains("holds attempt 1"));
    rig.restart().await;
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
}

/// Fails so often before it works.
async fn works_after(failures: u32, within: Duration) -> Result<u32, Trouble> {
    let call = Call {
        action: Action::KubeGet,
        with: json!({}),
        stamp: Stamp {
            job: "j-1".into(),
            target: "eu-west/prod-1".parse().unwrap(),
            step: "s".into(),
            attempt: aldis_core::ids::Attempt(1),
            direction: aldis_core::job::Direction::Forward,
        },
        planned: None,
        left: None,
        timeout: within,
    };
    let tries = Cell::new(0);
    steadily(&call, Instant::now() + within, || {
        tries.set(tries.get() + 1);
        let away = Failure::new("unavailable", format!("away at try {}", tries.get()));
        let answer = match tries.get() > failures {
            true => Ok(tries.get()),
            false => Err(Trouble::Retriable { failure: away }),
        };
        std::future::ready(answer)
    })
    .await
}

#[tokio::test]
async fn what_was_not_sent_is_made_again_while_the_step_has_time_and_fails_with_its_own_reason() {
    assert_eq!(works_after(2, Duration::from_secs(60)).await, Ok(3));
    let late = works_after(9, Duration::from_millis(500)).await;
    assert_eq!(late.unwrap_err().to_string(), "away at try 2");
}
