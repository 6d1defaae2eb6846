//! A runbook file as a tree of values that remember where they stand.
//!
//! The typed [`Runbook`](super::Runbook) keeps no places, and a reader of typed values stops at the
//! first mistake. So the file is read once into this tree, every check walks it, and the typed
//! runbook is made of the very same tree when nothing is wrong: what is checked is what is run.
//!
//! Limits hold while parsing, before anything is built: [`MAX_BYTES`], [`MAX_DEPTH`], a number of
//! values, and few anchors, whose copies count.

use std::fmt;
use std::ops::Range;

use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Number, Value};
use serde_saphyr::budget::BudgetBreach;
use serde_saphyr::options::{DuplicateKeyPolicy, MergeKeyPolicy};
use serde_saphyr::{Error, Location, Options, Spanned};

use super::codes::Code;
use super::diagnostics::{Diagnostics, Finding};

/// Longest file, in bytes: ours are below 4 KiB, and one must fit a record of the store.
pub(crate) const MAX_BYTES: usize = 256 * 1024;

/// Deepest nesting of mappings and lists. The deepest field of the format stands at 6.
pub(crate) const MAX_DEPTH: usize = 8;

/// Most values: 200 steps of 50 fields each, twice.
const MAX_VALUES: usize = 20_000;

/// Most copies of values through anchors.
const MAX_COPIES: usize = 10_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Node {
    pub(crate) data: Data,
    /// Bytes of the text. Of a mapping or list, its first character only.
    pub(crate) span: Range<usize>,
}

/// What stands there.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Data {
    Null,
    Bool(bool),
    Whole(i64),
    Number(f64),
    Text(String),
    List(Vec<Node>),
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Key {
    pub(crate) text: String,
    pub(crate) span: Range<usize>,
}

/// Reads the text. Without a tree, there is at least one finding.
pub(crate) fn parse(text: &str, found: &mut Diagnostics) -> Option<Node> {
    if text.len() > MAX_BYTES {
        // How long is not said: whoever reads a file may stop soon behind the limit.
        let message = "the file is longer than a runbook may be";
        found.push(Finding::new(Code::TooLong, 0..0, message).help(Code::TooLong.about()));
        return None;
    }
    match read(text, DuplicateKeyPolicy::Error) {
        Ok(node) => Some(node),
        Err(error @ Error::DuplicateMappingKey { .. }) => {
            found.push(finding(&error, text));
            // Only to find what else is wrong: the finding above refuses the file.
            read(text, DuplicateKeyPolicy::FirstWins)
                .map_err(|error| found.push(finding(&error, text)))
                .ok()
        }
        Err(error) => {
            found.push(finding(&error, text));
            None
        }
    }
}

fn read(text: &str, duplicates: DuplicateKeyPolicy) -> Result<Node, Error> {
    serde_saphyr::from_str_with_options(text, options(duplicates))
}

fn options(duplicates: DuplicateKeyPolicy) -> Options {
    serde_saphyr::options! {
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        reject_unsupported_tags: true,
        merge_keys: MergeKeyPolicy::Error,
        duplicate_keys: duplicates,
        with_snippet: false,
        emit_comments: false,
        alias_limits: serde_saphyr::alias_limits! {
            max_total_replayed_events: MAX_COPIES,
            max_replay_stack_depth: MAX_DEPTH,
        },
        budget: serde_saphyr::budget! {
            max_depth: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_documents: 1,
        },
    }
}

/// An error of the YAML reader in our words, at its place.
fn finding(error: &Error, text: &str) -> Finding {
    let span = error
        .location()
        .map_or(0..0, |location| bytes(location, text));
    match error {
        Error::DuplicateMappingKey { key, .. } => {
            let key = key.as_deref().unwrap_or("?");
            Finding::new(Code::DuplicateKey, span, format!("`{key}` stands twice"))
        }
        Error::Budget {
            breach: BudgetBreach::Documents { .. },
            ..
        } => Finding::new(
            Code::Syntax,
            span,
            "the file holds more than one YAML document",
        ),
        Error::Budget { breach, .. } => too_complex(span, excess(breach)),
        // What an anchor stands for was read once already, so nothing but its size can fail.
        Error::AliasError { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. }
        | Error::AliasExpansionLimitExceeded { .. }
        | Error::AliasReplayCounterOverflow { .. } => too_complex(
            span,
            format!("anchors stand for more than {MAX_COPIES} values"),
        ),
        _ => Finding::new(Code::Syntax, span, plain(error)).help(Code::Syntax.about()),
    }
}

fn too_complex(span: Range<usize>, message: String) -> Finding {
    Finding::new(Code::TooComplex, span, message)
}

fn excess(breach: &BudgetBreach) -> String {
    match breach {
        BudgetBreach::Depth { .. } => {
            format!("mappings and lists are nested deeper than {MAX_DEPTH} levels")
        }
        BudgetBreach::Nodes { .. } => format!("the file holds more than {MAX_VALUES} values"),
        BudgetBreach::Aliases { .. }
        | BudgetBreach::AliasAnchorRatio { .. }
        | BudgetBreach::Anchors { .. } => "the file uses too many anchors".to_owned(),
        _ => "the file is more complex than any runbook needs to be".to_owned(),
    }
}

/// The reader's own words, without the place that the drawing shows anyway.
fn plain(error: &Error) -> String {
    let text = error.without_snippet().to_string();
    let line = text.lines().next().unwrap_or_default();
    line.rsplit_once(" at line ")
        .map_or(line, |(words, _)| words)
        .to_owned()
}

/// The bytes of a location. Where the reader gives lines and columns only, the place is one byte.
fn bytes(location: Location, text: &str) -> Range<usize> {
    let span = location.span();
    if let (Some(start), Some(length)) = (span.byte_offset(), span.byte_len()) {
        let start = usize::try_from(start).unwrap_or(0);
        return start..start.saturating_add(usize::try_from(length).unwrap_or(0));
    }
    let characters = usize::try_from(span.offset()).unwrap_or(0);
    let start = text
        .char_indices()
        .nth(characters)
        .map_or(text.len(), |(at, _)| at);
    start..start
}

impl Node {
    /// The value of a field of a mapping.
    pub(crate) fn field(&self, name: &str) -> Option<&Node> {
        self.entry(name).map(|(_, node)| node)
    }

    /// A field of a mapping with its key.
    pub(crate) fn entry(&self, name: &str) -> Option<(&Key, &Node)> {
        let found = self.entries().iter().find(|(key, _)| key.text == name);
        found.map(|(key, node)| (key, node))
    }

    /// The fields of a mapping, in the order of the file; none of anything else.
    pub(crate) fn entries(&self) -> &[(Key, Node)] {
        match &self.data {
            Data::Map(entries) => entries,
            _ => &[],
        }
    }

    /// The items of a list; none of anything else.
    pub(crate) fn items(&self) -> &[Node] {
        match &self.data {
            Data::List(items) => items,
            _ => &[],
        }
    }

    /// The text, if it is one.
    pub(crate) fn text(&self) -> Option<&str> {
        match &self.data {
            Data::Text(text) => Some(text),
            _ => None,
        }
    }

    /// The same as JSON, without places.
    pub(crate) fn json(&self) -> Value {
        match &self.data {
            Data::Null => Value::Null,
            Data::Bool(value) => Value::Bool(*value),
            Data::Whole(value) => Value::Number((*value).into()),
            Data::Number(value) => Number::from_f64(*value).map_or(Value::Null, Value::Number),
            Data::Text(text) => Value::String(text.clone()),
            Data::List(items) => items.iter().map(Node::json).collect(),
            Data::Map(entries) => {
                let fields = entries
                    .iter()
                    .map(|(key, node)| (key.text.clone(), node.json()));
                Value::Object(fields.collect::<Map<_, _>>())
            }
        }
    }

    /// What it is, for "found …".
    pub(crate) fn what(&self) -> &'static str {
        match &self.data {
            Data::Null => "nothing",
            Data::Bool(_) => "true or false",
            Data::Whole(_) => "a whole number",
            Data::Number(_) => "a number",
            Data::Text(_) => "text",
            Data::List(_) => "a list",
            Data::Map(_) => "a mapping",
        }
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Data>::deserialize(deserializer)?;
        Ok(Self {
            data: spanned.value,
            span: span_of(spanned.referenced),
        })
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self {
            text: spanned.value,
            span: span_of(spanned.referenced),
        })
    }
}

/// Byte offsets are always known of text in memory, which is all that [`parse`] reads.
fn span_of(location: Location) -> Range<usize> {
    bytes(location, "")
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(DataVisitor)
    }
}

struct DataVisitor;

impl<'de> Visitor<'de> for DataVisitor {
    type Value = Data;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }

    fn visit_unit<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_none<E>(self) -> Result<Data, E> {
        Ok(Data::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
        Ok(Data::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
        Ok(Data::Whole(value))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<Data, E> {
        i64::try_from(value)
            .map(Data::Whole)
            .map_err(|_| E::custom("a whole number is too large"))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
        Ok(Data::Number(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Data, E> {
        Ok(Data::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Data, E> {
        Ok(Data::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Data, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = list.next_element()? {
            items.push(item);
        }
        Ok(Data::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
        let mut entries = Vec::new();
        while let Some(entry) = map.next_entry()? {
            entries.push(entry);
        }
        Ok(Data::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tree(text: &str) -> Node {
        let mut found = Diagnostics::new("a.yaml", text);
        parse(text, &mut found).unwrap_or_else(|| panic!("{found}"))
    }

    fn codes(text: &str) -> Vec<&'static str> {
        let mut found = Diagnostics::new("a.yaml", text);
        parse(text, &mut found);
        found.iter().map(|found| found.code.id()).collect()
    }

    #[test]
    fn every_value_and_key_knows_its_bytes() {
        let text = "ä: one\nlist:\n  - {b: \"two\"}\n  - 3\n";
        let tree = tree(text);
        let at = |span: &Range<usize>| text.get(span.clone()).unwrap();
        let (key, value) = tree.entry("ä").unwrap();
        assert_eq!((at(&key.span), at(&value.span)), ("ä", "one"));
        let items = tree.field("list").unwrap().items();
        assert_eq!(at(&items[0].field("b").unwrap().span), "\"two\"");
        assert_eq!(at(&items[1].span), "3");
    }

    #[test]
    fn plain_words_are_what_yaml_1_2_says() {
        let tree = tree("{a: yes, b: 0755, c: 1_000, d: true, e: 1.5, f: ~}");
        let expected = serde_json::json!({"a": "yes", "b": "0755", "c": "1_000", "d": true, "e": 1.5, "f": null});
        assert_eq!(tree.json(), expected);
    }

    #[test]
    fn what_is_no_yaml_of_ours_is_one_finding() {
        for text in [
            "a: [",
            "a: *x",
            "a: !foo 1",
            "a: 1\n---\nb: 2",
            "<<: {a: 1}",
            "a: 1e999",
            "? [1]\n: 2",
            "~: 2",
            "a: b: c",
            "a: \u{0}",
            "a: .nan",
        ] {
            assert_eq!(codes(text), ["AL0002"], "{text}");
        }
        assert_eq!(codes("a: 1\nb: {c: 1, c: 2}"), ["AL0004"]);
    }

    #[test]
    fn limits_hold_while_parsing() {
        let nested = |depth| format!("{}1{}", "[".repeat(depth), "]".repeat(depth));
        assert_eq!(codes(&nested(MAX_DEPTH)), [""; 0]);
        assert_eq!(codes(&nested(MAX_DEPTH + 1)), ["AL0003"]);
        assert_eq!(codes(&nested(100_000)).len(), 1);
        assert_eq!(codes(&"- 1\n".repeat(MAX_VALUES + 1)), ["AL0003"]);
        assert_eq!(codes(&"a".repeat(MAX_BYTES + 1)), ["AL0001"]);
        let bomb = "a: &a [x, x, x, x, x, x, x, x, x]\nb: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]\n\
                    c: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]\nd: &d [*c, *c, *c, *c, *c, *c, *c, *c, *c]\n\
                    e: [*d, *d, *d, *d, *d, *d, *d, *d, *d]\n";
        assert_eq!(codes(bomb), ["AL0003"]);
    }
}
