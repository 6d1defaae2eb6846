//! One agent: its cluster, the disk of its journal, and the process that runs now, if one does. The process
//! is the real one, joined as in `aldis_agent::run`; only the ways out of it are the story's.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use aldis_agent::actions::Actions;
use aldis_agent::clock::Clock;
use aldis_agent::desk::{Desk, Pauses};
use aldis_agent::journal::{Journal, JournalId};
use aldis_agent::ledger::Ledger;
use aldis_agent::logs::Logs;
use aldis_agent::parts::Parts;
use aldis_agent::permit::Permits;
use aldis_agent::policy::Policy;
use aldis_agent::reports::Reports;
use aldis_agent::session::{Session, Settings};
use aldis_agent::tls;
use aldis_core::ids::TargetName;
use aldis_core::plan::ClusterIdentity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::clock::StoryClock;
use crate::cluster::Cluster;
use crate::disk::JournalDisk;
use crate::history::History;
use crate::network::{Network, Road};

/// An agent.
pub(crate) struct Agent {
    pub(crate) target: TargetName,
    pub(crate) cluster: Cluster,
    pub(crate) disk: JournalDisk,
    /// What proves where the disk is: another one means a copy.
    pub(crate) machine: String,
    running: Option<CancellationToken>,
}

/// What a process is started with.
pub(crate) struct Start<'a> {
    pub(crate) network: &'a Network,
    pub(crate) clock: &'a StoryClock,
    pub(crate) chance: &'a Chance,
    pub(crate) logs: &'a Path,
    pub(crate) history: &'a History,
}

impl Agent {
    pub(crate) fn new(target: TargetName, cluster: Cluster) -> Self {
        Self {
            machine: format!("machine of {target}"),
            target,
            cluster,
            disk: JournalDisk::default(),
            running: None,
        }
    }

    /// The same cluster's agent on another machine, with what is on the first one's disk now.
    pub(crate) fn clone_machine(&self) -> Self {
        Self {
            machine: format!("copy of the {}", self.machine),
            target: self.target.clone(),
            cluster: self.cluster.clone(),
            disk: self.disk.copy(),
            running: None,
        }
    }

    pub(crate) fn is_up(&self) -> bool {
        self.running
            .as_ref()
            .is_some_and(|life| !life.is_cancelled())
    }

    /// Starts a process on the disk as it is.
    pub(crate) fn start(&mut self, start: &Start<'_>) {
        let life = CancellationToken::new();
        let disk = self.disk.mounted(life.clone(), start.chance.clone());
        let high = u128::from(start.chance.number()) << 64;
        let id = JournalId(high | u128::from(start.chance.number()));
        let process = format!("{:016x}", start.chance.number());
        self.running = Some(life.clone());
        // A disk that ends the process while it opens its journal: it is started again.
        let Ok(opened) = Journal::open_on(disk, || id) else {
            life.cancel();
            return;
        };
        let clock: Arc<dyn Clock> = Arc::new(start.clock.clone());
        let actions: Arc<dyn Actions> = Arc::new(self.cluster.reached_by(life.clone()));
        let folder = start.logs.join(self.target.to_string().replace('/', "-"));
        let parts = Parts {
            target: self.target.clone(),
            simulated: true,
            pin: None,
            actions,
            policy: Arc::new(Policy::without_file()),
            ledger: Ledger::in_place(opened),
            reports: Reports::new(),
            logs: Logs::open(&folder, clock.clone()).expect("make a folder for logs"),
            permits: Permits::new(clock.clone()),
            clock,
        };
        let road = Road {
            network: start.network.clone(),
            target: self.target.clone(),
            life: life.clone(),
        };
        let settings = self.settings(process);
        tokio::spawn(run(parts, settings, road, life, start.history.clone()));
    }

    fn settings(&self, process: String) -> Settings {
        let endpoints = ["r1:1", "r2:1"].map(|text| text.parse().expect("host and port"));
        Settings {
            endpoints: endpoints.to_vec(),
            trust_domain: "story".to_owned(),
            tls: tls::Files {
                certificate: "none".into(),
                key: "none".into(),
                ca: "none".into(),
            },
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            process,
            machine: self.machine.clone(),
        }
    }

    /// `kill -9`.
    pub(crate) fn kill(&mut self) {
        if let Some(life) = self.running.take() {
            life.cancel();
        }
    }
}

/// One process, to its end.
async fn run(
    parts: Parts,
    settings: Settings,
    road: Road,
    life: CancellationToken,
    history: History,
) {
    let identity = ClusterIdentity {
        cluster_uid: format!("uid-{}", parts.target),
        ca_fingerprint: "story".to_owned(),
    };
    let (mut failed, target) = (parts.ledger.failed(), parts.target.clone());
    let desk = Desk::start_with(
        parts.clone(),
        Pauses {
            grace: Duration::from_secs(10),
            ..Pauses::default()
        },
    );
    let (_closing, closed) = watch::channel(false);
    let session = Session::new(parts, desk, settings, identity).over(Arc::new(road));
    let why = tokio::select! {
        biased;
        () = life.cancelled() => return,
        failed = failed.wait_for(Option::is_some) => failed.map(|why| why.clone()),
        () = session.run(closed) => return,
    };
    history.say(format!(
        "agent of {target}: {}",
        why.ok().flatten().unwrap_or_default()
    ));
    life.cancel();
}
