//! Sends requests to one API server, each with a deadline and a bound on its answer. It decides nothing.
//!
//! Answers are read here rather than by the client library, which writes the whole body of an answer that it cannot
//! parse into the log: pod templates and Secrets must not go there. Its own retries are off as well: what may be tried
//! again is decided where it is known what was sent.

use std::time::Duration;

use bytes::Bytes;
use http::{Method, Request, header};
use http_body_util::{BodyExt, Limited};
use kube::api::ListParams;
use kube::client::Body;
use serde_json::Value;
use tokio::time::Instant;

use super::error::{Error, chain};

/// An API server answers in milliseconds; more means that it, or the way to it, is in trouble.
const LONGEST_REQUEST: Duration = Duration::from_secs(10);

/// Twice what etcd holds in one object, many times over for a page of a list.
const LARGEST_ANSWER: usize = 32 * 1024 * 1024;

/// Objects in one page of a list.
const PAGE: u32 = 250;

/// Pages read of one list: 4000 objects, more than the pods of any Deployment that we would act on.
const MOST_PAGES: usize = 16;

/// When a call must be over.
#[derive(Clone, Copy, Debug)]
pub(super) struct Deadline(Instant);

impl Deadline {
    /// So long from now.
    pub(super) fn after(timeout: Duration) -> Self {
        let now = Instant::now();
        // A timeout too long to add is a year: nothing here waits for that long.
        let year = Duration::from_secs(365 * 24 * 3600);
        Self(now.checked_add(timeout.min(year)).unwrap_or(now))
    }

    /// What is left of it.
    pub(super) fn left(self) -> Duration {
        self.0.saturating_duration_since(Instant::now())
    }

    /// Time for one request.
    pub(super) fn for_request(self) -> Duration {
        self.left().min(LONGEST_REQUEST)
    }
}

/// How an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shape {
    /// The whole object.
    Whole,
    /// Its metadata alone: what is secret in it never comes here.
    Metadata,
}

impl Shape {
    fn accepted(self, list: bool) -> &'static str {
        match (self, list) {
            (Self::Whole, _) => "application/json",
            (Self::Metadata, false) => {
                "application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1"
            }
            (Self::Metadata, true) => {
                "application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1"
            }
        }
    }
}

/// One API server.
#[derive(Clone)]
pub(super) struct Server {
    pub(super) client: kube::Client,
}

impl Server {
    /// The object at `path`; none where there is none.
    pub(super) async fn find(
        &self,
        path: &str,
        shape: Shape,
        deadline: Deadline,
    ) -> Result<Option<Value>, Error> {
        let request = Request::get(path).header(header::ACCEPT, shape.accepted(false));
        match self.json(request, Vec::new(), deadline).await {
            Ok(found) => Ok(Some(found)),
            Err(Error::NotFound) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Every object under `path` that `params` selects. More than fit into the bounded number of pages is an error.
    pub(super) async fn list(
        &self,
        path: &str,
        params: &ListParams,
        shape: Shape,
        deadline: Deadline,
    ) -> Result<Vec<Value>, Error> {
        let mut found = Vec::new();
        let mut params = params.clone().limit(PAGE);
        for _ in 0..MOST_PAGES {
            let mut page = self.page(path, &params, shape, deadline).await?;
            if let Some(Value::Array(items)) = page.get_mut("items").map(Value::take) {
                found.extend(items);
            }
            match page.pointer("/metadata/continue").and_then(Value::as_str) {
                Some(token) if !token.is_empty() => params = params.continue_token(token),
                _ => return Ok(found),
            }
        }
        Err(Error::Invalid(format!(
            "more than {} objects are selected",
            found.len()
        )))
    }

    /// The first page of a list.
    pub(super) async fn page(
        &self,
        path: &str,
        params: &ListParams,
        shape: Shape,
        deadline: Deadline,
    ) -> Result<Value, Error> {
        let request = kube::core::Request::new(path)
            .list(params)
            .map_err(|error| Error::Invalid(chain(&error)))?;
        let request = Request::get(request.uri()).header(header::ACCEPT, shape.accepted(true));
        self.json(request, Vec::new(), deadline).await
    }

    /// Sends a patch. `content` is its media type, `query` such as `fieldManager=aldis`.
    pub(super) async fn patch(
        &self,
        path: &str,
        query: &str,
        content: &str,
        patch: &Value,
        deadline: Deadline,
    ) -> Result<Value, Error> {
        let request = Request::builder()
            .method(Method::PATCH)
            .uri(format!("{path}?{query}"))
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, content);
        self.json(request, patch.to_string().into_bytes(), deadline)
            .await
    }

    /// Creates what is only ever asked and never kept, such as an access review.
    pub(super) async fn ask(
        &self,
        path: &str,
        question: &Value,
        deadline: Deadline,
    ) -> Result<Value, Error> {
        let request = Request::post(path)
            .header(header::ACCEPT, "application/json")
            .header(header::CONTENT_TYPE, "application/json");
        self.json(request, question.to_string().into_bytes(), deadline)
            .await
    }

    /// Text, such as the end of a log.
    pub(super) async fn text(&self, uri: &str, deadline: Deadline) -> Result<String, Error> {
        let body = self.send(Request::get(uri), Vec::new(), deadline).await?;
        Ok(String::from_utf8_lossy(&body).into_owned())
    }

    async fn json(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Value, Error> {
        let body = self.send(request, body, deadline).await?;
        // The error says where and what kind, never the text.
        serde_json::from_slice(&body).map_err(|error| Error::Corrupt(error.to_string()))
    }

    async fn send(
        &self,
        request: http::request::Builder,
        body: Vec<u8>,
        deadline: Deadline,
    ) -> Result<Bytes, Error> {
        let time = deadline.for_request();
        if time.is_zero() {
            return Err(Error::NotSent("no time is left for it".to_owned()));
        }
        let request = request
            .body(Body::from(body))
            .map_err(|error| Error::Invalid(chain(&error)))?;
        match tokio::time::timeout(time, self.exchange(request)).await {
            Ok(answered) => answered,
            Err(_) => Err(Error::Unanswered(format!(
                "nothing came within {} s",
                time.as_secs_f32().ceil()
            ))),
        }
    }

    async fn exchange(&self, request: Request<Body>) -> Result<Bytes, Error> {
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| Error::unanswered(&error))?;
        let code = response.status();
        let body = Limited::new(response.into_body(), LARGEST_ANSWER)
            .collect()
            .await
            .map_err(|error| Error::Unanswered(format!("its answer broke off: {error}")))?
            .to_bytes();
        if code.is_success() {
            Ok(body)
        } else {
            Err(Error::answered(code.as_u16(), &body))
        }
    }
}
