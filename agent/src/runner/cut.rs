//! Keeps outcomes below the room that the journal reserves for them, and below what a record of the store can hold.
//!
//! Texts are cut where they are long, and say so; what is still too long then loses its outputs. What an effect left
//! ([`after`]) is dropped when it is too long: an undo then goes by the stamp.

use aldis_core::action::Action;
use aldis_core::outcome::{Failure, SegmentOutcome, StepState};
use serde_json::{Map, Value};

use crate::journal::OUTCOME_ROOM;

/// The longest step state: a quarter of the room, since one report may carry several.
const STATE: usize = OUTCOME_ROOM as usize / 4;
/// The longest note of what an effect left: half of the room.
const AFTER: usize = OUTCOME_ROOM as usize / 2;
/// The longest text within a state: some twenty lines.
const TEXT: usize = 2048;
/// Lines of evidence: what fits a screen.
const LINES: usize = 20;
/// Items of a list among outputs.
const ITEMS: usize = 100;

/// The outputs that the action declares, none of them long.
pub(crate) fn outputs(action: Action, outputs: Value) -> Value {
    let Value::Object(fields) = outputs else {
        return Value::Object(Map::new());
    };
    let declared = |name: &String| action.outputs().iter().any(|output| output.name == name);
    let kept = fields
        .into_iter()
        .filter(|(name, _)| declared(name))
        .map(|(name, value)| (name, shorter(value)));
    Value::Object(kept.collect())
}

fn shorter(value: Value) -> Value {
    match value {
        Value::String(text) => Value::String(self::text(text)),
        Value::Array(items) => items.into_iter().take(ITEMS).map(shorter).collect(),
        Value::Object(fields) => fields
            .into_iter()
            .take(ITEMS)
            .map(|(name, value)| (name, shorter(value)))
            .collect(),
        Value::Null | Value::Bool(_) | Value::Number(_) => value,
    }
}

/// A state that fits.
pub(super) fn state(state: StepState) -> StepState {
    match state {
        StepState::Succeeded { outputs, changed } if length(&outputs) > STATE => {
            StepState::Succeeded {
                outputs: Value::Object(Map::new()),
                changed,
            }
        }
        StepState::Failed { failure, applied } => StepState::Failed {
            failure: self::failure(failure),
            applied,
        },
        StepState::UndoFailed { failure } => StepState::UndoFailed {
            failure: self::failure(failure),
        },
        StepState::Unknown { evidence } => StepState::Unknown {
            evidence: lines(evidence),
        },
        StepState::NotStarted
        | StepState::Running { .. }
        | StepState::Succeeded { .. }
        | StepState::Skipped { .. }
        | StepState::Undone
        | StepState::Passed
        | StepState::Abandoned { .. } => state,
    }
}

/// An outcome that fits.
pub(super) fn outcome(outcome: SegmentOutcome) -> SegmentOutcome {
    match outcome {
        SegmentOutcome::Failed { step, failure } => SegmentOutcome::Failed {
            step,
            failure: self::failure(failure),
        },
        SegmentOutcome::Stuck { step, failure } => SegmentOutcome::Stuck {
            step,
            failure: self::failure(failure),
        },
        SegmentOutcome::Unknown { step, evidence } => SegmentOutcome::Unknown {
            step,
            evidence: lines(evidence),
        },
        SegmentOutcome::Succeeded | SegmentOutcome::Stopped { .. } | SegmentOutcome::Undone => {
            outcome
        }
    }
}

/// What an effect left, if it fits.
pub(super) fn after(after: Value) -> Option<Value> {
    (!after.is_null() && length(&after) <= AFTER).then_some(after)
}

fn failure(failure: Failure) -> Failure {
    Failure {
        cause: text(failure.cause),
        evidence: lines(failure.evidence),
        hint: failure.hint.map(text),
        kind: failure.kind,
    }
}

fn lines(lines: Vec<String>) -> Vec<String> {
    let left = STATE / 2;
    let mut length = 0;
    lines
        .into_iter()
        .take(LINES)
        .map(text)
        .take_while(|line| {
            length += line.len();
            length <= left
        })
        .collect()
}

fn text(mut text: String) -> String {
    if text.len() > TEXT {
        let mut end = TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text
}

fn length(value: &Value) -> usize {
    value.to_string().len()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn nothing_is_longer_than_its_room_whatever_a_cluster_says() {
        let long = "ü".repeat(100_000);
        let failure = Failure::new("timeout", long.clone())
            .with_evidence(vec![long.clone(); 1000])
            .with_hint(long.clone());
        let outputs = self::outputs(
            Action::KubeGet,
            json!({"images": vec![long.clone(); 1000], "secret": long}),
        );
        assert!(outputs.get("secret").is_none(), "not declared");
        for state in [
            StepState::Failed {
                failure,
                applied: true,
            },
            StepState::Succeeded {
                outputs,
                changed: true,
            },
            StepState::Unknown {
                evidence: vec![long; 1000],
            },
        ] {
            let state = serde_json::to_string(&self::state(state)).unwrap();
            assert!(state.len() <= STATE, "{}", state.len());
        }
        assert_eq!(after(json!("x".repeat(AFTER))), None);
    }

    #[test]
    fn what_fits_is_left_as_it_is() {
        let state = StepState::Succeeded {
            outputs: json!({"images": ["a"], "replicas": 3}),
            changed: true,
        };
        assert_eq!(self::state(state.clone()), state);
    }
}
