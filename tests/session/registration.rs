//! Who connects to whom, and what is said first.

use std::time::Duration;

use aldis_core::plan::ClusterIdentity;
use aldis_core::reconcile::AttemptList;
use aldis_proto::convert::parse;
use aldis_proto::v1;
use aldis_proto::v1::session_request::Message as In;
use aldis_proto::v1::session_response::Message as Out;
use aldis_tests::pki::{Request, Usage};

use crate::scripted::{Stage, is_end};

const LONG: Duration = Duration::from_secs(60);

#[tokio::test]
async fn an_agent_says_who_it_is_and_what_it_holds() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (session, register) = replica.session().await;
    assert_eq!(session.who, "agent/eu-west/prod-1/1");
    assert_eq!(register.labels["env"], "prod");
    assert!(register.simulated);
    let identity: ClusterIdentity = parse(register.identity.as_ref(), "identity").unwrap();
    assert!(identity.cluster_uid.starts_with("simulated-"));
    let list: AttemptList = parse(register.attempts.as_ref(), "attempts").unwrap();
    assert_eq!(list.journal.as_str(), register.journal_id);
    assert!(list.attempts.is_empty() && list.damage.is_none());
}

/// A cluster whose API server is away.
async fn away(stage: &Stage) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let kubeconfig = format!(
        "apiVersion: v1\nkind: Config\n\
         clusters: [{{name: c, cluster: {{server: 'https://127.0.0.1:{port}', certificate-authority: ca.pem}}}}]\n\
         contexts: [{{name: eu, context: {{cluster: c, user: u}}}}]\n\
         users: [{{name: u, user: {{token: t}}}}]\n"
    );
    std::fs::write(stage.path().join("kubeconfig.yaml"), kubeconfig).unwrap();
    "kubeconfig: {file: kubeconfig.yaml, context: eu}".to_owned()
}

#[tokio::test]
async fn started_while_its_cluster_is_away_it_registers_as_what_it_was() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (_, before) = replica.session().await;
    stage.end().await;
    let cluster = away(&stage).await;
    stage.start_on(&[&replica], &cluster);
    let (_, after) = replica.session().await;
    assert_eq!(before.identity, after.identity);
    assert_eq!(before.journal_id, after.journal_id);
}

#[tokio::test]
async fn a_server_that_is_no_replica_is_not_spoken_to_though_the_authority_is_ours() {
    let mut stage = Stage::new();
    for who in [
        Request::new("x", Usage::Both).identity("user/mei"),
        Request::new("x", Usage::Both).identity("agent/eu-west/prod-2/1"),
        Request::new("x", Usage::Both),
    ] {
        let mut impostor = stage.replica_as("impostor", &who.on_loopback()).await;
        let mut replica = stage.replica("cp-1").await;
        stage.start(&[&impostor, &replica]);
        replica.session().await;
        assert!(impostor.is_left_alone().await);
        stage.end().await;
    }
}

#[tokio::test]
async fn a_stream_that_breaks_is_opened_again_at_the_next_replica() {
    let mut stage = Stage::new();
    let (mut one, mut two) = (stage.replica("cp-1").await, stage.replica("cp-2").await);
    stage.start(&[&one, &two]);
    let (first, before) = tokio::select! {
        session = one.session() => session,
        session = two.session() => {
            std::mem::swap(&mut one, &mut two);
            session
        }
    };
    drop(one);
    drop(first);
    let (_, after) = two.session().await;
    assert_eq!(before.process, after.process);
    assert_eq!(before.journal_id, after.journal_id);
}

#[tokio::test]
async fn a_renewed_certificate_serves_the_next_stream_without_a_restart() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (session, _) = replica.session().await;
    stage.enrol("2");
    session.close("try again").await;
    let (session, _) = replica.session().await;
    assert_eq!(session.who, "agent/eu-west/prod-1/2");
}

#[tokio::test]
async fn asked_to_move_it_opens_the_new_stream_before_it_leaves_the_old_one() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut old, before) = replica.session().await;
    old.send(Out::Move(v1::Move {
        within_ms: 10,
        reason: "shutting down".into(),
    }))
    .await;
    let mut new = replica.stream().await;
    let after = new.register().await;
    assert_eq!(before.process, after.process);
    // The old one still serves while the new one does not count.
    old.grant(LONG).await;
    new.registered().await;
    while let Some(frame) = old.maybe_next().await {
        assert!(!matches!(frame, In::Goodbye(_)), "it has not gone");
    }
    new.grant(LONG).await;
}

#[tokio::test]
async fn a_list_that_a_report_on_the_old_stream_overtook_costs_no_journal() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut old, before) = replica.session().await;
    old.grant(LONG).await;
    let assignment = old.assignment(&before, "checkout:v3").await;
    old.send(Out::Move(v1::Move {
        within_ms: 10,
        reason: "shutting down".into(),
    }))
    .await;
    let mut new = replica.stream().await;
    let overtaken = new.register().await;
    // Between the list and its registration the old stream gives work, and hears of it.
    old.order(&assignment).await;
    let (report, _) = old.report(is_end).await;
    assert!(report.sequence > overtaken.journal_sequence);
    let aside = v1::SetAside {
        reason: "shorter than reported".into(),
    };
    new.send(Out::SetAside(aside)).await;
    let (_, again) = replica.session().await;
    assert_eq!(again.journal_id, before.journal_id, "the journal is whole");
    assert!(again.journal_sequence >= report.sequence);
    assert_eq!(again.journal_damage, "");
}

#[tokio::test]
async fn told_to_end_it_says_goodbye() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, _) = replica.session().await;
    session.permit_request().await;
    let ending = tokio::spawn(async move {
        stage.end().await;
        stage
    });
    session
        .find(|frame| matches!(frame, In::Goodbye(_)).then_some(()))
        .await;
    drop(session);
    ending.await.unwrap();
}

#[tokio::test]
async fn a_journal_that_is_not_wanted_is_set_aside_and_told_of_once() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let mut first = replica.stream().await;
    let before = first.register().await;
    let aside = v1::SetAside {
        reason: "shorter than reported".into(),
    };
    first.send(Out::SetAside(aside)).await;
    let (mut second, after) = replica.session().await;
    assert_ne!(before.journal_id, after.journal_id);
    assert_eq!(after.journal_damage, "shorter than reported");
    second.grant(LONG).await;
    // The request after it was sent by an agent that has heard of the permit.
    second.permit_request().await;
    second.close("again").await;
    let (_, third) = replica.session().await;
    assert_eq!(third.journal_id, after.journal_id);
    assert_eq!(third.journal_damage, "", "a leader has heard of it");
}
