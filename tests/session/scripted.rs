//! The other end of a session, by hand; and the agent as its program runs it, on a practice cluster in a file.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_agent::{config, run};
use aldis_control_plane::identity::Peer;
use aldis_control_plane::tls;
use aldis_core::assignments::{Assignment, Order, Wanted};
use aldis_core::ids::{Attempt, Digest, Fence, JournalId};
use aldis_core::job::{Direction, Report};
use aldis_core::plan::{RunbookRef, SegmentStep, StepPart, TargetPart};
use aldis_core::question::{Answer, Planning, Question};
use aldis_core::runbook::Runbook;
use aldis_proto::convert::{document, fence, parse};
use aldis_proto::v1::agent_service_server::{AgentService, AgentServiceServer};
use aldis_proto::v1::session_request::Message as In;
use aldis_proto::v1::session_response::Message as Out;
use aldis_proto::v1::{self, LogsRequest, LogsResponse, SessionRequest, SessionResponse};
use aldis_tests::pki::{Authority, Request, TRUST_DOMAIN};
use serde_json::json;
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::{Response, Status, Streaming};

/// For anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) const TARGET: &str = "eu-west/prod-1";

/// A folder with an authority and an agent's files in it.
pub(crate) struct Stage {
    folder: TempDir,
    pub(crate) authority: Authority,
    agent: Option<(CancellationToken, JoinHandle<Result<(), run::Error>>)>,
}

impl Stage {
    pub(crate) fn new() -> Self {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let folder = tempfile::tempdir().unwrap();
        let authority = Authority::new("aldis test").unwrap();
        std::fs::write(folder.path().join("ca.pem"), authority.pem()).unwrap();
        let stage = Self {
            folder,
            authority,
            agent: None,
        };
        stage.enrol("1");
        stage
    }

    /// Gives the agent a certificate of this enrolment.
    pub(crate) fn enrol(&self, enrolment: &str) {
        let request = Request::agent("eu-west", "prod-1", enrolment);
        let leaf = self.authority.issue(&request).unwrap();
        leaf.write(self.path(), "agent").unwrap();
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// A replica that serves with this identity.
    pub(crate) async fn replica(&self, name: &str) -> Replica {
        self.replica_as(name, &Request::control_plane(name)).await
    }

    pub(crate) async fn replica_as(&self, name: &str, who: &Request) -> Replica {
        let leaf = self.authority.issue(who).unwrap();
        let (certificate, key) = leaf.write(self.path(), name).unwrap();
        let files = tls::Files {
            certificate,
            key,
            ca: self.path().join("ca.pem"),
        };
        Replica::start(files).await
    }

    /// Starts the agent.
    pub(crate) fn start(&mut self, replicas: &[&Replica]) {
        self.start_on(replicas, "simulated: {file: cluster.json}");
    }

    /// The same on this cluster.
    pub(crate) fn start_on(&mut self, replicas: &[&Replica], cluster: &str) {
        let endpoints: Vec<String> = replicas
            .iter()
            .map(|replica| format!("\"localhost:{}\"", replica.address.port()))
            .collect();
        let text = format!(
            "target: {TARGET}
labels: {{env: prod}}
controlPlane: {{endpoints: [{}]}}
trustDomain: {TRUST_DOMAIN}
tls: {{certificate: agent.crt, key: agent.key, ca: ca.pem}}
cluster: {{{cluster}}}
data: data
",
            endpoints.join(", ")
        );
        let file = self.path().join("agent.yaml");
        std::fs::write(&file, text).unwrap();
        let config = config::load(&file).unwrap();
        let ending = CancellationToken::new();
        let agent = tokio::spawn(run::run(config, ending.clone()));
        self.agent = Some((ending, agent));
    }

    /// Ends the agent as SIGTERM does.
    pub(crate) async fn end(&mut self) {
        let (ending, agent) = self.agent.take().unwrap();
        ending.cancel();
        let ended = tokio::time::timeout(SOON, agent).await;
        ended.expect("the agent ends").unwrap().unwrap();
    }

    pub(crate) fn cluster(&self) -> PathBuf {
        self.path().join("cluster.json")
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        if let Some((_, agent)) = &self.agent {
            agent.abort();
        }
    }
}

/// One replica: hands every stream to the test.
pub(crate) struct Replica {
    pub(crate) address: SocketAddr,
    sessions: mpsc::Receiver<Session>,
    pub(crate) lines: mpsc::Receiver<Streaming<LogsRequest>>,
    server: JoinHandle<()>,
}

struct Service {
    sessions: mpsc::Sender<Session>,
    lines: mpsc::Sender<Streaming<LogsRequest>>,
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: tonic::Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let who = match request.extensions().get::<Peer>() {
            Some(Peer(Ok(identity))) => identity.to_string(),
            other => format!("{other:?}"),
        };
        let (outgoing, responses) = mpsc::channel(64);
        let session = Session {
            who,
            incoming: request.into_inner(),
            outgoing,
            fence: Fence {
                incarnation: 1,
                epoch: 1,
            },
        };
        let _ = self.sessions.send(session).await;
        Ok(Response::new(ReceiverStream::new(responses)))
    }

    type LogsStream = tokio_stream::Empty<Result<LogsResponse, Status>>;

    async fn logs(
        &self,
        request: tonic::Request<Streaming<LogsRequest>>,
    ) -> Result<Response<Self::LogsStream>, Status> {
        let _ = self.lines.send(request.into_inner()).await;
        std::future::pending().await
    }
}

impl Replica {
    async fn start(files: tls::Files) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let incoming = tls::accept(listener, files, TRUST_DOMAIN.to_owned()).unwrap();
        let (sender, sessions) = mpsc::channel(8);
        let (lines_sender, lines) = mpsc::channel(8);
        let service = Service {
            sessions: sender,
            lines: lines_sender,
        };
        let server = tonic::transport::Server::builder()
            .add_service(AgentServiceServer::new(service))
            .serve_with_incoming(incoming);
        let server = tokio::spawn(async move { server.await.unwrap() });
        Self {
            address,
            sessions,
            lines,
            server,
        }
    }

    /// The next stream that an agent opens, before anything is read of it.
    pub(crate) async fn stream(&mut self) -> Session {
        let next = tokio::time::timeout(SOON, self.sessions.recv()).await;
        next.expect("a stream").unwrap()
    }

    /// The next stream, registered.
    pub(crate) async fn session(&mut self) -> (Session, v1::Register) {
        let mut session = self.stream().await;
        let register = session.register().await;
        session.registered().await;
        (session, register)
    }

    /// No stream is opened here for a while.
    pub(crate) async fn is_left_alone(&mut self) -> bool {
        let next = tokio::time::timeout(Duration::from_millis(700), self.sessions.recv()).await;
        next.is_err()
    }
}

impl Drop for Replica {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// One stream.
pub(crate) struct Session {
    /// By its certificate.
    pub(crate) who: String,
    incoming: Streaming<SessionRequest>,
    outgoing: mpsc::Sender<Result<SessionResponse, Status>>,
    /// What frames carry.
    pub(crate) fence: Fence,
}

impl Session {
    pub(crate) async fn register(&mut self) -> v1::Register {
        match self.next().await {
            In::Register(register) => *register,
            other => panic!("{other:?}"),
        }
    }

    pub(crate) async fn registered(&self) {
        self.send(Out::Registered(v1::Registered {
            generation: 1,
            replica: "scripted".into(),
        }))
        .await;
    }

    pub(crate) async fn send(&self, message: Out) {
        let frame = SessionResponse {
            fence: Some(fence(self.fence)),
            store_revision: 7,
            message: Some(message),
        };
        self.outgoing.send(Ok(frame)).await.unwrap();
    }

    /// Ends the stream from this side.
    pub(crate) async fn close(self, why: &str) {
        let _ = self.outgoing.send(Err(Status::unavailable(why))).await;
    }

    /// The next frame.
    pub(crate) async fn next(&mut self) -> In {
        self.maybe_next().await.expect("a frame")
    }

    /// The next frame; none when the agent has ended the stream.
    pub(crate) async fn maybe_next(&mut self) -> Option<In> {
        let frame = tokio::time::timeout(SOON, self.incoming.message()).await;
        match frame.expect("a frame within its time") {
            Ok(frame) => frame.map(|frame| frame.message.expect("a message")),
            Err(_) => None,
        }
    }

    /// The next frame that is wanted; the others are left unanswered.
    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(In) -> Option<T>) -> T {
        loop {
            if let Some(found) = wanted(self.next().await) {
                return found;
            }
        }
    }

    /// Answers the next request for a permit.
    pub(crate) async fn grant(&mut self, length: Duration) {
        let request = self.permit_request().await;
        self.permit(request, length).await;
    }

    pub(crate) async fn permit_request(&mut self) -> u64 {
        self.find(|frame| match frame {
            In::PermitRequest(request) => Some(request.sent_boot_ms),
            _ => None,
        })
        .await
    }

    pub(crate) async fn permit(&self, sent_boot_ms: u64, length: Duration) {
        self.send(Out::Permit(v1::Permit {
            sent_boot_ms,
            duration_ms: u64::try_from(length.as_millis()).unwrap(),
            refusal: String::new(),
        }))
        .await;
    }

    /// The next report that is wanted, with its frame.
    pub(crate) async fn report(
        &mut self,
        wanted: impl Fn(&Report) -> bool,
    ) -> (v1::ReportFrame, Report) {
        self.find(|frame| match frame {
            In::Report(frame) => {
                let report: Report = parse(frame.report.as_ref(), "report").unwrap();
                wanted(&report).then_some((frame, report))
            }
            _ => None,
        })
        .await
    }

    pub(crate) async fn acknowledge(&self, frame: &v1::ReportFrame, ended: bool) {
        self.send(Out::Acknowledge(v1::Acknowledge {
            job: frame.job.clone(),
            attempt: frame.attempt,
            sequence: frame.sequence,
            ended,
        }))
        .await;
    }

    pub(crate) async fn ask(&mut self, question: &Question) -> Answer {
        self.send(Out::Ask(v1::Ask {
            id: 5,
            timeout_ms: 5000,
            question: Some(document(question)),
            trace: String::new(),
        }))
        .await;
        self.find(|frame| match frame {
            In::Answer(v1::Answer {
                id: 5,
                result: Some(v1::answer::Result::Answer(answer)),
            }) => Some(parse(Some(&answer), "answer").unwrap()),
            In::Answer(other) => panic!("{other:?}"),
            _ => None,
        })
        .await
    }

    /// The attempt of a change of `shop/checkout` to `image`, as a leader would commit it.
    pub(crate) async fn assignment(&mut self, register: &v1::Register, image: &str) -> Assignment {
        let planning = planning(image);
        let question = Question::Plan(Box::new(planning.clone()));
        let part: TargetPart = match self.ask(&question).await {
            Answer::Plan(part) => *part,
            other => panic!("{other:?}"),
        };
        let steps = planning.body.spec.steps.iter().map(|step| SegmentStep {
            part: StepPart::Main,
            step: step.clone(),
        });
        Assignment {
            format: Assignment::FORMAT,
            order: Order {
                job: "j-1".into(),
                target: planning.target.clone(),
                attempt: Attempt(1),
                fence: self.fence,
                journal: JournalId::new(register.journal_id.clone()),
                direction: Direction::Forward,
                segment: 0,
                wanted: Wanted::Go,
            },
            runbook: planning.runbook.clone(),
            plan_digest: Digest::new("d"),
            params: json!({}),
            labels: BTreeMap::new(),
            part,
            steps: steps.collect(),
            known: BTreeMap::new(),
            trace: None,
        }
    }

    pub(crate) async fn order(&self, assignment: &Assignment) {
        self.send(Out::Order(v1::OrderFrame {
            assignment: Some(document(assignment)),
        }))
        .await;
    }
}

pub(crate) fn is_end(report: &Report) -> bool {
    matches!(report, Report::Ended { .. })
}

fn planning(image: &str) -> Planning {
    let body: Runbook = serde_json::from_value(json!({
        "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"},
        "spec": {"steps": [
            {"id": "set", "use": "kube.set-image", "with": {"deployment": "checkout", "namespace": "shop", "image": image}},
        ]},
    }))
    .unwrap();
    Planning {
        runbook: RunbookRef {
            name: "r".into(),
            version: 1,
            digest: Digest::new("d"),
        },
        body,
        params: json!({}),
        target: TARGET.parse().unwrap(),
        labels: BTreeMap::new(),
    }
}
