//! Holds the tree of a file against the table of fields: unknown, unsupported and missing fields,
//! wrong types, values out of bounds. What the fields mean together is judged by [`super::lint`].

use super::codes::Code;
use super::diagnostics::{Diagnostics, Finding, nearest};
use super::duration;
use super::fields::{ALL, Field, LONGEST_MS, Shape, Takes};
use super::tree::{Data, Key, Node};
use crate::action::Action;

/// Checks a mapping and all that lies in it.
pub(super) fn check(node: &Node, shape: &'static Shape, found: &mut Diagnostics) {
    let Data::Map(entries) = &node.data else {
        let message = format!("{} is a mapping, found {}", shape.name, node.what());
        found.push(Finding::new(Code::WrongType, node.span.clone(), message));
        return;
    };
    for (key, value) in entries {
        match shape.field(&key.text) {
            Some(field) => value_of(field, key, value, found),
            None => found.push(unknown(shape, key)),
        }
    }
    for field in shape.fields.iter().filter(|field| field.required) {
        if node.field(field.name).is_none() {
            found.push(missing(shape, field, node));
        }
    }
}

fn unknown(shape: &Shape, key: &Key) -> Finding {
    let (name, at) = (key.text.as_str(), key.span.clone());
    if shape.later.contains(&name) {
        let message = format!("`{name}` is not supported yet");
        return Finding::new(Code::NotSupported, at, message).help(Code::NotSupported.about());
    }
    let names = || shape.fields.iter().map(|field| field.name);
    let message = format!("{} has no field `{name}`", shape.name);
    let finding = Finding::new(Code::UnknownField, at, message);
    if nearest(name, names()).is_some() {
        return finding.did_you_mean(name, names());
    }
    match ALL.iter().find(|other| other.field(name).is_some()) {
        Some(other) => finding.help(format!(
            "{} has a field `{name}`; is the line indented as it should be?",
            other.name
        )),
        None => finding.help(format!("fields of {}: {}", shape.name, list(names()))),
    }
}

fn missing(shape: &Shape, field: &Field, node: &Node) -> Finding {
    let at = node
        .entries()
        .first()
        .map_or(&node.span, |(key, _)| &key.span);
    let message = format!("{} needs a field `{}`", shape.name, field.name);
    Finding::new(Code::MissingField, at.clone(), message).help(format!(
        "`{}`: {}",
        field.name,
        field.about.trim_end_matches('.')
    ))
}

fn value_of(field: &Field, key: &Key, value: &Node, found: &mut Diagnostics) {
    if value.data == Data::Null && !matches!(field.takes, Takes::With | Takes::Schema) {
        let message = format!("`{}` has no value", key.text);
        found.push(
            Finding::new(Code::WrongType, key.span.clone(), message)
                .help(format!("it takes {}", wanted(&field.takes))),
        );
        return;
    }
    takes(&field.takes, &key.text, value, found);
}

fn takes(wanted_type: &Takes, name: &str, value: &Node, found: &mut Diagnostics) {
    match (wanted_type, &value.data) {
        (Takes::With | Takes::Schema, _) => {}
        (Takes::Either(several), _) => match several.iter().find(|one| fits(one, value)) {
            Some(one) => takes(one, name, value, found),
            None => found.push(wrong_type(wanted_type, name, value)),
        },
        (one, _) if !fits(one, value) => found.push(wrong_type(one, name, value)),
        (Takes::Object(shape), _) => check(value, shape, found),
        (Takes::List(shape), Data::List(items)) => {
            items.iter().for_each(|item| check(item, shape, found));
        }
        (Takes::Texts, Data::Map(entries)) => {
            for (key, text) in entries {
                takes(&Takes::Text, &key.text, text, found);
            }
        }
        (bounds, Data::Whole(number)) => within(bounds, name, *number, value, found),
        (Takes::Number { least, most }, Data::Number(number))
            if !(*least..=*most).contains(number) =>
        {
            found.push(out_of_bounds(name, value, &format!("{least} to {most}")));
        }
        (_, Data::Text(text)) => word(wanted_type, name, text, value, found),
        _ => {}
    }
}

/// Whether the type of the value is one that the field takes. Its content may still be wrong.
fn fits(wanted: &Takes, value: &Node) -> bool {
    match wanted {
        Takes::Text
        | Takes::Exactly(_)
        | Takes::RunbookName
        | Takes::Identifier
        | Takes::Action
        | Takes::Duration { .. }
        | Takes::Share
        | Takes::OneOf { .. }
        | Takes::Condition => matches!(value.data, Data::Text(_)),
        Takes::Bool => matches!(value.data, Data::Bool(_)),
        Takes::Whole { .. } => matches!(value.data, Data::Whole(_)),
        Takes::Number { .. } => matches!(value.data, Data::Whole(_) | Data::Number(_)),
        Takes::Texts | Takes::Object(_) => matches!(value.data, Data::Map(_)),
        Takes::List(_) => matches!(value.data, Data::List(_)),
        Takes::Either(several) => several.iter().any(|one| fits(one, value)),
        Takes::With | Takes::Schema => true,
    }
}

fn within(bounds: &Takes, name: &str, number: i64, value: &Node, found: &mut Diagnostics) {
    let outside = match bounds {
        Takes::Whole { least, most } => !(i64::from(*least)..=i64::from(*most)).contains(&number),
        #[expect(clippy::cast_precision_loss, reason = "bounds are small numbers")]
        Takes::Number { least, most } => !(*least..=*most).contains(&(number as f64)),
        _ => false,
    };
    if outside {
        let range = match bounds {
            Takes::Whole { least, most } if *most == u32::MAX => format!("{least} or more"),
            Takes::Whole { least, most } => format!("{least} to {most}"),
            Takes::Number { least, most } => format!("{least} to {most}"),
            _ => String::new(),
        };
        found.push(out_of_bounds(name, value, &range));
    }
}

fn out_of_bounds(name: &str, value: &Node, range: &str) -> Finding {
    let message = format!("`{name}` takes {range}");
    Finding::new(Code::OutOfBounds, value.span.clone(), message)
}

/// Text that must be more than text.
fn word(wanted: &Takes, name: &str, text: &str, value: &Node, found: &mut Diagnostics) {
    if has_template(text) {
        found.push(misplaced(wanted, name, value));
        return;
    }
    let at = value.span.clone();
    let finding = match wanted {
        Takes::Exactly(word) if text != *word => Some(
            Finding::new(
                Code::NotOneOf,
                at,
                format!("`{name}` is `{word}`, found `{text}`"),
            )
            .did_you_mean(text, [*word]),
        ),
        Takes::RunbookName if !is_runbook_name(text) => Some(
            Finding::new(Code::BadName, at, format!("`{text}` is no name of a runbook"))
                .help("write 1 to 63 lower-case letters, digits and inner hyphens"),
        ),
        Takes::Identifier if !is_identifier(text) => Some(
            Finding::new(Code::BadName, at, format!("`{text}` is no `{name}`")).help(
                "it begins with a lower-case letter and goes on with letters, digits and `_`, since expressions use it",
            ),
        ),
        Takes::Action => unknown_action(text, value),
        Takes::Duration { least_ms } => bad_duration(name, text, *least_ms, value),
        Takes::Share if !is_share(text) => Some(Finding::new(
            Code::WrongType,
            at,
            format!("`{name}` takes a number, or a percent such as `25%`, found `{text}`"),
        )),
        Takes::OneOf { now, later } => not_one_of(name, text, now, later, value),
        _ => None,
    };
    if let Some(finding) = finding {
        found.push(finding);
    }
}

/// Whether the text holds an unescaped `${`.
pub(super) fn has_template(text: &str) -> bool {
    text.match_indices("${")
        .any(|(at, _)| !text.get(..at).is_some_and(|before| before.ends_with('$')))
}

fn misplaced(wanted: &Takes, name: &str, value: &Node) -> Finding {
    let message = format!("`{name}` is not a place for `${{ }}`");
    let finding = Finding::new(Code::MisplacedTemplate, value.span.clone(), message);
    match wanted {
        Takes::Condition => finding.help("write the expression bare, without `${ }`"),
        _ => finding.help("only values under `with` are evaluated"),
    }
}

fn unknown_action(text: &str, value: &Node) -> Option<Finding> {
    text.parse::<Action>().err()?;
    let names = || Action::ALL.into_iter().map(Action::name);
    let bare = text.split('@').next().unwrap_or(text);
    let finding = Finding::new(
        Code::UnknownAction,
        value.span.clone(),
        format!("unknown action `{text}`"),
    );
    Some(if names().any(|name| name == bare) {
        finding.help(format!("this build has `{bare}@v1`"))
    } else {
        finding
            .did_you_mean(bare, names())
            .help(format!("actions of this build: {}", list(names())))
    })
}

fn bad_duration(name: &str, text: &str, least_ms: u64, value: &Node) -> Option<Finding> {
    let Ok(duration) = duration::parse(text) else {
        let message = format!("`{text}` is no duration");
        return Some(
            Finding::new(Code::NotADuration, value.span.clone(), message)
                .help("write a whole number and a unit: 500ms, 90s, 5m, 2h, 1d"),
        );
    };
    let bounds = u128::from(least_ms)..=u128::from(LONGEST_MS);
    (!bounds.contains(&duration.as_millis())).then(|| {
        let range = match least_ms {
            0 => "at most 30d".to_owned(),
            _ => "1s to 30d".to_owned(),
        };
        out_of_bounds(name, value, &range)
    })
}

fn not_one_of(
    name: &str,
    text: &str,
    now: &[&'static str],
    later: &[&'static str],
    value: &Node,
) -> Option<Finding> {
    let at = value.span.clone();
    if now.contains(&text) {
        return None;
    }
    if later.contains(&text) {
        let message = format!("`{name}: {text}` is not supported yet");
        return Some(
            Finding::new(Code::NotSupported, at, message)
                .help(format!("`{name}` takes {}", list(now.iter().copied()))),
        );
    }
    let message = format!("`{name}` cannot be `{text}`");
    Some(
        Finding::new(Code::NotOneOf, at, message)
            .did_you_mean(text, now.iter().copied())
            .help(format!("it takes {}", list(now.iter().copied()))),
    )
}

fn wrong_type(takes: &Takes, name: &str, value: &Node) -> Finding {
    let message = format!("`{name}` takes {}, found {}", wanted(takes), value.what());
    let finding = Finding::new(Code::WrongType, value.span.clone(), message);
    match (takes, &value.data) {
        (Takes::Text | Takes::Texts, Data::Whole(_) | Data::Number(_) | Data::Bool(_)) => {
            finding.label("put it in quotes")
        }
        (Takes::Duration { .. }, Data::Whole(number)) => {
            finding.label(format!("did you mean `{number}s`?"))
        }
        (Takes::Bool, Data::Text(text)) if ["yes", "on", "no", "off"].contains(&text.as_str()) => {
            finding.help("write `true` or `false`")
        }
        _ => finding,
    }
}

/// What a field takes, for people.
fn wanted(takes: &Takes) -> String {
    match takes {
        Takes::Text
        | Takes::Exactly(_)
        | Takes::RunbookName
        | Takes::Identifier
        | Takes::OneOf { .. } => "text".to_owned(),
        Takes::Action => "the name of an action".to_owned(),
        Takes::Bool => "`true` or `false`".to_owned(),
        Takes::Whole { .. } => "a whole number".to_owned(),
        Takes::Number { .. } => "a number".to_owned(),
        Takes::Duration { .. } => "a duration such as `90s`".to_owned(),
        Takes::Share => "a percent such as `25%`".to_owned(),
        Takes::Condition => "an expression that gives true or false".to_owned(),
        Takes::Texts => "a mapping of names to texts".to_owned(),
        Takes::Schema | Takes::With | Takes::Object(_) => "a mapping".to_owned(),
        Takes::List(_) => "a list".to_owned(),
        Takes::Either(several) => several.iter().map(wanted).collect::<Vec<_>>().join(" or "),
    }
}

/// `a`, `b` and so on.
pub(super) fn list<'a>(names: impl IntoIterator<Item = &'a str>) -> String {
    let quoted: Vec<String> = names.into_iter().map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

fn is_runbook_name(text: &str) -> bool {
    let inner = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    (1..=63).contains(&text.len())
        && text.chars().all(inner)
        && !text.starts_with('-')
        && !text.ends_with('-')
}

/// Whether expressions can use the text as a name.
pub(super) fn is_identifier(text: &str) -> bool {
    let mut characters = text.chars();
    characters.next().is_some_and(|c| c.is_ascii_lowercase())
        && characters.all(|c| c.is_ascii_alphanumeric() || c == '_')
        && text.len() <= 63
}

fn is_share(text: &str) -> bool {
    text.strip_suffix('%')
        .and_then(|number| number.parse::<u8>().ok())
        .is_some_and(|percent| percent <= 100)
}

#[cfg(test)]
mod tests {
    use super::super::{builtin, load::load};

    /// The library's own runbook with one line put in another's place.
    fn codes(from: &str, to: &str) -> Vec<(&'static str, usize)> {
        let (_, text) = builtin::ALL[1];
        assert!(text.contains(from), "{from}");
        match load("a.yaml", &text.replacen(from, to, 1)) {
            Ok(_) => Vec::new(),
            Err(found) => found.iter().map(|f| (f.code.id(), f.line)).collect(),
        }
    }

    #[test]
    fn each_slip_is_one_finding_where_it_stands() {
        for (from, to, code) in [
            ("direction:", "directon:", "AL0005"),
            ("  owner: refuse", "  owner: hold", "AL0006"),
            ("  owner: refuse", "  phases: []", "AL0006"),
            ("    min: 1", "    min: one", "AL0007"),
            ("  name: rollback-service", "  title: x", "AL0004"),
            ("whenUnreachable: defer", "whenUnreachable: later", "AL0009"),
            ("timeout: 10m", "timeout: 10 minutes", "AL0010"),
            ("  name: rollback-service", "  name: Rollback", "AL0011"),
            ("kube.wait@v1", "kube.await@v1", "AL0014"),
            ("title: Take", "title: ${params.service} Take", "AL0023"),
            ("percent: 50", "percent: 0", "AL0028"),
        ] {
            let found = codes(from, to);
            assert!(found.iter().any(|(id, _)| *id == code), "{to}: {found:?}");
        }
    }

    #[test]
    fn every_mistake_is_found_at_once() {
        let found = codes(
            "    min: 1\n    whenUnreachable: defer",
            "    min: x\n    whenUnreachable: y\n    z: 1",
        );
        let codes: Vec<_> = found.iter().map(|(id, _)| *id).collect();
        assert_eq!(codes, ["AL0007", "AL0009", "AL0005"]);
    }

    #[test]
    fn what_is_missing_is_named() {
        let found = load(
            "a.yaml",
            "kind: Runbook\nspec: {steps: [{use: kube.wait@v1, with: {deployment: a, namespace: b, for: rolledOut}}]}",
        )
        .unwrap_err();
        let said: Vec<_> = found.iter().map(|f| f.message.as_str()).collect();
        assert_eq!(
            said,
            [
                "a runbook needs a field `apiVersion`",
                "a runbook needs a field `metadata`",
                "a step needs a field `id`",
            ]
        );
    }
}
