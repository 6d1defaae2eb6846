//! Log lines on their way from an agent: whose they are, and what becomes of a stream that breaks.

use aldis_proto::v1;
use aldis_proto::v1::agent_service_client::AgentServiceClient;
use aldis_proto::v1::logs_request::Message;
use aldis_proto::v1::peer_service_client::PeerServiceClient;
use aldis_proto::v1::session_response::Message as In;
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Code, Status, Streaming};

use crate::by_hand::{SOON, Who};

const ONE: &str = "eu-west/prod-1";
const TWO: &str = "eu-west/prod-2";

/// A log stream that an agent has opened.
struct Lines {
    requests: mpsc::Sender<v1::LogsRequest>,
    _answers: Streaming<v1::LogsResponse>,
}

impl Lines {
    async fn send(&self, message: Message) {
        let request = v1::LogsRequest {
            message: Some(message),
        };
        self.requests.send(request).await.unwrap();
    }
}

/// Opens the log stream of a number with the certificate of this agent; what it is answered at once.
async fn open(plane: &Plane, who: &Who, number: u64) -> Lines {
    let (requests, stream) = mpsc::channel(4);
    let first = v1::LogsRequest {
        message: Some(Message::Stream(number)),
    };
    requests.send(first).await.unwrap();
    let mut client = AgentServiceClient::new(who.connect(plane).await.unwrap());
    // The stream is open for as long as somebody follows: the answer does not wait for its end.
    let answered = tokio::time::timeout(SOON, client.logs(ReceiverStream::new(stream))).await;
    Lines {
        requests,
        _answers: answered.expect("an answer at once").unwrap().into_inner(),
    }
}

/// Asks as another replica does, and the number that the agent is told.
async fn asked(plane: &Plane, who: &Who) -> (Streaming<v1::AgentLogsResponse>, u64) {
    let mut agent = who.register_with(plane).await;
    agent.is_granted().await.unwrap();
    let replica = plane
        .connect(&Request::control_plane("cp-9"))
        .await
        .unwrap();
    let request = v1::AgentLogsRequest {
        target: who.target.to_string(),
        job: "j-1".to_owned(),
        after: 0,
        follow: true,
    };
    let lines = PeerServiceClient::new(replica).agent_logs(request).await;
    let number = agent
        .find(|frame| match frame {
            In::OpenLogs(open) => Some(open.stream),
            _ => None,
        })
        .await
        .unwrap();
    // The session goes on without a reader, as far as these tests go.
    tokio::spawn(async move { agent.is_ended().await });
    (lines.unwrap().into_inner(), number)
}

async fn next(lines: &mut Streaming<v1::AgentLogsResponse>) -> Result<v1::LogLine, Status> {
    let next = tokio::time::timeout(SOON, lines.message()).await;
    let next = next.expect("a line or the end of them")?;
    next.and_then(|next| next.line)
        .ok_or_else(|| Status::ok("all"))
}

fn line(text: &str) -> Message {
    Message::Line(v1::LogLine {
        job: "j-of-somebody-else".to_owned(),
        target: TWO.to_owned(),
        text: text.to_owned(),
        ..v1::LogLine::default()
    })
}

#[tokio::test]
async fn lines_are_those_of_the_agent_that_was_asked_whatever_they_say_of_themselves() {
    let plane = Plane::start().await.unwrap();
    let (mut lines, number) = asked(&plane, &Who::new(ONE)).await;
    let forger = open(&plane, &Who::new(TWO), number).await;
    let _ = forger
        .requests
        .send(v1::LogsRequest {
            message: Some(line("forged")),
        })
        .await;
    let own = open(&plane, &Who::new(ONE), number).await;
    own.send(line("own")).await;
    let read = next(&mut lines).await.unwrap();
    assert_eq!(
        (read.text.as_str(), read.target.as_str(), read.job.as_str()),
        ("own", ONE, "j-1")
    );
    own.send(Message::End(true)).await;
    assert_eq!(next(&mut lines).await.unwrap_err().code(), Code::Ok);
}

#[tokio::test]
async fn a_log_stream_that_breaks_is_a_gap_and_not_an_end() {
    let plane = Plane::start().await.unwrap();
    let (mut lines, number) = asked(&plane, &Who::new(ONE)).await;
    let own = open(&plane, &Who::new(ONE), number).await;
    own.send(line("the last that is read")).await;
    next(&mut lines).await.unwrap();
    drop(own);
    let gap = next(&mut lines).await.unwrap_err();
    assert_eq!(gap.code(), Code::Aborted);
    assert!(gap.message().contains("broke"), "{gap:?}");
}

#[tokio::test]
async fn a_log_stream_that_is_never_opened_is_a_gap_too() {
    let plane = Plane::start().await.unwrap();
    let (mut lines, _) = asked(&plane, &Who::new(ONE)).await;
    let gap = next(&mut lines).await.unwrap_err();
    assert_eq!(gap.code(), Code::Aborted);
    assert!(gap.message().contains("opened no log stream"), "{gap:?}");
}
