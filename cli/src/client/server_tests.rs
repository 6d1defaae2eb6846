//! The client against a server in this process, over real TLS: who is trusted, who is refused, and what
//! an operator is told.

use std::collections::VecDeque;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex};

use aldis_core::ids::JobId;
use aldis_core::job::{JobState, Rest, TargetState};
use aldis_core::view::JobView;
use aldis_proto::convert;
use aldis_proto::v1;
use aldis_proto::v1::fleet_service_server::{FleetService, FleetServiceServer};
use aldis_proto::v1::job_service_server::{JobService, JobServiceServer};
use futures::Stream;
use rcgen::{
    BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair, SanType,
    date_time_ymd,
};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tonic::{Request, Response, Status};

use super::{Client, Trace};
use crate::app::App;
use crate::cli::Global;
use crate::context::{Auth, Context, Server};
use crate::error::Error;
use crate::exit::Exit;
use crate::follow;
use crate::printer::ProgressMode;
use crate::render::sample;

/// An authority and a folder for what it signs.
struct Pki {
    issuer: Issuer<'static, KeyPair>,
    folder: TempDir,
}

struct Pair {
    certificate: PathBuf,
    key: PathBuf,
}

impl Pki {
    fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().unwrap();
        let folder = tempfile::tempdir().unwrap();
        let pem = params.self_signed(&key).unwrap().pem();
        std::fs::write(folder.path().join("ca.pem"), pem).unwrap();
        Self {
            issuer: Issuer::new(params, key),
            folder,
        }
    }

    fn ca(&self) -> PathBuf {
        self.folder.path().join("ca.pem")
    }

    fn issue(&self, name: &str, uri: &str, hosts: &[&str], expired: bool) -> Pair {
        let mut params = CertificateParams::default();
        params.not_before = date_time_ymd(2020, 1, 1);
        params.not_after = date_time_ymd(if expired { 2021 } else { 2090 }, 1, 1);
        params.extended_key_usages = vec![
            ExtendedKeyUsagePurpose::ServerAuth,
            ExtendedKeyUsagePurpose::ClientAuth,
        ];
        params.subject_alt_names = vec![SanType::URI(uri.try_into().unwrap())];
        for host in hosts {
            let host = (*host).try_into().unwrap();
            params.subject_alt_names.push(SanType::DnsName(host));
        }
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let pair = Pair {
            certificate: self.folder.path().join(format!("{name}.pem")),
            key: self.folder.path().join(format!("{name}.key")),
        };
        std::fs::write(&pair.certificate, certificate.pem()).unwrap();
        std::fs::write(&pair.key, key.serialize_pem()).unwrap();
        pair
    }

    fn server(&self) -> Pair {
        let uri = "spiffe://aldis.test/control-plane/cp-1";
        self.issue("server", uri, &["localhost"], false)
    }

    fn user(&self) -> Pair {
        self.issue("mei", "spiffe://aldis.test/user/mei", &[], false)
    }

    fn context(&self, port: u16, user: Option<Pair>) -> Context {
        Context {
            name: "test".into(),
            server: Some(format!("https://localhost:{port}")),
            ca: self.ca(),
            auth: user.map(|pair| Auth {
                cert: pair.certificate,
                key: pair.key,
            }),
            ..Context::default()
        }
    }
}

/// What a server of the tests says.
#[derive(Clone, Default)]
struct Fake {
    /// One list of views for each stream that is opened; a stream breaks after its last view.
    streams: Arc<Mutex<VecDeque<Vec<JobView>>>>,
    /// What each call carried.
    traces: Arc<Mutex<Vec<String>>>,
    /// Submissions that are to be refused as unavailable before one is taken.
    busy: Arc<Mutex<usize>>,
}

impl Fake {
    fn heard<T>(&self, request: &Request<T>) {
        let trace = request.metadata().get("traceparent");
        let trace = trace.map_or("none", |trace| trace.to_str().unwrap());
        self.traces.lock().unwrap().push(trace.to_owned());
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

fn not_here<T>() -> Result<Response<T>, Status> {
    Err(Status::unimplemented("not part of this test"))
}

#[tonic::async_trait]
impl FleetService for Fake {
    async fn list_agents(
        &self,
        _: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let mut status = Status::failed_precondition("the store went back in time");
        let metadata = status.metadata_mut();
        metadata.insert("aldis-exit", "14".parse().unwrap());
        metadata.insert("aldis-hint", "raise the incarnation".parse().unwrap());
        metadata.insert("aldis-request", "r-8f3a".parse().unwrap());
        Err(status)
    }

    async fn get_agent(
        &self,
        _: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        not_here()
    }

    async fn repin_agent(
        &self,
        _: Request<v1::RepinAgentRequest>,
    ) -> Result<Response<v1::RepinAgentResponse>, Status> {
        not_here()
    }

    async fn whoami(
        &self,
        request: Request<v1::WhoamiRequest>,
    ) -> Result<Response<v1::WhoamiResponse>, Status> {
        self.heard(&request);
        Ok(Response::new(v1::WhoamiResponse {
            identity: "user/mei".into(),
            replica: "cp-1".into(),
            version: "0.1.0".into(),
            leader: "cp-1".into(),
        }))
    }
}

#[tonic::async_trait]
impl JobService for Fake {
    type PlanStream = Answers<v1::PlanResponse>;
    type WatchJobStream = Answers<v1::WatchJobResponse>;
    type PlanLinkedStream = Answers<v1::PlanResponse>;
    type JobLogsStream = Answers<v1::JobLogsResponse>;

    async fn plan(
        &self,
        _: Request<v1::PlanRequest>,
    ) -> Result<Response<Self::PlanStream>, Status> {
        not_here()
    }

    async fn get_plan(
        &self,
        _: Request<v1::GetPlanRequest>,
    ) -> Result<Response<v1::GetPlanResponse>, Status> {
        not_here()
    }

    async fn submit(
        &self,
        request: Request<v1::SubmitRequest>,
    ) -> Result<Response<v1::SubmitResponse>, Status> {
        self.heard(&request);
        let mut busy = self.busy.lock().unwrap();
        if *busy > 0 {
            *busy -= 1;
            return Err(Status::unavailable("no fresh view"));
        }
        Ok(Response::new(v1::SubmitResponse {
            job: format!("j-{}", request.into_inner().plan),
            existed: false,
        }))
    }

    async fn get_job(
        &self,
        _: Request<v1::GetJobRequest>,
    ) -> Result<Response<v1::GetJobResponse>, Status> {
        not_here()
    }

    async fn list_jobs(
        &self,
        _: Request<v1::ListJobsRequest>,
    ) -> Result<Response<v1::ListJobsResponse>, Status> {
        not_here()
    }

    async fn watch_job(
        &self,
        request: Request<v1::WatchJobRequest>,
    ) -> Result<Response<Self::WatchJobStream>, Status> {
        self.heard(&request);
        let views = self.streams.lock().unwrap().pop_front();
        let views = views.ok_or_else(|| Status::not_found("no such job"))?;
        let mut answers: Vec<_> = views
            .iter()
            .map(|view| {
                let job = Some(convert::document(view));
                Ok(v1::WatchJobResponse { job })
            })
            .collect();
        answers.push(Err(Status::unavailable("this replica goes away")));
        Ok(Response::new(Box::pin(futures::stream::iter(answers))))
    }

    async fn request_job(
        &self,
        _: Request<v1::RequestJobRequest>,
    ) -> Result<Response<v1::RequestJobResponse>, Status> {
        not_here()
    }

    async fn plan_linked(
        &self,
        _: Request<v1::PlanLinkedRequest>,
    ) -> Result<Response<Self::PlanLinkedStream>, Status> {
        not_here()
    }

    async fn job_logs(
        &self,
        _: Request<v1::JobLogsRequest>,
    ) -> Result<Response<Self::JobLogsStream>, Status> {
        not_here()
    }
}

/// Serves on a free port, as a control plane with these certificates would.
async fn serve(fake: Fake, server: &Pair, clients: &Path) -> u16 {
    let mut roots = RootCertStore::empty();
    roots
        .add(CertificateDer::from_pem_file(clients).unwrap())
        .unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider.clone())
        .build()
        .unwrap();
    let mut config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_client_cert_verifier(verifier)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&server.certificate).unwrap()],
            PrivateKeyDer::from_pem_file(&server.key).unwrap(),
        )
        .unwrap();
    config.alpn_protocols = vec![b"h2".to_vec()];
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let connections = futures::stream::unfold((listener, acceptor), |(listener, acceptor)| async {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            // A refused handshake is the client's to explain.
            if let Ok(stream) = acceptor.accept(stream).await {
                return Some((Ok::<_, std::io::Error>(stream), (listener, acceptor)));
            }
        }
    });
    tokio::spawn(
        tonic::transport::Server::builder()
            .add_service(FleetServiceServer::new(fake.clone()))
            .add_service(JobServiceServer::new(fake))
            .serve_with_incoming(connections),
    );
    port
}

fn client(context: &Context) -> Result<Client, Error> {
    Client::new(context, &[], Trace::draw())
}

async fn refusal(context: &Context) -> Error {
    match client(context) {
        Err(error) => error,
        Ok(client) => client.whoami().await.unwrap_err(),
    }
}

#[tokio::test]
async fn a_known_user_is_served_and_every_call_is_traced() {
    let pki = Pki::new();
    let fake = Fake::default();
    let port = serve(fake.clone(), &pki.server(), &pki.ca()).await;
    let client = client(&pki.context(port, Some(pki.user()))).unwrap();
    assert_eq!(client.whoami().await.unwrap().identity, "user/mei");
    let traces = fake.traces.lock().unwrap();
    assert!(traces[0].contains(client.trace.id()), "{traces:?}");
}

#[tokio::test]
async fn without_a_certificate_the_context_is_named() {
    let pki = Pki::new();
    let port = serve(Fake::default(), &pki.server(), &pki.ca()).await;
    let error = refusal(&pki.context(port, None)).await;
    assert_eq!(error.exit, Exit::NotAllowed);
    assert!(
        error
            .message
            .contains("wants a client certificate, and context `test` has none"),
        "{error}"
    );
}

#[tokio::test]
async fn a_certificate_of_another_authority_is_refused_by_the_server() {
    let (pki, other) = (Pki::new(), Pki::new());
    let port = serve(Fake::default(), &pki.server(), &pki.ca()).await;
    let error = refusal(&pki.context(port, Some(other.user()))).await;
    assert_eq!(error.exit, Exit::NotAllowed, "{error}");
    assert!(error.message.contains("mei.pem"), "{error}");
}

#[tokio::test]
async fn an_expired_certificate_is_known_before_the_server_is_asked() {
    let pki = Pki::new();
    let expired = pki.issue("old", "spiffe://aldis.test/user/mei", &[], true);
    let error = refusal(&pki.context(1, Some(expired))).await;
    assert_eq!(error.exit, Exit::NotAllowed);
    assert!(error.message.contains("old.pem` expired on"), "{error}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_trusted() {
    let (pki, other) = (Pki::new(), Pki::new());
    let port = serve(Fake::default(), &other.server(), &pki.ca()).await;
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert_eq!(error.exit, Exit::Unreachable);
    assert!(
        error
            .message
            .contains("not signed by the CA of context `test`"),
        "{error}"
    );
}

#[tokio::test]
async fn a_server_of_another_name_says_which_names_it_has() {
    let pki = Pki::new();
    let uri = "spiffe://aldis.test/control-plane/cp-1";
    let server = pki.issue("server", uri, &["cp-1.example"], false);
    let port = serve(Fake::default(), &server, &pki.ca()).await;
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert!(error.message.contains("cp-1.example"), "{error}");
}

#[tokio::test]
async fn an_agents_certificate_makes_no_control_plane() {
    let pki = Pki::new();
    let uri = "spiffe://aldis.test/agent/eu/prod-1/e1";
    let server = pki.issue("server", uri, &["localhost"], false);
    let port = serve(Fake::default(), &server, &pki.ca()).await;
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert_eq!(error.exit, Exit::Unreachable);
    assert!(error.message.contains("it is no control plane"), "{error}");
    assert!(error.message.contains(uri), "{error}");
}

#[tokio::test]
async fn an_expired_server_is_said_to_be_expired() {
    let pki = Pki::new();
    let uri = "spiffe://aldis.test/control-plane/cp-1";
    let server = pki.issue("server", uri, &["localhost"], true);
    let port = serve(Fake::default(), &server, &pki.ca()).await;
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert!(
        error.message.contains("its certificate has expired"),
        "{error}"
    );
}

/// A port that nobody listens on.
async fn closed() -> u16 {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    listener.local_addr().unwrap().port()
}

#[tokio::test]
async fn a_replica_that_is_down_is_passed_over() {
    let pki = Pki::new();
    let port = serve(Fake::default(), &pki.server(), &pki.ca()).await;
    let context = pki.context(port, Some(pki.user()));
    let servers = [closed().await, port].map(|port| Server {
        host: "localhost".into(),
        port,
    });
    let client = Client::new(&context, &servers, Trace::draw()).unwrap();
    assert_eq!(client.whoami().await.unwrap().replica, "cp-1");
}

#[tokio::test]
async fn where_nobody_listens_the_address_is_named() {
    let pki = Pki::new();
    let port = closed().await;
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert_eq!(error.exit, Exit::Unreachable);
    let wanted = format!("cannot reach https://localhost:{port}: connection refused");
    assert_eq!(error.message, wanted);
}

#[tokio::test]
async fn what_does_not_speak_tls_is_said_not_to() {
    let pki = Pki::new();
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let answer = b"HTTP/1.1 400 Bad Request\r\n\r\n";
            let _ = tokio::io::AsyncWriteExt::write_all(&mut stream, answer).await;
        }
    });
    let error = refusal(&pki.context(port, Some(pki.user()))).await;
    assert!(error.message.contains("does not speak TLS"), "{error}");
}

#[tokio::test]
async fn the_servers_word_on_exit_and_hint_comes_through() {
    let pki = Pki::new();
    let port = serve(Fake::default(), &pki.server(), &pki.ca()).await;
    let client = client(&pki.context(port, Some(pki.user()))).unwrap();
    let error = client.agents(&Default::default(), "").await.unwrap_err();
    assert_eq!(error.exit, Exit::NeedsOperator);
    assert_eq!(error.hint.as_deref(), Some("raise the incarnation"));
    assert_eq!(error.request.as_deref(), Some("r-8f3a"));
}

#[tokio::test]
async fn a_submission_is_made_again_while_a_replica_is_busy() {
    let pki = Pki::new();
    let fake = Fake::default();
    *fake.busy.lock().unwrap() = 2;
    let port = serve(fake.clone(), &pki.server(), &pki.ca()).await;
    let client = client(&pki.context(port, Some(pki.user()))).unwrap();
    let submission = super::Submission {
        plan: aldis_core::ids::PlanId::new("p-1"),
        digest: aldis_core::ids::Digest::new("d"),
        key: None,
        reason: String::new(),
        priority: 0,
    };
    let (job, existed) = client.submit(&submission).await.unwrap();
    assert_eq!((job.as_str(), existed), ("j-p-1", false));
    assert_eq!(fake.traces.lock().unwrap().len(), 3);
}

fn views() -> [JobView; 3] {
    let mut job = sample::job(sample::plan(&["eu-west/prod-1"]));
    let first = sample::view(&job, &[], 0);
    sample::put(
        &mut job,
        "eu-west/prod-1",
        TargetState::Running { segment: 0 },
    );
    let second = sample::view(&job, &[], 1);
    sample::put(&mut job, "eu-west/prod-1", TargetState::Rest(Rest::Changed));
    job.header.state = JobState::Succeeded;
    [first, second, sample::view(&job, &[], 2)]
}

#[tokio::test]
async fn a_watch_goes_on_over_streams_that_break() {
    let pki = Pki::new();
    let fake = Fake::default();
    let [first, second, last] = views();
    *fake.streams.lock().unwrap() = [vec![first], vec![second.clone()], vec![second, last]].into();
    let port = serve(fake.clone(), &pki.server(), &pki.ca()).await;
    let client = client(&pki.context(port, Some(pki.user()))).unwrap();
    let app = App::new(Global::default());
    let ended = |view: &JobView| view.exit_code.is_some();
    let view = follow::until(
        &app,
        &client,
        &JobId::from("j-1"),
        ProgressMode::Quiet,
        ended,
    )
    .await
    .unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(fake.traces.lock().unwrap().len(), 3);
}

#[tokio::test]
async fn a_watch_of_a_job_that_is_gone_ends() {
    let pki = Pki::new();
    let port = serve(Fake::default(), &pki.server(), &pki.ca()).await;
    let client = client(&pki.context(port, Some(pki.user()))).unwrap();
    let app = App::new(Global::default());
    let job = JobId::from("j-1");
    let error = follow::until(&app, &client, &job, ProgressMode::Quiet, |_| true).await;
    assert_eq!(error.unwrap_err().message, "no such job");
}
