//! Where the parts are joined, and the only place.
//!
//! ```text
//! store ─▶ view ─▶ sessions ─▶ directory ─┬▶ leader (while this replica leads)
//!            │                            └▶ services ─▶ gRPC behind TLS and the table
//!            └▶ leadership, membership
//! ```

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::inventory::Limits;
use aldis_proto::v1::agent_service_server::AgentServiceServer;
use aldis_proto::v1::fleet_service_server::FleetServiceServer;
use aldis_proto::v1::job_service_server::JobServiceServer;
use aldis_proto::v1::peer_service_server::PeerServiceServer;
use aldis_proto::v1::runbook_service_server::RunbookServiceServer;
use anyhow::Context;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tonic::transport::Server;
use tracing::{error, info};

use crate::agents::Agents;
use crate::authorization::Authorize;
use crate::clock::{Clock, SystemClock};
use crate::config::{Config, Store as Kept};
use crate::grpc::hop::Replicas;
use crate::grpc::{AgentServer, FleetServer, JobServer, PeerServer, RunbookServer};
use crate::jobs::Plans;
use crate::lasting::{self, Lasting};
use crate::leader;
use crate::leadership::{self, Leader, Leadership, Role};
use crate::membership::Membership;
use crate::monitoring::{self, Watched};
use crate::records::Replica;
use crate::services::{self, Services};
use crate::sessions::{self, Directory, Sessions};
use crate::store::Store;
use crate::store::embedded::Embedded;
use crate::store::etcd::{self, Etcd};
use crate::telemetry::chain;
use crate::tls;
use crate::turns::Turns;
use crate::view::View;

/// For agents to open a stream elsewhere before this replica ends.
const MOVE_WITHIN: Duration = Duration::from_secs(3);

/// For the whole of leaving: below the ten seconds that most supervisors give.
const LEAVE_WITHIN: Duration = Duration::from_secs(8);

/// For a unary call or the first answer of a stream.
const CALL: Duration = Duration::from_secs(30);

/// Calls at once on one connection: a person's program makes few.
const CALLS: usize = 128;

/// A connection that answers no ping within this is gone.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Largest message of an agent: a report of 64 KiB, an answer with one plan part, a registration with a
/// week's attempts.
const LARGEST_OF_AGENT: usize = 16 * 1024 * 1024;

/// Largest message of a person: a runbook of 256 KiB, and its parameters.
const LARGEST_OF_USER: usize = 1024 * 1024;

/// Why a replica ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ended {
    /// It was asked to.
    Asked,
    /// It led and lost that: something restarts it.
    LostLeadership,
}

/// Opens the store that a configuration names.
pub async fn open_store(config: &Config, clock: Arc<dyn Clock>) -> anyhow::Result<Arc<dyn Store>> {
    Ok(match &config.store {
        Kept::Etcd { endpoints, tls } => {
            let read = |path: &std::path::Path| {
                std::fs::read(path).with_context(|| format!("read {}", path.display()))
            };
            let tls = match tls {
                None => None,
                Some(files) => Some(etcd::Tls {
                    ca: read(&files.ca)?,
                    certificate: read(&files.certificate)?,
                    key: read(&files.key)?,
                }),
            };
            let endpoints = endpoints.clone();
            Arc::new(
                Etcd::connect(&etcd::Config { endpoints, tls })
                    .await
                    .context("prepare the connection to etcd")?,
            )
        }
        Kept::Embedded { path } => Arc::new(
            Embedded::open(path, clock).with_context(|| format!("open {}", path.display()))?,
        ),
    })
}

/// Runs a replica until `stop`, or until it lost leadership.
pub async fn run(config: Config, stop: impl Future<Output = ()>) -> anyhow::Result<Ended> {
    let mut stop = std::pin::pin!(stop);
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let listener = TcpListener::bind(config.listen)
        .await
        .with_context(|| format!("listen on {} (`listen`)", config.listen))?;
    let store = open_store(&config, clock.clone()).await?;
    let boot_id = hex::encode(rand::random::<[u8; 8]>());
    let view = View::start(store.clone(), clock.clone());
    let plans = Arc::new(Plans::new(store.clone()));
    let limits = Limits {
        permit: config.limits.permit,
        unreachable_after: config.limits.unreachable_after,
        defer_for: config.limits.defer_for,
    };
    let sessions = Sessions::start(sessions::Parts {
        store: store.clone(),
        view: view.clone(),
        clock: clock.clone(),
        plans: plans.clone(),
        replica: config.replica.clone(),
        boot_id: boot_id.clone(),
        permit: limits.permit,
        retention: config.limits.retention,
    });
    let turns = Arc::new(Turns::new(
        view.clone(),
        plans.clone(),
        config.limits.running_jobs,
    ));
    let hop = Replicas::new(config.tls.clone(), config.trust_domain.clone());
    let agents: Arc<dyn Agents> = Arc::new(Directory::new(sessions.clone(), hop));
    let leadership = Leadership::start(
        store.clone(),
        clock.clone(),
        leadership::Settings {
            ttl: config.limits.leader_ttl,
            ..leadership::Settings::new(Leader {
                replica: config.replica.clone(),
                boot_id: boot_id.clone(),
                address: config.advertise.clone(),
            })
        },
    );
    let _leading = Lasting::start(
        "leading",
        leader::run(
            leader::Parts {
                store: store.clone(),
                view: view.clone(),
                clock: clock.clone(),
                plans: plans.clone(),
                turns: turns.clone(),
                agents: agents.clone(),
                settings: leader::Settings {
                    limits,
                    retention: config.limits.retention,
                },
            },
            leadership.role(),
        ),
    );
    let services = Services::new(services::Parts {
        store: store.clone(),
        view: view.clone(),
        clock: clock.clone(),
        draw: rand::random::<u128>,
        plans,
        agents: agents.clone(),
        turns,
        limits,
        open_jobs: config.limits.open_jobs,
        plan_expiry: config.limits.plan_expiry,
    });
    if let Some(at) = config.monitoring {
        let listener = TcpListener::bind(at.listen)
            .await
            .with_context(|| format!("listen on {} (`monitoring.listen`)", at.listen))?;
        let watched = Watched {
            replica: config.replica.clone(),
            view: view.clone(),
            clock,
            sessions: sessions.clone(),
            agents,
            role: leadership.role(),
        };
        lasting::spawn("monitoring", async move {
            if let Err(error) = monitoring::serve(listener, watched).await {
                error!(error = chain(&error), "monitoring ended");
            }
        });
    }
    let record = Replica {
        format: 1,
        id: config.replica.clone(),
        boot_id,
        address: config.advertise.clone(),
    };
    let joined = tokio::select! {
        joined = join(store, record) => joined?,
        // A store that is away must not keep a replica from ending.
        () = &mut stop => None,
        () = lost(leadership.role()) => return Ok(Ended::LostLeadership),
    };
    let Some(membership) = joined else {
        info!("asked to end before the store answered");
        return Ok(Ended::Asked);
    };
    let (end, ended) = watch::channel(false);
    let serving = serve(&config, listener, &sessions, services, view, ended)?;
    info!(replica = config.replica, listen = %config.listen, version = env!("CARGO_PKG_VERSION"), "serving");
    let mut serving = tokio::spawn(serving);
    let ended = tokio::select! {
        () = &mut stop => Ended::Asked,
        () = lost(leadership.role()) => Ended::LostLeadership,
        served = &mut serving => {
            served.context("serve")?.context("serve")?;
            anyhow::bail!("the server ended by itself");
        }
    };
    info!(?ended, "leaving");
    let leave = async {
        sessions.move_all(MOVE_WITHIN).await;
        leadership.step_down().await;
        drained(&sessions).await;
        membership.leave().await;
    };
    if tokio::time::timeout(LEAVE_WITHIN, leave).await.is_err() {
        info!("left before everything was handed over");
    }
    // Streams that still hang are cut: their agents connect elsewhere.
    let _ = end.send(true);
    serving.abort();
    // Its address is free when this returns.
    let _ = serving.await;
    Ok(ended)
}

/// Records this replica, before the first agent is served. Refused over a store of a later build.
async fn join(store: Arc<dyn Store>, replica: Replica) -> anyhow::Result<Option<Membership>> {
    let membership = Membership::join(store.clone(), replica).await;
    leadership::check_format(&*store)
        .await
        .context("look at the store's format")?;
    Ok(Some(membership))
}

fn serve(
    config: &Config,
    listener: TcpListener,
    sessions: &Sessions,
    services: Services,
    view: View,
    mut ended: watch::Receiver<bool>,
) -> anyhow::Result<impl Future<Output = Result<(), tonic::transport::Error>> + use<>> {
    let incoming = tls::accept(listener, config.tls.clone(), config.trust_domain.clone())?;
    let agent = AgentServiceServer::new(AgentServer::new(sessions.clone()))
        .max_decoding_message_size(LARGEST_OF_AGENT);
    let peer = PeerServiceServer::new(PeerServer::new(sessions.clone()))
        .max_decoding_message_size(LARGEST_OF_AGENT);
    let jobs = JobServiceServer::new(JobServer::new(services.clone()))
        .max_decoding_message_size(LARGEST_OF_USER);
    let runbooks = RunbookServiceServer::new(RunbookServer::new(services.clone()))
        .max_decoding_message_size(LARGEST_OF_USER);
    let fleet = FleetServiceServer::new(FleetServer::new(services, view, config.replica.clone()));
    let (_, health) = tonic_health::server::health_reporter();
    let router = Server::builder()
        .layer(Authorize)
        .timeout(CALL)
        .concurrency_limit_per_connection(CALLS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(health)
        .add_service(agent)
        .add_service(peer)
        .add_service(jobs)
        .add_service(runbooks)
        .add_service(fleet);
    Ok(router.serve_with_incoming_shutdown(incoming, async move {
        let _ = ended.wait_for(|ended| *ended).await;
    }))
}

async fn lost(mut role: watch::Receiver<Role>) {
    let waited = role
        .wait_for(|role| matches!(role, Role::Lost { .. }))
        .await
        .is_ok();
    if !waited {
        std::future::pending::<()>().await;
    }
}

/// Returns once no agent hangs here any more.
async fn drained(sessions: &Sessions) {
    while sessions.count() > 0 {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}
