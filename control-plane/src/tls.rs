//! The one listener: mutual TLS, an identity for each connection, bounds before any work.
//!
//! The certificate is read again from its files whenever they change, so that a renewed one serves the
//! next connection without a restart. Refused handshakes are logged with their reason.

use std::io;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};

use futures::Stream;
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use serde::Deserialize;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Semaphore, mpsc};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::server::Connected;
use tracing::{info, warn};

use crate::identity::{self, Peer};

/// For a handshake: whoever needs longer is broken or hostile.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Handshakes at once: each costs some 1 ms of CPU.
const HANDSHAKES: usize = 64;

/// Connections at once: 1,000 agents with two streams each, people, and room.
const CONNECTIONS: usize = 8192;

/// Accepted connections that may wait for the server.
const ACCEPTED: usize = 64;

/// Where certificate, key and the CA that peers are verified by are kept.
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

/// Files that make no TLS.
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
}

impl Files {
    /// Reads and checks all three, for those who connect to us.
    pub fn server(&self) -> Result<rustls::ServerConfig, Error> {
        let verifier = WebPkiClientVerifier::builder(Arc::new(self.roots()?))
            .build()
            .map_err(|error| Error::File {
                what: "ca",
                path: self.ca.clone(),
                problem: error.to_string(),
            })?;
        let mut config = rustls::ServerConfig::builder()
            .with_client_cert_verifier(verifier)
            .with_single_cert(certificates("certificate", &self.certificate)?, self.key()?)
            .map_err(Error::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    /// The same, for connecting to another replica.
    pub fn client(&self) -> Result<rustls::ClientConfig, Error> {
        let mut config = rustls::ClientConfig::builder()
            .with_root_certificates(self.roots()?)
            .with_client_auth_cert(certificates("certificate", &self.certificate)?, self.key()?)
            .map_err(Error::Mismatch)?;
        config.alpn_protocols = vec![b"h2".to_vec()];
        Ok(config)
    }

    fn roots(&self) -> Result<RootCertStore, Error> {
        let mut roots = RootCertStore::empty();
        for ca in certificates("ca", &self.ca)? {
            roots.add(ca).map_err(Error::Mismatch)?;
        }
        Ok(roots)
    }

    fn key(&self) -> Result<PrivateKeyDer<'static>, Error> {
        PrivateKeyDer::from_pem_file(&self.key).map_err(|error| Error::File {
            what: "key",
            path: self.key.clone(),
            problem: error.to_string(),
        })
    }

    /// The same files, where relative paths count from a folder.
    pub fn below(&self, folder: &Path) -> Self {
        Self {
            certificate: folder.join(&self.certificate),
            key: folder.join(&self.key),
            ca: folder.join(&self.ca),
        }
    }

    fn modified(&self) -> [Option<SystemTime>; 3] {
        [&self.certificate, &self.key, &self.ca].map(|path| {
            std::fs::metadata(path)
                .and_then(|about| about.modified())
                .ok()
        })
    }
}

fn certificates(what: &'static str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let bad = |problem: String| Error::File {
        what,
        path: path.to_owned(),
        problem,
    };
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| bad(error.to_string()))?;
    if found.is_empty() {
        Err(bad("holds no certificate".to_owned()))
    } else {
        Ok(found)
    }
}

/// A connection whose other end is known.
pub struct Connection {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: tokio::sync::OwnedSemaphorePermit,
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

/// Accepts for ever, in the background, until the stream is dropped.
pub fn accept(
    listener: TcpListener,
    files: Files,
    domain: String,
) -> Result<impl Stream<Item = io::Result<Connection>>, Error> {
    let acceptors = Arc::new(Acceptors::new(files)?);
    let (accepted, connections) = mpsc::channel(ACCEPTED);
    tokio::spawn(async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                () = accepted.closed() => return,
                new = listener.accept() => match new {
                    Ok(new) => new,
                    Err(error) => {
                        warn!(%error, "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let (acceptors, accepted) = (acceptors.clone(), accepted.clone());
            let (handshakes, domain) = (handshakes.clone(), domain.clone());
            tokio::spawn(async move {
                let Ok(_turn) = handshakes.acquire_owned().await else {
                    return;
                };
                let _ = stream.set_nodelay(true);
                let handshake = acceptors.current().accept(stream);
                match tokio::time::timeout(HANDSHAKE, handshake).await {
                    Ok(Ok(stream)) => {
                        let peer = peer_of(&stream, &domain);
                        if let Peer(Err(why)) = &peer {
                            warn!(%address, why, "connection without identity");
                        }
                        let connection = Connection {
                            stream,
                            peer,
                            _place: place,
                        };
                        // Without a receiver the server has ended.
                        let _ = accepted.send(Ok(connection)).await;
                    }
                    Ok(Err(error)) => warn!(%address, %error, "handshake refused"),
                    Err(_) => warn!(%address, "handshake took too long"),
                }
            });
        }
    });
    Ok(ReceiverStream::new(connections))
}

fn peer_of(stream: &TlsStream<TcpStream>, domain: &str) -> Peer {
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let identity = leaf
        .ok_or(identity::Error::NoCertificate)
        .and_then(|leaf| identity::of_certificate(leaf, domain));
    Peer(identity.map_err(|error| error.to_string()))
}

/// The acceptor of the files as they are.
struct Acceptors {
    files: Files,
    current: Mutex<([Option<SystemTime>; 3], TlsAcceptor)>,
}

impl Acceptors {
    fn new(files: Files) -> Result<Self, Error> {
        let acceptor = TlsAcceptor::from(Arc::new(files.server()?));
        let current = Mutex::new((files.modified(), acceptor));
        Ok(Self { files, current })
    }

    fn current(&self) -> TlsAcceptor {
        let mut current = self.current.lock().unwrap_or_else(PoisonError::into_inner);
        let modified = self.files.modified();
        if modified != current.0 {
            match self.files.server() {
                Ok(config) => {
                    info!("certificate read again");
                    *current = (modified, TlsAcceptor::from(Arc::new(config)));
                }
                // Half-written files: the old ones serve until these are whole.
                Err(error) => warn!(%error, "certificate not read again"),
            }
        }
        current.1.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(context, buffer)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}
