//! What is wrong with a file: every mistake at once, each with its code, its place and a way forward.
//!
//! A list of findings is a value; [`Diagnostics::render`] draws it as cargo does, without colour, so
//! that logs and files read the same as a terminal.

use std::fmt;
use std::ops::Range;

use annotate_snippets::{AnnotationKind, Level, Renderer, Snippet};
use serde::Serialize;

use super::codes::Code;

/// More findings than this are counted, not shown: past it, one cause has many effects.
pub const MAX_SHOWN: usize = 50;

/// One thing that is wrong.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Diagnostic {
    /// Which kind of mistake.
    pub code: Code,
    /// One sentence without a full stop.
    pub message: String,
    /// Line of its first character, from 1.
    pub line: usize,
    /// Column of its first character, from 1, in characters.
    pub column: usize,
    /// Short words for beside the carets; may be empty.
    pub label: String,
    /// Ways forward, one sentence each.
    pub help: Vec<String>,
    /// The bytes it is about.
    #[serde(skip)]
    pub span: Range<usize>,
}

/// Everything that is wrong with one file, in the order of the file. Never empty where it is an error.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Diagnostics {
    source_name: String,
    text: String,
    found: Vec<Diagnostic>,
}

impl Diagnostics {
    /// None yet.
    pub(crate) fn new(source_name: &str, text: &str) -> Self {
        Self {
            source_name: source_name.to_owned(),
            text: text.to_owned(),
            found: Vec::new(),
        }
    }

    /// The name of the file as the caller gave it.
    pub fn source_name(&self) -> &str {
        &self.source_name
    }

    /// What was found, in the order of the file.
    pub fn iter(&self) -> impl Iterator<Item = &Diagnostic> {
        self.found.iter()
    }

    /// How many.
    pub fn len(&self) -> usize {
        self.found.len()
    }

    /// Whether nothing was found.
    pub fn is_empty(&self) -> bool {
        self.found.is_empty()
    }

    /// What stands in the file at these bytes.
    pub(crate) fn written(&self, span: &Range<usize>) -> &str {
        self.text.get(span.clone()).unwrap_or_default()
    }

    /// Adds one. The place is worked out from the span.
    pub(crate) fn push(&mut self, finding: Finding) {
        let span = within(&self.text, finding.span);
        let (line, column) = place(&self.text, span.start);
        self.found.push(Diagnostic {
            code: finding.code,
            message: finding.message,
            line,
            column,
            label: finding.label,
            help: finding.help,
            span,
        });
    }

    /// Puts them in the order of the file, each once.
    pub(crate) fn sort(&mut self) {
        self.found
            .sort_by_key(|found| (found.span.start, found.code));
        self.found.dedup();
    }

    /// All of them as text, each with the lines it is about, and a last line that counts them.
    pub fn render(&self) -> String {
        let shown = self.found.iter().take(MAX_SHOWN);
        let mut blocks: Vec<String> = shown.map(|found| self.render_one(found)).collect();
        blocks.push(self.count());
        blocks.join("\n\n")
    }

    fn render_one(&self, found: &Diagnostic) -> String {
        let mut mark = AnnotationKind::Primary.span(found.span.clone());
        if !found.label.is_empty() {
            mark = mark.label(found.label.as_str());
        }
        let snippet = Snippet::source(self.text.as_str())
            .path(self.source_name.as_str())
            .annotation(mark);
        let title = Level::ERROR
            .primary_title(found.message.as_str())
            .id(found.code.id());
        let help = found
            .help
            .iter()
            .map(|line| Level::HELP.message(line.as_str()));
        Renderer::plain().render(&[title.element(snippet).elements(help)])
    }

    fn count(&self) -> String {
        let errors = match self.found.len() {
            1 => "1 error".to_owned(),
            count => format!("{count} errors"),
        };
        let hidden = self.found.len().saturating_sub(MAX_SHOWN);
        let hidden = if hidden > 0 {
            format!(", {hidden} not shown")
        } else {
            String::new()
        };
        format!("{}: {errors}{hidden}", self.source_name)
    }
}

impl fmt::Display for Diagnostics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.render())
    }
}

impl std::error::Error for Diagnostics {}

/// A finding before its line and column are known.
#[derive(Clone, Debug)]
pub(crate) struct Finding {
    code: Code,
    span: Range<usize>,
    message: String,
    label: String,
    help: Vec<String>,
}

impl Finding {
    pub(crate) fn new(code: Code, span: Range<usize>, message: impl Into<String>) -> Self {
        Self {
            code,
            span,
            message: message.into(),
            label: String::new(),
            help: Vec::new(),
        }
    }

    pub(crate) fn label(mut self, label: impl Into<String>) -> Self {
        self.label = label.into();
        self
    }

    pub(crate) fn help(mut self, help: impl Into<String>) -> Self {
        self.help.push(help.into());
        self
    }

    /// Labels the place with what may have been meant, if anything comes near.
    pub(crate) fn did_you_mean<'a>(
        self,
        written: &str,
        known: impl IntoIterator<Item = &'a str>,
    ) -> Self {
        match nearest(written, known) {
            Some(near) => self.label(format!("did you mean `{near}`?")),
            None => self,
        }
    }
}

/// The known word that `written` most probably stands for.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    // One slip for every three letters: `uses` is `use`, and `if` is not `id`'s neighbour by chance.
    let slips = (written.chars().count() / 3).max(1);
    let mut candidates: Vec<_> = known
        .into_iter()
        .map(|word| (distance(written, word), word))
        .filter(|(distance, _)| *distance <= slips)
        .collect();
    candidates.sort_unstable();
    candidates.first().map(|(_, word)| *word)
}

/// Case and the choice between `_` and `-` are the commonest slips, and cost half of nothing.
fn distance(written: &str, word: &str) -> usize {
    let plain = |text: &str| text.to_lowercase().replace(['-', '_'], "");
    if plain(written) == plain(word) {
        return 0;
    }
    strsim::damerau_levenshtein(written, word)
}

/// The span as far as it lies in the text, on whole characters.
fn within(text: &str, span: Range<usize>) -> Range<usize> {
    let start = text.floor_char_boundary(span.start.min(text.len()));
    let end = text.ceil_char_boundary(span.end.clamp(start, text.len()));
    start..end
}

fn place(text: &str, at: usize) -> (usize, usize) {
    let before = text.get(..at).unwrap_or(text);
    let line = before.matches('\n').count() + 1;
    let start_of_line = before.rfind('\n').map_or(0, |newline| newline + 1);
    let column = before.get(start_of_line..).unwrap_or("").chars().count() + 1;
    (line, column)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_count_characters_and_spans_stay_within_the_text() {
        let mut found = Diagnostics::new("a.yaml", "one: 1\nüber: 2");
        found.push(Finding::new(Code::WrongType, 14..99, "no"));
        let first = found.iter().next().unwrap();
        assert_eq!((first.line, first.column), (2, 7));
        assert_eq!(first.span, 14..15);
    }

    #[test]
    fn near_words_are_suggested_and_far_ones_are_not() {
        let known = ["use", "id", "if", "maxParallel"];
        assert_eq!(nearest("uses", known), Some("use"));
        assert_eq!(nearest("max_parallel", known), Some("maxParallel"));
        assert_eq!(nearest("timeout", known), None);
    }

    #[test]
    fn a_finding_is_drawn_with_its_place_and_its_help() {
        let mut found = Diagnostics::new("a.yaml", "uses: x\n");
        let finding = Finding::new(Code::UnknownField, 0..4, "unknown field `uses`")
            .did_you_mean("uses", ["use"])
            .help("fields here: `use`");
        found.push(finding);
        insta::assert_snapshot!(found.render(), @r"
        error[AL0005]: unknown field `uses`
         --> a.yaml:1:1
          |
        1 | uses: x
          | ^^^^ did you mean `use`?
          |
          = help: fields here: `use`

        a.yaml: 1 error
        ");
    }
}
