//! What people ask of a job, where the store does not say whether it was written.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::agents::{AgentFacts, Agents, AskError, Logged};
use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::jobs::Plans;
use aldis_control_plane::records::{self, PlanHeader};
use aldis_control_plane::services::{Parts, Services};
use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::lossy::{Lossy, Really};
use aldis_control_plane::store::{Commit, Store, Write, keys};
use aldis_control_plane::turns::Turns;
use aldis_control_plane::view::View;
use aldis_core::ids::{JobId, TargetName};
use aldis_core::inventory::Limits;
use aldis_core::job::{Header, JobState, Wish};
use aldis_core::plan::Plan;
use aldis_core::question::{Answer, Question};
use async_trait::async_trait;
use futures::stream::BoxStream;

/// No agents.
struct Nobody;

#[async_trait]
impl Agents for Nobody {
    async fn ask(&self, target: &TargetName, _: Question, _: Duration) -> Result<Answer, AskError> {
        let target = target.clone();
        Err(AskError::Absent { target })
    }

    async fn logs(
        &self,
        target: &TargetName,
        _: &JobId,
        _: u64,
        _: bool,
    ) -> Result<BoxStream<'static, Logged>, AskError> {
        let target = target.clone();
        Err(AskError::Absent { target })
    }

    fn fleet(&self) -> Vec<AgentFacts> {
        vec![]
    }
}

/// The plan of a job, without any part.
fn plan(job: &Header) -> PlanHeader {
    let samples = include_str!("../records/v1/plan-header.json");
    let mut samples: Vec<PlanHeader> = serde_json::from_str(samples).unwrap();
    let sample = samples.remove(0);
    let (by, at) = (sample.planned_by.clone(), sample.planned_at);
    let plan = Plan::new(job.plan.clone(), sample.scope.clone(), [].into(), by, at);
    PlanHeader {
        id: plan.id,
        digest: plan.digest,
        ..sample
    }
}

/// Services over a store that loses the reply to one commit, and a job that runs.
async fn losing(really: Really) -> (Services, JobId, tempfile::TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let clock = Arc::new(SystemClock);
    let kept = Embedded::open(&folder.path().join("state"), clock.clone()).unwrap();
    let headers: Vec<serde_json::Value> =
        serde_json::from_str(include_str!("../records/v1/header.json")).unwrap();
    let mut header: Header = serde_json::from_value(headers[0].clone()).unwrap();
    header.id = JobId::new(format!("j-{}", "0".repeat(32)));
    header.state = JobState::Running;
    let plan = plan(&header);
    let job = Commit {
        preconditions: vec![],
        writes: vec![
            Write::put(
                keys::job_header(header.id.as_str()),
                records::write(&header),
            ),
            Write::put(keys::plan_header(plan.id.as_str()), records::write(&plan)),
        ],
    };
    kept.commit(job).await.unwrap();
    let store: Arc<dyn Store> = Arc::new(Lossy::losing(Arc::new(kept), 1, really));
    let view = View::start(store.clone(), clock.clone());
    let plans = Arc::new(Plans::new(store.clone()));
    let services = Services::new(Parts {
        store,
        view: view.clone(),
        clock,
        plans: plans.clone(),
        agents: Arc::new(Nobody),
        turns: Arc::new(Turns::new(view, plans, 1)),
        limits: Limits::default(),
        draw: rand::random::<u128>,
        open_jobs: 10,
        plan_expiry: Duration::from_secs(60),
    });
    services.fresh().await.unwrap();
    (services, header.id, folder)
}

#[tokio::test]
async fn a_request_whose_reply_was_lost_is_made_again_or_found() {
    for (really, existed) in [(Really::NotWritten, false), (Really::Written, true)] {
        let (services, job, _folder) = losing(really).await;
        let asked = services.request(job.as_str(), "r-1", "lunch", Wish::Pause, "user/mei");
        assert_eq!(asked.await.unwrap(), existed);
        let again = services.request(job.as_str(), "r-1", "lunch", Wish::Pause, "user/mei");
        assert!(again.await.unwrap(), "the same request");
    }
}
