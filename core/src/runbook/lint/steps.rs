//! Rules of steps: ids, what a part of the runbook may do, retries, undo, and fields that belong together.

use std::collections::BTreeMap;
use std::ops::Range;

use super::{MAX_STEPS, Part, Step, Subject, action_of};
use crate::action::{Class, Effect, UndoKind};
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::{Diagnostics, Finding};
use crate::runbook::tree::{Data, Node};

pub(super) fn check(subject: &Subject<'_>, found: &mut Diagnostics) {
    number_of_steps(subject, found);
    ids_are_unique(subject, found);
    for step in &subject.steps {
        reads_only(subject, step, found);
        may_be_repeated(subject, step, found);
        can_be_undone(subject, step, found);
        belongs_together(step, found);
    }
    rests_at_the_end(subject, found);
}

fn number_of_steps(subject: &Subject<'_>, found: &mut Diagnostics) {
    let count = subject.steps.len();
    if let Some(first_too_many) = subject.steps.get(MAX_STEPS) {
        let message = format!("the runbook has {count} steps, more than {MAX_STEPS}");
        found.push(Finding::new(
            Code::TooManySteps,
            place(first_too_many),
            message,
        ));
    }
    if let Some((key, node)) = subject.spec.entry("steps")
        && matches!(&node.data, Data::List(items) if items.is_empty())
    {
        let message = "a runbook needs at least one step";
        found.push(Finding::new(Code::MissingField, key.span.clone(), message));
    }
}

fn ids_are_unique(subject: &Subject<'_>, found: &mut Diagnostics) {
    let mut seen = BTreeMap::new();
    for step in &subject.steps {
        let Some(id) = step.id else { continue };
        if let Some(earlier) = seen.insert(id, step.part) {
            let message = format!("two steps are called `{id}`");
            found.push(
                Finding::new(Code::DuplicateStep, of_field(step.node, "id"), message)
                    .help(format!("the other is in `{}`", earlier.field())),
            );
        }
    }
}

fn reads_only(subject: &Subject<'_>, step: &Step<'_>, found: &mut Diagnostics) {
    let Some(action) = step.action else { return };
    let effect = (subject.catalogue.effect)(action);
    if step.part == Part::Steps || effect == Effect::Read {
        return;
    }
    let part = step.part.field();
    let message = format!(
        "`{part}` may only read, and `{}` changes things",
        action.name()
    );
    found.push(
        Finding::new(Code::NotReadOnly, of_field(step.node, "use"), message)
            .help("put the step under `steps`"),
    );
}

fn may_be_repeated(subject: &Subject<'_>, step: &Step<'_>, found: &mut Diagnostics) {
    let Some(action) = step.action else { return };
    let repeats = ["retry", "until"]
        .into_iter()
        .find(|name| step.node.field(name).is_some());
    let Some(repeats) = repeats else { return };
    let allowed = step
        .node
        .field("retry")
        .and_then(|retry| retry.field("unsafe"));
    let allowed = allowed.is_some_and(|node| node.data == Data::Bool(true));
    if (subject.catalogue.class)(action) == Class::Once && !allowed {
        let message = format!("`{}` must not begin twice", action.name());
        found.push(
            Finding::new(Code::UnsafeRetry, of_key(step.node, repeats), message)
                .help("say `retry: {unsafe: true}` if a second beginning does no harm here"),
        );
    }
}

fn can_be_undone(subject: &Subject<'_>, step: &Step<'_>, found: &mut Diagnostics) {
    let undo = step.node.field("undo");
    let word = undo.and_then(Node::text).unwrap_or("auto");
    let own = undo.is_some_and(|undo| matches!(undo.data, Data::Map(_)));
    let refuses = ["none", "never"].contains(&word);
    if refuses && step.node.field("reason").is_none() {
        let message = format!("`undo: {word}` needs a `reason`");
        found.push(
            Finding::new(Code::MissingReason, of_field(step.node, "undo"), message)
                .help(Code::MissingReason.about()),
        );
    }
    let Some(action) = step.action else { return };
    let effect = (subject.catalogue.effect)(action);
    if effect == Effect::Read {
        if own || word == "never" {
            let message = format!("`{}` only reads: there is nothing to undo", action.name());
            found.push(Finding::new(
                Code::NoEffect,
                of_key(step.node, "undo"),
                message,
            ));
        }
        return;
    }
    if let Some(other) = undo.and_then(action_of)
        && (subject.catalogue.effect)(other) == Effect::Read
    {
        let message = format!(
            "`{}` only reads: it cannot put back what `{}` changed",
            other.name(),
            action.name()
        );
        let at = undo.map_or(step.node.span.clone(), |undo| of_field(undo, "use"));
        found.push(Finding::new(Code::NoUndo, at, message));
        return;
    }
    let says_nothing = undo.is_none() && effect == Effect::Destructive;
    let cannot = !own && !refuses && (subject.catalogue.undo)(action) != UndoKind::Auto;
    if says_nothing || cannot {
        let why = if cannot {
            "cannot put back what it changed"
        } else {
            "destroys"
        };
        let message = format!(
            "`{}` {why}, and the step does not say what its undo is",
            action.name()
        );
        found.push(
            Finding::new(Code::NoUndo, of_field(step.node, "use"), message).help(
                "give it an `undo` of its own, or `undo: none` or `undo: never` with a `reason`",
            ),
        );
    }
}

fn belongs_together(step: &Step<'_>, found: &mut Diagnostics) {
    let has = |name| step.node.field(name).is_some();
    if has("message") && !has("require") && !has("until") {
        let message =
            "`message` is said when `require` or `until` does not hold, and the step has neither";
        found.push(Finding::new(
            Code::NoEffect,
            of_key(step.node, "message"),
            message,
        ));
    }
    let word = step.node.field("undo").and_then(Node::text);
    if has("reason") && !matches!(word, Some("none" | "never")) {
        let message = "`reason` belongs to `undo: none` or `undo: never`, and the step has neither";
        found.push(Finding::new(
            Code::NoEffect,
            of_key(step.node, "reason"),
            message,
        ));
    }
    if !rests(step) && waits(step) {
        let message = "a target rests at a `barrier`, and `safePoint: false` says that it must not";
        found.push(Finding::new(
            Code::Contradiction,
            of_key(step.node, "barrier"),
            message,
        ));
    }
}

/// A target rests for ever after the last step.
fn rests_at_the_end(subject: &Subject<'_>, found: &mut Diagnostics) {
    let Some(last) = subject.steps.last() else {
        return;
    };
    if !rests(last) {
        let message =
            "a target rests after the last step, and `safePoint: false` says that it must not";
        found.push(Finding::new(
            Code::Contradiction,
            of_key(last.node, "safePoint"),
            message,
        ));
    }
}

fn rests(step: &Step<'_>) -> bool {
    let safe_point = step.node.field("safePoint");
    safe_point.is_none_or(|node| node.data != Data::Bool(false))
}

fn waits(step: &Step<'_>) -> bool {
    let barrier = step.node.field("barrier");
    barrier.is_some_and(|node| node.data != Data::Bool(false))
}

/// Where a step stands: its id, or its first field.
fn place(step: &Step<'_>) -> Range<usize> {
    if step.id.is_some() {
        return of_field(step.node, "id");
    }
    let first = step.node.entries().first();
    first.map_or(step.node.span.clone(), |(key, _)| key.span.clone())
}

/// The place of a field's value.
pub(super) fn of_field(node: &Node, name: &str) -> Range<usize> {
    let field = node.field(name).unwrap_or(node);
    field.span.clone()
}

/// The place of a field's name.
pub(super) fn of_key(node: &Node, name: &str) -> Range<usize> {
    let entry = node.entry(name);
    entry.map_or(node.span.clone(), |(key, _)| key.span.clone())
}
