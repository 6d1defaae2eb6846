//! What a dotted name in an expression stands for, by the place where it is evaluated.

use std::ops::Range;

use super::expressions::{Lint, Place};
use super::inputs::words;
use super::{Part, Step};
use crate::action::Kind;
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::Finding;
use crate::runbook::names::Word;
use crate::runbook::shape::list;
use crate::runbook::tree::Node;

/// Types, which an expression may name: `type(params.port) == int`.
const TYPES: [&str; 9] = [
    "bool",
    "bytes",
    "double",
    "int",
    "list",
    "map",
    "null_type",
    "string",
    "uint",
];

/// Roots that the format has and this build does not.
const LATER_ROOTS: [&str; 3] = ["phases", "secrets", "targets"];

impl Lint<'_> {
    /// What is wrong with a dotted name, if anything.
    pub(super) fn path(&self, path: &[Word], place: Place) -> Option<Wrong> {
        let (root, rest) = path.split_first()?;
        match (root.text.as_str(), place) {
            ("steps", _) => self.step(rest, place),
            ("params", _) => self.param(rest.first()?),
            ("target", Place::Step { .. }) => member(
                rest.first()?,
                "target",
                &["name", "region", "cluster", "labels"],
                &["facts"],
            ),
            ("job", Place::Step { .. }) => member(rest.first()?, "job", &["id", "short"], &[]),
            (known @ ("target" | "job"), Place::Soak) => Some(
                Wrong::at(
                    root,
                    Code::BadExpression,
                    format!("there is no `{known}` in a soak"),
                )
                .help("a soak is judged once over all targets of the wave"),
            ),
            (known, _) if TYPES.contains(&known) => None,
            (later, _) if LATER_ROOTS.contains(&later) => Some(Wrong::later(root)),
            (unknown, _) => {
                let names = match place {
                    Place::Step { .. } => &["params", "target", "job", "steps"][..],
                    Place::Soak => &["params", "steps"][..],
                };
                let message = format!("there is no name `{unknown}` here");
                Some(
                    Wrong::at(root, Code::BadExpression, message)
                        .near(names.iter().copied())
                        .help(format!("names here: {}", list(names.iter().copied()))),
                )
            }
        }
    }

    fn param(&self, name: &Word) -> Option<Wrong> {
        let properties = self
            .subject
            .spec
            .field("params")
            .and_then(|params| params.field("properties"));
        let declared: Vec<&str> = properties
            .map_or(&[][..], Node::entries)
            .iter()
            .map(|(key, _)| key.text.as_str())
            .collect();
        if declared.contains(&name.text.as_str()) {
            return None;
        }
        let message = format!("the runbook has no parameter `{}`", name.text);
        let wrong = Wrong::at(name, Code::UndeclaredParam, message).near(declared.iter().copied());
        Some(if declared.is_empty() {
            wrong.help("declare it under `params.properties`")
        } else {
            wrong.help(format!("parameters: {}", list(declared)))
        })
    }

    fn step(&self, rest: &[Word], place: Place) -> Option<Wrong> {
        // Alone, or behind an index that is computed: only evaluation tells.
        let (id, rest) = rest.split_first()?;
        let steps = &self.subject.steps;
        let index = steps
            .iter()
            .position(|step| step.id == Some(id.text.as_str()));
        let Some((index, step)) = index.and_then(|index| Some((index, steps.get(index)?))) else {
            let message = format!("step `{}` is not defined", id.text);
            return Some(
                Wrong::at(id, Code::UndefinedStep, message)
                    .near(steps.iter().filter_map(|step| step.id))
                    .help(self.known(place)),
            );
        };
        match place {
            Place::Soak if step.part != Part::Verify => {
                let message = format!("`{}` does not run during a soak", id.text);
                return Some(
                    Wrong::at(id, Code::SoakOverOtherSteps, message).help(self.known(place)),
                );
            }
            Place::Step { index: here, own } if index > here || (index == here && !own) => {
                let message = format!("step `{}` has not run yet here", id.text);
                return Some(
                    Wrong::at(id, Code::ForwardReference, message).help(self.known(place)),
                );
            }
            Place::Soak | Place::Step { .. } => {}
        }
        output(step, rest)
    }

    /// The steps whose outputs may be used, for a way forward.
    fn known(&self, place: Place) -> String {
        let steps = &self.subject.steps;
        let (known, which): (Vec<&str>, _) = match place {
            Place::Soak => {
                let verify = steps.iter().filter(|step| step.part == Part::Verify);
                (
                    verify.filter_map(|step| step.id).collect(),
                    "steps of `verify`",
                )
            }
            Place::Step { index, own } => {
                let before = steps.iter().take(index + usize::from(own));
                (
                    before.filter_map(|step| step.id).collect(),
                    "steps that have run here",
                )
            }
        };
        if known.is_empty() {
            format!("there are no {which}")
        } else {
            format!("{which}: {}", list(known))
        }
    }

    /// What a dotted name stands for, where that is plain and no bool.
    pub(super) fn kind_of(&self, path: &[String]) -> Option<&'static str> {
        let path: Vec<&str> = path.iter().map(String::as_str).collect();
        match path[..] {
            ["params" | "target" | "job" | "steps"] | ["steps", _] | ["steps", _, "outputs"] => {
                Some("a mapping")
            }
            ["target", "name" | "region" | "cluster"] | ["job", _] => Some("text"),
            ["target", "labels"] => Some("a mapping"),
            ["params", name] => {
                let params = self.subject.spec.field("params")?.field("properties")?;
                match params.field(name)?.field("type")?.text()? {
                    "string" => Some("text"),
                    "integer" | "number" => Some("a number"),
                    "array" => Some("a list"),
                    "object" => Some("a mapping"),
                    _ => None,
                }
            }
            ["steps", id, "outputs", name] => {
                let step = self.subject.steps.iter().find(|step| step.id == Some(id))?;
                let output = step
                    .action?
                    .outputs()
                    .iter()
                    .find(|output| output.name == name)?;
                (!matches!(output.kind, Kind::Bool | Kind::Any)).then(|| words(output.kind))
            }
            _ => None,
        }
    }
}

/// What is behind `steps.ID`.
fn output(step: &Step<'_>, rest: &[Word]) -> Option<Wrong> {
    let (word, rest) = rest.split_first()?;
    match word.text.as_str() {
        "outputs" => {}
        "before" | "live" => return Some(Wrong::later(word)),
        other => {
            let message = format!("a step has no `{other}` here");
            return Some(
                Wrong::at(word, Code::BadExpression, message)
                    .near(["outputs"])
                    .help("write `steps.ID.outputs.NAME`"),
            );
        }
    }
    let (name, action) = (rest.first()?, step.action?);
    let names = || action.outputs().iter().map(|output| output.name);
    if names().any(|known| known == name.text) {
        return None;
    }
    let message = format!("`{}` has no output `{}`", action.name(), name.text);
    Some(
        Wrong::at(name, Code::UndeclaredOutput, message)
            .near(names())
            .help(format!("outputs of `{}`: {}", action.name(), list(names()))),
    )
}

fn member(name: &Word, of: &str, known: &[&str], later: &[&str]) -> Option<Wrong> {
    if known.contains(&name.text.as_str()) {
        return None;
    }
    if later.contains(&name.text.as_str()) {
        return Some(Wrong::later(name));
    }
    let message = format!("`{of}` has no `{}`", name.text);
    Some(
        Wrong::at(name, Code::BadExpression, message)
            .near(known.iter().copied())
            .help(format!("`{of}` has {}", list(known.iter().copied()))),
    )
}

/// A finding before its word has a place in the file.
pub(super) struct Wrong {
    word: Word,
    code: Code,
    message: String,
    near: Vec<String>,
    help: Option<String>,
}

impl Wrong {
    fn at(word: &Word, code: Code, message: impl Into<String>) -> Self {
        Self {
            word: word.clone(),
            code,
            message: message.into(),
            near: Vec::new(),
            help: None,
        }
    }

    /// The format has it, and this build does not.
    fn later(word: &Word) -> Self {
        let message = format!("`{}` is not supported yet", word.text);
        Self::at(word, Code::NotSupported, message).help(Code::NotSupported.about())
    }

    fn near<'a>(mut self, names: impl IntoIterator<Item = &'a str>) -> Self {
        self.near = names.into_iter().map(str::to_owned).collect();
        self
    }

    fn help(mut self, help: impl Into<String>) -> Self {
        self.help = Some(help.into());
        self
    }

    pub(super) fn finding(self, at: &impl Fn(&Word) -> Range<usize>) -> Finding {
        let near = self.near.iter().map(String::as_str);
        let finding = Finding::new(self.code, at(&self.word), self.message)
            .did_you_mean(&self.word.text, near);
        match self.help {
            Some(help) => finding.help(help),
            None => finding,
        }
    }
}
