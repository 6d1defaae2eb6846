//! Everything that takes part in a story, and what may happen to it.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use aldis_control_plane::services::{Asked, Services, Submission, Wanted};
use aldis_control_plane::store::embedded::Embedded;
use aldis_core::ids::{JobId, StepId, TargetName};
use aldis_core::inventory::Presence;
use aldis_core::job::{Job, Wish};
use aldis_core::plan::Plan;
use tempfile::TempDir;
use tokio::sync::{mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::agent::{Agent, Start};
use crate::chance::Chance;
use crate::clock::StoryClock;
use crate::cluster::Cluster;
use crate::history::History;
use crate::link::{Link, Way};
use crate::network::Network;
use crate::replica::Replica;
use crate::witness::{Witness, Writer};

/// Between two looks of whoever starts again what has ended.
pub(crate) const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Who submits and asks.
const MEI: &str = "spiffe://story/user/mei";

/// The world of one story.
pub(crate) struct World {
    pub(crate) chance: Chance,
    pub(crate) clock: StoryClock,
    pub(crate) history: History,
    pub(crate) witness: Arc<Witness>,
    pub(crate) network: Network,
    pub(crate) replicas: BTreeMap<&'static str, Option<Replica>>,
    pub(crate) agents: BTreeMap<TargetName, Agent>,
    /// Whether agents that have ended are started again by themselves.
    pub(crate) restarts: bool,
    storm: watch::Sender<bool>,
    store: Embedded,
    late: Arc<Mutex<Option<Duration>>>,
    boots: u64,
    requests: u64,
    due: Vec<(Duration, Turn)>,
    logs: TempDir,
}

/// Something that ends by itself.
#[derive(Clone, Debug)]
pub(crate) enum Turn {
    /// A replica reaches the store again, and its clock goes on.
    Opens(&'static str),
    /// Every stream passes again.
    Heals,
}

/// The history of the story that this process tells, for its panics.
pub(crate) static HISTORY: OnceLock<History> = OnceLock::new();

impl World {
    /// Two replicas over an empty store, and agents of these names.
    pub(crate) fn begin(seed: u64, names: &[&str]) -> Self {
        let (chance, clock) = (Chance::of(seed), StoryClock::begin());
        let history = HISTORY
            .get_or_init(|| History::begin(clock.clone()))
            .clone();
        let witness = Arc::new(Witness::new(history.clone()));
        let storm = watch::Sender::new(false);
        let network = Network::new(
            chance.clone(),
            history.clone(),
            witness.clone(),
            storm.subscribe(),
        );
        let store = Embedded::in_memory(Arc::new(clock.clone())).expect("a store in memory");
        let mut world = Self {
            network,
            witness,
            replicas: BTreeMap::from([("r1", None), ("r2", None)]),
            agents: BTreeMap::new(),
            restarts: true,
            storm,
            store,
            late: Arc::default(),
            boots: 0,
            requests: 0,
            due: Vec::new(),
            logs: tempfile::tempdir().expect("a folder for logs"),
            chance,
            clock,
            history,
        };
        world.start_replica("r1");
        world.start_replica("r2");
        for name in names {
            world.add_agent(name);
        }
        world
    }

    fn add_agent(&mut self, name: &str) {
        let target: TargetName = name.parse().expect("a target's name");
        let cluster = Cluster::new(
            target.clone(),
            self.witness.clone(),
            self.chance.clone(),
            self.storm.subscribe(),
        );
        let agent = Agent::new(target.clone(), cluster);
        self.agents.insert(target.clone(), agent);
        self.start_agent(&target);
    }

    pub(crate) fn start_replica(&mut self, name: &'static str) {
        self.boots += 1;
        let writer = Writer {
            replica: name.to_owned(),
            boot_id: format!("boot-{}", self.boots),
        };
        self.history.say(format!("{writer} starts"));
        let link = Link {
            store: self.store.clone(),
            writer,
            witness: self.witness.clone(),
            history: self.history.clone(),
            chance: self.chance.clone(),
            way: watch::Sender::new(Way::Open),
            late: self.late.clone(),
            storm: self.storm.subscribe(),
            life: CancellationToken::new(),
        };
        let replica = Replica::start(link, self.clock.another(), &self.network);
        self.replicas.insert(name, Some(replica));
    }

    pub(crate) fn kill_replica(&mut self, name: &'static str) {
        self.history.say(format!("{name} is killed"));
        self.replicas.insert(name, None);
    }

    pub(crate) fn start_agent(&mut self, target: &TargetName) {
        let agent = self.agents.get_mut(target).expect("an agent of that name");
        self.history.say(format!("agent of {target} starts"));
        agent.start(&Start {
            network: &self.network,
            clock: &self.clock,
            chance: &self.chance,
            logs: self.logs.path(),
            history: &self.history,
        });
    }

    /// Starts a copy of an agent, which runs until it is killed.
    pub(crate) fn start_copy(&mut self, target: &TargetName) -> Agent {
        let mut copy = self.agents[target].clone_machine();
        self.history
            .say(format!("a copy of the agent of {target} starts"));
        copy.start(&Start {
            network: &self.network,
            clock: &self.clock,
            chance: &self.chance,
            logs: self.logs.path(),
            history: &self.history,
        });
        copy
    }

    pub(crate) fn kill_agent(&mut self, target: &TargetName) {
        self.history.say(format!("agent of {target} is killed"));
        self.agent(target).kill();
    }

    pub(crate) fn agent(&mut self, target: &TargetName) -> &mut Agent {
        self.agents.get_mut(target).expect("an agent of that name")
    }

    pub(crate) fn targets(&self) -> Vec<TargetName> {
        self.agents.keys().cloned().collect()
    }

    pub(crate) fn leader(&self) -> Option<&'static str> {
        let leads = |replica: &Option<Replica>| replica.as_ref().is_some_and(Replica::leads);
        let mut all = self.replicas.iter();
        all.find(|(_, replica)| leads(replica))
            .map(|(name, _)| *name)
    }

    pub(crate) fn storm(&mut self, rages: bool) {
        self.history.say(if rages { "storm" } else { "calm" });
        self.storm.send_replace(rages);
    }

    pub(crate) fn later(&mut self, by: Duration, turn: Turn) {
        self.due.push((self.clock.passed() + by, turn));
    }

    /// A replica that is cut off, or sees no news and has a clock that stands still: it does not know that
    /// another one leads.
    pub(crate) fn hinder(&mut self, name: &'static str, way: Way) {
        self.history
            .say(format!("{name}: its way to the store is {way:?}"));
        if let Some(Some(replica)) = self.replicas.get(name) {
            replica.way.send_replace(way);
            match way {
                Way::Open => replica.clock.go_on(),
                Way::Stale => replica.clock.stop(),
                Way::Cut => {}
            }
        }
    }

    /// The next decision over targets is written so long after it was sent, when its sender has been told
    /// that nobody knows.
    pub(crate) fn write_late(&mut self, by: Duration) {
        *self.late.lock().unwrap_or_else(PoisonError::into_inner) = Some(by);
    }

    /// Whether that decision was made.
    pub(crate) fn is_decided(&self) -> bool {
        let late = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        late.is_none()
    }

    fn turn(&mut self, turn: &Turn) {
        match turn {
            Turn::Opens(name) => self.hinder(name, Way::Open),
            Turn::Heals => self.network.heal(),
        }
    }

    /// Time passes; what has ended is started again, what was to end ends.
    pub(crate) async fn pass(&mut self, time: Duration) {
        let until = self.clock.passed() + time;
        while self.clock.passed() < until {
            let left = until.saturating_sub(self.clock.passed());
            tokio::time::sleep(left.min(LOOK_EVERY)).await;
            self.look_after();
        }
    }

    fn look_after(&mut self) {
        let now = self.clock.passed();
        let (due, later) = std::mem::take(&mut self.due)
            .into_iter()
            .partition(|(at, _)| *at <= now);
        self.due = later;
        let due: Vec<(Duration, Turn)> = due;
        due.iter().for_each(|(_, turn)| self.turn(turn));
        for name in ["r1", "r2"] {
            let ended = self.replicas[name].as_ref().is_none_or(Replica::has_ended);
            if ended && self.chance.one_in(4) {
                self.replicas.insert(name, None);
                self.start_replica(name);
            }
        }
        let down = self.agents.values().filter(|agent| !agent.is_up());
        let down: Vec<TargetName> = down.map(|agent| agent.target.clone()).collect();
        for target in down {
            if self.restarts && self.chance.one_in(8) {
                self.start_agent(&target);
            }
        }
    }

    /// All bad luck ends.
    pub(crate) fn calm_down(&mut self) {
        self.storm(false);
        self.restarts = true;
        self.network.heal();
        for (_, turn) in std::mem::take(&mut self.due) {
            self.turn(&turn);
        }
        for agent in self.agents.values() {
            agent.cluster.break_rollouts(false);
        }
    }

    /// Waits until something holds.
    pub(crate) async fn until(&mut self, what: &str, holds: impl Fn(&World) -> bool) {
        const AT_MOST: Duration = Duration::from_secs(600);
        let end = self.clock.passed() + AT_MOST;
        while !holds(self) {
            assert!(self.clock.passed() < end, "LIVENESS: never {what}");
            self.pass(LOOK_EVERY / 4).await;
        }
    }

    fn services(&self) -> Option<Services> {
        let up: Vec<&Replica> = self.replicas.values().flatten().collect();
        let up: Vec<&&Replica> = up.iter().filter(|replica| !replica.has_ended()).collect();
        (!up.is_empty()).then(|| self.chance.one_of(&up).services.clone())
    }

    /// Whether every agent may be given work.
    pub(crate) fn all_live(&self) -> bool {
        let Some(services) = self.services() else {
            return false;
        };
        let live = services
            .agents(&BTreeMap::new(), "")
            .iter()
            .filter(|facts| matches!(facts.presence, Presence::Live { .. }))
            .count();
        live == self.agents.len()
    }

    /// Plans a runbook, again until it is a plan that nobody refuses.
    pub(crate) async fn plan(&mut self, runbook: &str) -> Plan {
        for _ in 0..100 {
            self.pass(LOOK_EVERY).await;
            let Some(services) = self.services() else {
                continue;
            };
            let (progress, _answers) = mpsc::channel(64);
            let wanted = Wanted {
                runbook: Asked::File {
                    name: "story.yaml".to_owned(),
                    text: runbook.to_owned(),
                },
                params: serde_json::json!({}),
                selector: BTreeMap::new(),
                targets: Vec::new(),
                link: None,
            };
            match services.plan(wanted, MEI, &progress).await {
                Ok(view) if view.plan.refusals().is_empty() => {
                    self.witness.planned(view.plan.clone());
                    return view.plan;
                }
                Ok(view) => self
                    .history
                    .say(format!("refused: {:?}", view.plan.refusals())),
                Err(error) => self.history.say(format!("no plan: {error:?}")),
            }
        }
        panic!("LIVENESS: no plan of {runbook}");
    }

    /// Submits, again under the same key until it is acknowledged.
    pub(crate) async fn submit(&mut self, plan: &Plan) -> JobId {
        for _ in 0..100 {
            self.pass(LOOK_EVERY).await;
            let submission = Submission {
                plan: plan.id.to_string(),
                digest: plan.digest.to_string(),
                idempotency_key: String::new(),
                reason: String::new(),
                priority: 0,
                by: MEI.to_owned(),
                trace: None,
            };
            let Some(services) = self.services() else {
                continue;
            };
            let asked = services.submit(&submission);
            match tokio::time::timeout(Duration::from_secs(20), asked).await {
                Ok(Ok(submitted)) => {
                    self.witness.acknowledged(&submitted.job);
                    self.history
                        .say(format!("submitted {}", submitted.job.short()));
                    return submitted.job;
                }
                Ok(Err(error)) => self.history.say(format!("not submitted: {error:?}")),
                Err(_) => self.history.say("a submission without an answer"),
            }
        }
        panic!("LIVENESS: never submitted");
    }

    /// An operator asks something; whether it is heard is another matter.
    pub(crate) async fn ask(&mut self, job: &JobId, wish: Wish) {
        self.requests += 1;
        let id = format!("request-{}", self.requests);
        let Some(services) = self.services() else {
            return;
        };
        let asked = services.request(job.as_str(), &id, "story", wish.clone(), MEI);
        let heard = tokio::time::timeout(Duration::from_secs(10), asked).await;
        let heard = match heard {
            Ok(Ok(_)) => "heard".to_owned(),
            Ok(Err(error)) => error.problem,
            Err(_) => "no answer".to_owned(),
        };
        self.history.say(format!("operator: {wish:?}: {heard}"));
    }

    /// An operator puts a step back without us.
    pub(crate) fn put_back_by_hand(&mut self, job: &JobId, target: &TargetName, step: &StepId) {
        self.history
            .say(format!("operator puts {step} of {target} back by hand"));
        self.witness.put_back(job, target, step);
        self.agent(target).cluster.put_back(step.as_str());
    }

    /// What people are told that a job waits for, and how agents stand, by each replica.
    pub(crate) async fn waits_for(&self, job: &JobId) -> String {
        let mut said = format!("{:?}", self.job(job).header.state);
        for (name, replica) in &self.replicas {
            let Some(replica) = replica else { continue };
            let services = &replica.services;
            let shown = services.show_job(job.as_str());
            let shown = tokio::time::timeout(LOOK_EVERY, shown).await;
            let texts: Vec<String> = match shown {
                Ok(Ok(view)) => view
                    .waiting
                    .iter()
                    .map(|waits| waits.text.clone())
                    .collect(),
                other => vec![format!("{other:?}")],
            };
            let agents = services.agents(&BTreeMap::new(), "");
            let agents = agents.iter().map(|facts| {
                let (target, presence) = (&facts.fleet.target, &facts.presence);
                format!("{target} {presence:?}")
            });
            let agents: Vec<String> = agents.collect();
            said += &format!(
                "\n{name} leads: {}, {texts:#?}, {agents:#?}",
                replica.leads()
            );
        }
        said
    }

    /// The job as written last.
    pub(crate) fn job(&self, id: &JobId) -> Job {
        self.witness.job(id).expect("an acknowledged job")
    }
}
