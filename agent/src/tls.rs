//! The connection to the control plane: mutual TLS, and a peer that is a replica of ours and nothing else.
//!
//! The files are read again for each connection, so that a renewed certificate is used without a restart. The chain
//! and the name are checked by rustls; that the certificate's one URI is `spiffe://DOMAIN/control-plane/…` is checked
//! here, after the handshake and before the first byte: the CA also signs agents and people.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use rustls::RootCertStore;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use serde::Deserialize;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::config::Endpoint;

/// For name, connection and handshake together: a replica that needs longer is not worth waiting for.
pub const CONNECT: Duration = Duration::from_secs(5);

/// Where certificate, key and the CA that replicas are verified by are kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Files {
    /// PEM, leaf first.
    pub certificate: PathBuf,
    /// PEM, PKCS#8.
    pub key: PathBuf,
    /// PEM, one or more.
    pub ca: PathBuf,
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file cannot be read as what it should be.
    #[error("{what} `{}`: {problem}", path.display())]
    File {
        /// `certificate`, `key` or `ca`.
        what: &'static str,
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
    /// Certificate, key and CA do not go together.
    #[error("certificate, key and CA do not go together")]
    Mismatch(#[source] rustls::Error),
    /// Nobody answers there.
    #[error("connect to {endpoint}")]
    Connect {
        /// Where.
        endpoint: String,
        /// What the system, or the other end, said.
        #[source]
        source: std::io::Error,
    },
    /// It took too long.
    #[error("connect to {endpoint}: nothing answered for {} s", CONNECT.as_secs())]
    Slow {
        /// Where.
        endpoint: String,
    },
    /// Somebody of ours answers, and it is no replica of the control plane.
    #[error(
        "{endpoint} is `{found}`, and only `spiffe://{domain}/control-plane/…` is the control plane"
    )]
    NotTheControlPlane {
        /// Where.
        endpoint: String,
        /// What its certificate says.
        found: String,
        /// The trust domain.
        domain: String,
    },
}

impl Files {
    /// The same with relative paths taken from `folder`.
    #[must_use]
    pub fn below(self, folder: &Path) -> Self {
        Self {
            certificate: folder.join(self.certificate),
            key: folder.join(self.key),
            ca: folder.join(self.ca),
        }
    }

    /// Reads and checks all three.
    pub fn client(&self) -> Result<rustls::ClientConfig, Error> {
        let mut roots = RootCertStore::empty();
        for ca in certificates("ca", &self.ca)? {
            roots.add(ca).map_err(Error::Mismatch)?;
        }
        let key = PrivateKeyDer::from_pem_file(&self.key)
            .map_err(|error| bad("key", &self.key, error.to_string()))?;
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(roots)
            .with_client_auth_cert(certificates("certificate", &self.certificate)?, key)
            .map_err(Error::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }
}

/// The identity that the agent's own certificate gives it.
pub fn own_uri(files: &Files) -> Result<String, Error> {
    let leaf = certificates("certificate", &files.certificate)?.remove(0);
    uri_of(&leaf).map_err(|problem| bad("certificate", &files.certificate, problem))
}

/// Connects to one replica of the control plane.
pub async fn connect(
    endpoint: &Endpoint,
    files: &Files,
    domain: &str,
) -> Result<TlsStream<TcpStream>, Error> {
    let config = files.client()?;
    let stream = tokio::time::timeout(CONNECT, handshake(endpoint, config))
        .await
        .map_err(|_| Error::Slow {
            endpoint: endpoint.to_string(),
        })?
        .map_err(|source| Error::Connect {
            endpoint: endpoint.to_string(),
            source,
        })?;
    let shown = stream.get_ref().1.peer_certificates();
    let found = shown
        .and_then(<[_]>::first)
        .map_or_else(|| Err("no certificate".to_owned()), |leaf| uri_of(leaf));
    match found {
        Ok(uri) if uri.starts_with(&format!("spiffe://{domain}/control-plane/")) => Ok(stream),
        Ok(found) | Err(found) => Err(Error::NotTheControlPlane {
            endpoint: endpoint.to_string(),
            found,
            domain: domain.to_owned(),
        }),
    }
}

async fn handshake(
    endpoint: &Endpoint,
    config: rustls::ClientConfig,
) -> std::io::Result<TlsStream<TcpStream>> {
    let name = ServerName::try_from(endpoint.host.clone()).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect((endpoint.host.as_str(), endpoint.port)).await?;
    // Orders and reports are small and each is waited for.
    stream.set_nodelay(true)?;
    TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(what, path, error.to_string()))?;
    if found.is_empty() {
        Err(bad(what, path, "holds no certificate".to_owned()))
    } else {
        Ok(found)
    }
}

fn bad(what: &'static str, path: &Path, problem: String) -> Error {
    Error::File {
        what,
        path: path.to_owned(),
        problem,
    }
}

/// The one URI of a certificate.
fn uri_of(der: &[u8]) -> Result<String, String> {
    let unreadable = || "a certificate that cannot be read".to_owned();
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| unreadable())?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| unreadable())?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let mut uris = names.iter().filter_map(|name| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    });
    match (uris.next(), uris.next()) {
        (Some(uri), None) => Ok(uri),
        (None, _) => Err("a certificate without a URI".to_owned()),
        (Some(_), Some(_)) => Err("a certificate with several URIs".to_owned()),
    }
}
