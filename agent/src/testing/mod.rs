//! A desk with a real journal on a practice cluster, whose calls tests can hold up, spoil and count.

mod hooked;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::assignments::{Assignment, Order, Wanted};
use aldis_core::ids::{self, JobId, StepId};
use aldis_core::job::{Direction, Report};
use aldis_core::outcome::{SegmentOutcome, StepState};
use aldis_core::plan::{RunbookRef, SegmentStep, StepPart, TargetPart};
use aldis_core::question::{Answer, Planning, Question};
use aldis_core::runbook::Runbook;
use aldis_proto::convert::parse;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::time::Instant;

use crate::actions::simulated::Simulated;
use crate::clock::{Clock, SystemClock};
use crate::desk::{Desk, Pauses};
use crate::journal::faulty::FaultyDisk;
use crate::journal::{AttemptKey, Entry, Half, Journal, JournalId};
use crate::ledger::Ledger;
use crate::logs::Logs;
use crate::parts::Parts;
use crate::permit::Permits;
use crate::planner;
use crate::policy::Policy;
use crate::reports::Reports;
pub(crate) use hooked::{Hooked, Point};

/// For anything that should happen at once on a loaded machine.
const SOON: Duration = Duration::from_secs(20);

/// An agent without a session.
pub(crate) struct Rig {
    dir: TempDir,
    /// The cluster, which outlives restarts.
    pub(crate) cluster: Arc<Simulated>,
    /// What stands before it.
    pub(crate) hooked: Arc<Hooked>,
    policy: Arc<Policy>,
    up: Option<Up>,
    pauses: Pauses,
    /// Where the journal is, if not in the directory.
    disk: Option<FaultyDisk>,
}

struct Up {
    parts: Parts,
    desk: Desk,
    heard: BTreeMap<u32, Vec<Report>>,
    streams: u64,
}

impl Rig {
    /// With a permit for a minute.
    pub(crate) async fn new() -> Self {
        let mut rig = Self::without_permit().await;
        rig.permit();
        rig.parts().permits.held().await;
        rig
    }

    pub(crate) async fn without_permit() -> Self {
        let target = "eu-west/prod-1".parse().unwrap();
        let cluster = Arc::new(Simulated::new(target, Duration::ZERO));
        let mut rig = Self {
            dir: tempfile::tempdir().unwrap(),
            hooked: Arc::new(Hooked::over(cluster.clone())),
            cluster,
            policy: Arc::new(Policy::without_file()),
            up: None,
            pauses: Pauses {
                grace: Duration::from_secs(60),
                room: Duration::from_millis(20),
                doubt: Duration::from_millis(20),
            },
            disk: None,
        };
        rig.start().await;
        rig
    }

    /// With a permit, and a journal on this disk.
    pub(crate) async fn on(disk: &FaultyDisk) -> Self {
        let mut rig = Self::without_permit().await;
        rig.disk = Some(disk.clone());
        rig.restart().await;
        rig
    }

    /// Fills the disk up to what is promised.
    pub(crate) async fn fill(&self, disk: &FaultyDisk) {
        disk.leave_free(0);
        for length in [256 << 10, 32 << 10, 4 << 10, 512, 64, 0] {
            while self.write(length).await {}
        }
    }

    async fn write(&self, length: usize) -> bool {
        let ledger = &self.parts().ledger;
        let entry = Entry::Evidence {
            attempt: AttemptKey {
                job: "filler".into(),
                target: "eu-west/prod-1".into(),
                number: 1,
            },
            step: "s".into(),
            half: Half::Apply,
            data: "x".repeat(length).into(),
        };
        match ledger.append(ledger.id(), vec![entry]).await {
            Ok(_) => true,
            Err(error) => {
                assert!(error.is_full(), "{error}");
                false
            }
        }
    }

    /// Limits what this agent may do.
    pub(crate) async fn under_policy(mut self, text: &str) -> Self {
        let file = std::path::Path::new("/etc/aldis/policy.yaml");
        self.policy = Arc::new(Policy::parse(file, text).unwrap());
        self.restart().await;
        self
    }

    /// Gives up on unordered attempts after so long.
    pub(crate) async fn with_grace(mut self, grace: Duration) -> Self {
        self.pauses.grace = grace;
        self.restart().await;
        self
    }

    /// Kills the agent where it stands and starts it again on the same journal, with a permit.
    pub(crate) async fn restart(&mut self) {
        self.restart_without_permit().await;
        self.permit();
    }

    pub(crate) async fn restart_without_permit(&mut self) {
        self.up = None;
        self.hooked.let_go();
        self.start().await;
    }

    /// The same with the journal deleted in between.
    pub(crate) async fn restart_without_journal(&mut self) {
        self.up = None;
        self.hooked.let_go();
        // The lock is free when the last of it is gone.
        drop(open(&self.dir).await);
        let journal = self.dir.path().join("journal");
        std::fs::remove_file(journal.join("journal.log")).unwrap();
        self.start().await;
        self.permit();
    }

    async fn start(&mut self) {
        let ledger = match &self.disk {
            Some(disk) => {
                let new_id = || JournalId(rand::random());
                Ledger::over(Journal::open_on(disk.boxed(), new_id).unwrap())
            }
            None => open(&self.dir).await,
        };
        self.hooked.watch(ledger.clone());
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let parts = Parts {
            target: "eu-west/prod-1".parse().unwrap(),
            simulated: true,
            pin: None,
            actions: self.hooked.clone(),
            policy: self.policy.clone(),
            ledger,
            reports: Reports::new(),
            logs: Logs::open(&self.dir.path().join("logs"), clock.clone()).unwrap(),
            permits: Permits::new(clock.clone()),
            clock,
        };
        self.up = Some(Up {
            desk: Desk::start_with(parts.clone(), self.pauses),
            parts,
            heard: BTreeMap::new(),
            streams: 0,
        });
    }

    pub(crate) fn parts(&self) -> &Parts {
        &self.up.as_ref().expect("it runs").parts
    }

    pub(crate) fn desk(&self) -> &Desk {
        &self.up.as_ref().expect("it runs").desk
    }

    /// A permit for a minute from now.
    pub(crate) fn permit(&mut self) {
        let parts = self.parts();
        parts
            .permits
            .grant(parts.clock.boot_now(), Duration::from_secs(60));
    }

    /// The part that this agent plans for a runbook with these steps.
    pub(crate) async fn part(&self, steps: &Value) -> TargetPart {
        let question = Question::Plan(Box::new(planning(steps)));
        let answer = planner::answer(self.parts(), question, SOON).await;
        match answer {
            Some(Ok(Answer::Plan(part))) => *part,
            other => panic!("{other:?}"),
        }
    }

    /// The assignment of an attempt with these steps, planned now.
    pub(crate) async fn assignment(&self, steps: Value, attempt: u32) -> Assignment {
        let body = planning(&steps);
        Assignment {
            format: Assignment::FORMAT,
            order: Order {
                job: "j-1".into(),
                target: body.target.clone(),
                attempt: ids::Attempt(attempt),
                fence: ids::Fence::default(),
                journal: self.parts().ledger.core_id(),
                direction: Direction::Forward,
                segment: 0,
                wanted: Wanted::Go,
            },
            runbook: body.runbook.clone(),
            plan_digest: ids::Digest::new("d"),
            params: json!({}),
            labels: BTreeMap::new(),
            part: self.part(&steps).await,
            steps: segment(&body.body),
            known: BTreeMap::new(),
            trace: None,
        }
    }

    pub(crate) async fn order(&self, assignment: &Assignment, wanted: Wanted) {
        let mut ordered = assignment.clone();
        ordered.order.wanted = wanted;
        // A leader commits for the journal that it knows now.
        ordered.order.journal = self.parts().ledger.core_id();
        self.desk().order(ordered).await;
    }

    /// The reason that an order was refused with, once.
    pub(crate) async fn refusal(&mut self) -> String {
        let until = Instant::now() + SOON;
        loop {
            let reports = &self.parts().reports;
            if let Some(refused) = reports.refusals_due(1, Instant::now()).pop() {
                return refused.reason;
            }
            assert!(Instant::now() < until, "nothing is refused");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// Everything that was reported of an attempt so far.
    pub(crate) fn heard(&mut self, attempt: u32) -> Vec<Report> {
        let up = self.up.as_mut().expect("it runs");
        up.streams += 1;
        for frame in up.parts.reports.due(up.streams, Instant::now()) {
            let report: Report = parse(frame.report.as_ref(), "report").unwrap();
            let heard = up.heard.entry(frame.attempt).or_default();
            if heard.last() != Some(&report) {
                heard.push(report);
            }
        }
        up.heard.get(&attempt).cloned().unwrap_or_default()
    }

    /// Waits until something that is wanted was reported.
    pub(crate) async fn hears<T>(
        &mut self,
        attempt: u32,
        wanted: impl Fn(&Report) -> Option<T>,
    ) -> T {
        let until = Instant::now() + SOON;
        loop {
            let heard = self.heard(attempt);
            if let Some(found) = heard.iter().find_map(&wanted) {
                return found;
            }
            assert!(Instant::now() < until, "only heard {heard:#?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    }

    /// How the attempt ended, with its steps.
    pub(crate) async fn ended(&mut self, attempt: u32) -> (SegmentOutcome, Steps) {
        self.hears(attempt, |report| match report {
            Report::Ended { outcome, steps } => Some((outcome.clone(), steps.clone())),
            _ => None,
        })
        .await
    }

    /// Waits until the attempt rests.
    pub(crate) async fn parked(&mut self, attempt: u32) {
        self.hears(attempt, |report| {
            matches!(report, Report::Parked { parked: true }).then_some(())
        })
        .await;
    }

    /// Image and number of changes of `shop/checkout`.
    pub(crate) fn checkout(&self) -> (String, u64) {
        let image = self.cluster.image("shop", "checkout").unwrap();
        (image, self.cluster.writes("shop", "checkout").unwrap())
    }

    /// Text of every log line of the job.
    pub(crate) fn lines(&self) -> Vec<String> {
        let mut reader = self.parts().logs.reader(&JobId::from("j-1"), 0);
        let lines = reader.read().unwrap();
        lines.into_iter().map(|line| line.text).collect()
    }
}

/// By step.
pub(crate) type Steps = BTreeMap<StepId, StepState>;

/// Sets the image of `shop/checkout`.
pub(crate) fn set(id: &str, image: &str) -> Value {
    json!({"id": id, "use": "kube.set-image", "with": {"deployment": "checkout", "namespace": "shop", "image": image}})
}

/// Waits for its rollout.
pub(crate) fn wait(id: &str) -> Value {
    json!({"id": id, "use": "kube.wait", "with": {"deployment": "checkout", "namespace": "shop", "for": "rolledOut"}})
}

/// The same with more fields.
pub(crate) fn with(mut step: Value, more: Value) -> Value {
    if let (Value::Object(step), Value::Object(more)) = (&mut step, more) {
        step.extend(more);
    }
    step
}

/// The way back over an assignment, as a leader commits it with what it knows.
pub(crate) fn back(assignment: &Assignment, attempt: u32, known: Steps) -> Assignment {
    let mut back = assignment.clone();
    back.order.direction = Direction::Undo;
    back.order.attempt = ids::Attempt(attempt);
    back.known = known;
    back
}

pub(crate) fn planning(steps: &Value) -> Planning {
    let body: Runbook = serde_json::from_value(json!({
        "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"},
        "spec": {"steps": steps},
    }))
    .unwrap();
    Planning {
        runbook: RunbookRef {
            name: "r".into(),
            version: 1,
            digest: ids::Digest::new("d"),
        },
        body,
        params: json!({}),
        target: "eu-west/prod-1".parse().unwrap(),
        labels: BTreeMap::new(),
    }
}

fn segment(body: &Runbook) -> Vec<SegmentStep> {
    let steps = body.spec.steps.iter();
    steps
        .map(|step| SegmentStep {
            part: StepPart::Main,
            step: step.clone(),
        })
        .collect()
}

/// Opens the journal; whoever had it before lets go of it within moments.
async fn open(dir: &TempDir) -> Ledger {
    let until = Instant::now() + SOON;
    loop {
        match Ledger::open(&dir.path().join("journal")) {
            Ok(ledger) => return ledger,
            Err(error) => assert!(Instant::now() < until, "{error}"),
        }
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
}
