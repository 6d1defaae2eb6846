//! Rules of `params`: a JSON Schema of an object, whose names expressions can use and whose defaults
//! it accepts itself.

use serde_json::Value;

use super::Subject;
use crate::runbook::codes::Code;
use crate::runbook::diagnostics::{Diagnostics, Finding};
use crate::runbook::shape::is_identifier;
use crate::runbook::tree::{Data, Node};

pub(super) fn check(subject: &Subject<'_>, found: &mut Diagnostics) {
    let Some((key, params)) = subject.spec.entry("params") else {
        return;
    };
    let schema = params.json();
    if schema.get("type").and_then(Value::as_str) != Some("object") {
        let message = "`params` must be a schema of `type: object`";
        let at = params.field("type").map_or(&key.span, |node| &node.span);
        found.push(Finding::new(Code::BadSchema, at.clone(), message));
        return;
    }
    let before = found.len();
    let meta = jsonschema::draft202012::meta::validator();
    for error in meta.iter_errors(&schema) {
        let at = pointed(params, error.instance_path().as_str());
        let message = format!("`params` is no JSON Schema: {error}");
        found.push(Finding::new(Code::BadSchema, at, message));
    }
    if found.len() == before {
        compiles(&schema, params, found);
        properties(params, found);
        no_secrets(params, found);
        required(params, found);
    }
}

/// References and patterns are known to be good only when the schema is built.
fn compiles(schema: &Value, params: &Node, found: &mut Diagnostics) {
    if let Err(error) = jsonschema::draft202012::new(schema) {
        let at = pointed(params, error.instance_path().as_str());
        let message = format!("`params` is no JSON Schema: {error}");
        found.push(Finding::new(Code::BadSchema, at, message));
    }
}

fn properties(params: &Node, found: &mut Diagnostics) {
    let properties = params.field("properties").map_or(&[][..], Node::entries);
    for (key, property) in properties {
        if !is_identifier(&key.text) {
            let message = format!("`{}` is no name of a parameter", key.text);
            found.push(Finding::new(Code::BadName, key.span.clone(), message).help(
                "it begins with a lower-case letter and goes on with letters, digits and `_`, since expressions use it",
            ));
        }
        default_fits(&key.text, property, found);
    }
}

/// However deep it stands: a secret within a parameter would be stored in clear as a whole.
fn no_secrets(schema: &Node, found: &mut Diagnostics) {
    for (key, value) in schema.entries() {
        if key.text == "writeOnly" && value.data == Data::Bool(true) {
            let message = "secret parameters (`writeOnly: true`) are not supported yet";
            found.push(Finding::new(Code::NotSupported, key.span.clone(), message));
        }
        no_secrets(value, found);
    }
    for item in schema.items() {
        no_secrets(item, found);
    }
}

fn default_fits(name: &str, property: &Node, found: &mut Diagnostics) {
    let Some(default) = property.field("default") else {
        return;
    };
    let Ok(validator) = jsonschema::draft202012::new(&property.json()) else {
        return;
    };
    let value = default.json();
    if let Some(error) = validator.iter_errors(&value).next() {
        let message = format!("the default of `{name}` does not fit its own schema: {error}");
        found.push(Finding::new(Code::BadSchema, default.span.clone(), message));
    }
}

/// A parameter that must be given and is not declared could not be described to anybody.
fn required(params: &Node, found: &mut Diagnostics) {
    let declared = params.field("properties").map_or(&[][..], Node::entries);
    let names = || declared.iter().map(|(key, _)| key.text.as_str());
    for item in params.field("required").map_or(&[][..], Node::items) {
        let Some(name) = item.text() else { continue };
        if !names().any(|declared| declared == name) {
            let message = format!("`{name}` is required and not declared under `properties`");
            found.push(
                Finding::new(Code::UndeclaredParam, item.span.clone(), message)
                    .did_you_mean(name, names()),
            );
        }
    }
}

/// The place that a JSON pointer names, or the deepest one on the way that exists.
fn pointed(root: &Node, pointer: &str) -> std::ops::Range<usize> {
    let mut node = root;
    let mut at = root
        .entries()
        .first()
        .map_or(&root.span, |(key, _)| &key.span);
    for part in pointer.split('/').skip(1) {
        let part = part.replace("~1", "/").replace("~0", "~");
        let index = part.parse::<usize>().ok();
        if let Some((key, next)) = node.entry(&part) {
            (node, at) = (next, &key.span);
        } else if let Some(next) = index.and_then(|index| node.items().get(index)) {
            (node, at) = (next, &next.span);
        }
    }
    match node.data {
        Data::Map(_) | Data::List(_) => at.clone(),
        _ => node.span.clone(),
    }
}
