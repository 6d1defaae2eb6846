//! Orders against the journal.

use std::time::Duration;

use aldis_core::assignments::Wanted;
use aldis_core::ids::Attempt;
use aldis_core::outcome::SegmentOutcome;
use serde_json::json;

use crate::testing::{Point, Rig, back, set, wait};

const NEVER_BEGAN: SegmentOutcome = SegmentOutcome::Stopped { after: None };

#[tokio::test]
async fn an_attempt_that_is_stopped_before_it_began_never_begins() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    rig.order(&assignment, Wanted::Stop).await;
    assert_eq!(rig.ended(1).await.0, NEVER_BEGAN);
    rig.restart().await;
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, NEVER_BEGAN, "also after a restart");
    assert_eq!(rig.checkout().1, 0);
}

#[tokio::test]
async fn nothing_begins_without_a_permit_and_a_later_one_begins_it() {
    let mut rig = Rig::without_permit().await;
    let assignment = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    rig.order(&assignment, Wanted::Hold).await;
    rig.order(&assignment, Wanted::Go).await;
    assert!(rig.heard(1).is_empty());
    assert_eq!(
        rig.parts().ledger.sequence(),
        0,
        "nothing is journalled either"
    );
    rig.permit();
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
}

#[tokio::test]
async fn a_held_attempt_is_not_begun() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    rig.order(&assignment, Wanted::Hold).await;
    rig.order(&assignment, Wanted::Stop).await;
    assert_eq!(rig.ended(1).await.0, NEVER_BEGAN);
}

#[tokio::test]
async fn a_repeat_changes_nothing_and_is_answered_from_the_journal() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    for _ in 0..3 {
        rig.order(&assignment, Wanted::Go).await;
    }
    rig.ended(1).await;
    rig.order(&assignment, Wanted::Go).await;
    rig.order(&assignment, Wanted::Stop).await;
    rig.restart().await;
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout().1, 1);
}

#[tokio::test]
async fn an_order_for_somebody_else_is_refused_with_the_reason() {
    let mut rig = Rig::new().await;
    let assignment = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    let mut elsewhere = assignment.clone();
    elsewhere.order.target = "eu-west/prod-2".parse().unwrap();
    rig.order(&elsewhere, Wanted::Go).await;
    assert!(rig.refusal().await.contains("eu-west/prod-2"));
    let mut later = assignment.clone();
    later.format += 1;
    rig.order(&later, Wanted::Go).await;
    assert!(rig.refusal().await.contains("layout 2"));
    let mut other = assignment.clone();
    other.order.journal = "another".into();
    rig.desk().order(other).await;
    let refused = rig.refusal().await;
    assert!(
        refused.contains("committed for journal another"),
        "{refused}"
    );
    assert_eq!(rig.checkout().1, 0);
}

#[tokio::test]
async fn a_late_attempt_is_refused() {
    let mut rig = Rig::new().await;
    let first = rig.assignment(json!([set("set", "checkout:v3")]), 1).await;
    let mut second = first.clone();
    second.order.attempt = Attempt(2);
    rig.order(&second, Wanted::Go).await;
    rig.ended(2).await;
    rig.order(&first, Wanted::Go).await;
    assert!(rig.refusal().await.contains("attempt 2"));
    assert_eq!(rig.checkout().1, 1);
}

#[tokio::test]
async fn the_next_attempt_ends_the_one_before_it_and_begins_behind_it() {
    let mut rig = Rig::new().await;
    let steps = json!([set("set", "checkout:v3"), wait("wait")]);
    let first = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&first, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart().await;
    let mut second = first.clone();
    second.order.attempt = Attempt(2);
    rig.order(&second, Wanted::Stop).await;
    assert_eq!(rig.ended(2).await.0, NEVER_BEGAN);
    let mut third = first.clone();
    third.order.attempt = Attempt(3);
    rig.order(&third, Wanted::Go).await;
    let stopped = SegmentOutcome::Stopped {
        after: Some("set".into()),
    };
    assert_eq!(rig.ended(1).await.0, stopped);
    // It does not know what the first did, and finds the object changed since the plan.
    assert!(matches!(
        rig.ended(3).await.0,
        SegmentOutcome::Failed { .. }
    ));
    assert_eq!(rig.checkout().1, 1);
}

#[tokio::test]
async fn what_a_merged_session_does_not_order_stops_and_an_undo_goes_on() {
    let mut rig = Rig::new().await.with_grace(Duration::from_millis(50)).await;
    let steps = json!([set("set", "checkout:v3"), wait("wait")]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.desk().registered().await;
    rig.desk().merged().await;
    let (outcome, known) = rig.ended(1).await;
    let stopped = SegmentOutcome::Stopped {
        after: Some("set".into()),
    };
    assert_eq!(outcome, stopped);
    let back = back(&assignment, 2, known);
    rig.hooked.hang_at(Point::BeforeUndo);
    rig.order(&back, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.restart().await;
    rig.desk().merged().await;
    assert_eq!(rig.ended(2).await.0, SegmentOutcome::Undone);
}

#[tokio::test]
async fn a_journal_that_is_set_aside_takes_everything_with_it_but_the_fence() {
    let mut rig = Rig::new().await;
    let steps = json!([set("set", "checkout:v3"), wait("wait")]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    let before = rig.parts().ledger.id();
    rig.desk().set_aside("a copy".into()).await.unwrap();
    let parts = rig.parts();
    assert_ne!(parts.ledger.id(), before);
    assert!(parts.ledger.list(0).attempts.is_empty());
    rig.hooked.let_go();
    rig.order(&assignment, Wanted::Observe).await;
    let stopped = SegmentOutcome::Stopped {
        after: Some("set".into()),
    };
    assert_eq!(rig.ended(1).await.0, stopped);
    assert_eq!(rig.checkout().1, 1);
}

#[tokio::test]
async fn told_to_end_it_reaches_a_safe_point_and_the_next_process_goes_on() {
    let mut rig = Rig::new().await;
    let steps = json!([
        set("one", "checkout:v3"),
        wait("wait"),
        set("two", "checkout:v4")
    ]);
    let assignment = rig.assignment(steps, 1).await;
    rig.hooked.hang_at(Point::Reading);
    rig.order(&assignment, Wanted::Go).await;
    rig.hooked.hangs().await;
    rig.desk().close(Duration::from_secs(10)).await;
    rig.restart().await;
    rig.order(&assignment, Wanted::Go).await;
    assert_eq!(rig.ended(1).await.0, SegmentOutcome::Succeeded);
    assert_eq!(rig.checkout(), ("checkout:v4".to_owned(), 2));
}

/// What is logged on this thread while it lives.
#[derive(Clone, Default)]
struct Logged(std::sync::Arc<std::sync::Mutex<Vec<u8>>>);

impl std::io::Write for Logged {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        self.0.lock().unwrap().extend(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

#[tokio::test]
async fn what_is_logged_of_an_attempt_carries_the_trace_of_its_job() {
    let logged = Logged::default();
    let writer = logged.clone();
    let lines = tracing_subscriber::fmt()
        .with_ansi(false)
        .with_writer(move || writer.clone())
        .finish();
    let _here = tracing::subscriber::set_default(lines);
    let mut rig = Rig::new().await;
    runs_and_refuses(&mut rig, 1).await;
    // Other tests of this process log to nobody, and a place that logs for the first time asks all who listen then.
    tracing::callsite::rebuild_interest_cache();
    runs_and_refuses(&mut rig, 2).await;
    let text = String::from_utf8(logged.0.lock().unwrap().clone()).unwrap();
    for said in ["begins", "attempt ends", "not done as ordered"] {
        let mut lines = text.lines();
        let line = lines.find(|line| line.contains(said) && line.contains("attempt 2 of"));
        let line = line.unwrap_or_else(|| panic!("no line says {said}:\n{text}"));
        assert!(line.contains("4bf92f3577b34da6a3ce929d0e0e4736"), "{line}");
    }
}

async fn runs_and_refuses(rig: &mut Rig, attempt: u32) {
    let image = format!("checkout:v{}", attempt + 2);
    let mut assignment = rig.assignment(json!([set("set", &image)]), attempt).await;
    assignment.trace = Some("4bf92f3577b34da6a3ce929d0e0e4736".to_owned());
    rig.order(&assignment, Wanted::Go).await;
    rig.ended(attempt).await;
    assignment.order.target = "eu-west/prod-2".parse().unwrap();
    rig.order(&assignment, Wanted::Go).await;
    rig.refusal().await;
}
