//! One request to a server on this machine, with or without TLS. For ready checks and for the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt, Empty};
use hyper::body::Bytes;
use hyper_util::rt::TokioIo;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;

/// What a server said.
#[derive(Debug)]
pub struct Answer {
    /// The status and the headers.
    pub head: Response<()>,
    /// The body.
    pub body: Bytes,
}

impl Answer {
    /// The status.
    pub fn status(&self) -> StatusCode {
        self.head.status()
    }

    /// The body as JSON.
    pub fn json(&self) -> anyhow::Result<serde_json::Value> {
        serde_json::from_slice(&self.body).context("read an answer as JSON")
    }
}

/// Asks in clear text.
pub async fn get(port: u16, path: &str) -> anyhow::Result<Answer> {
    let stream = connect(port).await?;
    ask(stream, Request::get(path)).await
}

/// Asks over TLS, trusting one authority, as the bearer of a token if there is one.
pub async fn get_tls(
    port: u16,
    path: &str,
    ca: &Path,
    token: Option<&str>,
) -> anyhow::Result<Answer> {
    let connector = TlsConnector::from(Arc::new(trusting(ca)?));
    let name = ServerName::IpAddress(Ipv4Addr::LOCALHOST.into());
    let stream = connector.connect(name, connect(port).await?).await;
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    ask(stream.context("agree on TLS")?, request).await
}

/// A client's TLS that trusts one authority.
pub(super) fn trusting(ca: &Path) -> anyhow::Result<ClientConfig> {
    let mut roots = RootCertStore::empty();
    let authority = CertificateDer::from_pem_file(ca);
    roots.add(authority.with_context(|| format!("read {}", ca.display()))?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    Ok(ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth())
}

async fn connect(port: u16) -> anyhow::Result<TcpStream> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let stream = TcpStream::connect(address).await;
    stream.with_context(|| format!("connect to {address}"))
}

async fn ask(
    stream: impl AsyncRead + AsyncWrite + Unpin + Send + 'static,
    request: http::request::Builder,
) -> anyhow::Result<Answer> {
    let request = request
        .header("host", "localhost")
        .header("user-agent", "aldis-tests")
        .body(Empty::<Bytes>::new())?;
    let (mut sender, connection) =
        hyper::client::conn::http1::handshake(TokioIo::new(stream)).await?;
    let answering = async {
        let (head, body) = sender.send_request(request).await?.into_parts();
        let body = body.collect().await?.to_bytes();
        let head = Response::from_parts(head, ());
        anyhow::Ok(Answer { head, body })
    };
    tokio::pin!(answering);
    tokio::select! {
        answer = &mut answering => answer,
        ended = connection => {
            // A server that closes after its answer ends the connection first.
            ended.context("keep the connection")?;
            answering.await
        }
    }
}
