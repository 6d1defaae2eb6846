//! Whole attempts on a practice cluster, cut off at every point.

mod full;
mod recovery;

use std::time::Duration;

use aldis_core::assignments::Wanted;
use aldis_core::job::Report;
use aldis_core::outcome::{Failure, SegmentOutcome, StepState};
use serde_json::json;

use crate::actions::{Observed, Trouble};
use crate::testing::{Point, Rig, Steps, back, set, wait, with};

fn v(number: u32) -> String {
    format!("checkout:v{number}")
}

fn is_changed(steps: &Steps, step: &str) -> bool {
    matches!(
        steps.get(&step.into()),
        Some(StepState::Succeeded { changed: true, .. })
    )
}

fn why(outcome: &SegmentOutcome) -> &Failure {
    match outcome {
        SegmentOutcome::Failed { failure, .. } | SegmentOutcome::Stuck { failure, .. } => failure,
        other => panic!("{other:?}"),
    }
}

fn evidence(outcome: &SegmentOutcome) -> String {
    match outcome {
        SegmentOutcome::Unknown { evidence, .. } => evidence.join("; "),
        other => panic!("{other:?}"),
    }
}

/// Orders one change with a wait behind it, and kills the agent at `point`.
async fn killed_at(point: Point) -> (Rig, aldis_core::assignments::Assignment) {
    let mut rig = Rig::new().await;
    let assignment = rig
        .assignment(json!([set("set", &v(3)), wait("wait")]), 1)
        .await;
    rig.hooked.hang_at(point);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart().await;
    (rig, assignment)
}

#[tokio::test]
async fn a_segment_runs_in_order_with_every_intent_on_disk_before_its_effect() {
    let mut rig = Rig::new().await;
    let steps = json!([set("one", &v(3)), wait("rolled"), set("two", &v(4))]);
    let assignment = rig.assignment(steps, 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert!(is_changed(&steps, "one") && is_changed(&steps, "two"));
    assert_eq!(rig.checkout(), (v(4), 2), "the second is no drift of ours");
    assert_eq!(rig.hooked.calls(), ["apply one", "apply two"]);
    assert_eq!(rig.lines().first().unwrap(), "begins: kube.set-image@v1");
}

#[tokio::test]
async fn killed_before_the_intent_it_runs_once_after_the_next_order() {
    let (mut rig, assignment) = killed_at(Point::Capture).await;
    assert_eq!(rig.checkout().1, 0);
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn killed_between_intent_and_effect_it_is_observed_at_once_and_done_after_the_next_order() {
    let (mut rig, assignment) = killed_at(Point::BeforeEffect).await;
    rig.hooked.looked().await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert!(is_changed(&steps, "set"));
    assert_eq!(
        rig.hooked.calls(),
        ["apply set", "fence set", "apply set"],
        "final only when nothing can land"
    );
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn killed_between_effect_and_outcome_it_is_observed_as_done_and_never_done_again() {
    let (mut rig, assignment) = killed_at(Point::AfterEffect).await;
    let done = |report: &Report| match report {
        Report::Step { state, .. } => {
            matches!(state, StepState::Succeeded { changed: true, .. }).then_some(())
        }
        _ => None,
    };
    rig.hears(1, done).await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), (v(3), 1));
    assert_eq!(rig.hooked.calls(), ["apply set"]);
}

#[tokio::test]
async fn killed_after_the_outcome_it_goes_on_behind_it() {
    let (mut rig, assignment) = killed_at(Point::Reading).await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert!(is_changed(&steps, "set"), "from the journal");
    assert_eq!(rig.hooked.calls(), ["apply set"]);
    rig.restart().await;
    let (again, steps) = rig.ended(1).await;
    assert_eq!(
        again,
        SegmentOutcome::Succeeded,
        "said again until acknowledged"
    );
    assert!(is_changed(&steps, "set"));
}

#[tokio::test]
async fn after_a_restart_a_permit_alone_begins_nothing_but_an_unsafe_place_is_left_at_once() {
    let mut rig = Rig::new().await;
    let steps = json!([
        with(set("one", &v(3)), json!({"safePoint": false})),
        set("two", &v(4)),
        set("three", &v(5)),
    ]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::AfterEffect);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart_without_permit().await;
    let second = |report: &Report| match report {
        Report::Step { step, state } => {
            (step.as_str() == "two" && matches!(state, StepState::Succeeded { .. })).then_some(())
        }
        _ => None,
    };
    rig.hears(1, second).await;
    assert_eq!(rig.checkout(), (v(4), 2), "and no further");
    rig.permit();
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), (v(5), 3));
}

#[tokio::test]
async fn an_effect_that_somebody_covered_is_unknown_with_evidence_and_stays_so() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.hang_at(Point::BeforeEffect);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.cluster.interfere("shop", "checkout", &v(9), "somebody");
    rig.restart().await;
    let (outcome, _) = rig.ended(1).await;
    assert!(evidence(&outcome).contains("somebody"), "{outcome:?}");
    rig.order(&assignment, Wanted::Go).await;
    rig.restart().await;
    assert!(matches!(
        rig.ended(1).await.0,
        SegmentOutcome::Unknown { .. }
    ));
    assert_eq!(rig.checkout(), (v(9), 1));
    assert_eq!(rig.hooked.calls(), ["apply set"]);
}

#[tokio::test]
async fn a_lost_answer_is_looked_for() {
    let lost = || {
        Err(Trouble::Unknown {
            evidence: vec!["connection reset".into()],
        })
    };
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.answer_apply(lost());
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(
        outcome,
        SegmentOutcome::Succeeded,
        "it had not landed, and was sent again"
    );
    assert_eq!(rig.hooked.calls(), ["apply set", "fence set", "apply set"]);

    let assignment = rig.assignment(json!([set("set", &v(4))]), 2).await;
    rig.hooked.answer_apply(lost());
    rig.hooked.answer_observe(Ok(Observed::Indeterminate {
        evidence: vec!["neither old nor new".into()],
    }));
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(2).await;
    let seen = evidence(&outcome);
    assert!(
        seen.contains("connection reset") && seen.contains("neither old nor new"),
        "{seen}"
    );
    assert!(matches!(steps[&"set".into()], StepState::Unknown { .. }));
}

#[tokio::test]
async fn a_request_that_was_not_sent_is_made_again_and_then_fails_without_an_effect() {
    let refused = || {
        Err(Trouble::Retriable {
            failure: Failure::new("unavailable", "connection refused"),
        })
    };
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.answer_apply(refused());
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    let hurried = with(set("set", &v(4)), json!({"timeout": "1s"}));
    let assignment = rig.assignment(json!([hurried]), 2).await;
    for _ in 0..9 {
        rig.hooked.answer_apply(refused());
    }
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, steps) = rig.ended(2).await;
    assert_eq!(why(&outcome).cause, "connection refused");
    assert!(!steps[&"set".into()].may_have_effect());
}

#[tokio::test]
async fn what_changed_since_the_plan_is_left_alone() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.cluster.interfere("shop", "checkout", &v(9), "somebody");
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(why(&outcome).kind, "drift");
    assert_eq!(rig.checkout(), (v(9), 1));
    assert_eq!(rig.hooked.calls(), [""; 0]);
}

#[tokio::test]
async fn another_cluster_behind_the_agent_is_not_touched() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.become_another();
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(why(&outcome).kind, "identity");
    assert_eq!(rig.checkout().1, 0);
}

#[tokio::test]
async fn what_the_local_policy_does_not_allow_is_not_done_and_the_rule_is_named() {
    let rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    let mut rig = rig
        .under_policy("actions: [kube.*]\nnamespaces: [other]\n")
        .await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert!(
        why(&outcome)
            .cause
            .contains("rule `namespaces` of /etc/aldis/policy.yaml"),
        "{outcome:?}"
    );
    assert_eq!(rig.checkout().1, 0);
}

#[tokio::test]
async fn a_stop_takes_effect_at_the_next_safe_point_and_says_how_far_it_came() {
    let mut rig = Rig::new().await;
    let steps = json!([
        with(set("one", &v(3)), json!({"safePoint": false})),
        set("two", &v(4)),
        set("three", &v(5)),
    ]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Capture);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart().await;
    rig.order(&assignment, Wanted::Stop).await;
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Stopped { after: None });
    assert!(!steps.values().any(StepState::may_have_effect));

    let steps = json!([
        with(set("one", &v(3)), json!({"safePoint": false})),
        set("two", &v(4)),
        wait("three"),
    ]);
    let assignment = rig.assignment(steps, 2).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.order(&assignment, Wanted::Stop).await;
    let (outcome, steps) = rig.ended(2).await;
    assert_eq!(
        outcome,
        SegmentOutcome::Stopped {
            after: Some("two".into())
        },
        "a reading is left at once"
    );
    assert!(is_changed(&steps, "two"));
    assert!(
        !steps
            .get(&"three".into())
            .is_some_and(StepState::may_have_effect)
    );
}

#[tokio::test]
async fn held_in_the_middle_it_rests_says_so_and_goes_on() {
    let mut rig = Rig::new().await;
    let steps = json!([set("one", &v(3)), wait("rolled"), set("two", &v(4))]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.order(&assignment, Wanted::Hold).await;
    rig.parked(1).await;
    assert_eq!(rig.checkout(), (v(3), 1));
    rig.hooked.let_go();
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), (v(4), 2));
}

#[tokio::test]
async fn the_way_back_goes_in_reverse_and_leaves_what_was_there() {
    let mut rig = Rig::new().await;
    let steps = json!([set("one", &v(3)), set("two", &v(4))]);
    let assignment = rig.assignment(steps, 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    let back = back(&assignment, 2, known);
    rig.order(&back, Wanted::Go).await;
    let (outcome, steps) = rig.ended(2).await;
    assert_eq!(outcome, SegmentOutcome::Undone);
    assert!(steps.values().all(|state| *state == StepState::Undone));
    assert_eq!(rig.checkout(), ("checkout:v2.18.0".to_owned(), 4));
    assert_eq!(rig.hooked.calls()[2..], ["undo two", "undo one"]);
}

#[tokio::test]
async fn an_undo_that_was_cut_off_is_made_again_and_has_one_effect() {
    for point in [Point::BeforeUndo, Point::AfterUndo] {
        let mut rig = Rig::new().await;
        let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
        rig.order(&assignment, Wanted::Go).await;
        let (_, known) = rig.ended(1).await;
        let back = back(&assignment, 2, known);
        rig.hooked.hang_at(point);
        rig.order(&back, Wanted::Go).await;
        rig.hooked.hangs().await;
        rig.restart().await;
        rig.order(&back, Wanted::Go).await;
        assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone, "{point:?}");
        assert_eq!(
            rig.checkout(),
            ("checkout:v2.18.0".to_owned(), 2),
            "{point:?}"
        );
    }
}

#[tokio::test]
async fn what_somebody_changed_after_us_is_not_undone_and_they_are_named() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    rig.cluster.interfere("shop", "checkout", &v(9), "somebody");
    rig.order(&back(&assignment, 2, known), Wanted::Go).await;
    let (outcome, steps) = rig.ended(2).await;
    assert!(why(&outcome).cause.contains("somebody"), "{outcome:?}");
    assert!(matches!(steps[&"set".into()], StepState::UndoFailed { .. }));
    assert_eq!(rig.checkout(), (v(9), 2));
}

#[tokio::test]
async fn without_the_captured_state_nothing_is_put_back_by_guess() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    rig.restart_without_journal().await;
    rig.order(&back(&assignment, 2, known), Wanted::Go).await;
    let (outcome, _) = rig.ended(2).await;
    assert_eq!(why(&outcome).kind, "lost");
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn an_undo_by_another_step_runs_that_one() {
    let mut rig = Rig::new().await;
    let undo = json!({"undo": {"with": {"image": "checkout:v1"}}});
    let assignment = rig
        .assignment(json!([with(set("set", &v(3)), undo)]), 1)
        .await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    rig.order(&back(&assignment, 2, known), Wanted::Go).await;
    assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone);
    assert_eq!(rig.checkout(), (v(1), 2));
}

#[tokio::test]
async fn effects_of_a_lost_journal_are_found_by_their_stamps_and_never_made_again() {
    let mut rig = Rig::new().await;
    let steps = json!([set("one", &v(3)), wait("rolled"), set("two", &v(4))]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart_without_journal().await;
    rig.order(&assignment, Wanted::Observe).await;
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(
        outcome,
        SegmentOutcome::Stopped {
            after: Some("one".into())
        }
    );
    assert!(is_changed(&steps, "one"));
    assert_eq!(steps[&"two".into()], StepState::NotStarted);
    assert_eq!(
        rig.hooked.calls()[1..],
        ["fence two"],
        "moved on, so that nothing can land"
    );
    rig.order(&assignment, Wanted::Go).await;
    rig.restart().await;
    let (again, _) = rig.ended(1).await;
    assert_eq!(again, outcome, "closed for ever");
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn a_stamp_that_no_record_foretold_means_a_lost_journal() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.hang_at(Point::AfterEffect);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    // A leader that wrongly believes that nothing was lost.
    rig.restart_without_journal().await;
    let again = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.order(&again, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert!(
        evidence(&outcome).contains("stamp of this very attempt"),
        "{outcome:?}"
    );
    assert_eq!(rig.hooked.calls(), ["apply set"]);
}

#[tokio::test]
async fn what_was_read_and_does_not_hold_is_told_with_what_ails_it_first() {
    let mut rig = Rig::new().await;
    rig.hooked
        .explain_by("pod checkout-1, container app: ended");
    let gate = json!({
        "id": "gate", "use": "kube.get", "with": {"kind": "Deployment", "name": "gate", "namespace": "shop"},
        "require": "steps.gate.outputs.found",
    });
    let assignment = rig.assignment(json!([gate]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    let told = &why(&outcome).evidence;
    assert_eq!(told[0], "pod checkout-1, container app: ended", "{told:?}");
    assert!(told[1].starts_with("require: "), "{told:?}");
}

#[tokio::test]
async fn a_reading_that_the_policy_does_not_allow_is_not_explained_by_another() {
    let mut rig = Rig::new()
        .await
        .under_policy("actions: [kube.set-image]")
        .await;
    rig.hooked
        .explain_by("pod checkout-1, container app: ended");
    let assignment = rig.assignment(json!([wait("wait")]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (outcome, _) = rig.ended(1).await;
    assert_eq!(why(&outcome).kind, "policy");
    assert!(
        !format!("{outcome:?}").contains("checkout-1"),
        "{outcome:?}"
    );
}

#[tokio::test]
async fn a_step_that_waits_is_tried_until_it_holds() {
    let mut rig = Rig::new().await;
    let gate = json!({
        "id": "gate", "use": "kube.get", "with": {"kind": "Deployment", "name": "gate", "namespace": "shop"},
        "until": "steps.gate.outputs.found", "retry": {"max": 1000, "delay": "5ms"},
    });
    let assignment = rig.assignment(json!([gate, set("set", &v(3))]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let tried = |report: &Report| match report {
        Report::Step { state, .. } => matches!(state, StepState::Running { .. }).then_some(()),
        _ => None,
    };
    let waiting = tokio::time::timeout(Duration::from_secs(5), rig.hears(1, tried)).await;
    assert!(waiting.is_ok(), "a step that waits is shown");
    rig.cluster.create("shop", "gate", &["gate:1"]);
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
}
