//! What an agent says of a job that has ended. Pure.
//!
//! An operator may have settled an outcome in the agent's place, and the job ended on that word. When
//! the agent returns and its journal says otherwise, nothing goes on any more: the locks are free and
//! another job may have come. What is left is to write the truth down where people look.

use aldis_core::job::{Rest, Target, TargetEvent, TargetState};

/// The record as it should read, where the event says something else; none where it is no news.
pub(super) fn after_the_end(
    recorded: &Target,
    event: TargetEvent,
    segments: usize,
) -> Option<Target> {
    let told = recorded.clone().next(event, segments).ok()?;
    if told == *recorded {
        return None;
    }
    let state = match told.state {
        TargetState::Rest(_) | TargetState::Unknown { .. } | TargetState::Stuck { .. } => {
            told.state
        }
        // Where it would go on, were its job still there.
        ref other => TargetState::Rest(Rest::NeedsOperator {
            why: format!("its agent said after the end of the job: {}", word(other)),
        }),
    };
    Some(Target { state, ..told })
}

fn word(state: &TargetState) -> String {
    match state {
        TargetState::AtBarrier { segment, .. } => format!("segment {} is done", segment + 1),
        TargetState::Failed { segment } => format!("segment {} failed", segment + 1),
        TargetState::Stopped { segment } => format!("stopped in segment {}", segment + 1),
        TargetState::Running { segment } | TargetState::Assigned { segment } => {
            format!("segment {} is at work", segment + 1)
        }
        TargetState::UndoAssigned | TargetState::Undoing => "going back".to_owned(),
        TargetState::NotStarted
        | TargetState::Deferred { .. }
        | TargetState::Unknown { .. }
        | TargetState::Stuck { .. }
        | TargetState::Rest(_) => format!("{state:?}"),
    }
}

#[cfg(test)]
mod tests {
    use aldis_core::ids::{Attempt, Fence, Timestamp};
    use aldis_core::job::{Commitment, Report, Resolution, Verdict};
    use aldis_core::outcome::{SegmentOutcome, StepState};

    use super::*;

    /// An attempt that nobody heard of, settled by an operator, in a job that ended then.
    fn settled(verdict: Verdict) -> Target {
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
        let resolved = TargetEvent::Resolved(Resolution {
            step: "set".into(),
            verdict,
            by: "user/mei".into(),
            reason: "looked at it".into(),
            unheard: None,
            contradicted_by: None,
        });
        let ended = TargetEvent::Settled {
            rest: Rest::Untouched,
        };
        let target = Target::new("eu/prod".parse().unwrap());
        [
            opened,
            TargetEvent::Lost { evidence: vec![] },
            resolved,
            ended,
        ]
        .into_iter()
        .fold(target, |target, event| target.next(event, 1).unwrap())
    }

    fn done() -> TargetEvent {
        let succeeded = StepState::Succeeded {
            outputs: serde_json::Value::Null,
            changed: true,
        };
        TargetEvent::Reported {
            attempt: Attempt(1),
            report: Report::Ended {
                outcome: SegmentOutcome::Succeeded,
                steps: [("set".into(), succeeded)].into(),
            },
            at: Timestamp(9),
        }
    }

    #[test]
    fn a_truth_that_contradicts_an_operator_is_written_down_with_the_contradiction() {
        let told = after_the_end(&settled(Verdict::NotDone), done(), 1).unwrap();
        assert_eq!(told.state, TargetState::Rest(Rest::Changed));
        assert!(told.resolutions[0].contradicted_by.is_some(), "{told:?}");
    }

    #[test]
    fn where_it_would_go_on_it_rests_for_an_operator() {
        let told = after_the_end(&settled(Verdict::NotDone), done(), 2).unwrap();
        let TargetState::Rest(Rest::NeedsOperator { why }) = &told.state else {
            panic!("{told:?}")
        };
        assert!(why.contains("segment 1 is done"), "{why}");
    }

    #[test]
    fn a_repeat_is_no_news() {
        let told = after_the_end(&settled(Verdict::NotDone), done(), 1).unwrap();
        assert_eq!(after_the_end(&told, done(), 1), None);
    }
}
