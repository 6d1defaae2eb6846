//! Moves of one target, one by one.

use super::*;
use crate::ids::Fence;

fn commitment(epoch: u64) -> Commitment {
    Commitment {
        fence: Fence {
            incarnation: 1,
            epoch,
        },
        journal: JournalId::from("journal-a"),
        at: Timestamp(1),
    }
}

fn fresh() -> Target {
    Target::new("eu-west/prod-1".parse().unwrap())
}

fn opened() -> Target {
    let event = TargetEvent::Opened {
        segment: 0,
        attempt: Attempt(1),
        commitment: commitment(3),
    };
    fresh().next(event, 2).unwrap()
}

fn reported(target: Target, attempt: u32, report: Report) -> Result<Target, IllegalTransition> {
    let event = TargetEvent::Reported {
        attempt: Attempt(attempt),
        report,
        at: Timestamp(9),
    };
    target.next(event, 2)
}

fn ended(outcome: SegmentOutcome, step: &str, state: StepState) -> Report {
    Report::Ended {
        outcome,
        steps: [(StepId::from(step), state)].into(),
    }
}

fn changed() -> StepState {
    StepState::Succeeded {
        outputs: serde_json::Value::Null,
        changed: true,
    }
}

#[test]
fn a_lost_agent_makes_the_outcome_unknown_and_never_failed() {
    let lost = TargetEvent::Lost {
        evidence: vec!["no word for 95 s".into()],
    };
    let after = opened().next(lost, 2).unwrap();
    assert!(
        matches!(after.state, TargetState::Unknown { segment: 0, .. }),
        "{after:?}"
    );
}

#[test]
fn a_report_of_an_older_attempt_changes_nothing() {
    let error = reported(opened(), 0, Report::Accepted).unwrap_err();
    assert_eq!(error.attempt, Attempt(1));
}

#[test]
fn an_attempt_number_is_never_given_twice_nor_skipped() {
    for number in [1, 3] {
        let again = TargetEvent::UndoOpened {
            attempt: Attempt(number),
            commitment: commitment(3),
        };
        let stopped = reported(
            opened(),
            1,
            ended(
                SegmentOutcome::Stopped { after: None },
                "a",
                StepState::NotStarted,
            ),
        )
        .unwrap();
        assert!(stopped.next(again, 2).is_err(), "attempt {number}");
    }
}

#[test]
fn the_last_segment_ends_changed_and_the_first_waits_at_its_barrier() {
    let end = || ended(SegmentOutcome::Succeeded, "a", changed());
    let waiting = reported(opened(), 1, end()).unwrap();
    assert_eq!(
        waiting.state,
        TargetState::AtBarrier {
            segment: 0,
            since: Timestamp(9)
        }
    );
    let second = TargetEvent::Opened {
        segment: 1,
        attempt: Attempt(2),
        commitment: commitment(3),
    };
    let done = reported(waiting.next(second, 2).unwrap(), 2, end()).unwrap();
    assert_eq!(done.state, TargetState::Rest(Rest::Changed));
}

#[test]
fn a_late_truth_ends_the_need_for_an_operator_and_names_the_contradiction() {
    let lost = TargetEvent::Lost { evidence: vec![] };
    let resolution = Resolution {
        step: "a".into(),
        verdict: Verdict::NotDone,
        by: "mei".into(),
        reason: "looked".into(),
        unheard: None,
        contradicted_by: None,
    };
    let settled = opened()
        .next(lost, 2)
        .unwrap()
        .next(TargetEvent::Resolved(resolution), 2)
        .unwrap();
    assert_eq!(settled.state, TargetState::Stopped { segment: 0 });
    let truth = reported(settled, 1, ended(SegmentOutcome::Succeeded, "a", changed())).unwrap();
    assert!(
        matches!(truth.state, TargetState::AtBarrier { .. }),
        "{truth:?}"
    );
    assert!(truth.resolutions[0].contradicted_by.is_some());
}

#[test]
fn an_operators_word_is_held_against_the_attempt_it_was_about_only() {
    let lost = TargetEvent::Lost { evidence: vec![] };
    let resolution = Resolution {
        step: "a".into(),
        verdict: Verdict::NotDone,
        by: "mei".into(),
        reason: "looked".into(),
        unheard: None,
        contradicted_by: None,
    };
    let again = TargetEvent::Opened {
        segment: 0,
        attempt: Attempt(2),
        commitment: commitment(3),
    };
    let settled = opened().next(lost, 2).unwrap();
    let settled = settled.next(TargetEvent::Resolved(resolution), 2).unwrap();
    let end = ended(SegmentOutcome::Succeeded, "a", changed());
    let after = reported(settled.next(again, 2).unwrap(), 2, end).unwrap();
    assert_eq!(after.resolutions[0].contradicted_by, None);
}

#[test]
fn what_only_its_end_is_unknown_of_keeps_its_outputs_whatever_is_said() {
    let outputs = serde_json::json!({"image": "v2"});
    let done = StepState::Succeeded {
        outputs: outputs.clone(),
        changed: true,
    };
    let step = Report::Step {
        step: "a".into(),
        state: done.clone(),
    };
    let lost = TargetEvent::Lost { evidence: vec![] };
    let unknown = reported(opened(), 1, step).unwrap().next(lost, 2).unwrap();
    for verdict in [Verdict::Done, Verdict::NotDone] {
        let resolution = Resolution {
            step: "a".into(),
            verdict,
            by: "mei".into(),
            reason: "looked".into(),
            unheard: None,
            contradicted_by: None,
        };
        let settled = unknown.clone().next(TargetEvent::Resolved(resolution), 2);
        assert_eq!(settled.unwrap().steps[&"a".into()], done, "{verdict:?}");
    }
}

#[test]
fn another_try_of_an_undo_has_the_outputs_of_its_step() {
    let outputs = serde_json::json!({"image": "v2"});
    let done = StepState::Succeeded {
        outputs: outputs.clone(),
        changed: true,
    };
    let end = ended(SegmentOutcome::Succeeded, "a", done.clone());
    let mut changed = reported(opened(), 1, end).unwrap();
    changed.state = TargetState::Rest(Rest::Changed);
    let back = TargetEvent::UndoOpened {
        attempt: Attempt(2),
        commitment: commitment(3),
    };
    let failure = Failure::new("changed", "somebody else's now");
    let outcome = SegmentOutcome::Stuck {
        step: "a".into(),
        failure: failure.clone(),
    };
    let failed = ended(outcome, "a", StepState::UndoFailed { failure });
    let stuck = reported(changed.next(back, 2).unwrap(), 2, failed).unwrap();
    assert_eq!(stuck.left()[&"a".into()], done, "another job takes it over");
    let resolution = Resolution {
        step: "a".into(),
        verdict: Verdict::NotDone,
        by: "mei".into(),
        reason: "looked".into(),
        unheard: None,
        contradicted_by: None,
    };
    let settled = stuck.next(TargetEvent::Resolved(resolution), 2).unwrap();
    assert_eq!(settled.steps[&"a".into()], done);
}

#[test]
fn what_the_way_back_went_past_is_named_so_and_no_effect_to_put_back() {
    let end = ended(SegmentOutcome::Succeeded, "a", changed());
    let mut done = reported(opened(), 1, end).unwrap();
    done.state = TargetState::Rest(Rest::Changed);
    let back = TargetEvent::UndoOpened {
        attempt: Attempt(2),
        commitment: commitment(3),
    };
    let undone = ended(SegmentOutcome::Undone, "b", StepState::Undone);
    let restored = reported(done.next(back, 2).unwrap(), 2, undone).unwrap();
    assert_eq!(restored.state, TargetState::Rest(Rest::Restored));
    assert_eq!(restored.steps[&"a".into()], StepState::Passed);
    assert!(!restored.may_have_effect());
}

#[test]
fn an_end_is_heard_once() {
    let failure = Failure::new("noProgress", "pod x");
    let end = || {
        let failed = StepState::Failed {
            failure: failure.clone(),
            applied: true,
        };
        let outcome = SegmentOutcome::Failed {
            step: "a".into(),
            failure: failure.clone(),
        };
        ended(outcome, "a", failed)
    };
    let failed = reported(opened(), 1, end()).unwrap();
    let why = "failed at `a`: pod x".to_owned();
    let rest = Rest::NeedsOperator { why };
    let settled = failed.next(TargetEvent::Settled { rest }, 2).unwrap();
    assert!(
        reported(settled, 1, end()).is_err(),
        "a repeat moves nothing"
    );
}

#[test]
fn an_agent_that_cannot_say_either_does_not_ask_the_operator_again() {
    let end = || {
        let evidence = vec!["no answer".to_owned()];
        let unknown = StepState::Unknown {
            evidence: evidence.clone(),
        };
        let outcome = SegmentOutcome::Unknown {
            step: "a".into(),
            evidence,
        };
        ended(outcome, "a", unknown)
    };
    let resolution = Resolution {
        step: "a".into(),
        verdict: Verdict::NotDone,
        by: "mei".into(),
        reason: "looked".into(),
        unheard: None,
        contradicted_by: None,
    };
    let settled = reported(opened(), 1, end())
        .unwrap()
        .next(TargetEvent::Resolved(resolution), 2)
        .unwrap();
    assert!(reported(settled.clone(), 1, end()).is_err());
    let untouched = TargetEvent::Settled {
        rest: Rest::Untouched,
    };
    let at_rest = settled.next(untouched, 2).unwrap();
    let truth = ended(SegmentOutcome::Succeeded, "a", changed());
    let after = reported(at_rest, 1, truth).unwrap();
    assert!(after.resolutions[0].contradicted_by.is_some(), "{after:?}");
}

#[test]
fn a_later_leader_commits_the_same_number_again_and_an_older_one_cannot() {
    let raise = |epoch| TargetEvent::Recommitted {
        fence: Fence {
            incarnation: 1,
            epoch,
        },
    };
    let after = opened().next(raise(4), 2).unwrap();
    assert_eq!(after.attempt, Attempt(1));
    assert_eq!(after.commitment.as_ref().unwrap().fence.epoch, 4);
    assert!(after.next(raise(4), 2).is_err());
}

#[test]
fn what_was_put_back_stays() {
    let mut target = fresh();
    target.state = TargetState::Rest(Rest::Restored);
    assert!(
        target
            .next(
                TargetEvent::Settled {
                    rest: Rest::Changed
                },
                2
            )
            .is_err()
    );
}
