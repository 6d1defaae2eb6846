//! What a decision wants read: asked in the background, answered into the leader's memory.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::decide::{Reads, SoakWanted};
use aldis_core::ids::{JobId, TargetName};
use aldis_core::job::{Event, HeldBy, Job, TargetEvent, TargetState, locks_of};
use aldis_core::plan::{Disposition, TargetPart, Wave};
use aldis_core::question::{Answer, Planning, Question};
use aldis_core::runbook::Soak;
use aldis_core::soak::{SoakProgress, SoakReading};
use futures::StreamExt;
use tracing::{info, warn};

use super::locks::TOGETHER;
use super::memory::{Answered, Asking, Soaking};
use super::{Error, Term};
use crate::agents::{Agents, AskError};
use crate::jobs::{self, Loaded};
use crate::presence;
use crate::records::{self, Lock, PlanPart};
use crate::store::{Commit, Key, Precondition, Write};
use crate::telemetry::chain;
use crate::trace;

/// How long an agent may take for an answer: longer than any read it makes, API server included.
pub(super) const ASK_WITHIN: Duration = Duration::from_secs(20);

/// Before a failed question is asked again.
pub(super) const ASK_AGAIN: Duration = Duration::from_secs(1);

/// Targets read at once in a soak.
const AT_ONCE: usize = 64;

/// A round counts for at most this many times its interval: a leader that was stopped for a while
/// has not watched meanwhile.
const ROUND_COUNTS_FOR: u32 = 2;

impl Term<'_> {
    pub(super) fn ask(&mut self, loaded: &Loaded, reads: &Reads) {
        let job = &loaded.job;
        for target in &reads.drift {
            let Some(part) = job.part(target).cloned() else {
                continue;
            };
            self.ask_one(
                job,
                target,
                Asking::Drift,
                Question::Drift {
                    part: Box::new(part),
                },
            );
        }
        for target in &reads.plan {
            let question = Question::Plan(Box::new(planning(job, target)));
            self.ask_one(job, target, Asking::Plan, question);
        }
        if let Some(wanted) = &reads.soak {
            self.soak(job, wanted);
        }
    }

    fn ask_one(
        &mut self,
        job: &Job,
        target: &TargetName,
        kind: fn(JobId, TargetName) -> Asking,
        question: Question,
    ) {
        let id = job.header.id.clone();
        if !self.memory.begin(
            &kind(id.clone(), target.clone()),
            self.parts.clock.boot_now(),
        ) {
            return;
        }
        let (agents, answers) = (self.parts.agents.clone(), self.answers.clone());
        let target = target.clone();
        let asking = async move {
            let is_drift = matches!(question, Question::Drift { .. });
            let answer = agents.ask(&target, question, ASK_WITHIN).await;
            let answered = if is_drift {
                Answered::Drift {
                    answer: answer.and_then(as_drift),
                    job: id,
                    target,
                }
            } else {
                Answered::Plan {
                    answer: answer.and_then(as_plan),
                    job: id,
                    target,
                }
            };
            // Without a receiver the term is over.
            let _ = answers.send(answered).await;
        };
        tokio::spawn(trace::under(job.header.trace.clone(), asking));
    }

    fn soak(&mut self, job: &Job, wanted: &SoakWanted) {
        let Some(soak) = soak_of(job, wanted.wave) else {
            return;
        };
        let now = self.parts.clock.boot_now();
        let id = job.header.id.clone();
        let known = self
            .memory
            .soak
            .get(&id)
            .is_some_and(|s| s.progress.wave == wanted.wave);
        if !known {
            let committed = job.header.soak.clone().filter(|p| p.wave == wanted.wave);
            let progress = committed.unwrap_or_else(|| SoakProgress::begin(wanted.wave));
            self.memory.soak.insert(
                id.clone(),
                Soaking {
                    progress,
                    last_round: now,
                },
            );
        }
        let last = self.memory.soak[&id].last_round;
        if now.saturating_sub(last) < soak.every
            || !self.memory.begin(&Asking::Soak(id.clone()), now)
        {
            return;
        }
        let questions: Vec<(TargetName, Planning)> = wanted
            .targets
            .iter()
            .map(|target| (target.clone(), planning(job, target)))
            .collect();
        let (agents, answers, wave) =
            (self.parts.agents.clone(), self.answers.clone(), wanted.wave);
        let reading = async move {
            let round = read_all(agents, questions).await;
            // Without a receiver the term is over.
            let _ = answers
                .send(Answered::Soak {
                    job: id,
                    wave,
                    round,
                })
                .await;
        };
        tokio::spawn(trace::under(job.header.trace.clone(), reading));
    }

    /// Takes answers in, lists first: they are many after a failover, and everything waits for them.
    pub(super) async fn take_all(&mut self, answers: Vec<Answered>) {
        let mut lists = Vec::new();
        let mut others = Vec::new();
        for answer in answers {
            match answer {
                Answered::Attempts(came) => lists.push(came),
                other => others.push(other),
            }
        }
        self.merge_all(lists).await;
        for other in others {
            self.take(other).await;
        }
    }

    /// Takes an answer into memory; the next round decides with it.
    async fn take(&mut self, answered: Answered) {
        let again = self.parts.clock.boot_now() + ASK_AGAIN;
        match answered {
            Answered::Attempts(came) => self.merge_all(vec![came]).await,
            Answered::Drift {
                job,
                target,
                answer,
            } => {
                let asking = Asking::Drift(job.clone(), target.clone());
                let found = match answer {
                    Ok(found) => found,
                    // It looked and will not act: that is an answer.
                    Err(AskError::Refused { problem }) => Some(problem),
                    Err(error) => {
                        info!(%job, %target, error = chain(&error), "drift not read");
                        return self.memory.postpone(asking, again);
                    }
                };
                self.memory.end(&asking);
                self.memory
                    .drift
                    .entry(job)
                    .or_default()
                    .insert(target, found);
            }
            Answered::Plan {
                job,
                target,
                answer,
            } => {
                let asking = Asking::Plan(job.clone(), target.clone());
                let stored = match answer {
                    Ok(part) => self.store_late_part(&job, &target, *part).await,
                    Err(error) => {
                        info!(%job, %target, error = chain(&error), "deferred target not planned");
                        return self.memory.postpone(asking, again);
                    }
                };
                if let Err(error) = stored {
                    warn!(%job, %target, error = chain(&error), "late part not stored");
                }
                self.memory.postpone(asking, again);
            }
            Answered::Soak { job, wave, round } => self.count(&job, wave, &round),
        }
    }

    fn count(&mut self, job: &JobId, wave: usize, round: &BTreeMap<TargetName, SoakReading>) {
        self.memory.end(&Asking::Soak(job.clone()));
        let now = self.parts.clock.boot_now();
        let Some(soaking) = self
            .memory
            .soak
            .get_mut(job)
            .filter(|s| s.progress.wave == wave)
        else {
            return;
        };
        let Some(plan) = self.parts.plans.kept_plan(job, &self.parts.view) else {
            return;
        };
        let Some(soak) = plan
            .phase()
            .waves
            .get(wave)
            .and_then(|wave| wave.soak.as_ref())
        else {
            return;
        };
        let passed = now
            .saturating_sub(soaking.last_round)
            .min(soak.every * ROUND_COUNTS_FOR);
        soaking.last_round = now;
        soaking.progress.add(&plan.scope.body, soak, passed, round);
    }

    /// A late part is checked against the scope by being made from it; its digest is not the job's. What it
    /// writes is locked in the transaction that stores it: where another job holds some of it, the part is
    /// dropped and made again when that is free, from what will be there then.
    async fn store_late_part(
        &self,
        job: &JobId,
        target: &TargetName,
        part: TargetPart,
    ) -> Result<(), Error> {
        let Some(loaded) = jobs::load(&self.parts.view, &self.parts.plans, job).await? else {
            return Ok(());
        };
        let waits = matches!(
            loaded.job.target(target).state,
            TargetState::Deferred { .. }
        );
        if !waits {
            return Ok(());
        }
        let part = self.own_part(target, part)?;
        let locks = match part.disposition {
            Disposition::Run => locks_of(&part),
            _ => vec![],
        };
        if let Some((lock, by)) = self.held_by_another(job, &locks)? {
            let object = lock.object;
            let event = TargetEvent::LateLocked(HeldBy { object, by });
            let events = vec![Event::Target(target.clone(), event)];
            let revision = self.writer().write(&loaded, events).await?;
            self.parts.view.reaches(revision).await;
            return Ok(());
        }
        let missing = self.missing(job, locks)?;
        self.commit_late_part(&loaded, part, &missing).await
    }

    async fn commit_late_part(
        &self,
        loaded: &Loaded,
        part: TargetPart,
        missing: &[(Key, Lock)],
    ) -> Result<(), Error> {
        let mut beside = missing;
        if missing.len() > TOGETHER {
            if !self.take_in_groups(missing).await?.1 {
                let taken = |lock: &Lock| missing.iter().any(|(_, ours)| ours == lock);
                self.free(taken).await?;
                return Ok(());
            }
            beside = &[];
        }
        let key = jobs::late_part_key(&loaded.job.plan.id, &part.target);
        let record = PlanPart {
            format: 1,
            late: true,
            part,
        };
        // The job must still be there: a lock of one that has ended would be nobody's.
        let header = Precondition::Modified {
            key: loaded.header.key.clone(),
            at: loaded.header.modified,
        };
        let mut commit = Commit {
            preconditions: vec![header, Precondition::Absent(key.clone())],
            writes: vec![Write::put(key, records::write(&record))],
        };
        for (key, lock) in beside {
            commit.preconditions.push(Precondition::Absent(key.clone()));
            let lock = records::write(lock);
            commit.writes.push(Write::put(key.clone(), lock));
        }
        let fenced = self.writer().fenced()?;
        let outcome = fenced.commit(&*self.parts.store, commit).await?;
        self.parts.plans.look_again(&loaded.job.plan.id);
        self.parts.view.reaches(outcome.revision()).await;
        Ok(())
    }

    /// The part, or a refusal of one that is about somebody else: no agent answers for another.
    fn own_part(&self, target: &TargetName, part: TargetPart) -> Result<TargetPart, Error> {
        let known = self.parts.view.read(|all| presence::one(all, target))?;
        let why = match &known {
            Some(known) => part.foreign(target, &known.fleet.identity),
            None => Some(format!("nothing is known of {target}")),
        };
        Ok(match why {
            None => part,
            Some(why) => TargetPart {
                target: target.clone(),
                identity: known.map_or(part.identity, |known| known.fleet.identity.clone()),
                simulated: part.simulated,
                disposition: Disposition::Refused { why, hint: None },
                steps: vec![],
                warnings: vec![],
                left: None,
            },
        })
    }
}

async fn read_all(
    agents: std::sync::Arc<dyn Agents>,
    questions: Vec<(TargetName, Planning)>,
) -> BTreeMap<TargetName, SoakReading> {
    futures::stream::iter(questions)
        .map(|(target, planning)| {
            let agents = agents.clone();
            async move {
                let question = Question::Soak(Box::new(planning));
                let steps = match agents.ask(&target, question, ASK_WITHIN).await {
                    Ok(Answer::Soak(reading)) => return (target, reading),
                    Ok(_) => Err("the agent answered another question".to_owned()),
                    Err(error) => Err(error.to_string()),
                };
                (target, SoakReading { steps })
            }
        })
        .buffer_unordered(AT_ONCE)
        .collect()
        .await
}

fn as_drift(answer: Answer) -> Result<Option<String>, AskError> {
    match answer {
        Answer::Drift { found } => Ok(found),
        Answer::Plan(_) | Answer::Soak(_) | Answer::Attempts(_) => Err(another_question()),
    }
}

fn as_plan(answer: Answer) -> Result<Box<TargetPart>, AskError> {
    match answer {
        Answer::Plan(part) => Ok(part),
        Answer::Drift { .. } | Answer::Soak(_) | Answer::Attempts(_) => Err(another_question()),
    }
}

fn another_question() -> AskError {
    AskError::Refused {
        problem: "the agent answered another question".to_owned(),
    }
}

fn planning(job: &Job, target: &TargetName) -> Planning {
    let scope = &job.plan.scope;
    Planning {
        runbook: scope.runbook.clone(),
        body: scope.body.clone(),
        params: scope.params.clone(),
        target: target.clone(),
        labels: scope.selection.get(target).cloned().unwrap_or_default(),
    }
}

fn soak_of(job: &Job, wave: usize) -> Option<&Soak> {
    job.plan
        .phase()
        .waves
        .get(wave)
        .and_then(|wave: &Wave| wave.soak.as_ref())
}
