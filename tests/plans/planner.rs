//! Asks the control plane's planning service the question of a case.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::agents::Agents;
use aldis_control_plane::clock::{Clock, ManualClock};
use aldis_control_plane::jobs::Plans;
use aldis_control_plane::records::{self, Lock};
use aldis_control_plane::services::{Asked, Error, Parts, Services, Wanted};
use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::{Commit, Revision, Store, Write, keys};
use aldis_control_plane::turns::Turns;
use aldis_control_plane::view::View;
use aldis_core::inventory::Limits;
use aldis_core::plan::{Disposition, ObjectRef, Plan};
use aldis_core::question::{Answer, Question};
use aldis_core::view::PlanView;
use tokio::sync::mpsc;

use crate::case::{self, Case, Variant};
use crate::fleet::Fleet;
use crate::shown::{self, Drift};

/// When every plan is made: 2026-11-25 09:46:40 UTC.
pub(crate) const NOW: u64 = 1_795_600_000_000;

/// How long an agent may take to say whether its part still holds.
const WITHIN: Duration = Duration::from_secs(30);

/// The golden of a case's text.
pub(crate) async fn answer(text: &str) -> anyhow::Result<String> {
    let case = Case::parse(text)?;
    let fleet = Arc::new(Fleet::of(&case).await?);
    let planned = plan(&case, fleet.clone()).await?;
    let mut answer = shown::heading(&case);
    match &planned {
        Err(error) => answer.push_str(&shown::refusal(error)),
        Ok(view) => {
            answer.push_str(&shown::plan(view, case.detail));
            if !case.since.is_empty() {
                answer.push_str(&shown::drift(
                    &view.plan,
                    &drift(&case, &fleet, view).await?,
                ));
            }
            if !case.variants.is_empty() {
                answer.push_str(&shown::variants(&variants(text, &case, &view.plan).await?));
            }
        }
    }
    Ok(answer)
}

async fn plan(case: &Case, fleet: Arc<Fleet>) -> anyhow::Result<Result<PlanView, Error>> {
    let services = services(case, fleet).await?;
    // Progress is not part of a plan.
    let (progress, _read) = mpsc::channel(1);
    Ok(services.plan(wanted(case), "user/mei", &progress).await)
}

fn wanted(case: &Case) -> Wanted {
    let runbook = if case.runbook.contains('\n') {
        Asked::File {
            name: "runbook.yaml".to_owned(),
            text: case.runbook.clone(),
        }
    } else {
        Asked::Name(case.runbook.clone())
    };
    Wanted {
        runbook,
        params: case.params.clone(),
        selector: case.selector.clone(),
        targets: case.targets.clone(),
        link: None,
    }
}

async fn services(case: &Case, fleet: Arc<Fleet>) -> anyhow::Result<Services> {
    let clock: Arc<dyn Clock> = Arc::new(ManualClock::starting_at(NOW));
    let store: Arc<dyn Store> = Arc::new(Embedded::in_memory(clock.clone())?);
    let view = View::start(store.clone(), clock.clone());
    view.reaches(hold(case, &fleet, &*store).await?).await;
    let plans = Arc::new(Plans::new(store.clone()));
    let agents: Arc<dyn Agents> = fleet;
    Ok(Services::new(Parts {
        store,
        view: view.clone(),
        clock,
        turns: Arc::new(Turns::new(view, plans.clone(), 8)),
        plans,
        agents,
        limits: Limits::default(),
        open_jobs: 1000,
        draw: rand::random::<u128>,
        plan_expiry: Duration::from_secs(30 * 60),
    }))
}

/// Locks that other jobs hold; the revision at which they are held.
async fn hold(case: &Case, fleet: &Fleet, store: &dyn Store) -> anyhow::Result<Revision> {
    for held in &case.held {
        let (namespace, name) = case::place(&held.name)?;
        let uid = &fleet.identity(&held.target)?.cluster_uid;
        let lock = Lock {
            format: 1,
            job: held.job.clone(),
            target: held.target.clone(),
            object: ObjectRef {
                kind: "Deployment".to_owned(),
                namespace: namespace.to_owned(),
                name: name.to_owned(),
            },
        };
        let key = keys::lock(uid, "Deployment", namespace, name);
        let commit = Commit {
            preconditions: vec![],
            writes: vec![Write::put(key, records::write(&lock))],
        };
        anyhow::ensure!(store.commit(commit).await?.is_committed());
    }
    Ok(store.list(keys::LOCKS).await?.revision)
}

/// What each agent that would run says of its part, after what happened since.
async fn drift(case: &Case, fleet: &Fleet, view: &PlanView) -> anyhow::Result<Vec<Drift>> {
    for (target, image) in &case.since {
        fleet.interfere(target, image)?;
    }
    let mut found = Vec::new();
    for (target, part) in &view.plan.parts {
        if part.disposition != Disposition::Run {
            continue;
        }
        let question = Question::Drift {
            part: Box::new(part.clone()),
        };
        match fleet.ask(target, question, WITHIN).await? {
            Answer::Drift { found: says } => found.push((target.clone(), says)),
            other => anyhow::bail!("{target} answered {other:?}"),
        }
    }
    Ok(found)
}

/// Whether each variant has the digest of the case.
async fn variants(
    text: &str,
    case: &Case,
    plan_of_case: &Plan,
) -> anyhow::Result<Vec<(Variant, bool)>> {
    let mut found = Vec::new();
    for variant in &case.variants {
        let varied = Case::varied(text, variant)?;
        let fleet = Arc::new(Fleet::of(&varied).await?);
        let view = plan(&varied, fleet).await??;
        anyhow::ensure!(view.plan.is_whole(), "{}: {}", variant.about, view.plan.id);
        found.push((variant.clone(), view.plan.digest == plan_of_case.digest));
    }
    Ok(found)
}
