//! From the submission of a job to the first step that its agent begins.
//!
//! Beside it, in turns: one guarded transaction into the same etcd and one unary call over mutual TLS to the same
//! replica. No way from a person to an agent that commits first can be shorter than these two. etcd and the agent's
//! journal wait for the disk, as they do in production.

use std::time::Duration;

use aldis_control_plane::store::{Commit, Key, Precondition, Store, Write};
use aldis_core::view::PlanView;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::{SubmitRequest, WhoamiRequest};
use aldis_tests::etcd;
use aldis_tests::pki::Request;
use aldis_tests::plane::{Apart, Plane};
use aldis_tests::practice::{PATIENCE, Practice};
use anyhow::Context;
use serde_json::json;
use tokio::time::Instant;

use crate::figure::{Figure, percentile};
use crate::programs;

/// Jobs, one after the other.
const JOBS: usize = 300;

/// Before the first that counts.
const WARM: usize = 20;

/// A job's header is some 700 bytes.
const VALUE: usize = 700;

const TARGET: &str = "eu-west/prod-1";

/// One step that reads: it can be submitted again and again.
const LOOK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: look, version: 1}
spec:
  targets: {select: {matchLabels: {env: prod}}}
  steps:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: checkout, namespace: shop}}
";

pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let etcd = etcd::Server::start_synced().await?;
    let apart = Apart {
        etcd: &etcd.endpoint(),
        replicas: 1,
        limits: "",
    };
    let plane = Plane::start_apart(&apart, programs::control_plane()?).await?;
    let folder = plane.folder();
    let mut practice = Practice::over(plane, folder, PATIENCE).await?;
    practice.join(&[TARGET]).await?;
    let plan = practice.plan(LOOK, json!({})).await?;
    let (mut ours, mut least) = (Vec::new(), Vec::new());
    let beside = Beside::of(&etcd, &practice).await?;
    for number in 0..WARM + JOBS {
        let start = one_start(&practice, &plan, number).await?;
        let both = beside.one(number).await?;
        if number >= WARM {
            ours.push(start);
            least.push(both);
        }
    }
    Ok([0.5, 0.99]
        .map(|share| Figure {
            name: format!("submit -> agent starts, p{:.0}, 1 replica", share * 100.0),
            unit: "ms",
            ours: percentile(&mut ours, share).as_secs_f64() * 1e3,
            beside: Some((
                "one guarded etcd transaction + one mTLS unary call".to_owned(),
                percentile(&mut least, share).as_secs_f64() * 1e3,
            )),
            aim: "<= 1.5",
        })
        .into())
}

async fn one_start(
    practice: &Practice,
    plan: &PlanView,
    number: usize,
) -> anyhow::Result<Duration> {
    let mut begun = practice.begun(TARGET)?;
    begun.borrow_and_update();
    let request = SubmitRequest {
        plan: plan.plan.id.to_string(),
        idempotency_key: format!("start-{number}"),
        ..SubmitRequest::default()
    };
    let submitted = Instant::now();
    let (job, start) = tokio::join!(practice.submit_as(request), async {
        begun.changed().await.map(|()| submitted.elapsed())
    });
    practice.until_ended(&job?.job).await?;
    Ok(start?)
}

/// What ours is held against.
struct Beside {
    store: Box<dyn Store>,
    fleet: FleetServiceClient<tonic::transport::Channel>,
}

impl Beside {
    async fn of(etcd: &etcd::Server, practice: &Practice) -> anyhow::Result<Self> {
        let channel = practice.plane.connect(&Request::user("mei")).await?;
        Ok(Self {
            store: Box::new(etcd.store().await?),
            fleet: FleetServiceClient::new(channel),
        })
    }

    async fn one(&self, number: usize) -> anyhow::Result<Duration> {
        let key = Key::raw(format!("/bench/start/{number}"));
        let commit = Commit {
            preconditions: vec![Precondition::Absent(key.clone())],
            writes: vec![Write::put(key, vec![b'x'; VALUE])],
        };
        let begun = Instant::now();
        let written = self.store.commit(commit).await?;
        anyhow::ensure!(written.is_committed(), "somebody else writes here");
        let mut fleet = self.fleet.clone();
        fleet.whoami(WhoamiRequest {}).await.context("call")?;
        Ok(begun.elapsed())
    }
}
