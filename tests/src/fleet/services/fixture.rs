//! A service of somebody else's, played: answers of its shape over TLS, for who has the token, and failures on
//! demand. What it says of itself names it a fixture, so that nobody takes a test for the real thing.
//!
//! Answers are documents in `fixtures/`, written by hand: nobody recorded them from a live account. What they are held
//! to by tests was recorded, by others: `fixtures/SERVICE/shapes.json` has the fields and types of real answers and says
//! where each was seen (see [`super::shapes`]; of Sentry's `events-stats` no recording was found, and that is said there).
//! They tell one story: `v1.41.0` was good, `v1.42.0` is not.

use std::convert::Infallible;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::Context;
use http::header::{AUTHORIZATION, HeaderName, RETRY_AFTER, SERVER};
use http::{Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde_json::Value;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::place::{Identity, Place};
use super::secret::Secret;
use crate::fleet::ports;

/// How a fixture fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// 403: the token may not, as both services say it.
    Forbidden,
    /// 429: asked too often, with the seconds after which to ask again.
    TooMany {
        /// Those seconds.
        retry_after_s: u32,
    },
    /// 500 to 599, with no document at all.
    Broken(StatusCode),
}

/// How one service speaks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Whose place it takes.
    pub(super) name: &'static str,
    /// The document at a path with a query, where there is one.
    pub(super) answer: fn(&str, &str) -> Option<Value>,
    /// The document of a refusal.
    pub(super) refusal: fn(Refusal) -> Value,
    /// Headers of a refusal for too many requests, beside `retry-after`.
    pub(super) too_many: &'static [(&'static str, &'static str)],
}

/// Why a request is refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Refusal {
    NoToken,
    WrongToken,
    Forbidden,
    TooMany,
    NotFound,
}

impl Manner {
    /// What the fixture calls itself, in the header `server`.
    fn server(self) -> String {
        format!("{}-fixture", self.name)
    }
}

/// A running fixture. Ends when dropped.
pub struct Fixture {
    port: u16,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    manner: Manner,
    token: Secret,
    fault: Mutex<Option<Fault>>,
    asked: Mutex<Vec<String>>,
}

impl Fixture {
    pub(super) async fn start(place: &Place, manner: Manner) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("listen as {}", manner.server()))?;
        let acceptor = acceptor(&place.identity(manner.name)?)?;
        let shared = Arc::new(Shared {
            manner,
            token: place.password(manner.name)?,
            fault: Mutex::default(),
            asked: Mutex::default(),
        });
        let task = tokio::spawn(accept(listener, acceptor, Arc::clone(&shared)));
        Ok(Self {
            port,
            shared,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// The token it wants.
    pub fn token(&self) -> &Secret {
        &self.shared.token
    }

    /// What it does to every request from here on; `None` heals it.
    pub fn fail(&self, fault: Option<Fault>) {
        *self
            .shared
            .fault
            .lock()
            .unwrap_or_else(PoisonError::into_inner) = fault;
    }

    /// Every path that it was asked for, refused or not.
    pub fn asked(&self) -> Vec<String> {
        let asked = self.shared.asked.lock();
        asked.unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(super) fn environment(&self, address: IpAddr) -> Vec<(String, String)> {
        let service = self.shared.manner.name.to_uppercase();
        let url = format!("https://{address}:{}", self.port);
        let token = self.token().expose().to_owned();
        vec![
            (format!("ALDIS_{service}_FIXTURE_URL"), url),
            (format!("ALDIS_{service}_FIXTURE_TOKEN"), token),
        ]
    }
}

fn acceptor(identity: &Identity) -> anyhow::Result<TlsAcceptor> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_no_client_auth()
        .with_single_cert(
            vec![CertificateDer::from_pem_file(&identity.certificate)?],
            PrivateKeyDer::from_pem_file(&identity.key)?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connections live in the set, so they end when the server does.
async fn accept(listener: TcpListener, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let (acceptor, shared) = (acceptor.clone(), Arc::clone(&shared));
                    connections.spawn(serve(stream, acceptor, shared));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn serve(stream: TcpStream, acceptor: TlsAcceptor, shared: Arc<Shared>) {
    let server = shared.manner.server();
    let service = service_fn(move |request: Request<Incoming>| {
        let response = shared.respond(&request);
        async move { Ok::<_, Infallible>(response) }
    });
    let serving = async {
        let stream = acceptor.accept(stream).await?;
        let connection = hyper::server::conn::http1::Builder::new();
        connection
            .serve_connection(TokioIo::new(stream), service)
            .await?;
        anyhow::Ok(())
    };
    if let Err(error) = serving.await {
        tracing::debug!("{server}: {error:#}");
    }
}

impl Shared {
    fn respond<B>(&self, request: &Request<B>) -> Response<Full<Bytes>> {
        let (path, query) = (
            request.uri().path(),
            request.uri().query().unwrap_or_default(),
        );
        let asked = self.asked.lock();
        asked
            .unwrap_or_else(PoisonError::into_inner)
            .push(path.to_owned());
        let fault = *self.fault.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(fault) = fault {
            return self.failing(fault);
        }
        if let Some(refusal) = self.refusal(request) {
            return self.refuse(refusal);
        }
        match (self.manner.answer)(path, query) {
            Some(document) => self.say(StatusCode::OK, Some(&document)),
            None => self.refuse(Refusal::NotFound),
        }
    }

    fn refusal<B>(&self, request: &Request<B>) -> Option<Refusal> {
        let said = request.headers().get(AUTHORIZATION);
        let token = said.and_then(|said| said.to_str().ok()?.strip_prefix("Bearer "));
        match token {
            None => Some(Refusal::NoToken),
            Some(token) if token != self.token.expose() => Some(Refusal::WrongToken),
            Some(_) => None,
        }
    }

    fn failing(&self, fault: Fault) -> Response<Full<Bytes>> {
        match fault {
            Fault::Forbidden => self.refuse(Refusal::Forbidden),
            Fault::Broken(status) => self.say(status, None),
            Fault::TooMany { retry_after_s } => {
                let mut response = self.refuse(Refusal::TooMany);
                let headers = response.headers_mut();
                headers.insert(RETRY_AFTER, retry_after_s.into());
                for (name, value) in self.manner.too_many {
                    headers.insert(
                        HeaderName::from_static(name),
                        value.parse().expect("is ASCII"),
                    );
                }
                response
            }
        }
    }

    fn refuse(&self, refusal: Refusal) -> Response<Full<Bytes>> {
        let status = match refusal {
            Refusal::NoToken | Refusal::WrongToken => StatusCode::UNAUTHORIZED,
            Refusal::Forbidden => StatusCode::FORBIDDEN,
            Refusal::TooMany => StatusCode::TOO_MANY_REQUESTS,
            Refusal::NotFound => StatusCode::NOT_FOUND,
        };
        self.say(status, Some(&(self.manner.refusal)(refusal)))
    }

    fn say(&self, status: StatusCode, document: Option<&Value>) -> Response<Full<Bytes>> {
        let body = document.map(Value::to_string).unwrap_or_default();
        Response::builder()
            .status(status)
            .header(SERVER, self.manner.server())
            .header("content-type", "application/json; charset=utf-8")
            .body(Full::new(body.into()))
            .expect("its parts are valid")
    }
}

/// A document that ships with the tests. A text such as `@ana` stands for a part of that name, which many share.
pub(super) fn document(text: &str, parts: &str) -> Value {
    let read = |text| serde_json::from_str(text).expect("read by a test of each fixture");
    filled(read(text), &read(parts))
}

fn filled(document: Value, parts: &Value) -> Value {
    match document {
        Value::String(text) => match parts.get(&text) {
            Some(part) => filled(part.clone(), parts),
            None => Value::String(text),
        },
        Value::Array(all) => all.into_iter().map(|one| filled(one, parts)).collect(),
        Value::Object(all) => {
            let fields = all.into_iter();
            fields
                .map(|(name, one)| (name, filled(one, parts)))
                .collect()
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => document,
    }
}

/// What a query says of a name.
pub(super) fn parameter<'a>(query: &'a str, name: &str) -> Option<&'a str> {
    let mut said = query.split('&').filter_map(|part| part.split_once('='));
    said.find(|(one, _)| *one == name).map(|(_, value)| value)
}

/// Those of a list that have a value.
pub(super) fn with(list: Value, key: &str, value: &str) -> Vec<Value> {
    let Value::Array(mut all) = list else {
        return Vec::new();
    };
    all.retain(|one| one[key] == value);
    all
}

/// The first of them.
pub(super) fn found(list: Value, key: &str, value: &str) -> Option<Value> {
    with(list, key, value).into_iter().next()
}
