//! The names that an expression uses, each with its place, and what it obviously gives.
//!
//! CEL brings no checker. This file reads off a parsed expression what can be judged without evaluating it: dotted names
//! such as `steps.now.outputs.found`, functions, and a result that is plainly no bool. Variables of `exists`, `map` and
//! the like are the expression's own and no names. An index that is itself computed is not followed.

use std::ops::Range;

use cel::common::ast::{
    CallExpr, ComprehensionExpr, EntryExpr, Expr, IdedEntryExpr, IdedExpr, LiteralValue,
};

/// A word and its bytes within the expression.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Word {
    pub(super) text: String,
    pub(super) at: Range<usize>,
}

/// What an expression uses and gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Names {
    /// Dotted names, root first, in the order of the text. Never empty ones.
    pub(super) paths: Vec<Vec<Word>>,
    /// Functions that are called by name.
    pub(super) functions: Vec<Word>,
    pub(super) gives: Gives,
}

/// What an expression gives, as far as it is plain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Gives {
    /// A bool, or something that only evaluation tells.
    Unknown,
    /// Something that is no bool, in words.
    Other(&'static str),
    /// What the name stands for.
    Path(Vec<String>),
}

impl Names {
    pub(super) fn of(text: &str, program: &cel::Program) -> Self {
        let mut reader = Reader {
            text,
            program,
            own: Vec::new(),
            names: Self {
                paths: Vec::new(),
                functions: Vec::new(),
                gives: gives(&program.expression().expr),
            },
        };
        reader.read(program.expression());
        let mut names = reader.names;
        names
            .paths
            .sort_by_key(|path| path.first().map(|word| word.at.start));
        names.paths.dedup();
        names
    }
}

fn gives(expression: &Expr) -> Gives {
    match expression {
        Expr::Literal(LiteralValue::Boolean(_)) => Gives::Unknown,
        Expr::Literal(LiteralValue::String(_)) => Gives::Other("text"),
        Expr::Literal(LiteralValue::Null) => Gives::Other("null"),
        Expr::Literal(_) => Gives::Other("a number"),
        Expr::List(_) => Gives::Other("a list"),
        Expr::Map(_) | Expr::Struct(_) => Gives::Other("a mapping"),
        Expr::Call(call) => match call.func_name.as_str() {
            "_-_" | "_*_" | "_/_" | "_%_" | "-_" | "size" | "int" | "uint" | "double" => {
                Gives::Other("a number")
            }
            "_+_" => Gives::Other("a sum"),
            "string" => Gives::Other("text"),
            _ => Gives::Unknown,
        },
        Expr::Ident(_) | Expr::Select(_) => match segments(expression) {
            Some(path) => Gives::Path(path.into_iter().map(str::to_owned).collect()),
            None => Gives::Unknown,
        },
        Expr::Comprehension(_) | Expr::Unspecified => Gives::Unknown,
    }
}

/// The segments of a dotted name, root first; none of anything else, and of `has(…)`.
fn segments(expression: &Expr) -> Option<Vec<&str>> {
    match expression {
        Expr::Ident(name) => Some(vec![name]),
        Expr::Select(select) if !select.test => {
            let mut segments = segments(&select.operand.expr)?;
            segments.push(&select.field);
            Some(segments)
        }
        _ => None,
    }
}

/// `operand["field"]`, which says the same as `operand.field`.
fn index(call: &CallExpr) -> Option<(&IdedExpr, &str)> {
    match (call.func_name.as_str(), &call.args[..]) {
        ("_[_]", [operand, field]) => match &field.expr {
            Expr::Literal(LiteralValue::String(field)) => Some((operand, field.inner())),
            _ => None,
        },
        _ => None,
    }
}

struct Reader<'a> {
    text: &'a str,
    program: &'a cel::Program,
    /// Variables of the comprehensions that are open.
    own: Vec<&'a str>,
    names: Names,
}

impl<'a> Reader<'a> {
    fn read(&mut self, node: &'a IdedExpr) {
        match &node.expr {
            Expr::Ident(_) => self.path(node, Vec::new()),
            Expr::Select(_) => self.path(node, Vec::new()),
            Expr::Call(call) if index(call).is_some() => self.path(node, Vec::new()),
            Expr::Call(call) => self.call(call),
            Expr::Comprehension(inner) => self.comprehension(inner),
            Expr::List(list) => list.elements.iter().for_each(|item| self.read(item)),
            Expr::Map(map) => map.entries.iter().for_each(|entry| self.entry(entry)),
            Expr::Struct(made) => made.entries.iter().for_each(|entry| self.entry(entry)),
            Expr::Literal(_) | Expr::Unspecified => {}
        }
    }

    /// Goes down a chain of selections to its root, which is a name or anything else.
    fn path(&mut self, node: &'a IdedExpr, mut fields: Vec<&'a str>) {
        match &node.expr {
            Expr::Select(select) => {
                fields.push(&select.field);
                self.path(&select.operand, fields);
            }
            Expr::Call(call) if index(call).is_some() => {
                if let Some((operand, field)) = index(call) {
                    fields.push(field);
                    self.path(operand, fields);
                }
            }
            Expr::Ident(root) if root.starts_with('@') || self.own.contains(&root.as_str()) => {}
            Expr::Ident(root) => {
                let start = self.program.source_info().offset_for(node.id);
                let start = start.map_or(0, |(start, _)| start as usize);
                let words = std::iter::once(root.as_str()).chain(fields.into_iter().rev());
                let path = self.placed(start, words);
                self.names.paths.push(path);
            }
            _ => self.read(node),
        }
    }

    /// Each word where it stands, behind the one before it.
    fn placed(&self, mut from: usize, words: impl Iterator<Item = &'a str>) -> Vec<Word> {
        let place = |word: &str| {
            let found = self.text.get(from..).and_then(|rest| rest.find(word));
            let start = from + found.unwrap_or(0);
            from = start + word.len();
            Word {
                text: word.to_owned(),
                at: start..from,
            }
        };
        words.map(place).collect()
    }

    fn call(&mut self, call: &'a CallExpr) {
        let name = &call.func_name;
        if name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            // The offset of a call is that of its bracket, so the name is looked for in the text.
            let at = self.text.find(&format!("{name}(")).unwrap_or(0);
            self.names.functions.push(Word {
                text: name.clone(),
                at: at..at + name.len(),
            });
        }
        if let Some(target) = &call.target {
            self.read(target);
        }
        call.args.iter().for_each(|argument| self.read(argument));
    }

    fn comprehension(&mut self, inner: &'a ComprehensionExpr) {
        self.read(&inner.iter_range);
        self.read(&inner.accu_init);
        let before = self.own.len();
        self.own.push(&inner.iter_var);
        self.own.extend(inner.iter_var2.as_deref());
        self.own.push(&inner.accu_var);
        for part in [&inner.loop_cond, &inner.loop_step, &inner.result] {
            self.read(part);
        }
        self.own.truncate(before);
    }

    fn entry(&mut self, entry: &'a IdedEntryExpr) {
        match &entry.expr {
            EntryExpr::StructField(field) => self.read(&field.value),
            EntryExpr::MapEntry(pair) => {
                self.read(&pair.key);
                self.read(&pair.value);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::expression::Expression;

    fn paths(text: &str) -> Vec<String> {
        let names = Expression::parse(text).unwrap().names();
        let joined = |path: &Vec<Word>| {
            for word in path {
                assert_eq!(
                    text.get(word.at.clone()),
                    Some(word.text.as_str()),
                    "{text}"
                );
            }
            let words: Vec<_> = path.iter().map(|word| word.text.as_str()).collect();
            words.join(".")
        };
        names.paths.iter().map(joined).collect()
    }

    #[test]
    fn names_are_found_wherever_they_stand_and_with_their_place() {
        let text =
            "steps . now.outputs.found && !(params.port in [target.name, {'a': job.id}['a']])";
        assert_eq!(
            paths(text),
            [
                "steps.now.outputs.found",
                "params.port",
                "target.name",
                "job.id"
            ]
        );
        assert_eq!(
            paths("'ä' == params.a && has(params.b)"),
            ["params.a", "params.b"]
        );
        assert_eq!(
            paths("steps['a'].outputs[\"b\"] == 1"),
            ["steps.a.outputs.b"]
        );
        assert_eq!(
            paths("steps.a.outputs.images[0].size() > 0"),
            ["steps.a.outputs.images"]
        );
    }

    #[test]
    fn the_variables_of_an_expression_are_its_own() {
        assert_eq!(
            paths("steps.a.outputs.images.exists(image, image == params.image)"),
            ["steps.a.outputs.images", "params.image"]
        );
    }

    #[test]
    fn what_is_plainly_no_bool_is_told() {
        for (text, other) in [
            ("1 + 2", Some("a sum")),
            ("'a'", Some("text")),
            ("a == 1", None),
        ] {
            let gives = Expression::parse(text).unwrap().names().gives;
            let expected = other.map_or(Gives::Unknown, Gives::Other);
            assert_eq!(gives, expected, "{text}");
        }
    }
}
