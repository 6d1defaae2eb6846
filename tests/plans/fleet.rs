//! The fleet of a case: real planners of agents over practice clusters, asked without a network.
//!
//! A practice cluster has no owners and can always go back; what a case says of these is laid over its answers, as an
//! API server would give them.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use aldis_agent::actions::simulated::Simulated;
use aldis_agent::actions::{
    Actions, Applied, Before, Call, Effect, Observed, Planned, Progress, Trouble,
};
use aldis_agent::clock::{Clock, SystemClock};
use aldis_agent::ledger::Ledger;
use aldis_agent::logs::Logs;
use aldis_agent::permit::Permits;
use aldis_agent::policy::Policy;
use aldis_agent::reports::Reports;
use aldis_agent::{Parts, planner};
use aldis_control_plane::agents::{AgentFacts, Agents, AskError};
use aldis_control_plane::records;
use aldis_core::ids::{JobId, JournalId, TargetName, Timestamp};
use aldis_core::inventory::Presence;
use aldis_core::plan::ClusterIdentity;
use aldis_core::plan::part::Feasibility;
use aldis_core::question::{Answer, Question};
use aldis_core::reconcile::RecordedJournal;
use aldis_proto::v1::LogLine;
use anyhow::Context;
use async_trait::async_trait;
use futures::stream::BoxStream;
use serde_json::json;
use tempfile::TempDir;

use crate::case::{self, Agent, Case, Cluster};

/// Every cluster of a case, with its agent.
pub(crate) struct Fleet {
    members: BTreeMap<TargetName, Member>,
    /// Journals and logs of the agents.
    _folder: TempDir,
}

struct Member {
    cluster: Cluster,
    stage: Arc<Stage>,
    parts: Parts,
    pinned: ClusterIdentity,
}

impl Fleet {
    pub(crate) async fn of(case: &Case) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        let mut members = BTreeMap::new();
        for cluster in &case.fleet {
            let member = Member::new(cluster, &folder).await?;
            let before = members.insert(cluster.target.clone(), member);
            anyhow::ensure!(before.is_none(), "{} is there twice", cluster.target);
        }
        Ok(Self {
            members,
            _folder: folder,
        })
    }

    /// Somebody sets another image of `shop/checkout`.
    pub(crate) fn interfere(&self, target: &TargetName, image: &str) -> anyhow::Result<()> {
        let member = self.members.get(target).context("a target of the fleet")?;
        let cluster = &member.stage.cluster;
        anyhow::ensure!(cluster.interfere("shop", "checkout", image, "somebody"));
        Ok(())
    }

    /// The identity of a cluster.
    pub(crate) fn identity(&self, target: &TargetName) -> anyhow::Result<&ClusterIdentity> {
        let member = self.members.get(target).context("a target of the fleet")?;
        Ok(&member.pinned)
    }
}

impl Member {
    async fn new(cluster: &Cluster, folder: &TempDir) -> anyhow::Result<Self> {
        let stage = Arc::new(Stage::of(cluster)?);
        let identity = stage.identity().await?;
        let own = folder.path().join(cluster.target.to_string());
        std::fs::create_dir_all(&own)?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let policy = match &cluster.policy {
            Some(text) => Policy::parse("/etc/aldis/policy.yaml".as_ref(), text)?,
            None => Policy::without_file(),
        };
        let parts = Parts {
            target: cluster.target.clone(),
            simulated: false,
            pin: None,
            actions: stage.clone(),
            policy: Arc::new(policy),
            ledger: Ledger::open(&own.join("journal"))?,
            reports: Reports::new(),
            logs: Logs::open(&own.join("logs"), clock.clone())?,
            permits: Permits::new(clock.clone()),
            clock,
        };
        let pinned = match &cluster.pinned {
            Some(uid) => ClusterIdentity {
                cluster_uid: uid.clone(),
                ..identity
            },
            None => identity,
        };
        Ok(Self {
            cluster: cluster.clone(),
            stage,
            parts,
            pinned,
        })
    }

    fn facts(&self) -> AgentFacts {
        let presence = match self.cluster.agent {
            Agent::Here | Agent::Silent => Presence::Live {
                journal: JournalId::new("journal"),
            },
            Agent::Away => Presence::Absent {
                since: Timestamp(0),
            },
            Agent::Held => Presence::Held {
                why: "its list of attempts says that the store went back".to_owned(),
            },
            Agent::Contested => Presence::Contested {
                why: "two processes use its identity".to_owned(),
            },
        };
        AgentFacts {
            fleet: Arc::new(records::Fleet {
                format: 1,
                target: self.cluster.target.clone(),
                identity: self.pinned.clone(),
                offered: None,
                labels: self.cluster.labels.clone(),
                version: "0.1.0".to_owned(),
                simulated: false,
                journal: RecordedJournal {
                    id: JournalId::new("journal"),
                    sequence: 0,
                },
                orphans: Vec::new(),
                held: None,
                merged_in: None,
            }),
            session: None,
            presence,
            last_seen: None,
            open_attempts: 0,
        }
    }
}

#[async_trait]
impl Agents for Fleet {
    async fn ask(
        &self,
        target: &TargetName,
        question: Question,
        within: Duration,
    ) -> Result<Answer, AskError> {
        let target = target.clone();
        let Some(member) = self.members.get(&target) else {
            return Err(AskError::Absent { target });
        };
        match member.cluster.agent {
            Agent::Away => return Err(AskError::Absent { target }),
            Agent::Silent => return Err(AskError::Silent { target, within }),
            Agent::Here | Agent::Held | Agent::Contested => {}
        }
        match planner::answer(&member.parts, question, within).await {
            Some(Ok(answer)) => Ok(answer),
            Some(Err(error)) => Err(AskError::Refused {
                problem: error.to_string(),
            }),
            None => Err(AskError::Silent { target, within }),
        }
    }

    async fn logs(
        &self,
        target: &TargetName,
        _job: &JobId,
        _after: u64,
        _follow: bool,
    ) -> Result<BoxStream<'static, Result<LogLine, AskError>>, AskError> {
        Err(AskError::Absent {
            target: target.clone(),
        })
    }

    fn fleet(&self) -> Vec<AgentFacts> {
        self.members.values().map(Member::facts).collect()
    }
}

/// A practice cluster with what the case lays over its plans.
struct Stage {
    cluster: Simulated,
    over: Cluster,
}

impl Stage {
    fn of(cluster: &Cluster) -> anyhow::Result<Self> {
        let simulated = Simulated::new(cluster.target.clone(), Duration::ZERO);
        for (name, revisions) in &cluster.deployments {
            let (namespace, name) = case::place(name)?;
            let templates: Vec<_> = revisions
                .iter()
                .map(|revision| match revision.as_str() {
                    Some(image) => {
                        json!({"spec": {"containers": [{"name": name, "image": image}]}})
                    }
                    None => revision.clone(),
                })
                .collect();
            simulated.create_from(namespace, name, &templates);
        }
        Ok(Self {
            cluster: simulated,
            over: cluster.clone(),
        })
    }
}

#[async_trait]
impl Actions for Stage {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        self.cluster.identity().await
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        let mut planned = self.cluster.plan(call).await?;
        if planned.plan.object.is_none() {
            return Ok(planned);
        }
        planned.plan.owners = self.over.owners.clone();
        planned.warnings.extend(self.over.warnings.iter().cloned());
        if let Some(why) = self
            .over
            .irreversible
            .clone()
            .filter(|_| planned.plan.changes)
        {
            planned.plan.undo = Feasibility::Impossible { why };
        }
        Ok(planned)
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        self.cluster.capture(call).await
    }

    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble> {
        self.cluster.apply(call, before, progress).await
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        self.cluster.observe(call, before).await
    }

    async fn fence(&self, call: &Call, before: Option<&Before>) -> Result<(), Trouble> {
        self.cluster.fence(call, before).await
    }

    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble> {
        self.cluster.undo(call, effect, progress).await
    }
}
