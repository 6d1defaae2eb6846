//! Rules of the rollout: waves that reach every target, soaks that can pass, policies that agree.

use serde_json::Value;

use super::Subject;
use super::steps::of_key;
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::{Diagnostics, Finding};
use crate::runbook::duration;
use crate::runbook::expression::{Expression, Template};
use crate::runbook::tree::{Data, Node};

pub(super) fn check(subject: &Subject<'_>, found: &mut Diagnostics) {
    let spec = subject.spec;
    targets(spec, found);
    let Some(rollout) = spec.field("rollout") else {
        return;
    };
    remedy(spec, rollout, found);
    let waves = rollout.field("waves").map_or(&[][..], Node::items);
    reach_everybody(spec, waves, found);
    for wave in waves {
        if let Some(soak) = wave.field("soak") {
            can_pass(subject, soak, found);
        }
    }
    if waves.iter().any(|wave| wave.field("soak").is_some()) {
        reads_alone(subject, found);
    }
}

/// A soak runs the checks again and nothing else: one that needs what another step found could not be read,
/// and the soak would wait for it for ever.
fn reads_alone(subject: &Subject<'_>, found: &mut Diagnostics) {
    let is_check = |step: &&super::Step<'_>| step.part == super::Part::Verify;
    let ids: Vec<_> = subject
        .steps
        .iter()
        .filter(is_check)
        .map(|s| s.id)
        .collect();
    let mut steps: Vec<&super::Step<'_>> = subject.steps.iter().collect();
    steps.retain(is_check);
    for step in steps {
        for field in ["if", "with"] {
            let Some(node) = step.node.field(field) else {
                continue;
            };
            let mut named = Vec::new();
            steps_named(&node.json(), field == "if", &mut named);
            let other = |id: &String| !ids.contains(&Some(id.as_str()));
            if let Some(id) = named.into_iter().find(other) {
                let message = format!(
                    "a soak runs this check again, and has no outputs of `{id}` for its `{field}`"
                );
                found.push(
                    Finding::new(Code::SoakOverOtherSteps, of_key(step.node, field), message)
                        .help("use parameters, or outputs of other steps of `verify`"),
                );
            }
        }
    }
}

/// Steps whose outputs a value's expressions use.
fn steps_named(value: &Value, bare: bool, named: &mut Vec<String>) {
    let mut of = |expression: &Expression| {
        for path in expression.paths() {
            if let [root, id, ..] = path.as_slice()
                && root == "steps"
            {
                named.push(id.clone());
            }
        }
    };
    // What cannot be read is told elsewhere.
    match (value, bare) {
        (Value::String(text), true) => {
            if let Ok(expression) = Expression::parse(text) {
                of(&expression);
            }
        }
        (value, _) => {
            if let Ok(template) = Template::parse(value) {
                template.expressions().into_iter().for_each(of);
            }
        }
    }
}

fn targets(spec: &Node, found: &mut Diagnostics) {
    let Some(targets) = spec.field("targets") else {
        return;
    };
    if let (Some(min), Some(max)) = (number(targets, "min"), number(targets, "max"))
        && min > max
    {
        let message = format!("at least {min} and at most {max} targets cannot both hold");
        found.push(Finding::new(
            Code::Contradiction,
            of_key(targets, "max"),
            message,
        ));
    }
}

fn remedy(spec: &Node, rollout: &Node, found: &mut Diagnostics) {
    let says =
        |node: &Node, field: &str, word: &str| node.field(field).and_then(Node::text) == Some(word);
    if says(spec, "direction", "remedy") && says(rollout, "onFailure", "undo") {
        let message = "a remedy never puts the bad state back by itself";
        found.push(
            Finding::new(Code::Contradiction, of_key(rollout, "onFailure"), message)
                .help("say `onFailure: continue` or `onFailure: halt`, or `direction: change`"),
        );
    }
}

/// The first wave that takes all that are left must be there, and must be the last.
fn reach_everybody(spec: &Node, waves: &[Node], found: &mut Diagnostics) {
    let Some(last) = waves.last() else { return };
    if waves.iter().any(|wave| wave.field("pick").is_none()) {
        return;
    }
    let most = spec
        .field("targets")
        .and_then(|targets| number(targets, "max"));
    let mut share = 0;
    let mut complete = false;
    for wave in waves {
        let Some(pick) = wave.field("pick") else {
            continue;
        };
        let percent = number(pick, "percent");
        let none_left = complete || percent.is_some_and(|percent| percent <= share);
        if none_left {
            let message = "the waves before this one take every target that it could take";
            found.push(Finding::new(Code::NoEffect, of_key(wave, "pick"), message));
        }
        if !is_bounded(pick, most) {
            share = share.max(percent.unwrap_or(0));
        }
        complete |= takes_all(pick, most);
    }
    if !complete {
        let message = "some targets may be in no wave";
        found.push(
            Finding::new(Code::WavesLeaveSomeOut, of_key(last, "pick"), message)
                .help("let the last wave take all that are left: `pick: {percent: 100}`"),
        );
    }
}

/// Whether a wave takes all that are left, however many there are.
fn takes_all(pick: &Node, most: Option<i64>) -> bool {
    let share = number(pick, "percent").is_none_or(|percent| percent >= 100);
    share && !is_bounded(pick, most)
}

/// Whether a wave may take less than its share.
fn is_bounded(pick: &Node, most: Option<i64>) -> bool {
    let bound_by = |name| match (number(pick, name), most) {
        (Some(bound), Some(most)) => bound < most,
        (Some(_), None) => true,
        (None, _) => false,
    };
    pick.field("perRegion").is_some() || bound_by("max") || bound_by("count")
}

fn can_pass(subject: &Subject<'_>, soak: &Node, found: &mut Diagnostics) {
    let length = milliseconds(soak, "for");
    let settle = milliseconds(soak, "settle");
    if let (Some(length), Some(settle)) = (length, settle)
        && settle >= length
    {
        let message = "`settle` leaves no time of `for` to judge in";
        found.push(Finding::new(
            Code::Contradiction,
            of_key(soak, "settle"),
            message,
        ));
    }
    if soak.field("require").is_none() {
        // Without one of its own a soak holds what the checks require.
        let is_held = |step: &super::Step<'_>| {
            step.part == super::Part::Verify && step.node.field("require").is_some()
        };
        let judges = subject.steps.iter().any(is_held);
        for name in ["minSamples", "settle"] {
            if judges && name == "settle" {
                continue;
            }
            if let Some((key, _)) = soak.entry(name) {
                let message = format!("`{name}` belongs to `require`, and the soak has none");
                found.push(Finding::new(Code::NoEffect, key.span.clone(), message));
            }
        }
    }
    let counts = |step: &super::Step<'_>| {
        step.part == super::Part::Verify
            && step
                .action
                .is_none_or(|action| action.counters().contains(&"samples"))
    };
    if soak.field("minSamples").is_some() && !subject.steps.iter().any(counts) {
        let message = "`minSamples` is never reached: no step of `verify` counts samples";
        found.push(
            Finding::new(Code::Contradiction, of_key(soak, "minSamples"), message)
                .help("an `http.probe` under `verify` counts samples"),
        );
    }
}

fn number(node: &Node, field: &str) -> Option<i64> {
    match node.field(field)?.data {
        Data::Whole(number) => Some(number),
        _ => None,
    }
}

fn milliseconds(node: &Node, field: &str) -> Option<u128> {
    let text = node.field(field)?.text()?;
    duration::parse(text)
        .ok()
        .map(|duration| duration.as_millis())
}
