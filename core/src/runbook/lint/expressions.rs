//! Rules of expressions: they parse, and every name in them stands for something where they are evaluated.
//!
//! | place | may use |
//! |---|---|
//! | `if`, `with` | `params`, `target`, `job`, outputs of earlier steps |
//! | `require`, `until`, `undo.with` | the same, and the step's own outputs |
//! | `soak.require` | `params`, outputs of `verify` steps |
//!
//! CEL is checked by evaluating it, on a cluster, perhaps in the middle of a rollout. A slip in a name is found here
//! instead. What a value holds inside (labels, items of a list) is not known before and not judged.

use std::ops::Range;

use serde_json::Value;

use super::Subject;
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::{Diagnostics, Finding};
use crate::runbook::expression::{Error, Expression, Template};
use crate::runbook::names::{Gives, Word};
use crate::runbook::shape::{has_template, list};
use crate::runbook::tree::{Data, Node};

/// Functions that can be called, those that CEL calls macros included.
const FUNCTIONS: [&str; 19] = [
    "all",
    "bool",
    "bytes",
    "contains",
    "double",
    "dyn",
    "endsWith",
    "exists",
    "exists_one",
    "filter",
    "has",
    "int",
    "map",
    "matches",
    "size",
    "startsWith",
    "string",
    "type",
    "uint",
];

/// Where an expression is evaluated.
#[derive(Clone, Copy)]
pub(super) enum Place {
    /// By a step; `own` = behind it, when its own outputs are known.
    Step { index: usize, own: bool },
    /// Behind a wave.
    Soak,
}

pub(super) fn check(subject: &Subject<'_>, found: &mut Diagnostics) {
    let lint = Lint { subject };
    for (index, step) in subject.steps.iter().enumerate() {
        for (field, own) in [("if", false), ("require", true), ("until", true)] {
            if let Some(condition) = step.node.field(field) {
                lint.condition(field, condition, Place::Step { index, own }, found);
            }
        }
        if let Some(with) = step.node.field("with") {
            lint.templates(with, Place::Step { index, own: false }, found);
        }
        if let Some(with) = step.node.field("undo").and_then(|undo| undo.field("with")) {
            lint.templates(with, Place::Step { index, own: true }, found);
        }
    }
    let waves = subject
        .spec
        .field("rollout")
        .and_then(|rollout| rollout.field("waves"));
    for wave in waves.map_or(&[][..], Node::items) {
        if let Some(require) = wave.field("soak").and_then(|soak| soak.field("require")) {
            lint.condition("require", require, Place::Soak, found);
        }
    }
}

/// A text of the file that holds an expression, and how its bytes are found there.
struct Written<'a> {
    node: &'a Node,
    text: &'a str,
    /// Where the text begins in the file; none where escapes or folding stand between the two.
    start: Option<usize>,
}

impl<'a> Written<'a> {
    fn of(node: &'a Node, found: &Diagnostics) -> Option<Self> {
        let text = node.text()?;
        let inside = found.written(&node.span).find(text);
        Some(Self {
            node,
            text,
            start: inside.map(|inside| node.span.start + inside),
        })
    }

    /// The bytes of the file for bytes of the text.
    fn span(&self, at: Range<usize>) -> Range<usize> {
        match self.start {
            Some(start) => start + at.start..start + at.end,
            None => self.node.span.clone(),
        }
    }
}

pub(super) struct Lint<'a> {
    pub(super) subject: &'a Subject<'a>,
}

impl Lint<'_> {
    fn condition(&self, field: &str, node: &Node, place: Place, found: &mut Diagnostics) {
        let Some(written) = Written::of(node, found) else {
            return;
        };
        if has_template(written.text) {
            // Told already: conditions are bare.
            return;
        }
        match Expression::parse(written.text) {
            Ok(expression) => {
                self.names(&expression, &written, place, found);
                self.gives_a_bool(field, &expression, &written, found);
            }
            Err(error) => found.push(no_expression(&error, &written)),
        }
    }

    /// Every text below `with`.
    fn templates(&self, node: &Node, place: Place, found: &mut Diagnostics) {
        match &node.data {
            Data::List(items) => items
                .iter()
                .for_each(|item| self.templates(item, place, found)),
            Data::Map(entries) => {
                for (_, value) in entries {
                    self.templates(value, place, found);
                }
            }
            Data::Text(text) if has_template(text) => self.template(node, place, found),
            Data::Text(_) | Data::Null | Data::Bool(_) | Data::Whole(_) | Data::Number(_) => {}
        }
    }

    fn template(&self, node: &Node, place: Place, found: &mut Diagnostics) {
        let Some(written) = Written::of(node, found) else {
            return;
        };
        match Template::parse(&Value::String(written.text.to_owned())) {
            Ok(template) => {
                for expression in template.expressions() {
                    self.names(expression, &written, place, found);
                }
            }
            Err(error) => found.push(no_expression(&error, &written)),
        }
    }

    fn names(
        &self,
        expression: &Expression,
        written: &Written<'_>,
        place: Place,
        found: &mut Diagnostics,
    ) {
        let names = expression.names();
        let at = |word: &Word| {
            written.span(expression.at() + word.at.start..expression.at() + word.at.end)
        };
        for function in names.functions {
            if !FUNCTIONS.contains(&function.text.as_str()) {
                let message = format!("there is no function `{}`", function.text);
                found.push(
                    Finding::new(Code::BadExpression, at(&function), message)
                        .did_you_mean(&function.text, FUNCTIONS)
                        .help(format!("functions: {}", list(FUNCTIONS))),
                );
            }
        }
        for path in names.paths {
            if let Some(wrong) = self.path(&path, place) {
                found.push(wrong.finding(&at));
            }
        }
    }

    fn gives_a_bool(
        &self,
        field: &str,
        expression: &Expression,
        written: &Written<'_>,
        found: &mut Diagnostics,
    ) {
        let gives = match expression.names().gives {
            Gives::Unknown => None,
            Gives::Other(words) => Some(words),
            Gives::Path(path) => self.kind_of(&path),
        };
        if let Some(gives) = gives {
            let message = format!("`{field}` gives {gives}, where true or false is needed");
            let span = written.span(0..written.text.len());
            found.push(
                Finding::new(Code::NotABool, span, message)
                    .help("compare it with something, such as `… == …` or `… > 0`"),
            );
        }
    }
}

fn no_expression(error: &Error, written: &Written<'_>) -> Finding {
    let message = format!("`{}` is no expression: {error}", written.text);
    let at = match error {
        // The reader points behind the end where something is missing there.
        Error::Syntax { column, .. } if !has_template(written.text) => {
            let at = column
                .saturating_sub(1)
                .min(written.text.len().saturating_sub(1));
            written.span(at..at + 1)
        }
        _ => written.span(0..written.text.len()),
    };
    Finding::new(Code::BadExpression, at, message)
}

#[cfg(test)]
mod tests {
    use crate::runbook::load::load;

    /// A runbook with one step in each part, with one piece of it replaced: what is said, and about which words.
    fn said(piece: &str, by: &str) -> Vec<(&'static str, String)> {
        const TEXT: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: r}
spec:
  params: {type: object, properties: {port: {type: integer}, image: {type: string}}}
  rollout: {waves: [{pick: {percent: 100}, soak: {for: 1m, require: steps.health.outputs.ok}}]}
  preflight:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: shop, namespace: shop}, require: steps.now.outputs.found}
  steps:
    - {id: set, if: params.port > 0, use: kube.set-image@v1, with: {deployment: shop, namespace: shop, image: 'shop:${params.image}'}}
  verify:
    - {id: health, use: http.probe@v1, with: {service: shop, namespace: shop, port: 80, path: /}}
";
        assert!(TEXT.contains(piece), "{piece}");
        let text = TEXT.replacen(piece, by, 1);
        match load("r.yaml", &text) {
            Ok(_) => Vec::new(),
            Err(found) => found
                .iter()
                .map(|found| (found.code.id(), text[found.span.clone()].to_owned()))
                .collect(),
        }
    }

    fn one(piece: &str, by: &str, code: &str, about: &str) {
        let found = said(piece, by);
        assert!(
            matches!(&found[..], [(is, at)] if *is == code && at == about),
            "{by}: {found:?}"
        );
    }

    #[test]
    fn a_runbook_whose_names_all_exist_is_one() {
        assert_eq!(said("metadata", "metadata"), []);
        for good in [
            "target.labels.zone == 'a' && job.id != ''",
            "steps.now.outputs.images.exists(image, image == params.image)",
            "type(params.port) == int && has(params.image)",
            "size(steps.now.outputs.images) > 0",
            "steps['now'].outputs.found",
        ] {
            assert_eq!(
                said("params.port > 0", &format!("\"{good}\"")),
                [],
                "{good}"
            );
        }
    }

    #[test]
    fn a_slip_in_a_name_is_found_at_its_word() {
        for (by, code, about) in [
            ("param.port > 0", "AL0021", "param"),
            ("params.prot > 0", "AL0020", "prot"),
            ("steps.nwo.outputs.found", "AL0012", "nwo"),
            ("steps.now.output.found", "AL0021", "output"),
            ("steps.now.outputs.fuond", "AL0019", "fuond"),
            ("target.regoin == 'a'", "AL0021", "regoin"),
            ("sise(params.image) > 0", "AL0021", "sise"),
            ("secrets.pin == ''", "AL0006", "secrets"),
            ("steps.now.before.image == ''", "AL0006", "before"),
        ] {
            one("params.port > 0", by, code, about);
        }
        one("${params.image}", "${ params.imgae }", "AL0020", "imgae");
    }

    #[test]
    fn an_expression_that_does_not_parse_is_found_where_it_breaks_off() {
        one("params.port > 0", "params.port >", "AL0021", ">");
        one(
            "${params.image}",
            "${params.image",
            "AL0021",
            "shop:${params.image",
        );
    }

    #[test]
    fn outputs_are_known_only_behind_their_step() {
        one(
            "params.port > 0",
            "steps.health.outputs.ok",
            "AL0018",
            "health",
        );
        one(
            "params.port > 0",
            "steps.set.outputs.changed",
            "AL0018",
            "set",
        );
        one(
            "${params.image}",
            "${steps.set.outputs.image}",
            "AL0018",
            "set",
        );
        one(
            "steps.health.outputs.ok",
            "steps.now.outputs.found",
            "AL0030",
            "now",
        );
        one(
            "steps.health.outputs.ok",
            "target.name == 'a/b'",
            "AL0021",
            "target",
        );
    }

    #[test]
    fn a_condition_that_is_plainly_no_bool_is_refused() {
        for plain in [
            "params.port",
            "steps.now.outputs.replicas",
            "target.name",
            "params.port + 1",
        ] {
            one("params.port > 0", plain, "AL0022", plain);
        }
    }
}
