//! Rules of `with`: what the action takes, what it needs, and of which type.
//!
//! A value with `${ }` is judged by what the expression obviously gives; a `with` without any is also
//! read as the action's own typed input, so that what is refused there is refused here.

use serde_json::Value;

use super::steps::{of_field, of_key};
use super::{Step, Subject, action_of};
use crate::action::{Action, Input, Kind};
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::{Diagnostics, Finding};
use crate::runbook::duration;
use crate::runbook::shape::{has_template, list};
use crate::runbook::tree::{Data, Key, Node};

pub(super) fn check(subject: &Subject<'_>, found: &mut Diagnostics) {
    for step in &subject.steps {
        of_step(step, found);
        of_undo(step, found);
    }
}

fn of_step(step: &Step<'_>, found: &mut Diagnostics) {
    let Some(action) = step.action else { return };
    let before = found.len();
    let with = step.node.field("with");
    let given = with.map_or(&[][..], Node::entries);
    if let Some(with) = with.filter(|with| !is_mapping(with)) {
        found.push(no_mapping(with));
        return;
    }
    for (key, value) in given {
        one(action, key, value, found);
    }
    for input in action.inputs().iter().filter(|input| input.required) {
        if !given.iter().any(|(key, _)| key.text == input.name) {
            found.push(missing(action, input, step.node));
        }
    }
    if found.len() == before {
        as_typed(action, with, found);
    }
}

/// The undo's input is merged over the step's, as far as its action takes that: it may leave out what the
/// step gives.
fn of_undo(step: &Step<'_>, found: &mut Diagnostics) {
    let Some(undo) = step.node.field("undo") else {
        return;
    };
    let Some(action) = action_of(undo).or(step.action) else {
        return;
    };
    let with = undo.field("with");
    if !matches!(undo.data, Data::Map(_)) {
        return;
    }
    if let Some(with) = with.filter(|with| !is_mapping(with)) {
        found.push(no_mapping(with));
        return;
    }
    let before = found.len();
    let given = with.map_or(&[][..], Node::entries);
    for (key, value) in given {
        one(action, key, value, found);
    }
    let below = step.node.field("with").map_or(&[][..], Node::entries);
    let is_given = |name: &str| given.iter().chain(below).any(|(key, _)| key.text == name);
    for input in action.inputs().iter().filter(|input| input.required) {
        if !is_given(input.name) {
            found.push(missing(action, input, undo));
        }
    }
    if found.len() == before {
        merged_as_typed(action, step.node, undo, found);
    }
}

/// What the undo would be given, held against the action's own type.
fn merged_as_typed(action: Action, step: &Node, undo: &Node, found: &mut Diagnostics) {
    let fields = |node: &Node| match node.field("with").map(Node::json) {
        Some(Value::Object(fields)) => fields,
        _ => serde_json::Map::new(),
    };
    let mut merged = fields(step);
    merged.retain(|name, _| action.inputs().iter().any(|input| input.name == name));
    merged.extend(fields(undo));
    let merged = Value::Object(merged);
    if holds_template(&merged) {
        return;
    }
    if let Err(why) = action.check_input(&merged) {
        let message = format!(
            "`{}` does not take this input together with the step's: {why}",
            action.name()
        );
        found.push(Finding::new(Code::BadInput, of_key(step, "undo"), message));
    }
}

fn is_mapping(with: &Node) -> bool {
    matches!(with.data, Data::Map(_) | Data::Null)
}

fn no_mapping(with: &Node) -> Finding {
    let message = format!("`with` takes a mapping of inputs, found {}", with.what());
    Finding::new(Code::WrongType, with.span.clone(), message)
}

fn one(action: Action, key: &Key, value: &Node, found: &mut Diagnostics) {
    let names = || action.inputs().iter().map(|input| input.name);
    let Some(input) = action.inputs().iter().find(|input| input.name == key.text) else {
        let message = format!("`{}` has no input `{}`", action.name(), key.text);
        found.push(
            Finding::new(Code::UnknownInput, key.span.clone(), message)
                .did_you_mean(&key.text, names())
                .help(format!("inputs of `{}`: {}", action.name(), list(names()))),
        );
        return;
    };
    if let Some(finding) = value_of(action, input, value) {
        found.push(finding);
    }
}

fn missing(action: Action, input: &Input, step: &Node) -> Finding {
    let message = format!("`{}` needs an input `{}`", action.name(), input.name);
    let at = if step.field("with").is_some() {
        of_key(step, "with")
    } else {
        of_field(step, "use")
    };
    Finding::new(Code::MissingInput, at, message).help(format!("`{}`: {}", input.name, input.about))
}

fn value_of(action: Action, input: &Input, value: &Node) -> Option<Finding> {
    let refuse = |message: String| {
        Some(
            Finding::new(Code::BadInput, value.span.clone(), message)
                .help(format!("`{}`: {}", input.name, input.about)),
        )
    };
    if value.text().is_some_and(has_template) {
        return None;
    }
    if !is_of_kind(value, input.kind) {
        let (name, wanted) = (input.name, words(input.kind));
        let of = action.name();
        return refuse(format!(
            "`{name}` of `{of}` takes {wanted}, found {}",
            value.what()
        ));
    }
    let text = value.text().unwrap_or_default();
    if input.kind == Kind::Duration && duration::parse(text).is_err() {
        return refuse(format!(
            "`{text}` is no duration; write 500ms, 90s, 5m or 2h"
        ));
    }
    if !input.one_of.is_empty() && !input.one_of.contains(&text) {
        let finding = refuse(format!("`{}` cannot be `{text}`", input.name))?;
        let known = input.one_of.iter().copied();
        return Some(
            finding
                .did_you_mean(text, known.clone())
                .help(format!("it takes {}", list(known))),
        );
    }
    None
}

fn is_of_kind(value: &Node, kind: Kind) -> bool {
    match kind {
        Kind::Text | Kind::Duration => matches!(value.data, Data::Text(_)),
        Kind::Integer => matches!(value.data, Data::Whole(_)),
        Kind::Number => matches!(value.data, Data::Whole(_) | Data::Number(_)),
        Kind::Bool => matches!(value.data, Data::Bool(_)),
        Kind::TextList => {
            matches!(&value.data, Data::List(items) if items.iter().all(|item| item.text().is_some()))
        }
        Kind::Any => true,
    }
}

pub(super) fn words(kind: Kind) -> &'static str {
    match kind {
        Kind::Text => "text",
        Kind::Integer => "a whole number",
        Kind::Number => "a number",
        Kind::Bool => "true or false",
        Kind::Duration => "a duration such as `90s`",
        Kind::TextList => "a list of texts",
        Kind::Any => "anything",
    }
}

/// Literal input, held against the action's own type.
fn as_typed(action: Action, with: Option<&Node>, found: &mut Diagnostics) {
    let Some(with) = with else { return };
    let json = with.json();
    if holds_template(&json) {
        return;
    }
    if let Err(why) = action.check_input(&json) {
        let at = with
            .entries()
            .first()
            .map_or(&with.span, |(key, _)| &key.span);
        let message = format!("`{}` does not take this input: {why}", action.name());
        found.push(Finding::new(Code::BadInput, at.clone(), message));
    }
}

fn holds_template(value: &Value) -> bool {
    match value {
        Value::String(text) => has_template(text),
        Value::Array(items) => items.iter().any(holds_template),
        Value::Object(fields) => fields.values().any(holds_template),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}
