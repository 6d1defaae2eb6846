//! A TCP proxy on loopback that fails on demand.
//!
//! | fault | what both ends see |
//! |---|---|
//! | pass | the other end |
//! | cut | connections end at once, and so does each that is made |
//! | black hole | connections stay open and nothing arrives. What was under way arrives after healing, as TCP sends lost packets again: late messages are what our protocol must survive |
//! | delay | everything arrives, so much later |
//!
//! It knows nothing of what it carries, so TLS runs through it end to end.

pub mod control;

use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use anyhow::Context;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::task::AbortOnDropHandle;

/// Bytes read at once.
const CHUNK: usize = 16 * 1024;

/// Chunks under way in one direction: with [`CHUNK`] 1 MiB, more than TCP itself would hold.
const UNDER_WAY: usize = 64;

/// What a proxy does to what it carries.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// Nothing.
    Pass,
    /// Ends connections.
    Cut,
    /// Holds everything back.
    BlackHole,
    /// Lets everything arrive later.
    Delay(Duration),
}

/// A running proxy. Ends, with all connections, when dropped.
pub struct Proxy {
    switch: Switch,
    _task: AbortOnDropHandle<()>,
}

/// A handle on a proxy that can be given away.
#[derive(Clone)]
pub struct Switch {
    name: String,
    address: SocketAddr,
    upstream: SocketAddr,
    fault: watch::Sender<Fault>,
}

impl Proxy {
    /// Starts one in front of an address, on a port of its own.
    pub async fn start(name: impl Into<String>, upstream: SocketAddr) -> anyhow::Result<Self> {
        let port = crate::fleet::ports::free()?;
        Self::start_on(
            name,
            SocketAddr::from((Ipv4Addr::LOCALHOST, port)),
            upstream,
        )
        .await
    }

    /// Starts one on a given address.
    pub async fn start_on(
        name: impl Into<String>,
        address: SocketAddr,
        upstream: SocketAddr,
    ) -> anyhow::Result<Self> {
        let name = name.into();
        let listener = TcpListener::bind(address)
            .await
            .with_context(|| format!("listen for proxy {name}"))?;
        let (fault, faults) = watch::channel(Fault::Pass);
        let task = tokio::spawn(accept(listener, upstream, faults));
        let switch = Switch {
            name,
            address,
            upstream,
            fault,
        };
        Ok(Self {
            switch,
            _task: AbortOnDropHandle::new(task),
        })
    }

    /// Where to connect to.
    pub fn address(&self) -> SocketAddr {
        self.switch.address
    }

    /// What it does from here on.
    pub fn set(&self, fault: Fault) {
        self.switch.set(fault);
    }

    /// A handle that can be given away.
    pub fn switch(&self) -> Switch {
        self.switch.clone()
    }
}

impl Switch {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Where it leads.
    pub fn upstream(&self) -> SocketAddr {
        self.upstream
    }

    /// What it does.
    pub fn fault(&self) -> Fault {
        *self.fault.borrow()
    }

    /// What it does from here on.
    pub fn set(&self, fault: Fault) {
        self.fault.send_replace(fault);
    }
}

/// Connections live in the set, so they end when the proxy does.
async fn accept(listener: TcpListener, upstream: SocketAddr, faults: watch::Receiver<Fault>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((client, _)) = accepted {
                    connections.spawn(connection(client, upstream, faults.clone()));
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

async fn connection(client: TcpStream, upstream: SocketAddr, faults: watch::Receiver<Fault>) {
    let mut cut = faults.clone();
    tokio::select! {
        _ = cut.wait_for(|fault| *fault == Fault::Cut) => {}
        // Either way the connection is over, which is all that its ends learn.
        _ = carry(client, upstream, faults) => {}
    }
}

async fn carry(
    client: TcpStream,
    upstream: SocketAddr,
    faults: watch::Receiver<Fault>,
) -> std::io::Result<()> {
    open(&faults).await;
    let server = TcpStream::connect(upstream).await?;
    client.set_nodelay(true)?;
    server.set_nodelay(true)?;
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    tokio::try_join!(
        one_way(from_client, to_server, &faults),
        one_way(from_server, to_client, &faults),
    )?;
    Ok(())
}

/// A chunk, and when it came.
type Chunk = (Instant, Vec<u8>);

async fn one_way(
    from: impl AsyncRead + Unpin,
    to: impl AsyncWrite + Unpin,
    faults: &watch::Receiver<Fault>,
) -> std::io::Result<()> {
    let (taken, waiting) = mpsc::channel(UNDER_WAY);
    tokio::try_join!(take(from, taken), give(to, waiting, faults))?;
    Ok(())
}

async fn take(mut from: impl AsyncRead + Unpin, into: mpsc::Sender<Chunk>) -> std::io::Result<()> {
    loop {
        let mut chunk = Vec::with_capacity(CHUNK);
        let read = from.read_buf(&mut chunk).await?;
        // The other direction of a half-closed connection goes on.
        if read == 0 || into.send((Instant::now(), chunk)).await.is_err() {
            return Ok(());
        }
    }
}

async fn give(
    mut to: impl AsyncWrite + Unpin,
    mut from: mpsc::Receiver<Chunk>,
    faults: &watch::Receiver<Fault>,
) -> std::io::Result<()> {
    while let Some((came, chunk)) = from.recv().await {
        open(faults).await;
        let fault = *faults.borrow();
        if let Fault::Delay(late) = fault {
            tokio::time::sleep_until(came + late).await;
        }
        to.write_all(&chunk).await?;
    }
    open(faults).await;
    to.shutdown().await
}

/// Waits for the end of a black hole.
async fn open(faults: &watch::Receiver<Fault>) {
    let mut faults = faults.clone();
    // An error means that the proxy itself is gone, and with it this connection.
    let _ = faults.wait_for(|fault| *fault != Fault::BlackHole).await;
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An echo server behind a proxy, and a connection through it.
    async fn echo() -> (Proxy, TcpStream) {
        let server = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        tokio::spawn(async move {
            while let Ok((mut stream, _)) = server.accept().await {
                tokio::spawn(async move {
                    let (mut read, mut write) = stream.split();
                    tokio::io::copy(&mut read, &mut write).await
                });
            }
        });
        let proxy = Proxy::start("echo", address).await.unwrap();
        let stream = TcpStream::connect(proxy.address()).await.unwrap();
        (proxy, stream)
    }

    async fn says(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<()> {
        stream.write_all(word).await?;
        hears(stream, word).await
    }

    async fn hears(stream: &mut TcpStream, word: &[u8]) -> std::io::Result<()> {
        let mut heard = vec![0; word.len()];
        stream.read_exact(&mut heard).await?;
        assert_eq!(heard, word);
        Ok(())
    }

    const SOON: Duration = Duration::from_millis(200);

    #[tokio::test]
    async fn it_passes_and_half_closes() {
        let (_proxy, mut stream) = echo().await;
        says(&mut stream, b"hello").await.unwrap();
        stream.shutdown().await.unwrap();
        assert_eq!(stream.read(&mut [0; 8]).await.unwrap(), 0);
    }

    #[tokio::test]
    async fn a_cut_ends_what_is_and_what_comes_until_healed() {
        let (proxy, mut stream) = echo().await;
        says(&mut stream, b"hello").await.unwrap();
        proxy.set(Fault::Cut);
        assert!(says(&mut stream, b"again").await.is_err());
        let mut other = TcpStream::connect(proxy.address()).await.unwrap();
        assert!(says(&mut other, b"again").await.is_err());
        proxy.set(Fault::Pass);
        let mut healed = TcpStream::connect(proxy.address()).await.unwrap();
        says(&mut healed, b"again").await.unwrap();
    }

    #[tokio::test]
    async fn a_black_hole_is_silent_and_late_words_arrive() {
        let (proxy, mut stream) = echo().await;
        says(&mut stream, b"hello").await.unwrap();
        proxy.set(Fault::BlackHole);
        let said = tokio::time::timeout(SOON, says(&mut stream, b"late")).await;
        assert!(said.is_err(), "neither an answer nor an error");
        proxy.set(Fault::Pass);
        hears(&mut stream, b"late").await.unwrap();
    }

    #[tokio::test]
    async fn a_delay_is_kept_both_ways_and_order_too() {
        let (proxy, mut stream) = echo().await;
        proxy.set(Fault::Delay(SOON));
        let before = Instant::now();
        stream.write_all(b"one").await.unwrap();
        stream.write_all(b"two").await.unwrap();
        hears(&mut stream, b"onetwo").await.unwrap();
        assert!(before.elapsed() >= 2 * SOON);
    }

    #[tokio::test]
    async fn a_dropped_proxy_ends_its_connections() {
        let (proxy, mut stream) = echo().await;
        says(&mut stream, b"hello").await.unwrap();
        drop(proxy);
        assert!(says(&mut stream, b"again").await.is_err());
    }
}
