//! The end of a job: it leaves the hot prefix, whole, and its locks are freed.
//!
//! The record under `ended/` is put in the transaction that deletes the header, so that at every
//! moment exactly one of the two exists and a submission under the same key finds it. Locks go after
//! that: a crash in between leaves locks of an ended job, which the sweep frees.

use aldis_core::job::{Job, Rest, Target, TargetState};
use aldis_core::outcome::{Failure, StepState};

use super::{Error, Parts, Term};
use crate::jobs::Loaded;
use crate::leadership::Token;
use crate::records::{self, Ended};
use crate::store::{Commit, MAX_BYTES, Precondition, Write, keys};

/// Largest record of an ended job; the rest of a transaction is for keys and preconditions.
const LARGEST: usize = MAX_BYTES / 10 * 9;

/// Characters of a cause where there is no room for all of it.
const FEW_WORDS: usize = 120;

impl Term<'_> {
    pub(super) async fn retire(&mut self, loaded: &Loaded) -> Result<(), Error> {
        let id = loaded.job.header.id.as_str();
        let header = keys::job_header(id);
        let commit = Commit {
            preconditions: vec![Precondition::Modified {
                key: header.clone(),
                at: loaded.header.modified,
            }],
            writes: vec![
                Write::delete(header),
                Write::put(keys::ended(id), fitting(ended(&loaded.job))),
            ],
        };
        let outcome = self
            .writer()
            .fenced()?
            .commit(&*self.parts.store, commit)
            .await?;
        if outcome.is_committed() {
            self.memory.forget(&loaded.job.header.id);
            clear(self.parts, &self.token, id).await?;
            self.give_back(loaded).await?;
        }
        self.parts.view.reaches(outcome.revision()).await;
        Ok(())
    }
}

/// Deletes what a retired job left under the hot prefix.
pub(super) async fn clear(parts: &Parts, token: &Token, job: &str) -> Result<(), Error> {
    let left = parts.store.list(&keys::job_prefix(job)).await?.records;
    let absent = Precondition::Absent(keys::job_header(job));
    let commits: Vec<Commit> = left
        .into_iter()
        .filter(|record| record.key != keys::job_header(job))
        .map(|record| Commit {
            preconditions: vec![absent.clone()],
            writes: vec![Write::delete(record.key)],
        })
        .collect();
    if !commits.is_empty() {
        let fenced = parts.writer(token).fenced()?;
        fenced.commit_group(&*parts.store, commits).await?;
    }
    Ok(())
}

fn ended(job: &Job) -> Ended {
    let targets = job.targets.iter();
    let targets = targets.map(|(name, target)| (name.clone(), Target::clone(target)));
    Ended {
        format: 1,
        header: job.header.clone(),
        targets: targets.collect(),
    }
}

/// The whole job in one record. What does not fit is left out from the least to the most needed: what
/// steps answered, what shows why they failed, all but the first words of why.
fn fitting(mut record: Ended) -> bytes::Bytes {
    let mut written = records::write(&record);
    for shorten in [
        without_outputs,
        without_evidence,
        in_few_words,
        without_done_steps,
    ] {
        if written.len() < LARGEST {
            return written;
        }
        record.targets.values_mut().for_each(shorten);
        written = records::write(&record);
    }
    written
}

fn without_outputs(target: &mut Target) {
    for step in target.steps.values_mut() {
        if let StepState::Succeeded { outputs, .. } = step {
            *outputs = serde_json::Value::Null;
        }
    }
}

fn without_evidence(target: &mut Target) {
    each_failure(target, |failure| failure.evidence.clear());
    if let TargetState::Unknown { evidence, .. } = &mut target.state {
        evidence.truncate(1);
    }
    for step in target.steps.values_mut() {
        if let StepState::Unknown { evidence } = step {
            evidence.truncate(1);
        }
    }
}

fn in_few_words(target: &mut Target) {
    each_failure(target, |failure| {
        clip(&mut failure.cause);
        failure.hint = None;
    });
    if let TargetState::Unknown { evidence, .. } = &mut target.state {
        evidence.iter_mut().for_each(clip);
    }
    if let TargetState::Rest(Rest::NeedsOperator { why }) = &mut target.state {
        clip(why);
    }
    for step in target.steps.values_mut() {
        match step {
            StepState::Unknown { evidence } => evidence.iter_mut().for_each(clip),
            StepState::Skipped { why } | StepState::Abandoned { why } => clip(why),
            StepState::NotStarted
            | StepState::Running { .. }
            | StepState::Succeeded { .. }
            | StepState::Failed { .. }
            | StepState::Undone
            | StepState::Passed
            | StepState::UndoFailed { .. } => {}
        }
    }
}

/// Of a target that rests as it should, the state says what its steps would.
fn without_done_steps(target: &mut Target) {
    if let TargetState::Rest(Rest::Changed | Rest::Restored | Rest::Untouched) = target.state {
        target.steps.clear();
    }
}

fn each_failure(target: &mut Target, mut change: impl FnMut(&mut Failure)) {
    if let Some(failed) = &mut target.failure {
        change(&mut failed.failure);
    }
    if let TargetState::Stuck { failure, .. } = &mut target.state {
        change(failure);
    }
    for step in target.steps.values_mut() {
        if let StepState::Failed { failure, .. } | StepState::UndoFailed { failure } = step {
            change(failure);
        }
    }
}

fn clip(text: &mut String) {
    let end = text.char_indices().nth(FEW_WORDS).map(|(at, _)| at);
    if let Some(end) = end {
        text.truncate(end);
        text.push('…');
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use aldis_core::ids::TargetName;
    use aldis_core::job::Header;

    use super::*;

    fn header() -> Header {
        serde_json::from_value(serde_json::json!({
            "format": 1, "id": "j-1", "plan": "p-1", "digest": "d", "body": "b",
            "runbook": {"name": "r", "version": 1, "digest": "d"},
            "selected": 1, "simulated": true, "submittedBy": "user/mei", "reason": null,
            "submittedAt": 0, "priority": 0, "trace": null, "link": null,
            "state": {"kind": "partlyDone"}, "driftChecked": true, "wave": 0, "soak": null,
            "folded": [], "startedAt": 1, "endedAt": 2,
        }))
        .unwrap()
    }

    /// Each stuck, with a step that answered so much and failed with so much to show.
    fn stuck(targets: usize, outputs: usize, evidence: usize, cause: usize) -> Ended {
        let mut all = BTreeMap::new();
        for number in 0..targets {
            let name: TargetName = format!("eu/{number}").parse().unwrap();
            let failure = Failure::new("timeout", "c".repeat(cause))
                .with_evidence(vec!["e".repeat(evidence)]);
            let mut target = Target::new(name.clone());
            target.state = TargetState::Stuck {
                step: None,
                failure: failure.clone(),
            };
            let succeeded = StepState::Succeeded {
                outputs: serde_json::json!("o".repeat(outputs)),
                changed: true,
            };
            target.steps.insert("a".into(), succeeded);
            target.steps.insert(
                "b".into(),
                StepState::Failed {
                    failure,
                    applied: true,
                },
            );
            all.insert(name, target);
        }
        Ended {
            format: 1,
            header: header(),
            targets: all,
        }
    }

    fn read(bytes: bytes::Bytes) -> Ended {
        assert!(bytes.len() < MAX_BYTES, "{}", bytes.len());
        serde_json::from_slice(&bytes).unwrap()
    }

    #[test]
    fn what_fits_is_kept_whole() {
        let record = stuck(10, 100, 100, 100);
        assert_eq!(read(fitting(record.clone())), record);
    }

    #[test]
    fn evidence_of_many_failures_is_left_out_and_what_failed_stays() {
        let record = read(fitting(stuck(1_000, 0, 4_000, 80)));
        for target in record.targets.values() {
            let StepState::Failed { failure, .. } = &target.steps[&"b".into()] else {
                panic!("{target:?}")
            };
            assert_eq!((failure.cause.len(), failure.evidence.len()), (80, 0));
        }
    }

    #[test]
    fn whatever_agents_write_a_thousand_targets_fit() {
        read(fitting(stuck(1_000, 5_000, 5_000, 5_000)));
    }
}
