//! Which path says what.
//!
//! | path | says | a bad release |
//! |---|---|---|
//! | `/livez` | the process runs | is honest |
//! | `/readyz` | it may be given requests | `unready` and `flapping` fail it |
//! | `/metrics` | what Prometheus reads | is honest |
//! | `/healthz` | how a customer would find it | `unready`, `flapping`, `failing` and `slow` show |
//! | `/version` | its release | `failing` and `slow` show |
//! | `/db` | how often Postgres saw this pod, or 503 and why not | the same |
//! | `/session` | the hash of its session secret | the same |
//! | any other | which pod answers | the same |
//!
//! Liveness and readiness are apart from health: a release that fails its customers is not restarted for it, which is
//! what makes it hard to find.

use std::sync::atomic::{AtomicU64, Ordering};

use http::header::{CONNECTION, CONTENT_TYPE};
use http::request::Parts;
use http::{HeaderValue, Method, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Bytes;
use serde_json::json;
use tokio::time::Instant;

use crate::database::Database;
use crate::logs::{Answered, Requests};
use crate::metrics::{self, Metrics};
use crate::phase::{self, Phase};
use crate::release::{Behaviour, is_of_customers};
use crate::session::Session;

/// The header of each answer that names the release.
pub const RELEASE_HEADER: &str = "x-shop-release";

/// The header of each answer that names the pod.
pub const POD_HEADER: &str = "x-shop-pod";

/// All that answers are made of.
pub(crate) struct Shop {
    pub(crate) release: String,
    pub(crate) pod: String,
    pub(crate) behaviour: Behaviour,
    /// When it began to serve.
    pub(crate) since: Instant,
    pub(crate) phase: phase::Receiver,
    pub(crate) metrics: Metrics,
    pub(crate) log: Requests,
    pub(crate) database: Database,
    pub(crate) session: Option<Session>,
    /// Requests of customers so far.
    pub(crate) customers: AtomicU64,
}

/// A path, and so what is asked.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Route {
    Livez,
    Readyz,
    Metrics,
    Healthz,
    Version,
    Database,
    Session,
    Other,
}

struct Answer {
    status: StatusCode,
    content_type: &'static str,
    body: String,
}

impl Route {
    fn of(path: &str) -> Self {
        match path {
            "/livez" => Self::Livez,
            "/readyz" => Self::Readyz,
            "/metrics" => Self::Metrics,
            "/healthz" => Self::Healthz,
            "/version" => Self::Version,
            "/db" => Self::Database,
            "/session" => Self::Session,
            _ => Self::Other,
        }
    }

    /// For metrics: made up paths must not make up series.
    fn name(self) -> &'static str {
        match self {
            Self::Livez => "/livez",
            Self::Readyz => "/readyz",
            Self::Metrics => "/metrics",
            Self::Healthz => "/healthz",
            Self::Version => "/version",
            Self::Database => "/db",
            Self::Session => "/session",
            Self::Other => "/",
        }
    }
}

impl Shop {
    /// How many requests of customers have come.
    pub(crate) fn customers(&self) -> u64 {
        self.customers.load(Ordering::Relaxed)
    }

    /// Answers a request.
    pub(crate) async fn answer(&self, request: &Parts) -> Response<Full<Bytes>> {
        let started = Instant::now();
        let route = Route::of(request.uri.path());
        let answer = match request.method {
            Method::GET | Method::HEAD | Method::POST => self.asked(route).await,
            _ => Answer::text(StatusCode::METHOD_NOT_ALLOWED, "GET or POST\n"),
        };
        self.note(request, route, answer.status, started);
        self.response(answer)
    }

    async fn asked(&self, route: Route) -> Answer {
        match route {
            Route::Livez => Answer::text(StatusCode::OK, "ok\n"),
            Route::Readyz if self.is_ready() => Answer::text(StatusCode::OK, "ok\n"),
            Route::Readyz => Answer::text(StatusCode::SERVICE_UNAVAILABLE, "not ready\n"),
            Route::Metrics => self.scraped(),
            Route::Healthz | Route::Version | Route::Database | Route::Session | Route::Other => {
                self.customer(route).await
            }
        }
    }

    async fn customer(&self, route: Route) -> Answer {
        let number = self.customers.fetch_add(1, Ordering::Relaxed);
        // A sleep of no length still takes up to a millisecond.
        if !self.behaviour.delay.is_zero() {
            tokio::time::sleep(self.behaviour.delay).await;
        }
        if self
            .behaviour
            .fails(route.name(), number, self.since.elapsed())
        {
            return self.plain(StatusCode::INTERNAL_SERVER_ERROR);
        }
        match route {
            Route::Version => Answer::text(StatusCode::OK, format!("{}\n", self.release)),
            Route::Database => self.visit().await,
            Route::Session => self.session(),
            _ => self.plain(StatusCode::OK),
        }
    }

    fn plain(&self, status: StatusCode) -> Answer {
        Answer::text(status, format!("{} {status}\n", self.pod))
    }

    fn is_ready(&self) -> bool {
        *self.phase.borrow() == Phase::Serving
            && !self.behaviour.probes.fail_after(self.since.elapsed())
    }

    fn scraped(&self) -> Answer {
        match self.metrics.text(self.is_ready()) {
            Ok(body) => Answer {
                status: StatusCode::OK,
                content_type: metrics::CONTENT_TYPE,
                body,
            },
            Err(error) => Answer::text(StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")),
        }
    }

    async fn visit(&self) -> Answer {
        match self.database.visit().await {
            Ok(visits) => Answer::json(StatusCode::OK, &json!({"pod": self.pod, "visits": visits})),
            Err(error) => {
                tracing::warn!(configured = self.database.is_configured(), "{error}");
                let said = json!({"error": error.to_string()});
                Answer::json(StatusCode::SERVICE_UNAVAILABLE, &said)
            }
        }
    }

    fn session(&self) -> Answer {
        match &self.session {
            Some(session) => Answer::json(StatusCode::OK, &json!({"sha256": session.hash()})),
            None => {
                let said = json!({"error": "there is no session secret: give its file by --session-secret"});
                Answer::json(StatusCode::NOT_FOUND, &said)
            }
        }
    }

    fn note(&self, request: &Parts, route: Route, status: StatusCode, started: Instant) {
        self.metrics.answered(route.name(), status);
        if is_of_customers(route.name()) {
            let took = started.elapsed();
            self.metrics.took(took);
            let (method, path) = (request.method.as_str(), request.uri.path());
            self.log.say(&Answered {
                method,
                path,
                status,
                took,
            });
        }
    }

    fn response(&self, answer: Answer) -> Response<Full<Bytes>> {
        let mut response = Response::new(Full::new(Bytes::from(answer.body)));
        *response.status_mut() = answer.status;
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static(answer.content_type));
        for (name, value) in [(RELEASE_HEADER, &self.release), (POD_HEADER, &self.pod)] {
            // A name that is no header's value is left out; tags and pods have none such.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
        if *self.phase.borrow() == Phase::Draining {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        response
    }
}

impl Answer {
    fn text(status: StatusCode, body: impl Into<String>) -> Self {
        Self {
            status,
            content_type: "text/plain; charset=utf-8",
            body: body.into(),
        }
    }

    fn json(status: StatusCode, said: &serde_json::Value) -> Self {
        Self {
            status,
            content_type: "application/json",
            body: format!("{said}\n"),
        }
    }
}
