//! An agent's list of attempts against the records of the store: what a leader learns before it gives
//! the agent anything.
//!
//! | the list | the record | follows |
//! |---|---|---|
//! | shorter than recorded for the same journal | any | not merged: the journal is to be set aside |
//! | holds the open attempt | in work or unknown | its state is folded in, its end too |
//! | holds its end | settled by an operator | the end is folded in |
//! | lacks it; same journal, no damage | in work | nothing: it never arrived and is sent again |
//! | holds it open, or lacks it; same journal | unknown for want of news | in work again: it answers |
//! | holds it open | settled by an operator, next attempt to come | in work again: two at once would do a step twice |
//! | lacks it; another journal, or damage | in work, or settled and next to come | unknown |
//! | holds what no record knows | none, not ended | orphan; proof that the store lost it |

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::ids::{Attempt, JobId, JournalId, StepId, TargetName, Timestamp};
use crate::job::{Direction, Report, Target, TargetEvent};
use crate::outcome::{SegmentOutcome, StepState};

/// Every attempt in an agent's journal that is open, or was acknowledged within 7 days.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AttemptList {
    /// Which journal.
    pub journal: JournalId,
    /// Its highest sequence number.
    pub sequence: u64,
    /// Set when the journal was damaged or set aside at this start.
    pub damage: Option<String>,
    /// In no particular order.
    pub attempts: Vec<Listed>,
}

/// One attempt of the list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Listed {
    /// Of which job.
    pub job: JobId,
    /// Its number.
    pub attempt: Attempt,
    /// Which way.
    pub direction: Direction,
    /// Which segment.
    pub segment: usize,
    /// What is journalled of its steps.
    pub steps: BTreeMap<StepId, StepState>,
    /// How it ended, if it has.
    pub outcome: Option<SegmentOutcome>,
    /// Whether the control plane has acknowledged that end.
    pub acknowledged: bool,
}

/// What the fleet record remembers of an agent's journal.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordedJournal {
    /// Which journal.
    pub id: JournalId,
    /// The highest sequence number ever reported of it. Never falls for one id.
    pub sequence: u64,
}

/// What follows from a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Merge {
    /// The journal lost records that were reported: tell the agent to set it aside.
    SetAside {
        /// What was recorded, what came.
        why: String,
    },
    /// Commit these, then the agent may be given work.
    Merged(Merged),
}

/// The events of a merge.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Merged {
    /// To each job's record of this target.
    pub events: Vec<(JobId, TargetEvent)>,
    /// Ended attempts whose end the store has, or no longer needs: to be acknowledged.
    pub acknowledge: Vec<(JobId, Attempt)>,
    /// Attempts that no record knows.
    pub orphans: Vec<Listed>,
    /// What proves that the store went back in time, if anything does.
    pub went_back: Option<String>,
}

/// Holds a list against the records of one target. `ended` are jobs that have left the hot prefix.
pub fn merge(
    target: &TargetName,
    recorded: Option<&RecordedJournal>,
    list: &AttemptList,
    records: &BTreeMap<JobId, Target>,
    ended: &BTreeSet<JobId>,
    now: Timestamp,
) -> Merge {
    if let Some(recorded) = recorded
        && recorded.id == list.journal
        && list.sequence < recorded.sequence
    {
        let why = format!(
            "journal {} of {target} ends at {}, and {} was reported of it",
            list.journal, list.sequence, recorded.sequence
        );
        return Merge::SetAside { why };
    }
    let mut merged = Merged::default();
    for (job, record) in records {
        fold_record(job, record, list, now, &mut merged);
    }
    for listed in &list.attempts {
        fold_listed(listed, records.get(&listed.job), ended, &mut merged);
    }
    Merge::Merged(merged)
}

fn fold_record(
    job: &JobId,
    record: &Target,
    list: &AttemptList,
    now: Timestamp,
    merged: &mut Merged,
) {
    let listed = list
        .attempts
        .iter()
        .find(|listed| &listed.job == job && listed.attempt == record.attempt);
    let open = record.state.in_work().is_some();
    match listed {
        Some(listed) => fold_state(job, record, listed, list, now, merged),
        None if record.goes_on_unheard() && !speaks_for(record, list) => {
            // What it sent may land yet: the object is moved on before there is a next attempt.
            let evidence = vec![lost_because(record, list)];
            let events = [TargetEvent::Returned, TargetEvent::Lost { evidence }];
            let of_job = events.into_iter().map(|event| (job.clone(), event));
            merged.events.extend(of_job);
        }
        None if open && !speaks_for(record, list) => {
            let evidence = vec![lost_because(record, list)];
            merged
                .events
                .push((job.clone(), TargetEvent::Lost { evidence }));
        }
        // It never arrived, or was away when it was given up: it is sent, and answered for, again.
        None if record.waits_for_its_agent() && speaks_for(record, list) => {
            merged.events.push((job.clone(), TargetEvent::Returned));
        }
        None => {}
    }
}

fn fold_state(
    job: &JobId,
    record: &Target,
    listed: &Listed,
    list: &AttemptList,
    now: Timestamp,
    merged: &mut Merged,
) {
    if let Some(outcome) = &listed.outcome {
        if record.hears_of(outcome).is_none() {
            return;
        }
        let report = Report::Ended {
            outcome: outcome.clone(),
            steps: listed.steps.clone(),
        };
        merged
            .events
            .push((job.clone(), event(record.attempt, report, now)));
        return;
    }
    let given_up = record.waits_for_its_agent() || record.goes_on_unheard();
    let returns = given_up && speaks_for(record, list);
    if returns {
        merged.events.push((job.clone(), TargetEvent::Returned));
    }
    if record.state.in_work().is_none() && !returns {
        return;
    }
    merged
        .events
        .push((job.clone(), event(record.attempt, Report::Accepted, now)));
    for (step, state) in &listed.steps {
        let seen = record.steps.get(step).unwrap_or(&StepState::NotStarted);
        if seen != state && seen.clone().next(state.clone()).is_ok() {
            let report = Report::Step {
                step: step.clone(),
                state: state.clone(),
            };
            merged
                .events
                .push((job.clone(), event(record.attempt, report, now)));
        }
    }
}

fn event(attempt: Attempt, report: Report, at: Timestamp) -> TargetEvent {
    TargetEvent::Reported {
        attempt,
        report,
        at,
    }
}

/// Whether absence from the list proves that the attempt never began.
fn speaks_for(record: &Target, list: &AttemptList) -> bool {
    let same_journal = record
        .commitment
        .as_ref()
        .is_some_and(|commitment| commitment.journal == list.journal);
    same_journal && list.damage.is_none()
}

fn lost_because(record: &Target, list: &AttemptList) -> String {
    if let Some(damage) = &list.damage {
        return format!("the agent's journal was damaged: {damage}");
    }
    let before = record
        .commitment
        .as_ref()
        .map_or("none", |c| c.journal.as_str());
    format!(
        "the agent's journal {before} is gone; it writes to {}",
        list.journal
    )
}

fn fold_listed(
    listed: &Listed,
    record: Option<&Target>,
    ended: &BTreeSet<JobId>,
    merged: &mut Merged,
) {
    let known = match record {
        Some(record) => listed.attempt <= record.attempt,
        None => ended.contains(&listed.job),
    };
    if !known {
        merged.went_back = Some(format!(
            "the agent holds attempt {} of job {}, which the store does not know",
            listed.attempt, listed.job
        ));
        merged.orphans.push(listed.clone());
    } else if listed.outcome.is_some() && !listed.acknowledged {
        merged
            .acknowledge
            .push((listed.job.clone(), listed.attempt));
    }
}

/// In words for an alarm, how an end that comes after the job's own belies what an operator said when
/// nobody had heard of it; none where it does not. `ended` is the target as the job left it.
pub fn contradiction(ended: &Target, late: &Listed) -> Option<String> {
    let report = Report::Ended {
        outcome: late.outcome.clone()?,
        steps: late.steps.clone(),
    };
    let heard = event(late.attempt, report, Timestamp::default());
    // The number of segments says only where it would rest, and it rests where it is.
    let after = ended.clone().next(heard, 1).ok()?;
    let known = |index: usize| ended.resolutions[index].contradicted_by.is_some();
    let mut resolutions = after.resolutions.iter().enumerate();
    resolutions.find_map(|(index, said)| {
        let found = said.contradicted_by.as_ref().filter(|_| !known(index))?;
        let (by, step, name, word) = (&said.by, &said.step, &ended.name, said.verdict.word());
        Some(format!(
            "{by} said that step `{step}` on {name} is {word}, and the journal of its agent says: {found}"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::Fence;
    use crate::job::{Commitment, Resolution, Verdict};

    fn name() -> TargetName {
        "eu-west/prod-1".parse().unwrap()
    }

    fn list(journal: &str, attempts: Vec<Listed>) -> AttemptList {
        AttemptList {
            journal: journal.into(),
            sequence: 10,
            damage: None,
            attempts,
        }
    }

    fn record() -> Target {
        let commitment = Commitment {
            fence: Fence {
                incarnation: 1,
                epoch: 1,
            },
            journal: "a".into(),
            at: Timestamp(1),
        };
        let opened = TargetEvent::Opened {
            segment: 0,
            attempt: Attempt(1),
            commitment,
        };
        Target::new(name()).next(opened, 1).unwrap()
    }

    fn listed(outcome: Option<SegmentOutcome>) -> Listed {
        Listed {
            job: "j-1".into(),
            attempt: Attempt(1),
            direction: Direction::Forward,
            segment: 0,
            steps: BTreeMap::new(),
            outcome,
            acknowledged: false,
        }
    }

    fn merged(list: &AttemptList, records: &[(&str, Target)]) -> Merged {
        let records = records
            .iter()
            .map(|(job, t)| (JobId::from(*job), t.clone()))
            .collect();
        match merge(
            &name(),
            None,
            list,
            &records,
            &BTreeSet::new(),
            Timestamp(5),
        ) {
            Merge::Merged(merged) => merged,
            Merge::SetAside { why } => panic!("{why}"),
        }
    }

    #[test]
    fn absent_from_the_same_journal_is_sent_again() {
        assert_eq!(
            merged(&list("a", vec![]), &[("j-1", record())]),
            Merged::default()
        );
    }

    #[test]
    fn an_agent_given_up_too_early_answers_for_its_attempt_again() {
        let lost = TargetEvent::Lost { evidence: vec![] };
        let unknown = record().next(lost, 1).unwrap();
        let has_it = merged(&list("a", vec![listed(None)]), &[("j-1", unknown.clone())]);
        assert_eq!(has_it.events[0].1, TargetEvent::Returned);
        let never_had_it = merged(&list("a", vec![]), &[("j-1", unknown.clone())]);
        assert_eq!(never_had_it.events[0].1, TargetEvent::Returned);
        let without_journal = merged(&list("b", vec![]), &[("j-1", unknown)]);
        assert_eq!(without_journal.events, []);
    }

    fn settled(record: Target) -> Target {
        let resolution = crate::job::Resolution {
            step: "a".into(),
            verdict: crate::job::Verdict::NotDone,
            by: "mei".into(),
            reason: "looked".into(),
            unheard: None,
            contradicted_by: None,
        };
        let lost = TargetEvent::Lost { evidence: vec![] };
        let unknown = record.next(lost, 1).unwrap();
        unknown.next(TargetEvent::Resolved(resolution), 1).unwrap()
    }

    #[test]
    fn an_attempt_that_an_operator_answered_for_and_that_is_open_still_is_in_work_again() {
        let list = list("a", vec![listed(None)]);
        let merged = merged(&list, &[("j-1", settled(record()))]);
        assert_eq!(merged.events[0].1, TargetEvent::Returned);
        let after = settled(record()).next(TargetEvent::Returned, 1).unwrap();
        assert_eq!(
            after.state,
            crate::job::TargetState::Assigned { segment: 0 }
        );
    }

    #[test]
    fn an_attempt_that_an_operator_answered_for_is_looked_for_where_its_journal_is_gone() {
        let events = merged(&list("b", vec![]), &[("j-1", settled(record()))]).events;
        let after = events
            .into_iter()
            .fold(settled(record()), |target, (_, event)| {
                target.next(event, 1).unwrap()
            });
        assert!(after.is_open_question(), "{after:?}");
        let heard = merged(&list("a", vec![]), &[("j-1", settled(record()))]);
        assert_eq!(heard.events, [], "it never began");
    }

    #[test]
    fn absent_from_another_journal_is_unknown() {
        let merged = merged(&list("b", vec![]), &[("j-1", record())]);
        assert!(
            matches!(merged.events[0].1, TargetEvent::Lost { .. }),
            "{merged:?}"
        );
    }

    #[test]
    fn absent_from_a_damaged_journal_is_unknown() {
        let mut damaged = list("a", vec![]);
        damaged.damage = Some("CRC of record 7".into());
        let merged = merged(&damaged, &[("j-1", record())]);
        assert!(
            matches!(merged.events[0].1, TargetEvent::Lost { .. }),
            "{merged:?}"
        );
    }

    #[test]
    fn a_list_shorter_than_recorded_is_not_merged() {
        let recorded = RecordedJournal {
            id: "a".into(),
            sequence: 11,
        };
        let records = BTreeMap::from([(JobId::from("j-1"), record())]);
        let merge = merge(
            &name(),
            Some(&recorded),
            &list("a", vec![listed(None)]),
            &records,
            &BTreeSet::new(),
            Timestamp(5),
        );
        assert!(matches!(merge, Merge::SetAside { .. }), "{merge:?}");
    }

    #[test]
    fn an_attempt_that_nobody_knows_is_an_orphan_and_proves_that_the_store_went_back() {
        let merged = merged(&list("a", vec![listed(None)]), &[]);
        assert_eq!(merged.orphans.len(), 1);
        assert!(merged.went_back.is_some());
    }

    #[test]
    fn an_end_after_the_jobs_own_is_held_against_what_an_operator_said() {
        let lost = TargetEvent::Lost { evidence: vec![] };
        let unknown = record().next(lost, 1).unwrap();
        let said = |verdict| {
            let resolution = Resolution {
                step: "act".into(),
                verdict,
                by: "mei".into(),
                reason: "looked".into(),
                unheard: None,
                contradicted_by: None,
            };
            let resolved = TargetEvent::Resolved(resolution);
            unknown.clone().next(resolved, 1).unwrap()
        };
        let mut late = listed(Some(SegmentOutcome::Succeeded));
        let changed = StepState::Succeeded {
            outputs: serde_json::Value::Null,
            changed: true,
        };
        late.steps.insert("act".into(), changed);
        let words = contradiction(&said(Verdict::NotDone), &late).unwrap();
        assert!(
            words.contains("mei") && words.contains("not done"),
            "{words}"
        );
        assert_eq!(contradiction(&said(Verdict::Done), &late), None);
        assert_eq!(contradiction(&said(Verdict::Abandon), &late), None);
        assert_eq!(
            contradiction(&record(), &late),
            None,
            "nobody said anything"
        );
    }

    #[test]
    fn an_end_that_the_journal_holds_is_folded_and_acknowledged() {
        let list = list("a", vec![listed(Some(SegmentOutcome::Succeeded))]);
        let merged = merged(&list, &[("j-1", record())]);
        assert!(matches!(
            merged.events[0].1,
            TargetEvent::Reported {
                report: Report::Ended { .. },
                ..
            }
        ));
        assert_eq!(merged.acknowledge, [("j-1".into(), Attempt(1))]);
    }
}
