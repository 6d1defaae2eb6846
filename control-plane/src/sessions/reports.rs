//! What agents report, into the records of their targets.
//!
//! Written by the replica that received it, grouped, each record only if nobody was quicker and the
//! session is still the one that spoke. A report that the record cannot take any more (a repeat, an
//! older attempt) is acknowledged and changes nothing. What is not written is not acknowledged: the
//! agent sends it again.
//!
//! | the report is of | follows |
//! |---|---|
//! | a hot job | folded into its target's record |
//! | an ended job | folded into `ended/` where it contradicts what an operator said, loudly |
//! | a job that nobody knows | the agent's list is compared again: what it holds is shown as orphans |

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId, TargetName, Timestamp};
use aldis_core::job::{Header, Report, Target, TargetEvent};
use aldis_proto::v1;
use aldis_proto::v1::session_response::Message as Out;
use tokio::sync::mpsc;
use tracing::{debug, error, warn};

use super::{Live, Shared, late};
use crate::jobs;
use crate::presence::{self, Known};
use crate::records::{self, Ended, Fleet, Session};
use crate::store::{Commit, Group, Precondition, Record, Revision, Write, keys};
use crate::telemetry::chain;

/// Reports of one group: at some 200 bytes each, 16 KiB, so that one slow write delays few.
const GROUP: usize = 64;

/// Reads and writes of one group before its agents are left to send again.
const TRIES: usize = 4;

/// One report on its way into the store.
#[derive(Clone, Debug)]
pub(super) struct Reported {
    pub(super) target: TargetName,
    pub(super) generation: u64,
    pub(super) job: JobId,
    pub(super) attempt: Attempt,
    pub(super) sequence: u64,
    pub(super) report: Report,
}

impl Reported {
    fn event(&self, at: Timestamp) -> TargetEvent {
        TargetEvent::Reported {
            attempt: self.attempt,
            report: self.report.clone(),
            at,
        }
    }
}

/// Reports of one job on one target, in the order they came.
type Batch = BTreeMap<(JobId, TargetName), Vec<Reported>>;

/// Writes until the sessions are gone.
pub(super) async fn write_all(shared: Weak<Shared>, mut received: mpsc::Receiver<Reported>) {
    let mut group = Vec::with_capacity(GROUP);
    while received.recv_many(&mut group, GROUP).await > 0 {
        let Some(shared) = shared.upgrade() else {
            return;
        };
        let mut batch = Batch::new();
        for reported in group.drain(..) {
            let key = (reported.job.clone(), reported.target.clone());
            batch.entry(key).or_default().push(reported);
        }
        shared.write_batch(batch).await;
    }
}

/// What one entry of a batch leads to.
enum Folded {
    /// To be committed, then acknowledged.
    Write(Commit),
    /// To be committed; the report itself is not in any record yet and comes again.
    First(Commit),
    /// Nothing to write; acknowledged.
    Known,
    /// The session that spoke is not the current one.
    Superseded,
}

impl Shared {
    async fn write_batch(&self, mut batch: Batch) {
        for attempt in 0..TRIES {
            if batch.is_empty() {
                return;
            }
            let mut writes = Vec::new();
            for (key, reports) in std::mem::take(&mut batch) {
                match self.fold(&key.0, &key.1, &reports, attempt > 0).await {
                    Ok(Folded::Write(commit)) => writes.push((key, reports, commit)),
                    Ok(Folded::First(commit)) => self.write_first(&key.1, commit).await,
                    Ok(Folded::Known) => self.acknowledge(&reports).await,
                    Ok(Folded::Superseded) => debug!(target = %key.1, "report of an older session"),
                    Err(error) => {
                        let error = chain(&error);
                        warn!(target = %key.1, job = %key.0, error, "report not read");
                    }
                }
            }
            batch = self.commit_batch(writes).await;
        }
        for (job, target) in batch.keys() {
            warn!(%target, %job, "report lost its races; the agent sends it again");
        }
    }

    /// Commits; what lost its race is returned to be folded again.
    async fn commit_batch(
        &self,
        writes: Vec<((JobId, TargetName), Vec<Reported>, Commit)>,
    ) -> Batch {
        if writes.is_empty() {
            return Batch::new();
        }
        let commits = writes.iter().map(|(_, _, commit)| commit.clone()).collect();
        let outcomes = match self
            .parts
            .store
            .commit_group(Group {
                fence: vec![],
                commits,
            })
            .await
        {
            Ok(outcomes) => outcomes,
            Err(error) => {
                // Not known whether any was written. Folding again finds out: what is written
                // already is `Known`.
                warn!(error = chain(&error), "reports not written");
                tokio::time::sleep(Duration::from_millis(100)).await;
                return writes
                    .into_iter()
                    .map(|(key, reports, _)| (key, reports))
                    .collect();
            }
        };
        let mut again = Batch::new();
        for ((key, reports, _), outcome) in writes.into_iter().zip(outcomes) {
            if outcome.is_committed() {
                self.note_recorded(outcome.revision(), &reports);
                self.acknowledge(&reports).await;
            } else {
                again.insert(key, reports);
            }
        }
        again
    }

    async fn fold(
        &self,
        job: &JobId,
        target: &TargetName,
        reports: &[Reported],
        afresh: bool,
    ) -> Result<Folded, jobs::Error> {
        let name = target.to_string();
        let known = self.parts.view.read(|all| presence::one(all, target))?;
        let Some(known) = known else {
            return Ok(Folded::Superseded);
        };
        let current = known.session.as_ref().filter(|(session, _)| {
            reports
                .iter()
                .all(|reported| reported.generation == session.generation)
        });
        let Some((session, session_record)) = current else {
            return Ok(Folded::Superseded);
        };
        // Before the leader has merged the list that the session registered with, no report counts.
        if session.merged.is_none() {
            return Ok(Folded::Superseded);
        }
        let Some(header) = self.read(&keys::job_header(job.as_str()), afresh).await? else {
            return self.of_no_hot_job(job, &known, reports).await;
        };
        let header: Arc<Header> = records::shared(&header)?;
        let plan = self.parts.plans.load(&header.plan).await?;
        let key = keys::job_target(job.as_str(), &name);
        let Some(record) = self.read(&key, afresh).await? else {
            return Ok(Folded::Known);
        };
        let before: Arc<Target> = records::shared(&record)?;
        let mut after = Target::clone(&before);
        for reported in reports {
            let event = reported.event(Timestamp(self.parts.clock.wall_now()));
            match after.clone().next(event, plan.phase().segments.len()) {
                Ok(next) => after = next,
                Err(error) => debug!(%job, error = chain(&error), "report changes nothing"),
            }
        }
        if after == *before {
            return Ok(Folded::Known);
        }
        let mut commit = Commit {
            preconditions: vec![
                Precondition::unchanged(&key, Some(&record)),
                Precondition::unchanged(&session_record.key, Some(session_record)),
            ],
            writes: vec![Write::put(key, records::write(&after))],
        };
        note_sequence(&mut commit, &known.fleet, &known.fleet_record, reports);
        Ok(Folded::Write(commit))
    }

    /// What only has to be noted before the report can count: lost races are made up for when it comes
    /// again.
    async fn write_first(&self, target: &TargetName, commit: Commit) {
        if let Err(error) = self.parts.store.commit(commit).await {
            warn!(%target, error = chain(&error), "a report's agent not compared again");
        }
    }

    /// A report of a job without header: it has ended, or the store has lost it.
    async fn of_no_hot_job(
        &self,
        job: &JobId,
        known: &Known,
        reports: &[Reported],
    ) -> Result<Folded, jobs::Error> {
        let Some((session, session_record)) = &known.session else {
            return Ok(Folded::Superseded);
        };
        let key = keys::ended(job.as_str());
        if let Some(record) = self.parts.store.get(&key).await? {
            let folded = self.of_ended_job(&record, reports).await?;
            return Ok(folded.map_or(Folded::Known, |ended| {
                Folded::Write(Commit {
                    preconditions: vec![
                        Precondition::unchanged(&key, Some(&record)),
                        Precondition::unchanged(&session_record.key, Some(session_record)),
                    ],
                    writes: vec![Write::put(key, records::write(&ended))],
                })
            }));
        }
        let is_listed = |reported: &Reported| {
            let mut orphans = known.fleet.orphans.iter();
            orphans.any(|one| one.job == *job && one.attempt == reported.attempt)
        };
        if reports.iter().all(is_listed) {
            return Ok(Folded::Superseded);
        }
        // One path for all that the store does not know: the leader asks for the list again, names what
        // it holds as orphans, and holds the agent.
        warn!(target = %known.fleet.target, %job, "report of a job that the store does not know");
        let compared_again = Session {
            merged: None,
            ..Session::clone(session)
        };
        Ok(Folded::First(Commit {
            preconditions: vec![Precondition::unchanged(
                &session_record.key,
                Some(session_record),
            )],
            writes: vec![Write::put(
                session_record.key.clone(),
                records::write(&compared_again),
            )],
        }))
    }

    /// The record of an ended job with what came after its end, where that says something else.
    async fn of_ended_job(
        &self,
        record: &Record,
        reports: &[Reported],
    ) -> Result<Option<Ended>, jobs::Error> {
        let mut ended: Ended = records::read(record)?;
        let plan = self.parts.plans.load(&ended.header.plan).await?;
        let segments = plan.phase().segments.len();
        let mut says_otherwise = false;
        for reported in reports {
            let now = Timestamp(self.parts.clock.wall_now());
            let Some(target) = ended.targets.get_mut(&reported.target) else {
                continue;
            };
            if let Some(told) = late::after_the_end(target, reported.event(now), segments) {
                error!(
                    target = %reported.target, job = %ended.header.id, attempt = %reported.attempt, state = ?told.state,
                    "an agent's word after the end of its job is not what was taken for true"
                );
                *target = told;
                says_otherwise = true;
            }
        }
        Ok(says_otherwise.then_some(ended))
    }

    async fn read(
        &self,
        key: &crate::store::Key,
        afresh: bool,
    ) -> Result<Option<Record>, jobs::Error> {
        if afresh {
            return Ok(self.parts.store.get(key).await?);
        }
        match self.parts.view.get(key) {
            Some(record) => Ok(Some(record)),
            None => Ok(self.parts.store.get(key).await?),
        }
    }

    /// Remembers on their streams how far the journals are recorded: a store that shows less later went back.
    fn note_recorded(&self, at: Revision, reports: &[Reported]) {
        for reported in reports {
            let live = self.session(&reported.target);
            if let Some(live) = live.filter(|live| live.generation == reported.generation) {
                live.was_recorded(at, reported.sequence);
            }
        }
    }

    async fn acknowledge(&self, reports: &[Reported]) {
        for reported in reports {
            let Some(live) = self.session(&reported.target) else {
                continue;
            };
            if live.generation == reported.generation {
                self.acknowledge_one(&live, reported).await;
            }
        }
    }

    async fn acknowledge_one(&self, live: &Arc<Live>, reported: &Reported) {
        let ended = matches!(reported.report, Report::Ended { .. });
        let acknowledge = v1::Acknowledge {
            job: reported.job.to_string(),
            attempt: reported.attempt.0,
            sequence: reported.sequence,
            ended,
        };
        self.send(live, Out::Acknowledge(acknowledge)).await;
    }
}

/// The highest sequence ever reported of a journal never falls.
fn note_sequence(commit: &mut Commit, fleet: &Fleet, record: &Record, reports: &[Reported]) {
    let highest = reports
        .iter()
        .map(|reported| reported.sequence)
        .max()
        .unwrap_or(0);
    if highest <= fleet.journal.sequence {
        return;
    }
    let mut fleet = fleet.clone();
    fleet.journal.sequence = highest;
    commit
        .preconditions
        .push(Precondition::unchanged(&record.key, Some(record)));
    commit
        .writes
        .push(Write::put(record.key.clone(), records::write(&fleet)));
}
