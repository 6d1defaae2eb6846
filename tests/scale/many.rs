//! What agents cost, and that each of a thousand is changed once and heard.
//!
//! Nothing here depends on how fast the machine is: what would make a thousand agents too many for it is counted, the
//! memory for each of them, and how often the control plane parses what it knows of them.

use std::path::PathBuf;
use std::time::Duration;

use aldis_core::job::JobState;
use aldis_core::view::JobView;
use aldis_tests::etcd;
use aldis_tests::memory::Resident;
use aldis_tests::plane::{Apart, Plane};
use aldis_tests::practice::{Practice, rests};
use anyhow::Context;
use serde_json::json;
use tempfile::TempDir;

/// See above.
const AGENTS: usize = 1000;

/// Agents that begin at once: on a busy machine many handshakes in a debug build take longer than anybody waits
/// for one.
const AT_ONCE: usize = 25;

/// For each thing that must happen at all: ten times what a quiet machine of two cores needs.
const PATIENCE: Duration = Duration::from_secs(300);

/// As a fleet has them: on a busy machine many handshakes in a debug build take longer than the short times of
/// other tests.
const LIMITS: &str = "permit: 30s, unreachableAfter: 60s, leaderTtl: 20s";

/// Growth of the control plane for each connected agent, in KiB: two thirds are buffers of TLS and HTTP/2. Measured 65
/// in a debug build.
const IDLE_KIB: u64 = 128;

/// The same at its peak, with a plan, a job and a person who watches it: each view of the job is 2 MB, and a plan is
/// 3 MB.
const PEAK_KIB: u64 = 384;

/// Records that may be parsed for each agent beside one for each change: by whoever reads the store itself, to
/// register it and to store and read its plan.
const PARSED_BESIDE: u64 = 10;

/// Bounds of the control plane's queues: reports of all agents, frames to one of them.
const QUEUES: [(&str, u64); 2] = [
    ("aldis_reports_waiting", 4096),
    ("aldis_frames_waiting", 256),
];

/// A remedy in three waves: one cluster of each region, half, the rest.
const ROLLBACK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: back, version: 1}
spec:
  direction: remedy
  params:
    type: object
    properties: {from: {type: string, default: 'checkout:v2.18.0'}}
  targets: {select: {matchLabels: {env: prod}}}
  rollout:
    waves:
      - {name: canary, pick: {perRegion: 1}}
      - {name: half, pick: {percent: 50}, maxParallel: 250}
      - {name: rest, pick: {percent: 100}, maxParallel: 1000}
    maxFailures: 0
  preflight:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: checkout, namespace: shop}, barrier: true}
  steps:
    - {id: back, use: kube.rollout-undo@v1, with: {deployment: checkout, namespace: shop, from: '${params.from}', to: previous}}
    - {id: wait, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_real_agents_on_practice_clusters_are_each_changed_once_and_heard_in_bounded_memory()
 {
    let etcd = etcd::Server::start().await.unwrap();
    let fleet = Fleet::start(&etcd.endpoint()).await.unwrap();
    let idle = fleet.resident().unwrap();
    let (view, fullest) = fleet.roll_back().await.unwrap();
    let worked = fleet.resident().unwrap();

    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(view.waves.len(), 3);
    assert_eq!(rests(&view), vec!["changed"; AGENTS]);
    let once = ("checkout:v2.17.4".to_owned(), 1);
    assert_eq!(fleet.practice.images(), vec![once; AGENTS]);
    for said in fleet.practice.said().into_values() {
        assert!(!said.acknowledged.is_empty());
    }

    for ((name, bound), seen) in QUEUES.into_iter().zip(fullest) {
        assert!(seen <= bound, "{name} was {seen}");
        assert_eq!(
            fleet.practice.plane.metric(name).await.unwrap(),
            0,
            "{name}"
        );
    }
    let plane = &fleet.practice.plane;
    let changes = plane.metric("aldis_view_changes").await.unwrap();
    let parsed = plane.metric("aldis_records_parsed").await.unwrap();
    let most = changes + PARSED_BESIDE * AGENTS as u64;
    assert!(parsed <= most, "{parsed} parsed, {changes} changed");

    let lives = fleet.practice.plane.process("cp-1").unwrap().starts();
    assert_eq!(lives, 1, "the memory is that of one process");
    let grown = |now: u64| now.saturating_sub(fleet.empty.now) / AGENTS as u64;
    assert!(grown(idle.now) <= IDLE_KIB, "{:?} {idle:?}", fleet.empty);
    assert!(
        grown(worked.peak) <= PEAK_KIB,
        "{:?} {worked:?}",
        fleet.empty
    );
}

struct Fleet {
    practice: Practice,
    /// The control plane before any agent came.
    empty: Resident,
    _journals: TempDir,
}

impl Fleet {
    async fn start(etcd: &str) -> anyhow::Result<Self> {
        let apart = Apart {
            etcd,
            replicas: 1,
            limits: LIMITS,
        };
        let plane = Plane::start_apart(&apart, crate::plane::program).await?;
        let journals = TempDir::new_in(journals()).context("make a folder for journals")?;
        let practice = Practice::over(plane, journals.path().to_owned(), PATIENCE).await?;
        let mut fleet = Self {
            empty: resident(&practice)?,
            practice,
            _journals: journals,
        };
        let names: Vec<String> = (0..AGENTS)
            .map(|number| format!("region-{}/cluster-{number:03}", number % 10))
            .collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        for some in names.chunks(AT_ONCE) {
            let joined = fleet.practice.join(some).await;
            joined.with_context(|| fleet.practice.plane.last_words())?;
        }
        Ok(fleet)
    }

    fn resident(&self) -> anyhow::Result<Resident> {
        resident(&self.practice)
    }

    /// Runs the job over all, while somebody watches it; the fullest that each queue was seen meanwhile.
    async fn roll_back(&self) -> anyhow::Result<(JobView, [u64; 2])> {
        let practice = &self.practice;
        let plan = practice.plan(ROLLBACK, json!({})).await?;
        let job = practice.submit(&plan).await?;
        let mut fullest = [0; 2];
        let looking = async {
            loop {
                for ((name, _), most) in QUEUES.into_iter().zip(&mut fullest) {
                    *most = (*most).max(practice.plane.metric(name).await?);
                }
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
        };
        let view = tokio::select! {
            ended = practice.until_ended(&job) => ended?,
            stopped = looking => return stopped,
        };
        practice.until_heard().await?;
        Ok((view, fullest))
    }
}

fn resident(practice: &Practice) -> anyhow::Result<Resident> {
    let process = practice.plane.process("cp-1")?;
    Resident::of(process.pid().context("the control plane runs")?)
}

/// Journals on a file system in memory, where the machine has one with room: it does not lose power in a test, and
/// a thousand journals on one disk measure the disk.
fn journals() -> PathBuf {
    /// Each journal takes its first MiB at once.
    const ROOM: u64 = 2 << 30;
    let memory = PathBuf::from("/dev/shm");
    match rustix::fs::statvfs(&memory) {
        Ok(about) if about.f_bavail * about.f_frsize > ROOM => memory,
        Ok(_) | Err(_) => std::env::temp_dir(),
    }
}
