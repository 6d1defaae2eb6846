//! Asks a server over HTTP/1.1 and reads what it answers: a service on this machine, a shop as a process, a pod at its
//! address or behind a forwarded port.
//!
//! Not for counting: [`crate::load`] tells how requests end, and looks at no body.

use std::net::SocketAddr;

use anyhow::Context;
use http::request::Builder;
use http::{HeaderMap, Request, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use serde_json::Value;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_util::task::AbortOnDropHandle;

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// How it ended.
    pub status: StatusCode,
    /// Its headers.
    pub headers: HeaderMap,
    /// Its body, which is text.
    pub body: String,
}

impl Answer {
    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<Value> {
        let read = serde_json::from_str(&self.body);
        read.with_context(|| format!("read an answer as JSON: {} {}", self.status, self.body))
    }
}

/// A connection, for one request after the other. It ends when dropped.
pub struct Connection {
    sender: SendRequest<Empty<Bytes>>,
    _carried: AbortOnDropHandle<()>,
}

impl Connection {
    /// In clear text.
    pub async fn open(address: SocketAddr) -> anyhow::Result<Self> {
        Self::over(connect(address).await?).await
    }

    /// Over any stream.
    pub async fn over<S>(stream: S) -> anyhow::Result<Self>
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let (sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
        let carried = AbortOnDropHandle::new(tokio::spawn(async move {
            // Its end is told to whoever waits for an answer.
            let _ = connection.await;
        }));
        Ok(Self {
            sender,
            _carried: carried,
        })
    }

    /// Asks for a path.
    pub async fn get(&mut self, path: &str) -> anyhow::Result<Answer> {
        self.ask(Request::get(path)).await
    }

    /// Sends a request, which needs no body and no host.
    pub async fn ask(&mut self, request: Builder) -> anyhow::Result<Answer> {
        let request = request
            .header("host", "localhost")
            .header("user-agent", "aldis-tests")
            .body(Empty::new())?;
        let (head, body) = self.sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        Ok(Answer {
            status: head.status,
            headers: head.headers,
            body: String::from_utf8(body.to_vec()).context("read an answer as text")?,
        })
    }
}

/// Asks in clear text, on a connection of its own.
pub async fn get(address: SocketAddr, path: &str) -> anyhow::Result<Answer> {
    Connection::open(address).await?.get(path).await
}

/// A stream to an address.
pub async fn connect(address: SocketAddr) -> anyhow::Result<TcpStream> {
    let stream = TcpStream::connect(address).await;
    stream.with_context(|| format!("connect to {address}"))
}
