//! Whom an agent believes: tokens, permits, orders that cannot be read.

use std::time::Duration;

use aldis_core::job::Report;
use aldis_core::question::{Answer, Question};
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as In;
use aldis_proto::v1::session_response::Message as Out;

use crate::scripted::{Stage, is_end};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_an_older_leader_orders_is_not_done_also_after_a_restart() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    session.fence.epoch = 5;
    session.grant(LONG).await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    stage.end().await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    let highest = register.highest_fence.unwrap();
    assert_eq!(
        (highest.incarnation, highest.epoch),
        (1, 5),
        "from the disk"
    );
    session.fence.epoch = 4;
    session.grant(LONG).await;
    session.order(&assignment).await;
    session.fence.epoch = 5;
    // Frames are handled in order: once this is answered, the order has been dropped.
    let Answer::Attempts(list) = session.ask(&Question::Attempts).await else {
        panic!("another answer")
    };
    assert!(list.attempts.is_empty());
}

#[tokio::test]
async fn a_permit_counts_from_the_sending_of_its_request() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    let sent = session.permit_request().await;
    // An answer that was long on its way: by the request's own clock its time is over.
    session.permit(sent.saturating_sub(60_000), LONG).await;
    session.order(&assignment).await;
    let Answer::Attempts(list) = session.ask(&Question::Attempts).await else {
        panic!("another answer")
    };
    assert!(list.attempts.is_empty(), "nothing began");
    session.permit(sent, LONG).await;
    session.report(is_end).await;
}

#[tokio::test]
async fn a_permit_for_a_request_of_the_future_grants_nothing() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    let sent = session.permit_request().await;
    session.permit(sent + 3_600_000, LONG).await;
    session.order(&assignment).await;
    let Answer::Attempts(list) = session.ask(&Question::Attempts).await else {
        panic!("another answer")
    };
    assert!(list.attempts.is_empty());
}

#[tokio::test]
async fn an_order_that_cannot_be_read_is_refused_by_name() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    let mut written = serde_json::to_value(&assignment).unwrap();
    written["signatures"] = serde_json::json!([]);
    session
        .send(Out::Order(v1::OrderFrame {
            assignment: Some(aldis_proto::convert::document(&written)),
        }))
        .await;
    let refused = session
        .find(|frame| match frame {
            In::OrderRefused(refused) => Some(refused),
            _ => None,
        })
        .await;
    assert_eq!((refused.job.as_str(), refused.attempt), ("j-1", 1));
    assert!(refused.reason.contains("signatures"), "{refused:?}");
}

#[tokio::test]
async fn without_a_leaders_merge_a_report_waits_and_is_sent_again() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    session.grant(LONG).await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    session.order(&assignment).await;
    let (first, _) = session.report(is_end).await;
    let (again, _) = session.report(is_end).await;
    assert_eq!(first.sequence, again.sequence, "on the same stream");
    session.close("another replica").await;
    let (mut session, _) = replica.session().await;
    let (elsewhere, report) = session.report(is_end).await;
    assert_eq!(first.sequence, elsewhere.sequence);
    let Report::Ended { steps, .. } = report else {
        panic!("{report:?}")
    };
    assert_eq!(steps.len(), 1);
}
