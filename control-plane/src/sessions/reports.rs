//! What agents report, into the records of their targets.
//!
//! Written by the replica that received it, grouped, each record only if nobody was quicker and the
//! session is still the one that spoke. A report that the record cannot take any more (a repeat, an
//! older attempt) is acknowledged and changes nothing. What is not written is not acknowledged: the
//! agent sends it again.

use std::collections::BTreeMap;
use std::sync::{Arc, Weak};
use std::time::Duration;

use aldis_core::ids::{Attempt, JobId, TargetName, Timestamp};
use aldis_core::job::{Header, Report, Target, TargetEvent};
use aldis_proto::v1;
use aldis_proto::v1::session_response::Message as Out;
use tokio::sync::mpsc;
use tracing::{debug, warn};

use super::{Live, Shared};
use crate::jobs;
use crate::presence;
use crate::records::{self, Fleet};
use crate::store::{Commit, Group, Precondition, Record, Write, keys};

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
    /// To be committed.
    Write(Commit),
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
                    Ok(Folded::Known) => self.acknowledge(&reports).await,
                    Ok(Folded::Superseded) => debug!(target = %key.1, "report of an older session"),
                    Err(error) => warn!(target = %key.1, job = %key.0, %error, "report not read"),
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
                warn!(%error, "reports not written");
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
            return self.of_no_job(job).await;
        };
        let header: Header = records::read(&header)?;
        let plan = self.parts.plans.load(&header.plan).await?;
        let key = keys::job_target(job.as_str(), &name);
        let Some(record) = self.read(&key, afresh).await? else {
            return Ok(Folded::Known);
        };
        let mut after: Target = records::read(&record)?;
        let before = after.clone();
        for reported in reports {
            let event = TargetEvent::Reported {
                attempt: reported.attempt,
                report: reported.report.clone(),
                at: Timestamp(self.parts.clock.wall_now()),
            };
            match after.clone().next(event, plan.phase().segments.len()) {
                Ok(next) => after = next,
                Err(error) => debug!(%job, %error, "report changes nothing"),
            }
        }
        if after == before {
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

    /// A report of a job without header: known when it has ended, else left for the leader's merge.
    async fn of_no_job(&self, job: &JobId) -> Result<Folded, jobs::Error> {
        let ended = self
            .parts
            .store
            .get(&keys::ended(job.as_str()))
            .await?
            .is_some();
        Ok(if ended {
            Folded::Known
        } else {
            Folded::Superseded
        })
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
