//! Plaintext health and metrics for machines that watch machines. Off unless configured.
//!
//! | path | says |
//! |---|---|
//! | `/healthz` | the process runs |
//! | `/readyz` | it sees the store: 503 while its view cannot be proved fresh |
//! | `/metrics` | Prometheus text, counted from the view at the moment of the scrape |

use std::collections::BTreeMap;
use std::sync::Arc;

use aldis_core::inventory::Presence;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::watch;

use crate::agents::Agents;
use crate::clock::Clock;
use crate::jobs;
use crate::leadership::Role;
use crate::presence;
use crate::records;
use crate::sessions::Sessions;
use crate::view::View;

/// What is watched.
pub struct Watched {
    /// This replica's name.
    pub replica: String,
    /// What is known of the store.
    pub view: View,
    /// For the view's age.
    pub clock: Arc<dyn Clock>,
    /// Streams that hang here.
    pub sessions: Sessions,
    /// Every agent.
    pub agents: Arc<dyn Agents>,
    /// Whether this replica leads.
    pub role: watch::Receiver<Role>,
}

/// Serves until the process ends.
pub async fn serve(listener: TcpListener, watched: Watched) -> std::io::Result<()> {
    let router = axum::Router::new()
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .route("/metrics", get(metrics))
        .with_state(Arc::new(watched));
    axum::serve(listener, router).await
}

async fn ready(State(watched): State<Arc<Watched>>) -> Response {
    match watched.view.freshness(watched.clock.boot_now()) {
        Some(_) => "ok\n".into_response(),
        None => (
            StatusCode::SERVICE_UNAVAILABLE,
            "the store cannot be seen\n",
        )
            .into_response(),
    }
}

async fn metrics(State(watched): State<Arc<Watched>>) -> Response {
    let mut text = String::new();
    match encode(&mut text, &registry(&watched)) {
        Ok(()) => text.into_response(),
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, error.to_string()).into_response(),
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ByState {
    state: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    replica: String,
    version: String,
}

fn registry(watched: &Watched) -> Registry {
    let mut registry = Registry::with_prefix("aldis");
    let build = Family::<Build, Gauge>::default();
    let version = env!("CARGO_PKG_VERSION").to_owned();
    build
        .get_or_create(&Build {
            replica: watched.replica.clone(),
            version,
        })
        .set(1);
    registry.register("build", "Which replica and version answers", build);
    let fence = watched.view.read(presence::fence);
    let leads = matches!(*watched.role.borrow(), Role::Leading(_));
    let held = matches!(*watched.role.borrow(), Role::Held { .. });
    let stale = watched.view.stale_for(watched.clock.boot_now());
    let revision = watched.view.revision().unwrap_or_default();
    let waiting = watched.sessions.waiting();
    let single = [
        ("leader", "1 while this replica decides", i64::from(leads)),
        (
            "held",
            "1 while the store is believed to have gone back in time",
            i64::from(held),
        ),
        (
            "epoch",
            "Number of the newest leader's term",
            whole(fence.epoch),
        ),
        ("incarnation", "Life of the store", whole(fence.incarnation)),
        (
            "store_revision",
            "Revision that the view has reached",
            revision.0,
        ),
        (
            "view_stale_milliseconds",
            "Age of the proof that the view is complete",
            whole(stale.as_millis()),
        ),
        (
            "view_changes",
            "Records that were changed under the view, or all of them listed anew",
            whole(watched.view.changes()),
        ),
        (
            "records_parsed",
            "Records that were parsed; not many times as many as changed",
            whole(records::parsed()),
        ),
        (
            "sessions",
            "Agents whose stream hangs on this replica",
            whole(watched.sessions.count()),
        ),
        (
            "reports_waiting",
            "Reports of agents that wait to be written",
            whole(waiting.reports),
        ),
        (
            "frames_waiting",
            "Frames that wait for the agent that is furthest behind",
            whole(waiting.frames),
        ),
    ];
    for (name, help, value) in single {
        let gauge: Gauge = Gauge::default();
        gauge.set(value);
        registry.register(name, help, gauge);
    }
    registry.register(
        "agents",
        "Agents by state, as this replica sees them",
        by_state(agents(watched)),
    );
    registry.register(
        "jobs",
        "Jobs that have not ended, by state",
        by_state(open_jobs(watched)),
    );
    registry
}

fn by_state(counts: BTreeMap<&'static str, i64>) -> Family<ByState, Gauge> {
    let family = Family::<ByState, Gauge>::default();
    for (state, count) in counts {
        family
            .get_or_create(&ByState {
                state: state.to_owned(),
            })
            .set(count);
    }
    family
}

fn agents(watched: &Watched) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    for facts in watched.agents.fleet() {
        let state = match facts.presence {
            Presence::Live { .. } => "live",
            Presence::NotMerged => "merging",
            Presence::Contested { .. } => "contested",
            Presence::Held { .. } => "held",
            Presence::Absent { .. } => "lost",
        };
        *counts.entry(state).or_default() += 1;
    }
    counts
}

fn open_jobs(watched: &Watched) -> BTreeMap<&'static str, i64> {
    let mut counts = BTreeMap::new();
    // A record that cannot be read is named by whoever decides on it.
    for header in jobs::headers(&watched.view).readable {
        *counts.entry(header.state.word()).or_default() += 1;
    }
    counts
}

fn whole(number: impl TryInto<i64>) -> i64 {
    number.try_into().unwrap_or(i64::MAX)
}
