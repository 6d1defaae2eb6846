//! Durable submissions per second, against raw puts of the same size into the same etcd.
//!
//! One plan, many keys: each submission is a job of its own, and one transaction. Two replicas watch.
//! Runs of both kinds take turns, so that a machine that warms up or slows down does so for both.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use aldis_control_plane::records::{self, PlanHeader, PlanPart};
use aldis_control_plane::store::{Commit, Store, Write, keys};
use aldis_core::ids::{PlanId, TargetName, Timestamp};
use aldis_core::plan::{
    ClusterIdentity, Disposition, Phase, Plan, RunbookRef, Scope, TargetPart, waves,
};
use aldis_core::runbook::builtin;
use aldis_core::runbook::load::load;
use aldis_proto::v1::SubmitRequest;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_tests::etcd;
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use anyhow::Context;
use tokio::time::Instant;

use crate::figure::Figure;

/// As the aim names it.
const CLIENTS: usize = 64;

/// One run of one kind.
const RUN: Duration = Duration::from_secs(4);

/// Runs of each kind.
const RUNS: usize = 3;

/// A job's header is some 700 bytes.
const VALUE: usize = 700;

pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let etcd = etcd::Server::start().await?;
    let store: Arc<dyn Store> = Arc::new(etcd.store().await?);
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 2).await?;
    let plan = put_plan(&*store).await?;
    let (mut ours, mut raw) = (0.0, 0.0);
    for run in 0..RUNS {
        raw += puts(&etcd.endpoint(), run).await? / to_f64(RUNS);
        ours += submissions(&plane, &plan, run).await? / to_f64(RUNS);
    }
    Ok(vec![Figure {
        name: format!("durable submissions, {CLIENTS} clients, 2 replicas"),
        unit: "/s",
        ours,
        beside: Some((format!("raw etcd puts, {CLIENTS} clients, same etcd"), raw)),
        aim: ">= 0.8",
    }])
}

async fn submissions(plane: &Plane, plan: &PlanId, run: usize) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut jobs = JobServiceClient::new(
            plane
                .connect(&Request::user(&format!("client-{client}")))
                .await?,
        );
        let (done, plan) = (done.clone(), plan.to_string());
        clients.spawn(async move {
            let until = Instant::now() + RUN;
            for number in 0.. {
                if Instant::now() >= until {
                    break;
                }
                let request = SubmitRequest {
                    plan: plan.clone(),
                    idempotency_key: format!("{run}-{number}"),
                    ..SubmitRequest::default()
                };
                jobs.submit(request).await.context("submit")?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(to_f64(done.load(Ordering::Relaxed)) / RUN.as_secs_f64())
}

#[expect(
    clippy::disallowed_methods,
    reason = "raw puts are what ours is held against"
)]
async fn puts(endpoint: &str, run: usize) -> anyhow::Result<f64> {
    let done = Arc::new(AtomicUsize::new(0));
    let mut clients = tokio::task::JoinSet::new();
    for client in 0..CLIENTS {
        let mut etcd = etcd_client::Client::connect([endpoint], None).await?;
        let done = done.clone();
        clients.spawn(async move {
            let until = Instant::now() + RUN;
            for number in 0.. {
                if Instant::now() >= until {
                    break;
                }
                let key = format!("/bench/{client}/{run}-{number}");
                etcd.put(key, vec![b'x'; VALUE], None)
                    .await
                    .context("put")?;
                done.fetch_add(1, Ordering::Relaxed);
            }
            anyhow::Ok(())
        });
    }
    while let Some(client) = clients.join_next().await {
        client??;
    }
    Ok(to_f64(done.load(Ordering::Relaxed)) / RUN.as_secs_f64())
}

/// A plan over one target, as planning would have stored it.
async fn put_plan(store: &dyn Store) -> anyhow::Result<PlanId> {
    let (name, text) = builtin::ALL[0];
    let loaded = load(name, text)?;
    let target: TargetName = "eu-west/prod-1".parse()?;
    let selection = BTreeSet::from([target.clone()]);
    let body = loaded.runbook;
    let phase = Phase {
        name: "main".to_owned(),
        waves: waves::cut(&body.spec.rollout, &selection),
        segments: waves::segments(&body),
        budget: 0,
        on_failure: body.on_failure(),
    };
    let scope = Scope {
        runbook: RunbookRef {
            name: name.to_owned(),
            version: 1,
            digest: loaded.digest,
        },
        body,
        params: serde_json::json!({}),
        selector: BTreeMap::new(),
        selection: BTreeMap::from([(target.clone(), BTreeMap::new())]),
        phases: vec![phase],
        expires_at: Timestamp(u64::MAX),
    };
    let part = TargetPart {
        target: target.clone(),
        identity: ClusterIdentity {
            cluster_uid: "bench".to_owned(),
            ca_fingerprint: String::new(),
        },
        simulated: true,
        disposition: Disposition::Run,
        steps: vec![],
        warnings: vec![],
        left: None,
    };
    let id = PlanId::new(format!("p-{}", "b".repeat(32)));
    let parts = BTreeMap::from([(target.clone(), part.clone())]);
    let plan = Plan::new(id.clone(), scope, parts, "bench".to_owned(), Timestamp(0));
    let header = PlanHeader {
        format: 1,
        id: id.clone(),
        scope: plan.scope,
        digest: plan.digest,
        planned_by: plan.planned_by,
        planned_at: plan.planned_at,
        expired: false,
        link: None,
    };
    let part = PlanPart {
        format: 1,
        late: false,
        part,
    };
    let commit = Commit {
        preconditions: vec![],
        writes: vec![
            Write::put(
                keys::plan_part(id.as_str(), &target.to_string()),
                records::write(&part),
            ),
            Write::put(keys::plan_header(id.as_str()), records::write(&header)),
        ],
    };
    anyhow::ensure!(
        store.commit(commit).await?.is_committed(),
        "the plan was not stored"
    );
    Ok(id)
}

#[expect(
    clippy::cast_precision_loss,
    reason = "counts of seconds stay far below 2^52"
)]
fn to_f64(count: usize) -> f64 {
    count as f64
}
