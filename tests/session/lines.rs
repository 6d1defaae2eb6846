//! Log lines: numbered, and never in the way.

use std::time::Duration;

use aldis_core::question::{Answer, Question};
use aldis_proto::v1;
use aldis_proto::v1::logs_request::Message;
use aldis_proto::v1::session_response::Message as Out;
use tonic::Streaming;

use crate::scripted::{SOON, Stage, is_end};

const LONG: Duration = Duration::from_secs(60);

async fn next(lines: &mut Streaming<v1::LogsRequest>) -> Message {
    let frame = tokio::time::timeout(SOON, lines.message()).await;
    frame.unwrap().unwrap().unwrap().message.unwrap()
}

fn open(after: u64, follow: bool) -> Out {
    Out::OpenLogs(v1::OpenLogs {
        stream: 9,
        job: "j-1".into(),
        after,
        follow,
    })
}

#[tokio::test]
async fn lines_come_on_a_stream_of_their_own_from_the_number_that_was_asked_for() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    stage.start(&[&replica]);
    let (mut session, register) = replica.session().await;
    session.grant(LONG).await;
    let assignment = session.assignment(&register, "checkout:v3").await;
    session.send(open(0, true)).await;
    let mut follower = tokio::time::timeout(SOON, replica.lines.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next(&mut follower).await, Message::Stream(9));
    session.order(&assignment).await;
    for number in 1..=3 {
        match next(&mut follower).await {
            Message::Line(line) => {
                assert_eq!((line.sequence, line.step.as_str()), (number, "set"));
                assert_eq!(line.target, "eu-west/prod-1");
            }
            other => panic!("{other:?}"),
        }
    }
    session.report(is_end).await;
    session.send(open(2, false)).await;
    let mut rest = tokio::time::timeout(SOON, replica.lines.recv())
        .await
        .unwrap()
        .unwrap();
    assert_eq!(next(&mut rest).await, Message::Stream(9));
    assert!(matches!(next(&mut rest).await, Message::Line(line) if line.sequence == 3));
    assert_eq!(next(&mut rest).await, Message::End(true));
}

#[tokio::test]
async fn a_reader_that_does_not_read_holds_up_nothing() {
    let mut stage = Stage::new();
    let mut replica = stage.replica("cp-1").await;
    let logs = stage.path().join("data/logs");
    std::fs::create_dir_all(&logs).unwrap();
    let line = |n: u64| {
        format!(
            "{{\"n\":{n},\"at\":1,\"step\":\"set\",\"text\":\"{}\"}}\n",
            "x".repeat(4000)
        )
    };
    let text: String = (1..=500).map(line).collect();
    std::fs::write(logs.join("j-1.log"), text).unwrap();
    stage.start(&[&replica]);
    let (mut session, _) = replica.session().await;
    for _ in 0..4 {
        session.send(open(0, true)).await;
    }
    // Two megabytes wait in each of four streams that nobody reads; a question is answered all the same.
    let mut unread = Vec::new();
    for _ in 0..4 {
        unread.push(
            tokio::time::timeout(SOON, replica.lines.recv())
                .await
                .unwrap(),
        );
    }
    let asked = tokio::time::timeout(Duration::from_secs(5), session.ask(&Question::Attempts));
    assert!(matches!(asked.await.unwrap(), Answer::Attempts(_)));
}
