//! An attempt from its order to its acknowledgement, over streams and processes.

use std::time::Duration;

use aldis_core::assignments::Wanted;
use aldis_core::reconcile::AttemptList;
use aldis_proto::convert::parse;

use crate::scripted::{Stage, is_end};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_attempt_is_run_once_and_listed_as_acknowledged_afterwards() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    session.grant(LONG).await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    session.order(&assignment).await;
    session.order(&assignment).await;
    let (end, _) = session.report(is_end).await;
    session.acknowledge(&end, true).await;
    session.close("again").await;
    let (session, register) = replica.session().await;
    let list: AttemptList = parse(register.attempts.as_ref(), "attempts").unwrap();
    assert!(list.attempts[0].acknowledged && list.attempts[0].outcome.is_some());
    assert!(register.journal_sequence >= end.sequence);
    session.order(&assignment).await;
    drop(session);
    let cluster = std::fs::read_to_string(stage.cluster()).unwrap();
    assert!(cluster.contains("\"writes\":1"), "{cluster}");
}

#[tokio::test]
async fn what_is_stopped_before_it_began_is_answered_and_never_begins() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    session.grant(LONG).await;
    let mut assignment = session.assignment(&register, "checkout:v3").await;
    assignment.order.wanted = Wanted::Stop;
    session.order(&assignment).await;
    session.report(is_end).await;
    stage.end().await;
    stage.start(&[&replica]);
    let (mut session, _) = replica.session().await;
    session.grant(LONG).await;
    assignment.order.wanted = Wanted::Go;
    session.order(&assignment).await;
    session.report(is_end).await;
    let cluster = std::fs::read_to_string(stage.cluster()).unwrap();
    assert!(cluster.contains("\"writes\":0"), "{cluster}");
}
