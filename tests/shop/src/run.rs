//! Joins the parts, runs them, and says how it ended.

use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;

use anyhow::{Context, bail};
use tokio::net::TcpListener;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::time::Instant;

use crate::arguments::{Arguments, DATABASE_URL};
use crate::database::Database;
use crate::logs::{self, Requests};
use crate::metrics::Metrics;
use crate::release::Crash;
use crate::requests::Shop;
use crate::server::{self, Ending};
use crate::session::Session;
use crate::{faults, phase};

/// Enough for what one pod is given.
const THREADS: usize = 2;

/// Runs until it is told to end, or ends by itself.
pub fn run(arguments: Arguments) -> ExitCode {
    logs::start();
    match begin(arguments) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: Arguments) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(THREADS)
        .enable_all()
        .build()
        .context("start the runtime")?;
    runtime.block_on(serve(arguments))
}

async fn serve(arguments: Arguments) -> anyhow::Result<()> {
    // First of all: the first process of a container ignores signals that it has no handler for.
    let mut signals = Signals::new()?;
    let behaviour = arguments.behaviour();
    let pod = pod();
    tracing::info!(
        release = arguments.release,
        pod,
        "starting {}",
        arguments.release
    );
    if behaviour.crash == Crash::AtStart {
        bail!(behaviour.first_words());
    }
    let listener = TcpListener::bind(arguments.listen)
        .await
        .with_context(|| format!("listen on {}", arguments.listen))?;
    let (sender, phase) = phase::serving();
    let shop = Arc::new(shop(&arguments, pod, phase)?);
    tracing::info!(address = %listener.local_addr()?, "{}", behaviour.first_words());
    let ending = Ending {
        linger: arguments.linger,
        grace: arguments.grace,
    };
    let serving = server::serve(listener, Arc::clone(&shop), sender, ending, signals.told());
    tokio::select! {
        ended = serving => ended?,
        time = faults::crashed(&behaviour) => bail!("panic: out of luck after {} ms", time.as_millis()),
        never = faults::leak(behaviour.leak) => match never {},
        () = follow(&shop, arguments.reload) => {}
    }
    tracing::info!("ended");
    Ok(())
}

fn shop(arguments: &Arguments, pod: String, phase: phase::Receiver) -> anyhow::Result<Shop> {
    let url = std::env::var(DATABASE_URL)
        .ok()
        .filter(|url| !url.is_empty());
    let release = &arguments.release;
    let session = arguments.session_secret.as_deref().map(Session::read);
    Ok(Shop {
        behaviour: arguments.behaviour(),
        since: Instant::now(),
        metrics: Metrics::new(release),
        log: Requests::new(arguments.log_requests),
        database: Database::new(url.as_deref(), &pod, release),
        session: session.transpose()?,
        customers: AtomicU64::new(0),
        release: release.clone(),
        pod,
        phase,
    })
}

async fn follow(shop: &Shop, reload: bool) {
    match &shop.session {
        Some(session) if reload => {
            let changed = || {
                shop.metrics.reloaded();
                tracing::info!(sha256 = session.hash(), "the session secret was read again");
            };
            session.follow(changed).await;
        }
        _ => std::future::pending().await,
    }
}

/// The name of the pod is the name of its host.
fn pod() -> String {
    let host = || {
        rustix::system::uname()
            .nodename()
            .to_string_lossy()
            .into_owned()
    };
    std::env::var("POD_NAME").unwrap_or_else(|_| host())
}

/// What tells it to end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> anyhow::Result<Self> {
        Ok(Self {
            terminate: signal(SignalKind::terminate()).context("handle SIGTERM")?,
            interrupt: signal(SignalKind::interrupt()).context("handle SIGINT")?,
        })
    }

    async fn told(&mut self) -> &'static str {
        tokio::select! {
            _ = self.terminate.recv() => "SIGTERM",
            _ = self.interrupt.recv() => "SIGINT",
        }
    }
}
