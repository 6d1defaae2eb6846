//! Connections to whichever server answers first, tried in turn. What went wrong on the way is kept,
//! because the layers above turn every cause into "transport error".

use std::io;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::tls::{self, Tls};
use crate::context::Server;
use crate::error::Error;
use crate::exit::Exit;

/// For one server, name look-up, TCP and TLS together. The next one may answer at once.
const PER_SERVER: Duration = Duration::from_secs(4);

/// What to look at where nobody answers.
const WHERE: &str = "is the control plane running there, and is this the right context?";

/// What became of the newest connection, shared with the calls that run over it.
#[derive(Clone, Debug, Default)]
pub(super) struct Witness(Arc<Mutex<Option<Error>>>);

impl Witness {
    fn saw(&self, error: Option<Error>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = error;
    }

    /// The newest trouble, if the newest connection had any.
    pub(super) fn newest(&self) -> Option<Error> {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }
}

/// Opens connections.
#[derive(Clone, Debug)]
pub(super) struct Connector {
    servers: Arc<Vec<Server>>,
    /// Index of the server to try first.
    first: Arc<AtomicUsize>,
    tls: Tls,
    witness: Witness,
}

impl Connector {
    pub(super) fn new(servers: Vec<Server>, tls: Tls, witness: Witness) -> Self {
        Self {
            servers: Arc::new(servers),
            first: Arc::default(),
            tls,
            witness,
        }
    }

    /// The next connection goes to another server, where there is one.
    pub(super) fn move_on(&self) {
        self.first.fetch_add(1, Ordering::Relaxed);
    }

    /// One connection, from the first server that gives one.
    pub(super) async fn connect(&self) -> Result<TokioIo<Watched>, Error> {
        let first = self.first.load(Ordering::Relaxed);
        let mut troubles: Vec<Error> = Vec::new();
        for offset in 0..self.servers.len() {
            let index = (first + offset) % self.servers.len();
            let server = &self.servers[index];
            match self.connect_to(server).await {
                Ok(stream) => {
                    self.first.store(index, Ordering::Relaxed);
                    self.witness.saw(None);
                    return Ok(TokioIo::new(Watched {
                        stream,
                        server: server.to_string(),
                        about: self.tls.about.clone(),
                        witness: self.witness.clone(),
                    }));
                }
                Err(trouble) => troubles.push(trouble),
            }
        }
        let error = joined(troubles);
        self.witness.saw(Some(error.clone()));
        Err(error)
    }

    async fn connect_to(&self, server: &Server) -> Result<TlsStream<TcpStream>, Error> {
        let unreachable = |why: String| {
            Error::new(Exit::Unreachable, format!("cannot reach {server}: {why}")).hint(WHERE)
        };
        let handshake = async {
            let stream = TcpStream::connect((server.host.as_str(), server.port))
                .await
                .map_err(|error| unreachable(plain(&error)))?;
            let _ = stream.set_nodelay(true);
            let name = ServerName::try_from(server.host.clone())
                .map_err(|_| unreachable("this is no name of a server".to_owned()))?;
            let broke = |error: io::Error| match alert_in(&error) {
                Some(inner) => tls::explain(inner, &server.to_string(), &self.tls.about),
                None => unreachable(format!("the TLS handshake broke off: {}", plain(&error))),
            };
            let connector = TlsConnector::from(self.tls.config.clone());
            let mut stream = connector.connect(name, stream).await.map_err(broke)?;
            // With TLS 1.3 a server judges our certificate after the handshake, and closes. Had we sent a
            // call meanwhile, its reason would be lost: the kernel throws it away with the bytes that
            // nobody read. So we wait for its first word, which HTTP/2 servers say at once.
            match stream.fill_buf().await {
                Ok([]) => Err(unreachable("it ended the connection at once".to_owned())),
                Ok(_) => Ok(stream),
                Err(error) => Err(broke(error)),
            }
        };
        match tokio::time::timeout(PER_SERVER, handshake).await {
            Ok(result) => result,
            Err(_) => Err(unreachable(format!(
                "no answer within {} s",
                PER_SERVER.as_secs()
            ))),
        }
    }
}

/// One error of several servers'. A refusal of our certificate says more than a silent server.
fn joined(troubles: Vec<Error>) -> Error {
    let refusal = troubles.iter().find(|t| t.exit == Exit::NotAllowed);
    match (refusal, troubles.as_slice()) {
        (Some(refusal), _) => refusal.clone(),
        (None, [only]) => only.clone(),
        (None, several) => {
            let each = several.iter().map(|t| t.message.clone()).collect();
            Error::new(
                Exit::Unreachable,
                "no server of this context can be reached",
            )
            .details(each)
            .hint(WHERE)
        }
    }
}

/// The operating system's words without its number.
fn plain(error: &io::Error) -> String {
    let text = error.to_string();
    let text = text.split(" (os error").next().unwrap_or_default();
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_lowercase().chain(letters).collect()
    })
}

/// What TLS said, inside an I/O error.
fn alert_in(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref().and_then(|inner| inner.downcast_ref())
}

/// A stream that remembers why TLS ended it, such as a certificate that is revoked meanwhile.
pub(super) struct Watched {
    stream: TlsStream<TcpStream>,
    server: String,
    about: tls::About,
    witness: Witness,
}

impl Watched {
    fn saw<T>(&self, result: &Poll<io::Result<T>>) {
        if let Poll::Ready(Err(error)) = result
            && let Some(inner) = alert_in(error)
        {
            let trouble = tls::explain(inner, &self.server, &self.about);
            self.witness.saw(Some(trouble));
        }
    }
}

impl AsyncRead for Watched {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = Pin::new(&mut self.stream).poll_read(context, buffer);
        self.saw(&read);
        read
    }
}

impl AsyncWrite for Watched {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.stream).poll_write(context, bytes);
        self.saw(&written);
        written
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
    fn a_refusal_says_more_than_a_silent_server() {
        let silent = Error::new(Exit::Unreachable, "cannot reach a");
        let refusal = Error::new(Exit::NotAllowed, "b refused");
        assert_eq!(joined(vec![silent.clone(), refusal.clone()]), refusal);
        let both = joined(vec![silent.clone(), silent]);
        assert_eq!(both.details.len(), 2);
        assert_eq!(both.hint.as_deref(), Some(WHERE));
    }
}
