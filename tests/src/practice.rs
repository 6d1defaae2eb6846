//! A whole system in this process: control plane, mutual TLS, real agents; only the clusters are in memory.
//!
//! Agents are the real ones, with journals on disk; what they act on is [`Simulated`]. A test that uses
//! this proves nothing about Kubernetes, and says so in its name or its file's.

mod noted;
mod said;

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aldis_agent::actions::Actions;
use aldis_agent::actions::simulated::Simulated;
use aldis_agent::clock::{Clock, SystemClock};
use aldis_agent::ledger::Ledger;
use aldis_agent::logs::Logs;
use aldis_agent::parts::Parts;
use aldis_agent::permit::Permits;
use aldis_agent::policy::Policy;
use aldis_agent::reports::Reports;
use aldis_agent::session::Settings;
use aldis_agent::{session, tls};
use aldis_core::ids::TargetName;
use aldis_core::job::{JobState, Rest, TargetState, Wish};
use aldis_core::view::{JobView, PlanView};
use aldis_proto::convert::{document, parse};
use aldis_proto::v1;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::job_service_client::JobServiceClient;
use anyhow::Context;
use serde_json::Value;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;
use tonic::Status;
use tonic::transport::Channel;

use crate::pki::{Request, TRUST_DOMAIN};
use crate::plane::Plane;
use noted::Noted;
pub use said::Said;

/// For anything that should happen soon: ten times what a loaded machine needs.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Largest answer: a job over 1,000 targets is some 2 MB.
const LARGEST: usize = 64 * 1024 * 1024;

/// A control plane with agents.
pub struct Practice {
    /// The control plane.
    pub plane: Plane,
    agents: BTreeMap<TargetName, Agent>,
    jobs: JobServiceClient<Channel>,
    fleet: FleetServiceClient<Channel>,
    patience: Duration,
    /// Where agents keep their journals.
    folder: PathBuf,
}

struct Agent {
    cluster: Arc<Noted>,
    running: Option<(CancellationToken, JoinHandle<()>)>,
    /// What the running agent has written down and must still say.
    words: Option<(Ledger, Reports)>,
}

impl Practice {
    /// Starts a control plane and an agent for each name, all with label `env=prod`, and waits until all
    /// of them may be given work.
    pub async fn start(names: &[&str]) -> anyhow::Result<Self> {
        Self::start_patiently(names, PATIENCE).await
    }

    /// The same, where everything may take so long.
    pub async fn start_patiently(names: &[&str], patience: Duration) -> anyhow::Result<Self> {
        Self::on(Plane::start().await?, names, patience).await
    }

    /// The same on a control plane that was started already.
    pub async fn on(plane: Plane, names: &[&str], patience: Duration) -> anyhow::Result<Self> {
        let folder = plane.folder();
        let mut practice = Self::over(plane, folder, patience).await?;
        practice.join(names).await?;
        Ok(practice)
    }

    /// Over a control plane that runs, without agents yet; they will keep their journals in `folder`.
    pub async fn over(plane: Plane, folder: PathBuf, patience: Duration) -> anyhow::Result<Self> {
        let channel = plane.connect(&Request::user("mei")).await?;
        Ok(Self {
            jobs: JobServiceClient::new(channel.clone()).max_decoding_message_size(LARGEST),
            fleet: FleetServiceClient::new(channel).max_decoding_message_size(LARGEST),
            plane,
            agents: BTreeMap::new(),
            patience,
            folder,
        })
    }

    /// Starts an agent for each name, all at once, and waits until all of them may be given work.
    pub async fn join(&mut self, names: &[&str]) -> anyhow::Result<()> {
        for name in names {
            let target: TargetName = name.parse()?;
            let cluster = Arc::new(Simulated::new(target.clone(), Duration::ZERO));
            let cluster = Arc::new(Noted::new(cluster));
            let agent = Agent {
                cluster,
                running: None,
                words: None,
            };
            self.agents.insert(target, agent);
            self.begin(name).await?;
        }
        self.until_live(names).await
    }

    /// Starts an agent, on the journal it had before.
    pub async fn begin(&mut self, name: &str) -> anyhow::Result<()> {
        let target: TargetName = name.parse()?;
        let folder = self.folder.join(target.region()).join(target.cluster());
        std::fs::create_dir_all(&folder)?;
        let request = Request::agent(target.region(), target.cluster(), "1");
        let (certificate, key) = self
            .plane
            .authority()
            .issue(&request)?
            .write(&folder, "agent")?;
        let agent = self
            .agents
            .get_mut(&target)
            .context("an agent of that name")?;
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let journal = folder.join("journal");
        let actions: Arc<dyn Actions> = agent.cluster.clone();
        let identity = actions.identity().await?;
        let parts = Parts {
            target: target.clone(),
            simulated: true,
            pin: None,
            actions,
            policy: Arc::new(Policy::without_file()),
            ledger: Ledger::open(&journal)?,
            reports: Reports::new(),
            logs: Logs::open(&folder.join("logs"), clock.clone())?,
            permits: Permits::new(clock.clone()),
            clock,
        };
        let addresses = self.plane.addresses().into_iter();
        let settings = Settings {
            endpoints: addresses
                .map(|address| format!("localhost:{}", address.port()).parse())
                .collect::<Result<_, String>>()
                .map_err(anyhow::Error::msg)?,
            trust_domain: TRUST_DOMAIN.to_owned(),
            tls: tls::Files {
                certificate,
                key,
                ca: self.plane.folder().join("ca.pem"),
            },
            labels: BTreeMap::from([("env".to_owned(), "prod".to_owned())]),
            process: format!("{:032x}", rand::random::<u128>()),
            machine: session::machine(&journal)?,
        };
        agent.words = Some((parts.ledger.clone(), parts.reports.clone()));
        let ending = CancellationToken::new();
        let told = ending.clone();
        let running = tokio::spawn(async move {
            if let Err(error) = aldis_agent::run::serve(parts, settings, identity, told).await {
                tracing::error!(%error, "agent ended");
            }
        });
        agent.running = Some((ending, running));
        Ok(())
    }

    /// Ends an agent in order.
    pub async fn end(&mut self, name: &str) -> anyhow::Result<()> {
        let agent = self
            .agents
            .get_mut(&name.parse()?)
            .context("an agent of that name")?;
        let (ending, running) = agent.running.take().context("an agent that runs")?;
        ending.cancel();
        running.await?;
        agent.words = None;
        Ok(())
    }

    /// Connects anew, however long the control plane takes to answer: replicas were started again.
    pub async fn connect_again(&mut self) -> anyhow::Result<()> {
        let answers = async {
            loop {
                if let Ok(channel) = self.plane.connect(&Request::user("mei")).await {
                    let mut fleet =
                        FleetServiceClient::new(channel.clone()).max_decoding_message_size(LARGEST);
                    let agents = fleet.list_agents(v1::ListAgentsRequest::default()).await;
                    if agents.is_ok() {
                        return (channel, fleet);
                    }
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let (channel, fleet) = tokio::time::timeout(self.patience, answers)
            .await
            .context("the control plane answers")?;
        self.jobs = JobServiceClient::new(channel).max_decoding_message_size(LARGEST);
        self.fleet = fleet;
        Ok(())
    }

    /// Every agent, as it is shown.
    pub async fn agents(&self) -> Result<Vec<v1::AgentInfo>, Status> {
        let all = v1::ListAgentsRequest::default();
        let all = self.fleet.clone().list_agents(all).await?;
        Ok(all.into_inner().agents)
    }

    /// What the agent of a target acts on.
    pub fn cluster(&self, name: &str) -> &Simulated {
        let target = name.parse().expect("tests name targets rightly");
        self.agents
            .get(&target)
            .expect("tests name agents that they started")
            .cluster
            .cluster()
    }

    /// Counts the steps that the agent of a target begins.
    pub fn begun(&self, name: &str) -> anyhow::Result<watch::Receiver<u64>> {
        let agent = self.agents.get(&name.parse()?);
        Ok(agent.context("an agent of that name")?.cluster.begun())
    }

    /// Image and number of changes of `shop/checkout` everywhere.
    pub fn images(&self) -> Vec<(String, u64)> {
        let of = |agent: &Agent| {
            let cluster = agent.cluster.cluster();
            let image = cluster.image("shop", "checkout").unwrap_or_default();
            let writes = cluster.writes("shop", "checkout").unwrap_or_default();
            (image, writes)
        };
        self.agents.values().map(of).collect()
    }

    /// Waits until the control plane may give work to these.
    pub async fn until_live(&self, names: &[&str]) -> anyhow::Result<()> {
        self.until_states(names, "live").await
    }

    /// Waits until these agents are in a state.
    pub async fn until_states(&self, names: &[&str], state: &str) -> anyhow::Result<()> {
        let names: BTreeSet<&str> = names.iter().copied().collect();
        let mut others = Vec::new();
        let reached = async {
            loop {
                let asked = tokio::time::Instant::now();
                let request = v1::ListAgentsRequest::default();
                let all = self.fleet.clone().list_agents(request).await?.into_inner();
                others = all.agents;
                others.retain(|agent| names.contains(agent.target.as_str()));
                let absent = names.len() - others.len();
                others.retain(|agent| agent.state != state);
                if absent + others.len() == 0 {
                    return anyhow::Ok(());
                }
                // A list of a thousand agents takes a while itself: looking is not to be most of the work.
                tokio::time::sleep(Duration::from_millis(20) + 10 * asked.elapsed()).await;
            }
        };
        let result = tokio::time::timeout(self.patience, reached).await;
        result.with_context(|| format!("agents are {state}, other than {others:?}"))?
    }

    /// Plans a runbook file.
    pub async fn plan(&self, text: &str, params: Value) -> Result<PlanView, Status> {
        self.plan_on(text, params, &[]).await
    }

    /// Plans a runbook file on some targets.
    pub async fn plan_on(
        &self,
        text: &str,
        params: Value,
        targets: &[&str],
    ) -> Result<PlanView, Status> {
        let request = v1::PlanRequest {
            runbook: Some(v1::plan_request::Runbook::Source(v1::RunbookSource {
                file: "test.yaml".to_owned(),
                text: text.to_owned(),
            })),
            params_json: params.to_string(),
            targets: targets.iter().map(ToString::to_string).collect(),
            ..v1::PlanRequest::default()
        };
        planned(self.jobs.clone().plan(request).await?.into_inner()).await
    }

    /// Plans a job that undoes or retries another.
    pub async fn plan_linked(&self, job: &str, kind: &str) -> Result<PlanView, Status> {
        let request = v1::PlanLinkedRequest {
            job: job.to_owned(),
            kind: kind.to_owned(),
            ..v1::PlanLinkedRequest::default()
        };
        planned(self.jobs.clone().plan_linked(request).await?.into_inner()).await
    }

    /// Submits a plan under its own key.
    pub async fn submit(&self, plan: &PlanView) -> Result<String, Status> {
        let request = v1::SubmitRequest {
            plan: plan.plan.id.to_string(),
            digest: plan.plan.digest.to_string(),
            ..v1::SubmitRequest::default()
        };
        Ok(self.jobs.clone().submit(request).await?.into_inner().job)
    }

    /// Submits as it is said.
    pub async fn submit_as(
        &self,
        request: v1::SubmitRequest,
    ) -> Result<v1::SubmitResponse, Status> {
        Ok(self.jobs.clone().submit(request).await?.into_inner())
    }

    /// Asks something of a job.
    pub async fn request(&self, job: &str, wish: &Wish) -> Result<(), Status> {
        let request = v1::RequestJobRequest {
            job: job.to_owned(),
            request_id: format!("{:032x}", rand::random::<u128>()),
            reason: "test".to_owned(),
            wish: Some(document(wish)),
        };
        self.jobs.clone().request_job(request).await?;
        Ok(())
    }

    /// The job as it stands.
    pub async fn job(&self, job: &str) -> Result<JobView, Status> {
        let view = self
            .jobs
            .clone()
            .get_job(v1::GetJobRequest {
                job: job.to_owned(),
            })
            .await?;
        read(view.into_inner().job.as_ref(), "job")
    }

    /// Waits until the job is as wanted; the view of that moment.
    pub async fn until(
        &self,
        job: &str,
        wanted: impl Fn(&JobView) -> bool,
    ) -> anyhow::Result<JobView> {
        let watch = v1::WatchJobRequest {
            job: job.to_owned(),
        };
        let mut views = self.jobs.clone().watch_job(watch).await?.into_inner();
        let mut last = None;
        let reached = async {
            while let Some(view) = views.message().await? {
                let view: JobView = read(view.job.as_ref(), "job")?;
                if wanted(&view) {
                    return anyhow::Ok(view);
                }
                last = Some(view);
            }
            anyhow::bail!("the watch ended")
        };
        let result = tokio::time::timeout(self.patience, reached).await;
        result
            .map_err(anyhow::Error::from)
            .and_then(|reached| reached)
            .with_context(|| match &last {
                None => format!("of job {job} nothing was shown"),
                Some(view) => format!("job {job} stands at {}", standing(view)),
            })
    }

    /// Waits until the job has ended.
    pub async fn until_ended(&self, job: &str) -> anyhow::Result<JobView> {
        self.until(job, |view| view.header.state.is_ended()).await
    }

    /// Plans, submits and waits.
    pub async fn run(&self, text: &str, params: Value) -> anyhow::Result<JobView> {
        let plan = self.plan(text, params).await?;
        let job = self.submit(&plan).await?;
        self.until_ended(&job).await
    }

    /// Lines of a job as they are written, and what could not be read, until it has ended.
    pub async fn follow_logs(
        &self,
        job: &str,
    ) -> Result<tonic::Streaming<v1::JobLogsResponse>, Status> {
        let request = v1::JobLogsRequest {
            job: job.to_owned(),
            follow: true,
            ..v1::JobLogsRequest::default()
        };
        Ok(self.jobs.clone().job_logs(request).await?.into_inner())
    }

    /// Log lines of a job as they are now.
    pub async fn logs(&self, job: &str) -> anyhow::Result<Vec<v1::LogLine>> {
        let request = v1::JobLogsRequest {
            job: job.to_owned(),
            ..v1::JobLogsRequest::default()
        };
        let mut answers = self.jobs.clone().job_logs(request).await?.into_inner();
        let mut lines = Vec::new();
        while let Some(answer) = answers.message().await? {
            match answer.message.context("an empty answer")? {
                v1::job_logs_response::Message::Line(line) => lines.push(line),
                v1::job_logs_response::Message::Gap(gap) => {
                    anyhow::bail!("{}: {}", gap.target, gap.reason)
                }
            }
        }
        Ok(lines)
    }
}

impl Drop for Practice {
    fn drop(&mut self) {
        for agent in self.agents.values_mut() {
            if let Some((_, running)) = agent.running.take() {
                running.abort();
            }
        }
    }
}

/// How each target rests, in order: one word each.
pub fn rests(view: &JobView) -> Vec<&'static str> {
    let word = |state: &TargetState| match state {
        TargetState::Rest(Rest::Changed) => "changed",
        TargetState::Rest(Rest::Restored) => "restored",
        TargetState::Rest(Rest::Untouched) | TargetState::NotStarted => "untouched",
        TargetState::Rest(Rest::NeedsOperator { .. }) => "needs-operator",
        TargetState::Unknown { .. } => "unknown",
        TargetState::Stuck { .. } => "stuck",
        TargetState::Deferred { .. }
        | TargetState::Assigned { .. }
        | TargetState::Running { .. }
        | TargetState::AtBarrier { .. }
        | TargetState::Failed { .. }
        | TargetState::Stopped { .. }
        | TargetState::UndoAssigned
        | TargetState::Undoing => "in work",
    };
    view.targets
        .values()
        .map(|target| word(&target.state))
        .collect()
}

/// Where a job stands, for people.
pub fn standing(view: &JobView) -> String {
    let waiting: Vec<&str> = view
        .waiting
        .iter()
        .map(|waiting| waiting.text.as_str())
        .collect();
    let targets: Vec<String> = view
        .targets
        .iter()
        .map(|(name, target)| format!("{name}: {:?} {:?}", target.state, target.failure))
        .collect();
    let state: &JobState = &view.header.state;
    format!("{state:?}; waits for {waiting:?}\n{}", targets.join("\n"))
}

fn read<T: serde::de::DeserializeOwned>(
    document: Option<&v1::Document>,
    field: &'static str,
) -> Result<T, Status> {
    parse(document, field).map_err(|error| Status::data_loss(error.to_string()))
}

async fn planned(mut answers: tonic::Streaming<v1::PlanResponse>) -> Result<PlanView, Status> {
    while let Some(answer) = answers.message().await? {
        if let Some(v1::plan_response::Message::Plan(plan)) = answer.message {
            return read(Some(&plan), "plan");
        }
    }
    Err(Status::data_loss("the answers ended without a plan"))
}
