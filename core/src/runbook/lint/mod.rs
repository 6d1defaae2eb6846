//! What the fields of a runbook mean together: rules that no single field can break.
//!
//! | file | judges |
//! |---|---|
//! | [`steps`] | ids, what a part may do, retries, undo |
//! | [`inputs`] | `with` against the catalogue |
//! | [`expressions`] | the names in conditions and `${ }` against steps, outputs and parameters |
//! | [`paths`] | what a dotted name stands for |
//! | [`rollout`] | waves, soaks, policies |
//! | [`schema`] | `params` as a JSON Schema |
//!
//! The rules walk the tree of the file and pass over whatever [`super::shape`] refused already, so
//! that one mistake is one finding and none hides another.

mod expressions;
mod inputs;
mod paths;
mod rollout;
mod schema;
mod steps;
#[cfg(test)]
mod tests;

use super::diagnostics::Diagnostics;
use super::tree::Node;
use crate::action::{Action, Class, Effect, UndoKind};

/// Most steps of a runbook, all parts together. Ours have five.
const MAX_STEPS: usize = 200;

/// What the rules ask of the catalogue. By argument, since the rules also hold for kinds of actions
/// that the catalogue does not have yet, and are tested on them.
#[derive(Clone, Copy)]
pub(super) struct Catalogue {
    pub(super) effect: fn(Action) -> Effect,
    pub(super) class: fn(Action) -> Class,
    pub(super) undo: fn(Action) -> UndoKind,
}

impl Default for Catalogue {
    fn default() -> Self {
        Self {
            effect: Action::effect,
            class: Action::class,
            undo: Action::undo,
        }
    }
}

/// Where a step stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Part {
    Preflight,
    Steps,
    Verify,
}

impl Part {
    fn field(self) -> &'static str {
        match self {
            Self::Preflight => "preflight",
            Self::Steps => "steps",
            Self::Verify => "verify",
        }
    }
}

/// A step as far as it can be read.
#[derive(Clone, Copy, Debug)]
struct Step<'a> {
    node: &'a Node,
    part: Part,
    id: Option<&'a str>,
    action: Option<Action>,
}

/// What the rules look at.
struct Subject<'a> {
    spec: &'a Node,
    steps: Vec<Step<'a>>,
    catalogue: Catalogue,
}

/// Applies every rule.
pub(super) fn check(tree: &Node, catalogue: Catalogue, found: &mut Diagnostics) {
    let Some(spec) = tree.field("spec") else {
        return;
    };
    let subject = Subject {
        spec,
        steps: steps_of(spec),
        catalogue,
    };
    steps::check(&subject, found);
    inputs::check(&subject, found);
    expressions::check(&subject, found);
    rollout::check(&subject, found);
    schema::check(&subject, found);
}

/// Every step, in the order they run.
fn steps_of(spec: &Node) -> Vec<Step<'_>> {
    let parts = [Part::Preflight, Part::Steps, Part::Verify];
    let steps = parts.into_iter().flat_map(|part| {
        let items = spec.field(part.field()).map_or(&[][..], Node::items);
        items.iter().map(move |node| Step {
            node,
            part,
            id: node.field("id").and_then(Node::text),
            action: action_of(node),
        })
    });
    steps.collect()
}

/// The action that `use` names, where it names one.
fn action_of(node: &Node) -> Option<Action> {
    node.field("use")
        .and_then(Node::text)
        .and_then(|text| text.parse().ok())
}
