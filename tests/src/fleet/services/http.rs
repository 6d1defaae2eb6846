//! How the services are asked on loopback, with or without TLS. For ready checks and for the tests.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::Arc;

use anyhow::Context;
use http::Request;
use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, ServerName};
use tokio_rustls::TlsConnector;

use crate::requests::{self, Answer, Connection};

/// Asks in clear text.
pub async fn get(port: u16, path: &str) -> anyhow::Result<Answer> {
    requests::get(loopback(port), path).await
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
    let stream = requests::connect(loopback(port)).await?;
    let stream = connector.connect(name, stream).await;
    let mut request = Request::get(path);
    if let Some(token) = token {
        request = request.header("authorization", format!("Bearer {token}"));
    }
    let mut connection = Connection::over(stream.context("agree on TLS")?).await?;
    connection.ask(request).await
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

fn loopback(port: u16) -> SocketAddr {
    SocketAddr::from((Ipv4Addr::LOCALHOST, port))
}
