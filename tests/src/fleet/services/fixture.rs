//! A service of somebody else's, played: answers of its shape over TLS, for who has the token, and failures on
//! demand. What it says of itself names it a fixture, so that nobody takes a test for the real thing.
//!
//! Answers are documents in `fixtures/`, written by hand after the shapes that the services document; they
//! were not recorded from a live account. They tell one story: `v1.41.0` was good, `v1.42.0` is not.

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
pub(super) struct Shape {
    /// What it calls itself, in the header `server`.
    pub(super) server: &'static str,
    /// First part of its variables, see the table of [`super`].
    pub(super) variable: &'static str,
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

/// A running fixture. Ends when dropped.
pub struct Fixture {
    port: u16,
    shared: Arc<Shared>,
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    shape: Shape,
    token: Secret,
    fault: Mutex<Option<Fault>>,
    asked: Mutex<Vec<String>>,
}

impl Fixture {
    pub(super) async fn start(place: &Place, name: &str, shape: Shape) -> anyhow::Result<Self> {
        let port = ports::free()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await;
        let listener = listener.with_context(|| format!("listen as {}", shape.server))?;
        let acceptor = acceptor(&place.identity(name)?)?;
        let shared = Arc::new(Shared {
            shape,
            token: place.password(name)?,
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
        let variable = self.shared.shape.variable;
        let url = format!("https://{address}:{}", self.port);
        let token = self.token().expose().to_owned();
        vec![
            (format!("{variable}_URL"), url),
            (format!("{variable}_TOKEN"), token),
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
    let server = shared.shape.server;
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
        match (self.shape.answer)(path, query) {
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
                for (name, value) in self.shape.too_many {
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
        self.say(status, Some(&(self.shape.refusal)(refusal)))
    }

    fn say(&self, status: StatusCode, document: Option<&Value>) -> Response<Full<Bytes>> {
        let body = document.map(Value::to_string).unwrap_or_default();
        Response::builder()
            .status(status)
            .header(SERVER, self.shape.server)
            .header("content-type", "application/json; charset=utf-8")
            .body(Full::new(body.into()))
            .expect("its parts are valid")
    }
}

/// A document that ships with the tests.
pub(super) fn document(text: &str) -> Value {
    serde_json::from_str(text).expect("read by a test of each fixture")
}
