//! `http.probe`: sends requests to a service and counts those that fail.
//!
//! Each sample has a connection of its own: one that is kept alive goes to one pod for ever and passes while the others
//! fail. Through the API server the ready pods of the Service are asked in turn, so no network between agent and pods is
//! needed. What the service does wrong is a failed sample; what keeps us from asking is no sample at all, and then the
//! probe as a whole says nothing.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::action::Action;
use aldis_core::action::inputs::{HttpProbe, Via};
use aldis_core::outcome::Failure;
use bytes::Bytes;
use futures::{StreamExt, stream};
use http::{Request, Uri, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Portforwarder};
use serde_json::{Value, json};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::Instant;

use super::super::{Progress, Trouble};
use super::Cluster;
use super::deployment::text;
use super::error::{Error, chain};
use super::paths::{POD, Resource, resource};
use super::rights::{Right, Use, right};
use super::server::{Deadline, Shape};

pub(super) const SERVICE: Resource = resource("Service", "/api/v1", "services");
const SLICE: Resource = resource(
    "EndpointSlice",
    "/apis/discovery.k8s.io/v1",
    "endpointslices",
);

/// Samples under way at a time: enough that twenty slow ones end in time, few enough not to be load.
const AT_ONCE: usize = 4;

/// More samples than this are a load test.
const MOST_SAMPLES: u32 = 1000;

/// Read of a body before it is let go. A health answer is short; a page that is not may be cut.
const MOST_BODY: usize = 256 * 1024;

/// Kinds of errors told in one line.
const MOST_KINDS: usize = 4;

/// Where one sample goes.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Backend {
    /// A port of a pod, by way of the API server.
    Pod { name: String, port: u16 },
    /// Host and port.
    Address(String),
}

/// What became of one sample.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Sample {
    took: Duration,
    /// What went wrong, in a few words that are the same for the same cause.
    error: Option<String>,
}

/// A port-forward that ends with its sample, also with one that ran out of time: the library's goes on by itself.
struct Forward(Portforwarder);

impl Drop for Forward {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Why a request has no good answer.
#[derive(Debug)]
enum Miss {
    /// The service's fault.
    Service(String),
    /// Nobody's who serves: it could not be asked.
    Unread(Error),
}

const READ: &[Use] = &[Use::Plan, Use::Apply];

/// What the action needs; nothing of it where it asks an address directly. To forward a port is `get` by older API
/// servers and `create` by newer ones, which ask for both.
pub(super) const RIGHTS: [Right; 5] = [
    right("get", SERVICE, READ, "to know the ports of the service"),
    right("list", SLICE, READ, "to find the pods behind the service"),
    right("get", POD, &[Use::Apply], FORWARD).on("portforward"),
    right("create", POD, &[Use::Apply], FORWARD).on("portforward"),
    right(
        "list",
        POD,
        &[Use::Apply],
        "to say what ails the pods of a service that fails",
    ),
];

const FORWARD: &str = "to reach the service through the API server";

impl Cluster {
    pub(super) async fn probe(
        &self,
        with: &HttpProbe,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Trouble> {
        let uri = checked(with).map_err(Trouble::refused)?;
        let backends = self.backends(with, deadline).await?;
        if backends.is_empty() {
            let error = "no pod of the service is ready".to_owned();
            progress.say(format!("{}: {error}", service(with)));
            let none = Sample {
                took: Duration::ZERO,
                error: Some(error),
            };
            return Ok(outputs(&vec![none; with.samples as usize]));
        }
        let uri = Arc::new(uri);
        let asked = (0..with.samples as usize).map(|number| {
            let backend = backends[number % backends.len()].clone();
            let uri = Arc::clone(&uri);
            async move { self.sample(with, &backend, &uri, deadline).await }
        });
        let mut samples = Vec::new();
        let mut running = stream::iter(asked).buffer_unordered(AT_ONCE);
        while let Some(sample) = running.next().await {
            samples.push(sample?);
        }
        if let Some(line) = errors(&samples) {
            progress.say(format!("{}: {line}", service(with)));
        }
        Ok(outputs(&samples))
    }

    /// Refuses what could not be probed when its turn comes: a wrong input, a Service or a port that does not exist.
    pub(super) async fn probed(&self, with: &HttpProbe, deadline: Deadline) -> Result<(), Trouble> {
        checked(with).map_err(Trouble::refused)?;
        self.backends(with, deadline).await.map(|_| ())
    }

    /// One request on a connection of its own. A pod that went away meanwhile is asked no more: another one is.
    async fn sample(
        &self,
        with: &HttpProbe,
        backend: &Backend,
        uri: &Uri,
        deadline: Deadline,
    ) -> Result<Sample, Trouble> {
        let time = with.timeout.min(deadline.left());
        if time.is_zero() {
            let cause = format!("the time for the probe of {} is over", service(with));
            return Err(Trouble::refused(Failure::new("timeout", cause)));
        }
        let began = Instant::now();
        let asked = match self.ask(with, backend, uri, time).await {
            Err(Miss::Unread(Error::NotFound)) => {
                let now = self.backends(with, deadline).await?;
                match now.first() {
                    Some(other) => self.ask(with, other, uri, time).await,
                    None => Err(Miss::Service("no pod of the service is ready".to_owned())),
                }
            }
            other => other,
        };
        let took = began.elapsed();
        match asked {
            Ok(()) => Ok(Sample { took, error: None }),
            Err(Miss::Service(error)) => Ok(Sample {
                took,
                error: Some(error),
            }),
            Err(Miss::Unread(error)) => {
                Err(error.reading(&format!("reach a pod of {}", service(with))))
            }
        }
    }

    async fn ask(
        &self,
        with: &HttpProbe,
        backend: &Backend,
        uri: &Uri,
        time: Duration,
    ) -> Result<(), Miss> {
        let exchange = async {
            match backend {
                Backend::Pod { name, port } => self.through(with, name, *port, uri).await,
                Backend::Address(address) => {
                    let stream = TcpStream::connect(address)
                        .await
                        .map_err(|error| Miss::Service(format!("connect: {}", error.kind())))?;
                    exchange(stream, uri, address, with.expect_status)
                        .await
                        .map_err(Miss::Service)
                }
            }
        };
        match tokio::time::timeout(time, exchange).await {
            Ok(answered) => answered,
            Err(_) => Err(Miss::Service(format!(
                "no answer within {} ms",
                with.timeout.as_millis()
            ))),
        }
    }

    /// By a port-forward of its own, which ends with the sample.
    async fn through(&self, with: &HttpProbe, pod: &str, port: u16, uri: &Uri) -> Result<(), Miss> {
        let pods: Api<Pod> = Api::namespaced(self.server.client.clone(), &with.namespace);
        let mut forward = Forward(
            pods.portforward(pod, &[port])
                .await
                .map_err(|error| Miss::Unread(forwarding(&error)))?,
        );
        let refused = forward.0.take_error(port);
        let stream = forward
            .0
            .take_stream(port)
            .ok_or_else(|| Miss::Service("the forwarded port has no stream".to_owned()))?;
        let host = format!("{}.{}", with.service, with.namespace);
        let answered = tokio::select! {
            answered = exchange(stream, uri, &host, with.expect_status) => answered,
            Some(()) = said(refused) => Err("the pod does not accept connections on the port".to_owned()),
        };
        answered.map_err(Miss::Service)
    }

    /// Whom to ask: the ready pods of the Service, or the address that is given.
    async fn backends(
        &self,
        with: &HttpProbe,
        deadline: Deadline,
    ) -> Result<Vec<Backend>, Trouble> {
        if let Via::Direct = with.via {
            let address = with.address.clone().unwrap_or_default();
            return Ok(vec![Backend::Address(address)]);
        }
        let path = SERVICE
            .one(Some(&with.namespace), &with.service)
            .map_err(Trouble::refused)?;
        let what = format!("read {}", service(with));
        let found = self.server.find(&path, Shape::Whole, deadline).await;
        let found = found
            .map_err(|error| error.reading(&what))?
            .ok_or_else(|| Trouble::refused(Error::NotFound.failure(&what)))?;
        let port = port_name(&found, with).map_err(Trouble::refused)?;
        let path = SLICE.all(Some(&with.namespace)).map_err(Trouble::refused)?;
        let params =
            ListParams::default().labels(&format!("kubernetes.io/service-name={}", with.service));
        let slices = self.server.list(&path, &params, Shape::Whole, deadline);
        let slices = slices
            .await
            .map_err(|error| error.reading(&format!("list the endpoints of {}", service(with))))?;
        Ok(ready(&slices, &port))
    }
}

/// Only a message decides; that the channel was closed without one says nothing.
async fn said(refused: Option<impl Future<Output = Option<String>>>) -> Option<()> {
    match refused {
        Some(refused) => match refused.await {
            Some(_) => Some(()),
            None => std::future::pending().await,
        },
        None => std::future::pending().await,
    }
}

/// One request and the end of its answer.
async fn exchange<S>(stream: S, uri: &Uri, host: &str, expected: u16) -> Result<(), String>
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    let (mut sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(stream))
        .await
        .map_err(|error| broken(&error))?;
    let request = Request::get(uri)
        .header(header::HOST, host)
        .header(header::USER_AGENT, "aldis-probe")
        .header(header::CONNECTION, "close")
        .body(Empty::<Bytes>::new())
        .map_err(|_| "the request cannot be built".to_owned())?;
    let conversation = async {
        let answer = sender
            .send_request(request)
            .await
            .map_err(|error| broken(&error))?;
        let status = answer.status().as_u16();
        if status != expected {
            return Err(format!("status {status}"));
        }
        match Limited::new(answer.into_body(), MOST_BODY).collect().await {
            Ok(_) => Ok(()),
            // Longer than we read: it answered.
            Err(error) if error.is::<http_body_util::LengthLimitError>() => Ok(()),
            Err(_) => Err("the answer broke off".to_owned()),
        }
    };
    tokio::pin!(connection, conversation);
    let mut ended = false;
    loop {
        tokio::select! {
            answered = &mut conversation => return answered,
            // What came before the end is still to be read; where nothing did, the conversation says so.
            _ = &mut connection, if !ended => ended = true,
        }
    }
}

fn broken(error: &hyper::Error) -> String {
    if error.is_incomplete_message() || error.is_closed() || error.is_canceled() {
        "the connection was closed without an answer".to_owned()
    } else if error.is_parse() {
        "the answer is no HTTP".to_owned()
    } else {
        "the connection broke".to_owned()
    }
}

/// What an API server says that does not forward.
fn forwarding(error: &kube::Error) -> Error {
    match error {
        kube::Error::Api(status) => {
            let body = serde_json::to_vec(status).unwrap_or_default();
            Error::answered(status.code, &body)
        }
        other => match Error::unanswered(other) {
            Error::NotSent(said) => Error::NotSent(said),
            _ => Error::Unanswered(chain(other)),
        },
    }
}

/// What cannot be asked is told before anything is sent.
fn checked(with: &HttpProbe) -> Result<Uri, Failure> {
    let invalid = |cause: String| Failure::new("invalid", cause);
    if with.samples == 0 || with.samples > MOST_SAMPLES {
        return Err(invalid(format!(
            "`samples` is {}; it must be 1 to {MOST_SAMPLES}",
            with.samples
        )));
    }
    if with.timeout.is_zero() {
        return Err(invalid("`timeout` is zero".to_owned()));
    }
    let address = with.address.as_deref().unwrap_or_default();
    if with.via == Via::Direct && !address.contains(':') {
        return Err(invalid(format!(
            "`via: direct` needs an `address` such as `10.0.0.7:8080`, not `{address}`"
        )));
    }
    let uri = with.path.parse::<Uri>().ok();
    uri.filter(|uri| with.path.starts_with('/') && uri.authority().is_none())
        .ok_or_else(|| invalid(format!("`{}` is not a path such as `/healthz`", with.path)))
}

fn service(with: &HttpProbe) -> String {
    format!("Service {}/{}", with.namespace, with.service)
}

/// The name of the Service's port, by which its endpoints list it; empty where it has none.
fn port_name(found: &Value, with: &HttpProbe) -> Result<String, Failure> {
    let ports = found.pointer("/spec/ports").and_then(Value::as_array);
    let ports: Vec<_> = ports.into_iter().flatten().collect();
    let port = ports.iter().find(|port| port["port"] == with.port);
    if let Some(port) = port {
        return Ok(text(port, "name"));
    }
    let present: Vec<_> = ports.iter().map(|port| port["port"].to_string()).collect();
    let cause = format!("{} has no port {}", service(with), with.port);
    Err(Failure::new("notFound", cause)
        .with_evidence(vec![format!("it has {}", present.join(", "))]))
}

/// Ready pods and the port behind `name`, in the order of their names.
fn ready(slices: &[Value], name: &str) -> Vec<Backend> {
    let mut found = BTreeMap::new();
    for slice in slices {
        let list = |name: &str| {
            slice
                .get(name)
                .and_then(Value::as_array)
                .into_iter()
                .flatten()
        };
        let port = list("ports").find(|port| text(port, "name") == name);
        let port = port.and_then(|port| u16::try_from(port["port"].as_u64()?).ok());
        let Some(port) = port else { continue };
        for endpoint in list("endpoints") {
            // Not said means ready, by the rules of EndpointSlice.
            let ready = endpoint.pointer("/conditions/ready") != Some(&Value::Bool(false));
            let pod = endpoint.get("targetRef").filter(|of| of["kind"] == "Pod");
            if let (true, Some(pod)) = (ready, pod) {
                found.insert(text(pod, "name"), port);
            }
        }
    }
    found
        .into_iter()
        .map(|(name, port)| Backend::Pod { name, port })
        .collect()
}

fn outputs(samples: &[Sample]) -> Value {
    let errors = samples
        .iter()
        .filter(|sample| sample.error.is_some())
        .count();
    let counters = BTreeMap::from([
        ("samples".to_owned(), samples.len() as u64),
        ("errors".to_owned(), errors as u64),
    ]);
    let mut outputs = Action::HttpProbe.outputs_from_counters(&counters);
    outputs["p95Ms"] = json!(percentile(samples, 95));
    outputs
}

/// The nearest rank, in milliseconds.
fn percentile(samples: &[Sample], percent: usize) -> u64 {
    let mut times: Vec<_> = samples.iter().map(|sample| sample.took).collect();
    times.sort_unstable();
    let rank = (times.len() * percent).div_ceil(100).saturating_sub(1);
    times.get(rank).map_or(0, |took| {
        u64::try_from(took.as_millis()).unwrap_or(u64::MAX)
    })
}

/// One line for people; none where all went well.
fn errors(samples: &[Sample]) -> Option<String> {
    let mut counts: BTreeMap<&str, usize> = BTreeMap::new();
    for error in samples.iter().filter_map(|sample| sample.error.as_deref()) {
        *counts.entry(error).or_default() += 1;
    }
    if counts.is_empty() {
        return None;
    }
    let failed: usize = counts.values().sum();
    let mut kinds: Vec<_> = counts.into_iter().collect();
    kinds.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    let kinds: Vec<_> = kinds
        .iter()
        .take(MOST_KINDS)
        .map(|(error, count)| format!("{count} × {error}"))
        .collect();
    Some(format!(
        "{failed} of {} requests failed: {}",
        samples.len(),
        kinds.join(", ")
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    fn with(fields: Value) -> HttpProbe {
        let mut with =
            json!({"service": "checkout", "namespace": "shop", "port": 80, "path": "/healthz"});
        let given = fields.as_object().unwrap().clone();
        with.as_object_mut().unwrap().extend(given);
        serde_json::from_value(with).unwrap()
    }

    fn sample(ms: u64, error: Option<&str>) -> Sample {
        Sample {
            took: Duration::from_millis(ms),
            error: error.map(str::to_owned),
        }
    }

    #[test]
    fn what_cannot_be_asked_is_refused_first() {
        for (fields, word) in [
            (json!({"samples": 0}), "samples"),
            (json!({"samples": 100_000}), "samples"),
            (json!({"timeout": "0s"}), "timeout"),
            (json!({"via": "direct"}), "address"),
            (json!({"path": "healthz"}), "path"),
            (json!({"path": "http://elsewhere/"}), "path"),
            (json!({"path": "/a b"}), "path"),
        ] {
            let failure = checked(&with(fields)).unwrap_err();
            assert!(failure.cause.contains(word), "{failure}");
        }
        assert!(checked(&with(json!({"path": "/healthz?deep=1"}))).is_ok());
    }

    #[test]
    fn the_port_of_a_pod_is_the_one_behind_the_services() {
        let service =
            json!({"spec": {"ports": [{"port": 443, "name": "tls"}, {"port": 80, "name": "web"}]}});
        assert_eq!(port_name(&service, &with(json!({}))).unwrap(), "web");
        let failure = port_name(&service, &with(json!({"port": 81}))).unwrap_err();
        assert_eq!(failure.evidence, ["it has 443, 80"]);
        let slice = json!({
            "ports": [{"name": "web", "port": 8080}, {"name": "tls", "port": 8443}],
            "endpoints": [
                {"targetRef": {"kind": "Pod", "name": "b"}, "conditions": {"ready": true}},
                {"targetRef": {"kind": "Pod", "name": "gone"}, "conditions": {"ready": false}},
                {"targetRef": {"kind": "Pod", "name": "a"}},
                {"addresses": ["10.0.0.1"]},
            ],
        });
        let pod = |name: &str| Backend::Pod {
            name: name.into(),
            port: 8080,
        };
        assert_eq!(ready(&[slice], "web"), [pod("a"), pod("b")]);
    }

    #[test]
    fn counters_rate_and_percentile_follow_from_the_samples() {
        let mut samples: Vec<_> = (1..=19).map(|ms| sample(ms, None)).collect();
        samples.push(sample(900, Some("status 503")));
        let outputs = outputs(&samples);
        assert_eq!(
            (&outputs["samples"], &outputs["errors"]),
            (&json!(20), &json!(1))
        );
        assert_eq!(outputs["errorRate"], 0.05);
        assert_eq!(outputs["ok"], false);
        assert_eq!(outputs["p95Ms"], 19);
        for output in Action::HttpProbe.outputs() {
            assert!(outputs.get(output.name).is_some(), "{}", output.name);
        }
    }

    #[test]
    fn errors_are_told_by_kind() {
        let samples = [
            sample(1, None),
            sample(1, Some("status 503")),
            sample(1, Some("status 503")),
            sample(1, Some("no answer within 5 ms")),
        ];
        assert_eq!(
            errors(&samples).unwrap(),
            "3 of 4 requests failed: 2 × status 503, 1 × no answer within 5 ms"
        );
        assert_eq!(errors(&samples[..1]), None);
    }

    async fn answered(answer: &'static [u8], expected: u16) -> Result<(), String> {
        let (ours, mut theirs) = tokio::io::duplex(4096);
        tokio::spawn(async move {
            let mut request = [0; 1024];
            let _ = theirs.read(&mut request).await;
            let _ = theirs.write_all(answer).await;
        });
        exchange(
            ours,
            &"/healthz".parse().unwrap(),
            "checkout.shop",
            expected,
        )
        .await
    }

    #[tokio::test]
    async fn an_answer_is_good_by_its_status_and_its_end() {
        let ok = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok";
        assert_eq!(answered(ok, 200).await, Ok(()));
        assert_eq!(answered(ok, 204).await, Err("status 200".to_owned()));
        let cut = b"HTTP/1.1 200 OK\r\ncontent-length: 20\r\n\r\nok";
        assert_eq!(
            answered(cut, 200).await,
            Err("the answer broke off".to_owned())
        );
        assert_eq!(
            answered(b"", 200).await,
            Err("the connection was closed without an answer".to_owned())
        );
        assert_eq!(
            answered(b"SSH-2.0-OpenSSH\r\n\r\n", 200).await,
            Err("the answer is no HTTP".to_owned())
        );
    }
}
