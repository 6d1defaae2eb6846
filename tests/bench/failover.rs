//! From the death of the leader to the next step that an agent begins.
//!
//! Two replicas, one etcd, four agents. The leader is killed with SIGKILL and a job is submitted to the other replica
//! at the same moment. The killed one is started again by itself, as a service manager would.

use std::time::Duration;

use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_proto::v1::{SubmitRequest, WhoamiRequest};
use aldis_tests::etcd;
use aldis_tests::pki::Request;
use aldis_tests::plane::{Apart, Plane};
use aldis_tests::practice::Practice;
use anyhow::Context;
use futures::StreamExt;
use futures::stream::FuturesUnordered;
use rustix::process::Signal;
use serde_json::json;
use tokio::time::Instant;

use crate::figure::{Figure, percentile};
use crate::programs;

/// Leaders killed.
const KILLED: usize = 9;

/// The default.
const TTL: Duration = Duration::from_secs(5);

/// Guarantee 8 gives this beyond the lease.
const BEYOND: Duration = Duration::from_secs(3);

/// For anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

const TARGETS: [&str; 4] = [
    "eu-west/prod-1",
    "eu-west/prod-2",
    "us-east/prod-1",
    "us-east/prod-2",
];

/// One step that reads, everywhere at once.
const LOOK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: look, version: 1}
spec:
  targets: {select: {matchLabels: {env: prod}}}
  rollout: {waves: [{name: all, pick: {percent: 100}}]}
  steps:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: checkout, namespace: shop}}
";

pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let etcd = etcd::Server::start_synced().await?;
    let apart = Apart {
        etcd: &etcd.endpoint(),
        replicas: 2,
        limits: "",
    };
    let plane = Plane::start_apart(&apart, programs::control_plane()?).await?;
    let folder = plane.folder();
    let mut practice = Practice::over(plane, folder, PATIENCE).await?;
    practice.join(&TARGETS).await?;
    let (mut first, mut last) = (Vec::new(), Vec::new());
    for number in 0..KILLED {
        let times = one_death(&practice, number).await?;
        first.push(times[0]);
        last.push(times[times.len() - 1]);
    }
    Ok(vec![
        figure("next dispatch, median", percentile(&mut first, 0.5)),
        figure("next dispatch, longest", percentile(&mut first, 1.0)),
        figure("all 4 agents begin, longest", percentile(&mut last, 1.0)),
    ])
}

/// When each agent began its next step, in order, counted from the death of the leader.
async fn one_death(practice: &Practice, number: usize) -> anyhow::Result<Vec<Duration>> {
    practice.until_live(&TARGETS).await?;
    let plan = practice.plan(LOOK, json!({})).await?;
    let (leader, other) = roles(&practice.plane).await?;
    let who = Request::user("mei");
    let mut jobs = JobServiceClient::new(practice.plane.connect_to(other, &who).await?);
    let waiting = FuturesUnordered::new();
    for target in TARGETS {
        let mut begun = practice.begun(target)?;
        begun.borrow_and_update();
        waiting.push(async move {
            // Agents live as long as this figure takes.
            let _ = begun.changed().await;
            Instant::now()
        });
    }
    practice.plane.process(&leader)?.signal(Signal::KILL)?;
    let killed = Instant::now();
    let request = SubmitRequest {
        plan: plan.plan.id.to_string(),
        idempotency_key: format!("failover-{number}"),
        ..SubmitRequest::default()
    };
    jobs.submit(request)
        .await
        .context("submit to the survivor")?;
    let began: Vec<Instant> = tokio::time::timeout(PATIENCE, waiting.collect())
        .await
        .context("agents begin after a leader's death")?;
    Ok(began.into_iter().map(|at| at - killed).collect())
}

/// Who leads, and who does not.
async fn roles(plane: &Plane) -> anyhow::Result<(String, &'static str)> {
    let found = async {
        loop {
            for name in ["cp-1", "cp-2"] {
                // One that was killed a moment ago may not listen yet.
                let Ok(channel) = plane.connect_to(name, &Request::user("mei")).await else {
                    continue;
                };
                let mut fleet = FleetServiceClient::new(channel);
                let who = fleet.whoami(WhoamiRequest {}).await?.into_inner();
                match who.leader.as_str() {
                    "cp-1" => return anyhow::Ok((who.leader, "cp-2")),
                    "cp-2" => return anyhow::Ok((who.leader, "cp-1")),
                    _ => {}
                }
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, found)
        .await
        .context("a replica leads")?
}

fn figure(what: &str, ours: Duration) -> Figure {
    Figure {
        name: format!("leader killed -> {what} of {KILLED}"),
        unit: "ms",
        ours: ours.as_secs_f64() * 1e3,
        beside: Some((
            "lease + 3 s (guarantee 8)".to_owned(),
            (TTL + BEYOND).as_secs_f64() * 1e3,
        )),
        aim: "<= 1.0",
    }
}
