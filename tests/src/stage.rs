//! What every story needs: an application in a namespace of its own on every cluster, commands as a person types
//! them, and two readers that know nothing of each other: Aldis for what it says, the clusters for what is.
//!
//! Stories that break something for everybody (a leader, a store, a link) have the fleet alone; the others share it.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::fleet::Fleet;
use crate::fleet::application::Application;
use crate::fleet::cluster::Cluster;
use crate::fleet::nodes::Nodes;
use crate::fleet::process::Process;
use crate::fleet::reader::Seen;
use crate::fleet::ready::eventually;
use crate::fleet::system::System;
use crate::fleet::system::command_line::Said;
use crate::practice::standing;
use crate::proxy::Fault;
use aldis_core::ids::TargetName;
use aldis_core::job::TargetState;
use aldis_core::view::{JobView, PlanView};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use k8s_openapi::api::apps::v1::Deployment;
use kube::Api;
use kube::api::DeleteParams;
use rustix::process::Signal;
use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard, Semaphore, SemaphorePermit};

use crate::fleet::shop;

/// Every cluster, in order.
pub const ALL: [&str; 4] = [
    "eu-west/prod-1",
    "eu-west/prod-2",
    "us-east/prod-1",
    "us-east/prod-2",
];

/// For anything that should happen soon, on a machine that is busy.
pub const PATIENCE: Duration = Duration::from_secs(180);

/// The Deployment of every story.
pub const SERVICE: &str = "checkout";

static FLEET_IS_WHOLE: RwLock<()> = RwLock::const_new(());

/// Stories at once over real nodes: their containers take the processors that the clusters need too.
static PLACES: Semaphore = Semaphore::const_new(2);

/// One story's place.
pub struct Stage {
    pub fleet: &'static Fleet,
    pub namespace: String,
    _turn: Turn,
}

enum Turn {
    Shared {
        _guard: RwLockReadGuard<'static, ()>,
        _place: Option<SemaphorePermit<'static>>,
    },
    Alone {
        _guard: RwLockWriteGuard<'static, ()>,
    },
}

impl Stage {
    /// Shares the fleet with other stories.
    pub async fn shared(fleet: &'static Fleet, namespace: &str) -> Self {
        let _place = match fleet.nodes().nodes {
            Nodes::Simulated => None,
            Nodes::Real => PLACES.acquire().await.ok(),
        };
        let turn = Turn::Shared {
            _guard: FLEET_IS_WHOLE.read().await,
            _place,
        };
        Self::new(fleet, namespace, turn).await
    }

    /// Has the fleet alone, and finds it whole.
    pub async fn alone(fleet: &'static Fleet, namespace: &str) -> Self {
        let turn = Turn::Alone {
            _guard: FLEET_IS_WHOLE.write().await,
        };
        Self::new(fleet, namespace, turn).await
    }

    /// Takes back everything that a story may have broken, also one that failed half way.
    fn heal(&self) {
        let system = self.system();
        for agent in system.agents() {
            agent.links().iter().for_each(|link| link.set(Fault::Pass));
            if let Ok(process) = agent.process() {
                self.heal_process(process);
            }
            if let Some(pod) = agent.pod() {
                pod.disarm();
            }
        }
        for replica in system.plane().replicas() {
            if let Some(link) = replica.to_store() {
                link.set(Fault::Pass);
            }
            self.heal_process(replica.process());
        }
        let nodes = self.fleet.clusters().iter().filter_map(Cluster::node);
        nodes.for_each(|node| self.heal_process(node.process()));
    }

    fn heal_process(&self, process: &Process) {
        self.system().programs().disarm(process.name());
        let _ = std::fs::remove_file(self.fleet.folder().path(format!("down/{}", process.name())));
        // It may run, or be on its way up.
        let _ = process.signal(Signal::CONT);
        if process.is_down() {
            let _ = process.start_again();
        }
    }

    async fn new(fleet: &'static Fleet, namespace: &str, turn: Turn) -> Self {
        let stage = Self {
            fleet,
            namespace: namespace.to_owned(),
            _turn: turn,
        };
        if fleet.nodes().nodes == Nodes::Real {
            end_containers(fleet).await;
        }
        stage
            .system()
            .until_live()
            .await
            .expect("the story before left the fleet whole");
        stage
    }

    pub fn system(&self) -> &'static System {
        self.fleet.system().expect("this fleet has Aldis over it")
    }

    /// An application of this story: over real nodes, with the probes without which a container that has just
    /// started counts as one that serves.
    pub fn application(&self, releases: &[&str]) -> Application {
        let releases = releases.iter().copied();
        match self.fleet.nodes().nodes {
            Nodes::Simulated => Application::new(&self.namespace, SERVICE, releases),
            Nodes::Real => {
                let mut app =
                    shop::application(&self.namespace, SERVICE, releases, shop::Reload::Never);
                app.replicas = 1;
                app
            }
        }
    }

    /// Releases it on every cluster.
    pub async fn release(&self, releases: &[&str]) -> anyhow::Result<()> {
        self.release_as(&self.application(releases)).await
    }

    /// Releases an application on every cluster.
    pub async fn release_as(&self, app: &Application) -> anyhow::Result<()> {
        try_join_all(ALL.map(|target| self.release_on(target, app))).await?;
        Ok(())
    }

    /// Releases an application on one cluster.
    pub async fn release_on(&self, target: &str, app: &Application) -> anyhow::Result<()> {
        let cluster = self.fleet.cluster(target)?;
        shop::publish(cluster, &app.releases).await?;
        app.release(&cluster.client())
            .await
            .with_context(|| format!("release on {target}"))
    }

    /// Makes images of the shop known to the clusters that may have them. Simulated nodes know any.
    pub async fn publish(&self, images: &[&str]) -> anyhow::Result<()> {
        let clusters = self.fleet.clusters().iter();
        try_join_all(clusters.map(|cluster| shop::publish(cluster, images))).await?;
        Ok(())
    }

    /// Somebody deletes it on one cluster.
    pub async fn delete(&self, target: &str) -> anyhow::Result<()> {
        let client = self.fleet.cluster(target)?.client();
        let api = Api::<Deployment>::namespaced(client, &self.namespace);
        api.delete(SERVICE, &Default::default())
            .await
            .context("delete it")?;
        eventually(PATIENCE, "it is gone", || async {
            ensure!(api.get_opt(SERVICE).await?.is_none(), "it is there");
            Ok(())
        })
        .await
    }

    /// What is on one cluster.
    pub async fn seen(&self, target: &str) -> anyhow::Result<Seen> {
        Seen::read(
            &self.fleet.cluster(target)?.client(),
            &self.namespace,
            SERVICE,
        )
        .await
    }

    /// What is on every cluster.
    pub async fn seen_everywhere(&self) -> anyhow::Result<BTreeMap<&'static str, Seen>> {
        let all = ALL.map(|target| async move { anyhow::Ok((target, self.seen(target).await?)) });
        Ok(try_join_all(all).await?.into_iter().collect())
    }

    /// The first image on every cluster.
    pub async fn images(&self) -> anyhow::Result<Vec<String>> {
        let seen = self.seen_everywhere().await?;
        Ok(seen.values().map(|seen| seen.images.join(" ")).collect())
    }

    /// How often what is wanted was changed on every cluster since then, as Kubernetes counts it.
    pub async fn changes_since(
        &self,
        before: &BTreeMap<&'static str, Seen>,
    ) -> anyhow::Result<Vec<i64>> {
        let after = self.seen_everywhere().await?;
        Ok(after
            .iter()
            .map(|(target, seen)| seen.generation - before[target].generation)
            .collect())
    }

    /// A runbook, by name or by file, over this story's application, with more parameters.
    pub fn words(&self, runbook: &str, params: &[&str]) -> Vec<String> {
        let namespace = format!("namespace={}", self.namespace);
        let service = format!("service={SERVICE}");
        let ours = [service.as_str(), namespace.as_str()];
        let params = ours.iter().chain(params);
        joined(
            &[runbook],
            &params.flat_map(|param| ["-p", param]).collect::<Vec<_>>(),
        )
    }

    /// Runs a command to its end.
    pub async fn aldis<S: AsRef<OsStr>>(&self, words: &[S]) -> anyhow::Result<Said> {
        self.system().command_line().run(words).await
    }

    /// Writes a runbook of this story.
    pub fn file(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        self.fleet.folder().write(
            PathBuf::from("runbooks").join(&self.namespace).join(name),
            text,
        )
    }

    /// `aldis plan`, its view.
    pub async fn plan<S: AsRef<str>>(&self, words: &[S]) -> anyhow::Result<PlanView> {
        self.aldis(&joined(&["plan", "-o", "json"], words))
            .await?
            .json()
    }

    /// `aldis submit` without following; the job.
    pub async fn submit<S: AsRef<str>>(&self, words: &[S]) -> anyhow::Result<String> {
        let said = self
            .aldis(&joined(
                &["submit", "--yes", "--detach", "-o", "name"],
                words,
            ))
            .await?;
        Ok(said.ended(0)?.out.trim().to_owned())
    }

    /// `aldis status`.
    pub async fn view(&self, job: &str) -> anyhow::Result<JobView> {
        self.aldis(&["status", job, "-o", "json"]).await?.json()
    }

    /// Asks for the status until it is as wanted.
    pub async fn until(
        &self,
        job: &str,
        what: &str,
        wanted: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        eventually(PATIENCE, format!("job {job}: {what}"), || async {
            let view = self.view(job).await?;
            ensure!(wanted(&view), "{}", standing(&view));
            Ok(view)
        })
        .await
    }

    /// Follows a job until it has ended, also over rests that wait for somebody; the exit code, and the view then.
    pub async fn ended(&self, job: &str) -> anyhow::Result<(i32, JobView)> {
        self.until(job, "it ends", |view| view.header.state.is_ended())
            .await?;
        let watch = self
            .aldis(&["watch", job, "--progress", "quiet", "-o", "json"])
            .await?;
        Ok((watch.code, watch.json()?))
    }

    /// `aldis submit`, followed to its end.
    pub async fn run<S: AsRef<str>>(&self, words: &[S]) -> anyhow::Result<(i32, JobView)> {
        let job = self.submit(words).await?;
        self.ended(&job).await
    }
}

/// Namespaces of stories that ended. Containers that run on would take the processors of the next; whoever comes
/// next ends them, since no story can wait when it is dropped.
static ENDED: Mutex<Vec<String>> = Mutex::new(Vec::new());

fn ended() -> MutexGuard<'static, Vec<String>> {
    ENDED.lock().unwrap_or_else(PoisonError::into_inner)
}

async fn end_containers(fleet: &Fleet) {
    let namespaces = std::mem::take(&mut *ended());
    for cluster in fleet.clusters() {
        for namespace in &namespaces {
            let api = Api::<Deployment>::namespaced(cluster.client(), namespace);
            // It may never have been there.
            let _ = api.delete(SERVICE, &DeleteParams::background()).await;
        }
    }
}

impl Drop for Stage {
    fn drop(&mut self) {
        ended().push(self.namespace.clone());
        if let Turn::Alone { .. } = self._turn {
            self.heal();
        }
    }
}

/// The words of a command, one after the other.
pub fn joined<S: AsRef<str>>(first: &[&str], more: &[S]) -> Vec<String> {
    let first = first.iter().map(|word| (*word).to_owned());
    first
        .chain(more.iter().map(|word| word.as_ref().to_owned()))
        .collect()
}

/// Name of a target.
pub fn name(target: &str) -> TargetName {
    target.parse().expect("tests name targets rightly")
}

/// Where one target stands.
pub fn state<'a>(view: &'a JobView, target: &str) -> &'a TargetState {
    &view.targets[&name(target)].state
}
