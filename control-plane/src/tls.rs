//! The one listener: mutual TLS, an identity for each connection, bounds before any work.
//!
//! The certificate is read again from its files whenever they change, so that a renewed one serves the
//! next connection without a restart. Refused handshakes are logged with their reason.

use std::collections::BTreeMap;
use std::io;
use std::net::IpAddr;
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
use crate::lasting;
use crate::telemetry::chain;

/// For a handshake: whoever needs longer is broken or hostile.
const HANDSHAKE: Duration = Duration::from_secs(3);

/// Handshakes at once. One that goes on costs some 1 ms of CPU, one that hangs some 20 KB.
const HANDSHAKES: usize = 1024;

/// Of these, how many one address may hold: whoever only opens sockets and says nothing must not keep agents out.
const HANDSHAKES_OF_ONE: usize = HANDSHAKES / 4;

/// Connections of one address that have not shown a certificate yet, waiting ones included; more are closed.
const STRANGERS_OF_ONE: usize = CONNECTIONS / 4;

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
    lasting::spawn("accepting connections", async move {
        let places = Arc::new(Semaphore::new(CONNECTIONS));
        let door = Arc::new(Door::default());
        loop {
            let Ok(place) = places.clone().acquire_owned().await else {
                return;
            };
            let (stream, address) = tokio::select! {
                () = accepted.closed() => return,
                new = listener.accept() => match new {
                    Ok(new) => new,
                    Err(error) => {
                        warn!(error = chain(&error), "connection not accepted");
                        tokio::time::sleep(Duration::from_millis(50)).await;
                        continue;
                    }
                },
            };
            let Some(stranger) = door.clone().let_in(address.ip()) else {
                warn!(%address, "connection closed: too many of its address have shown no certificate");
                continue;
            };
            let (acceptors, accepted, domain) =
                (acceptors.clone(), accepted.clone(), domain.clone());
            tokio::spawn(async move {
                let Some((stream, peer)) = stranger.shake(stream, &acceptors, &domain).await else {
                    return;
                };
                let connection = Connection {
                    stream,
                    peer,
                    _place: place,
                };
                // Without a receiver the server has ended.
                let _ = accepted.send(Ok(connection)).await;
            });
        }
    });
    Ok(ReceiverStream::new(connections))
}

/// Who stands before the handshake, by address: nobody's silence may cost others their turn.
struct Door {
    turns: Arc<Semaphore>,
    strangers: Mutex<BTreeMap<IpAddr, OfOne>>,
}

/// Strangers of one address.
struct OfOne {
    count: usize,
    turns: Arc<Semaphore>,
}

impl Default for Door {
    fn default() -> Self {
        Self {
            turns: Arc::new(Semaphore::new(HANDSHAKES)),
            strangers: Mutex::default(),
        }
    }
}

impl Door {
    fn let_in(self: Arc<Self>, address: IpAddr) -> Option<Stranger> {
        let mut strangers = self
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let of_one = strangers.entry(address).or_insert_with(|| OfOne {
            count: 0,
            turns: Arc::new(Semaphore::new(HANDSHAKES_OF_ONE)),
        });
        if of_one.count >= STRANGERS_OF_ONE {
            return None;
        }
        of_one.count += 1;
        let turns = of_one.turns.clone();
        drop(strangers);
        Some(Stranger {
            door: self,
            address,
            turns,
        })
    }
}

/// A connection that has shown no certificate yet.
struct Stranger {
    door: Arc<Door>,
    address: IpAddr,
    turns: Arc<Semaphore>,
}

impl Stranger {
    async fn shake(
        self,
        stream: TcpStream,
        acceptors: &Acceptors,
        domain: &str,
    ) -> Option<(TlsStream<TcpStream>, Peer)> {
        let _of_its_own = self.turns.acquire().await.ok()?;
        let _of_all = self.door.turns.acquire().await.ok()?;
        let address = self.address;
        let _ = stream.set_nodelay(true);
        let handshake = acceptors.current().accept(stream);
        match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(stream)) => {
                let peer = peer_of(&stream, domain);
                if let Peer(Err(why)) = &peer {
                    warn!(%address, why, "connection without identity");
                }
                Some((stream, peer))
            }
            Ok(Err(error)) => {
                warn!(%address, error = chain(&error), "handshake refused");
                None
            }
            Err(_) => {
                warn!(%address, "handshake took too long");
                None
            }
        }
    }
}

impl Drop for Stranger {
    fn drop(&mut self) {
        let door = &self.door;
        let mut strangers = door
            .strangers
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(of_one) = strangers.get_mut(&self.address) {
            of_one.count -= 1;
            if of_one.count == 0 {
                strangers.remove(&self.address);
            }
        }
    }
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
                Err(error) => warn!(error = chain(&error), "certificate not read again"),
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_cannot_keep_others_from_the_door() {
        let door = Arc::new(Door::default());
        let (loud, quiet): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let mut strangers: Vec<Stranger> = (0..STRANGERS_OF_ONE)
            .map(|_| door.clone().let_in(loud).unwrap())
            .collect();
        assert!(door.clone().let_in(loud).is_none());
        assert!(door.clone().let_in(quiet).is_some());
        strangers.pop();
        assert!(door.clone().let_in(loud).is_some());
        drop(strangers);
        let left = door.strangers.lock().unwrap();
        assert!(left.is_empty(), "nobody is remembered who has left");
    }
}
