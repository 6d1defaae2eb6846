//! Fault F19 at the runner: a disk that is full before an intent, between intent and outcome, and for an undo.

use super::*;
use crate::journal::faulty::FaultyDisk;

#[tokio::test]
async fn full_before_the_intent_no_effect_begins_and_the_attempt_ends_with_the_reason() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::on(&disk).await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.hooked.hang_at(Point::Capture);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.fill(&disk).await;
    rig.hooked.release();
    let (outcome, steps) = rig.ended(1).await;
    assert!(
        why(&outcome).cause.contains("the disk is full"),
        "{outcome:?}"
    );
    assert!(!steps[&"set".into()].may_have_effect());
    assert_eq!(rig.checkout().1, 0);
}

#[tokio::test]
async fn full_between_intent_and_outcome_the_outcome_has_its_room() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::on(&disk).await;
    let skipped = with(
        set("never", &v(4)),
        json!({"if": "target.region == 'moon'"}),
    );
    let steps = json!([set("set", &v(3)), skipped, wait("wait")]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::AfterEffect);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.fill(&disk).await;
    rig.hooked.release();
    let (outcome, steps) = rig.ended(1).await;
    assert_eq!(outcome, SegmentOutcome::Succeeded);
    assert!(matches!(steps[&"never".into()], StepState::Skipped { .. }));
    assert_eq!(rig.checkout(), (v(3), 1));
}

#[tokio::test]
async fn full_when_ordered_it_says_so_and_begins_when_there_is_room() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::on(&disk).await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.fill(&disk).await;
    rig.order(&assignment, Wanted::Go).await;
    let told = rig.refusal().await;
    assert!(told.contains("the disk is full; free some space"), "{told}");
    disk.has_room();
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
}

#[tokio::test]
async fn full_when_stopped_it_is_closed_when_there_is_room() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::on(&disk).await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.fill(&disk).await;
    rig.order(&assignment, Wanted::Stop).await;
    assert!(rig.refusal().await.contains("the disk is full"));
    disk.has_room();
    let never = SegmentOutcome::Stopped { after: None };
    assert_eq!(rig.ended(1).await.0, never);
}

#[tokio::test]
async fn full_on_the_way_back_it_waits_says_so_and_goes_back_when_there_is_room() {
    let disk = FaultyDisk::default();
    let mut rig = Rig::on(&disk).await;
    let assignment = rig.assignment(json!([set("set", &v(3))]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, known) = rig.ended(1).await;
    rig.fill(&disk).await;
    // Room for the attempt and its end, and none for an intent.
    disk.leave_free(100 << 10);
    rig.order(&back(&assignment, 2, known), Wanted::Go).await;
    assert!(rig.refusal().await.contains("the disk is full"));
    assert_eq!(rig.checkout().1, 1, "nothing began");
    disk.has_room();
    assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone);
    assert_eq!(rig.checkout().1, 2);
}
