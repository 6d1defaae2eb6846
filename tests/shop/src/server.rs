//! Takes connections, and ends without failing a request.
//!
//! When a pod is deleted, Kubernetes sends SIGTERM and takes its address out of the Service at the same time; callers
//! learn of it a little later, and nobody can say when. So it goes on serving until no customer has come for a while,
//! takes the connections that wait to be taken, and then lets every request under way end. A connection that was
//! never used may still bring one: it is waited for, too.

use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use http::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinSet;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::phase::{self, Phase};
use crate::requests::Shop;

/// Connections at once. Those beyond wait to be taken; a customer of a small shop never meets it.
const CONNECTIONS: usize = 1024;

/// Until a connection has said what it wants.
const PATIENCE: Duration = Duration::from_secs(10);

/// After a failed accept: out of file descriptors, it would fail again at once.
const PAUSE: Duration = Duration::from_millis(50);

/// How it ends.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Ending {
    /// It serves on until no customer has come for so long.
    pub(crate) linger: Duration,
    /// At most so long it serves on, and at most so long requests under way may take after that.
    pub(crate) grace: Duration,
}

/// Requests that took longer than the grace.
#[derive(Debug, thiserror::Error)]
#[error("{connections} connections were cut off after {} s of grace", grace.as_secs())]
pub(crate) struct CutOff {
    connections: usize,
    grace: Duration,
}

/// The part of a server that outlives its listener.
struct Connections {
    shop: Arc<Shop>,
    open: JoinSet<()>,
    room: Arc<Semaphore>,
    closing: CancellationToken,
}

/// Serves until `told` to end, and until no request is under way after that.
pub(crate) async fn serve(
    listener: TcpListener,
    shop: Arc<Shop>,
    phase: phase::Sender,
    ending: Ending,
    told: impl Future<Output = &'static str>,
) -> Result<(), CutOff> {
    let mut connections = Connections {
        shop,
        open: JoinSet::new(),
        room: Arc::new(Semaphore::new(CONNECTIONS)),
        closing: CancellationToken::new(),
    };
    let by = connections.accept_until(&listener, told).await;
    phase.send_replace(Phase::Draining);
    tracing::info!("{by}: not ready any more, serving until nobody comes");
    connections.linger(&listener, ending).await;
    connections.accept_waiting(&listener).await;
    drop(listener);
    connections.close(ending.grace).await
}

impl Connections {
    async fn accept_until<T>(&mut self, listener: &TcpListener, end: impl Future<Output = T>) -> T {
        let mut end = pin!(end);
        loop {
            tokio::select! {
                ended = &mut end => return ended,
                (stream, place) = accept(listener, &self.room) => self.carry(stream, Some(place)),
                Some(_) = self.open.join_next() => {}
            }
        }
    }

    async fn linger(&mut self, listener: &TcpListener, ending: Ending) {
        let last = Instant::now() + ending.grace;
        loop {
            let before = self.shop.customers();
            let until = last.min(Instant::now() + ending.linger);
            let looked = tokio::time::sleep_until(until);
            self.accept_until(listener, looked).await;
            if self.shop.customers() == before || until == last {
                return;
            }
        }
    }

    /// Those that the kernel has taken for us and who believe to be connected.
    async fn accept_waiting(&mut self, listener: &TcpListener) {
        while let Ok(Ok((stream, _))) =
            tokio::time::timeout(Duration::ZERO, listener.accept()).await
        {
            self.carry(stream, None);
        }
    }

    fn carry(&mut self, stream: TcpStream, place: Option<OwnedSemaphorePermit>) {
        let (shop, closing) = (Arc::clone(&self.shop), self.closing.clone());
        self.open.spawn(async move {
            connection(stream, shop, closing).await;
            drop(place);
        });
    }

    async fn close(mut self, grace: Duration) -> Result<(), CutOff> {
        self.closing.cancel();
        let all = async { while self.open.join_next().await.is_some() {} };
        let ended = tokio::time::timeout(grace, all).await;
        let connections = self.open.len();
        ended.map_err(|_| CutOff { connections, grace })
    }
}

/// The next connection, when there is room for one.
async fn accept(
    listener: &TcpListener,
    room: &Arc<Semaphore>,
) -> (TcpStream, OwnedSemaphorePermit) {
    loop {
        let place = Arc::clone(room).acquire_owned().await;
        let place = place.expect("it is never closed");
        match listener.accept().await {
            Ok((stream, _)) => return (stream, place),
            Err(error) => {
                tracing::warn!("accept a connection: {error}");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn connection(stream: TcpStream, shop: Arc<Shop>, closing: CancellationToken) {
    let used = AtomicBool::new(false);
    let service = service_fn(|request: Request<Incoming>| {
        used.store(true, Ordering::Relaxed);
        let shop = Arc::clone(&shop);
        async move { Ok::<_, Infallible>(shop.answer(&request.into_parts().0).await) }
    });
    let served = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(PATIENCE)
        .serve_connection(TokioIo::new(stream), service);
    let mut served = pin!(served);
    tokio::select! {
        // The client may leave at any time; there is nobody else to tell.
        _ = &mut served => return,
        () = closing.cancelled() => {}
    }
    if used.load(Ordering::Relaxed) {
        served.as_mut().graceful_shutdown();
    }
    let _ = served.await;
}
