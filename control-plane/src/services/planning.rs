//! Plans: every selected agent is asked what the runbook would do there; nothing is changed.
//!
//! ```text
//! runbook, parameters ─▶ selection ─▶ ask all agents at once ─▶ parts ─▶ waves, digest ─▶ stored
//! ```
//!
//! The parts are stored first and the header last, so that a header proves its plan whole. A plan that
//! an agent refuses is stored all the same: people look at it to see why.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aldis_core::ids::{PlanId, TargetName};
use aldis_core::inventory::Presence;
use aldis_core::job::{Job, Link};
use aldis_core::plan::{Disposition, Left, Phase, Plan, RunbookRef, Scope, TargetPart, waves};
use aldis_core::question::{Answer, Planning, Question, Undoing};
use aldis_core::runbook::load::Loaded;
use aldis_core::runbook::{Runbook, WhenUnreachable, params};
use aldis_core::view::PlanView;
use futures::future::BoxFuture;
use futures::{FutureExt, StreamExt};
use serde_json::Value;
use tokio::sync::{Semaphore, SemaphorePermit, mpsc};

use super::{Error, Services, library};
use crate::agents::{AgentFacts, AskError};
use crate::records::{self, PlanHeader, PlanPart};
use crate::store::{Commit, Group, Precondition, Write, keys};

/// How long one agent may take: a dry run of 20 steps against a slow API server.
const WITHIN: Duration = Duration::from_secs(30);

/// Agents asked at once: each question holds one small message here and one dry run there.
const AT_ONCE: usize = 256;

/// Plans made at once by one replica: each asks up to [`AT_ONCE`] agents.
const PLANS_AT_ONCE: usize = 16;

/// Plans that one replica makes within the life of one. Each of a thousand targets is some 2 MB in the store.
const PLANS_KEPT: usize = 2_000;

/// What one replica has planned lately.
pub(super) struct Pace {
    places: Semaphore,
    /// When each was begun, on the boot clock, oldest first.
    made: Mutex<VecDeque<Duration>>,
}

impl Default for Pace {
    fn default() -> Self {
        Self {
            places: Semaphore::new(PLANS_AT_ONCE),
            made: Mutex::default(),
        }
    }
}

impl Pace {
    /// Whether as many were made as may be; counts one more where not.
    fn is_full(&self, now: Duration, expiry: Duration) -> bool {
        let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
        while made
            .front()
            .is_some_and(|at| now.saturating_sub(*at) > expiry)
        {
            made.pop_front();
        }
        let full = made.len() >= PLANS_KEPT;
        if !full {
            made.push_back(now);
        }
        full
    }
}

/// What is to be planned.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Which runbook.
    pub runbook: Asked,
    /// Parameters; text where the schema says number is read as one.
    pub params: Value,
    /// Labels that narrow the runbook's selection.
    pub selector: BTreeMap<String, String>,
    /// Only these of the selection; empty = all.
    pub targets: Vec<TargetName>,
    /// Why the plan is made, beside another job.
    pub link: Option<Link>,
}

/// A runbook by name or by content.
#[derive(Clone, Debug)]
pub enum Asked {
    /// `NAME` or `NAME@VERSION`.
    Name(String),
    /// A file.
    File {
        /// As messages call it.
        name: String,
        /// What it holds.
        text: String,
    },
    /// As an earlier job kept it.
    Kept {
        /// What it was.
        reference: RunbookRef,
        /// What it held.
        body: Box<Runbook>,
    },
}

/// One agent has answered, or will not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Progress {
    /// Which.
    pub target: TargetName,
    /// True for a practice cluster.
    pub simulated: bool,
    /// `planned`, `unchanged`, `refused`, `unreachable`.
    pub state: &'static str,
    /// Answers so far.
    pub done: usize,
    /// Agents asked.
    pub total: usize,
}

/// What every agent is asked about.
struct Subject {
    reference: RunbookRef,
    body: Runbook,
    params: Value,
}

impl Subject {
    fn planning(&self, facts: &AgentFacts) -> Planning {
        Planning {
            runbook: self.reference.clone(),
            body: self.body.clone(),
            params: self.params.clone(),
            target: facts.fleet.target.clone(),
            labels: super::fleet::labels(&facts.fleet),
        }
    }
}

impl Services {
    /// Makes a plan and stores it.
    pub async fn plan(
        &self,
        wanted: Wanted,
        by: &str,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PlanView, Error> {
        let _place = self.place_to_plan()?;
        let subject = self.subject(&wanted).await?;
        let selected = self.select(&wanted, &subject.body)?;
        let about = |facts: &AgentFacts| Question::Plan(Box::new(subject.planning(facts)));
        let asked = selected.iter().map(|facts| (facts, about(facts))).collect();
        let unreachable = subject.body.when_unreachable();
        let parts = self.ask_all(asked, unreachable, progress).await;
        let plan = self.draw(wanted.selector, &subject, &selected, parts, by);
        self.store_plan(&plan, wanted.link).await?;
        self.plan_view(plan, false)
    }

    /// Makes a plan that puts back what a job left on some targets, and stores it.
    pub(super) async fn plan_back(
        &self,
        job: &Job,
        targets: &[TargetName],
        by: &str,
        progress: &mpsc::Sender<Progress>,
    ) -> Result<PlanView, Error> {
        let _place = self.place_to_plan()?;
        let scope = &job.plan.scope;
        let subject = Subject {
            reference: scope.runbook.clone(),
            body: scope.body.clone(),
            params: scope.params.clone(),
        };
        let mut selected = self.0.agents.fleet();
        selected.retain(|facts| targets.contains(&facts.fleet.target));
        let asked = selected
            .iter()
            .filter_map(|facts| {
                let target = &facts.fleet.target;
                let (job_id, steps) = (job.header.id.clone(), job.target(target).left());
                let undoing = Undoing {
                    planning: subject.planning(facts),
                    part: job.part(target)?.clone(),
                    left: Left { job: job_id, steps },
                };
                Some((facts, Question::Undo(Box::new(undoing))))
            })
            .collect();
        // Who is away cannot say whether it could go back: left out by name, never by chance.
        let parts = self.ask_all(asked, WhenUnreachable::Fail, progress).await;
        let plan = self.draw(BTreeMap::new(), &subject, &selected, parts, by);
        let link = Link::Undoes {
            job: job.header.id.clone(),
        };
        self.store_plan(&plan, Some(link)).await?;
        self.plan_view(plan, false)
    }

    /// Planning asks the whole fleet and stores what it answers: so much of it at once, and so many plans in the
    /// life of one, else whoever plans in a loop fills the store.
    fn place_to_plan(&self) -> Result<SemaphorePermit<'_>, Error> {
        let busy = |problem: String| {
            let hint = "try again later, or on another replica";
            Error::new(super::Kind::Unavailable, problem).hint(hint)
        };
        let place = self.0.planning.places.try_acquire();
        let place =
            place.map_err(|_| busy(format!("{PLANS_AT_ONCE} plans are being made here")))?;
        let now = self.0.clock.boot_now();
        if self.0.planning.is_full(now, self.0.plan_expiry) {
            let problem = format!("{PLANS_KEPT} plans were made here that have not expired");
            return Err(busy(problem));
        }
        Ok(place)
    }

    async fn subject(&self, wanted: &Wanted) -> Result<Subject, Error> {
        let (reference, body) = match &wanted.runbook {
            Asked::Name(name) => taken(self.runbook(name).await?.0),
            Asked::File { name, text } => taken(library::read(name, text)?),
            Asked::Kept { reference, body } => (reference.clone(), Runbook::clone(body)),
        };
        let params = check_params(&body, &wanted.params)?;
        Ok(Subject {
            reference,
            body,
            params,
        })
    }

    async fn ask_all(
        &self,
        asked: Vec<(&AgentFacts, Question)>,
        unreachable: WhenUnreachable,
        progress: &mpsc::Sender<Progress>,
    ) -> BTreeMap<TargetName, TargetPart> {
        let total = asked.len();
        // Boxed: the compiler cannot see otherwise that these futures may move between threads.
        let asks: Vec<BoxFuture<'_, TargetPart>> = asked
            .into_iter()
            .map(|(facts, question)| self.part(question, unreachable, facts).boxed())
            .collect();
        let mut answers = futures::stream::iter(asks).buffer_unordered(AT_ONCE);
        let mut parts = BTreeMap::new();
        while let Some(part) = answers.next().await {
            let (target, state) = (part.target.clone(), state_of(&part.disposition));
            let simulated = part.simulated;
            parts.insert(target.clone(), part);
            let done = parts.len();
            // Whoever asked may have left; the plan is kept for them.
            let _ = progress.try_send(Progress {
                target,
                simulated,
                state,
                done,
                total,
            });
        }
        parts
    }

    /// One agent's part, or the reason why there is none.
    async fn part(
        &self,
        question: Question,
        when_unreachable: WhenUnreachable,
        facts: &AgentFacts,
    ) -> TargetPart {
        let target = &facts.fleet.target;
        let without = |disposition| TargetPart {
            target: target.clone(),
            identity: facts.fleet.identity.clone(),
            simulated: facts.fleet.simulated,
            disposition,
            steps: vec![],
            warnings: vec![],
            left: None,
        };
        let look = format!("`aldis agents show {target}` shows what is known of it");
        match &facts.presence {
            Presence::Contested { why } | Presence::Held { why } => {
                return without(refused(why.clone(), look));
            }
            Presence::Live { .. } | Presence::NotMerged | Presence::Absent { .. } => {}
        }
        match self.0.agents.ask(target, question, WITHIN).await {
            Ok(Answer::Plan(part)) => match part.foreign(target, &facts.fleet.identity) {
                Some(why) => without(refused(why, look)),
                None => *part,
            },
            Ok(Answer::Drift { .. } | Answer::Soak(_) | Answer::Attempts(_)) => without(refused(
                "the agent answered another question".to_owned(),
                "upgrade the agent".to_owned(),
            )),
            Err(AskError::Refused { problem }) => without(Disposition::Refused {
                why: problem,
                hint: None,
            }),
            Err(error) => without(unreachable(when_unreachable, &error)),
        }
    }

    fn draw(
        &self,
        narrowed: BTreeMap<String, String>,
        subject: &Subject,
        selected: &[AgentFacts],
        parts: BTreeMap<TargetName, TargetPart>,
        by: &str,
    ) -> Plan {
        let names: BTreeSet<TargetName> = selected
            .iter()
            .map(|facts| facts.fleet.target.clone())
            .collect();
        let body = &subject.body;
        let mut selector = body.spec.targets.select.match_labels.clone();
        selector.extend(narrowed);
        let phase = Phase {
            name: "main".to_owned(),
            waves: waves::cut(&body.spec.rollout, &names),
            segments: waves::segments(body),
            budget: waves::budget(&body.spec.rollout.max_failures, names.len()),
            on_failure: body.on_failure(),
        };
        let scope = Scope {
            runbook: subject.reference.clone(),
            body: body.clone(),
            params: subject.params.clone(),
            selector,
            selection: selected
                .iter()
                .map(|facts| {
                    (
                        facts.fleet.target.clone(),
                        super::fleet::labels(&facts.fleet),
                    )
                })
                .collect(),
            phases: vec![phase],
            expires_at: self.now().plus(self.0.plan_expiry),
        };
        let id = PlanId::new(format!("p-{:032x}", (self.0.draw)()));
        Plan::new(id, scope, parts, by.to_owned(), self.now())
    }

    async fn store_plan(&self, plan: &Plan, link: Option<Link>) -> Result<(), Error> {
        let create = |key: crate::store::Key, value| Commit {
            preconditions: vec![Precondition::Absent(key.clone())],
            writes: vec![Write::put(key, value)],
        };
        let id = plan.id.as_str();
        let parts = plan.parts.values().map(|part| {
            let record = PlanPart {
                format: 1,
                late: false,
                part: part.clone(),
            };
            create(
                keys::plan_part(id, &part.target.to_string()),
                records::write(&record),
            )
        });
        let group = Group {
            fence: vec![],
            commits: parts.collect(),
        };
        let stored = self.0.store.commit_group(group).await?;
        let header = PlanHeader {
            format: 1,
            id: plan.id.clone(),
            scope: plan.scope.clone(),
            digest: plan.digest.clone(),
            planned_by: plan.planned_by.clone(),
            planned_at: plan.planned_at,
            expired: false,
            link,
        };
        let header = create(keys::plan_header(id), records::write(&header));
        let all = stored.iter().all(|outcome| outcome.is_committed());
        if all && self.0.store.commit(header).await?.is_committed() {
            return Ok(());
        }
        // The id was drawn at random: nobody else writes under it.
        Err(Error::new(
            super::Kind::Unavailable,
            format!("plan {id} was not stored"),
        )
        .hint("plan again"))
    }
}

fn taken(loaded: Loaded) -> (RunbookRef, Runbook) {
    let metadata = &loaded.runbook.metadata;
    let reference = RunbookRef {
        name: metadata.name.clone(),
        version: metadata.version,
        digest: loaded.digest,
    };
    (reference, loaded.runbook)
}

/// Parameters by the runbook's schema, every mistake at once.
fn check_params(runbook: &Runbook, given: &Value) -> Result<Value, Error> {
    let schema = &runbook.spec.params;
    let read = |(name, value): (&String, &Value)| {
        let value = match value {
            Value::String(text) => params::coerce(schema, name, text),
            other => other.clone(),
        };
        (name.clone(), value)
    };
    let given = match given {
        Value::Object(given) => Value::Object(given.iter().map(read).collect()),
        other => other.clone(),
    };
    params::validate(schema, &given).map_err(|mistakes| {
        let lines: Vec<String> = mistakes
            .iter()
            .map(|mistake| {
                let near = mistake.did_you_mean.as_ref();
                let near = near.map_or(String::new(), |near| format!("; did you mean `{near}`?"));
                let about = mistake.about.as_ref();
                let about = about.map_or(String::new(), |about| format!(" ({about})"));
                format!("{mistake}{near}{about}")
            })
            .collect();
        let name = &runbook.metadata.name;
        Error::usage(lines.join("\n")).hint(format!(
            "give each as `-p NAME=VALUE`; `aldis runbook show {name}` lists them"
        ))
    })
}

fn refused(why: String, command: String) -> Disposition {
    Disposition::Refused {
        why,
        hint: Some(command),
    }
}

fn unreachable(policy: WhenUnreachable, error: &AskError) -> Disposition {
    let why = error.to_string();
    match policy {
        WhenUnreachable::Fail => Disposition::Refused {
            why: format!("{why} (`whenUnreachable: fail`)"),
            hint: Some("leave it out with `--target` or `-l`, or bring its agent back".to_owned()),
        },
        WhenUnreachable::Skip => Disposition::Skipped { why },
        WhenUnreachable::Defer => Disposition::Deferred { why },
    }
}

fn state_of(disposition: &Disposition) -> &'static str {
    match disposition {
        Disposition::Run => "planned",
        Disposition::Unchanged { .. } => "unchanged",
        Disposition::Refused { .. } => "refused",
        Disposition::Deferred { .. } | Disposition::Skipped { .. } => "unreachable",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_many_plans_as_are_kept_may_be_made_within_the_life_of_one() {
        let (pace, expiry) = (Pace::default(), Duration::from_secs(60));
        let at = Duration::from_secs;
        assert!((0..PLANS_KEPT).all(|_| !pace.is_full(at(1_000), expiry)));
        assert!(pace.is_full(at(1_060), expiry));
        assert!(!pace.is_full(at(1_061), expiry), "the oldest have expired");
    }
}
