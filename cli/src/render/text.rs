//! Lines with a tone for each piece of text: measured and cut by what is seen, coloured at the very end.

use anstyle::{AnsiColor, Style};
use unicode_width::{UnicodeWidthChar, UnicodeWidthStr};

/// What a piece of text means. Every message makes sense without it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Tone {
    /// Nothing special.
    #[default]
    Plain,
    /// Done.
    Good,
    /// Failed.
    Bad,
    /// To be looked at.
    Warn,
    /// Under way.
    Busy,
    /// Of less weight.
    Dim,
    /// Of more weight.
    Strong,
}

impl Tone {
    fn style(self) -> Style {
        match self {
            Self::Plain => Style::new(),
            Self::Good => AnsiColor::Green.on_default(),
            Self::Bad => AnsiColor::Red.on_default().bold(),
            Self::Warn => AnsiColor::Yellow.on_default(),
            Self::Busy => AnsiColor::Cyan.on_default(),
            Self::Dim => Style::new().dimmed(),
            Self::Strong => Style::new().bold(),
        }
    }
}

/// One line of output.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Line(Vec<(Tone, String)>);

impl Line {
    /// An empty line.
    pub fn new() -> Self {
        Self::default()
    }

    /// A line in one tone.
    pub fn of(tone: Tone, text: impl Into<String>) -> Self {
        Self::new().with(tone, text)
    }

    /// The same with more text.
    #[must_use]
    pub fn with(mut self, tone: Tone, text: impl Into<String>) -> Self {
        self.push(tone, text);
        self
    }

    /// The same with more text of no special tone.
    #[must_use]
    pub fn and(self, text: impl Into<String>) -> Self {
        self.with(Tone::Plain, text)
    }

    /// Adds text. Control characters, which names and messages from elsewhere may hold, are shown as
    /// `\u{fffd}`: nothing that a cluster says may move the cursor.
    pub fn push(&mut self, tone: Tone, text: impl Into<String>) {
        let text: String = text.into();
        let text = if text.chars().any(char::is_control) {
            text.chars()
                .map(|c| match c {
                    '\t' => ' ',
                    c if c.is_control() => '\u{fffd}',
                    c => c,
                })
                .collect()
        } else {
            text
        };
        self.0.push((tone, text));
    }

    /// Adds another line's text.
    pub fn append(&mut self, other: &Line) {
        self.0.extend(other.0.iter().cloned());
    }

    /// Columns that it takes.
    pub fn width(&self) -> usize {
        self.0.iter().map(|(_, text)| text.width()).sum()
    }

    /// Spaces up to a column, and one where it is passed already.
    pub fn pad(&mut self, column: usize) {
        let missing = column.saturating_sub(self.width()).max(1);
        self.push(Tone::Plain, " ".repeat(missing));
    }

    /// As much of it as `columns` show, with `…` where something is left out.
    #[must_use]
    pub fn cut(&self, columns: usize) -> Self {
        if self.width() <= columns {
            return self.clone();
        }
        let mut room = columns.saturating_sub(1);
        let mut cut = Self::new();
        for (tone, text) in &self.0 {
            let mut kept = String::new();
            for c in text.chars() {
                let width = c.width().unwrap_or(0);
                if width > room {
                    kept.push('…');
                    cut.push(*tone, kept);
                    return cut;
                }
                room -= width;
                kept.push(c);
            }
            cut.push(*tone, kept);
        }
        cut
    }

    /// Without colour.
    pub fn plain(&self) -> String {
        let text: String = self.0.iter().map(|(_, text)| text.as_str()).collect();
        text.trim_end().to_owned()
    }

    /// With colour; whoever writes it takes the colour out where it is not wanted.
    pub fn styled(&self) -> String {
        let piece = |(tone, text): &(Tone, String)| {
            if *tone == Tone::Plain {
                return text.clone();
            }
            let style = tone.style();
            format!("{style}{text}{style:#}")
        };
        self.0.iter().map(piece).collect()
    }
}

impl From<&str> for Line {
    fn from(text: &str) -> Self {
        Self::of(Tone::Plain, text)
    }
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self::of(Tone::Plain, text)
    }
}

/// Lines as one text, for tests.
#[cfg(test)]
pub(crate) fn plain(lines: &[Line]) -> String {
    lines.iter().map(Line::plain).collect::<Vec<_>>().join("\n")
}

/// Splits text into lines of at most `columns`, at spaces.
pub fn wrap(text: &str, columns: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in text.split_whitespace() {
        match lines.last_mut() {
            Some(line) if line.width() + 1 + word.width() <= columns => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

/// A word as a shell takes it.
pub fn quoted(text: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '/');
    if !text.is_empty() && text.chars().all(plain) {
        text.to_owned()
    } else {
        format!("'{}'", text.replace('\'', r"'\''"))
    }
}

/// `1 target`, `2 targets`.
pub fn count(number: usize, one: &str, many: &str) -> String {
    let word = if number == 1 { one } else { many };
    format!("{number} {word}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_is_cut_by_what_is_seen() {
        let line = Line::of(Tone::Good, "✔ ").with(Tone::Strong, "日本語のクラスタ");
        assert_eq!(line.width(), 18);
        assert_eq!(line.cut(18), line);
        assert_eq!(line.cut(9).plain(), "✔ 日本語…");
    }

    #[test]
    fn what_a_cluster_says_moves_no_cursor() {
        let line = Line::from("pod \u{1b}[2J\rgone\tx");
        assert_eq!(line.plain(), "pod \u{fffd}[2J\u{fffd}gone x");
    }

    #[test]
    fn colour_adds_nothing_but_colour() {
        let line = Line::from("a ").with(Tone::Bad, "b");
        assert_eq!(line.plain(), "a b");
        assert!(line.styled().contains("\u{1b}["));
    }

    #[test]
    fn a_word_is_quoted_for_the_shell() {
        assert_eq!(quoted("prod-eu"), "prod-eu");
        assert_eq!(quoted("it's; rm"), r"'it'\''s; rm'");
    }

    #[test]
    fn long_text_is_split_at_spaces() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert!(wrap("", 7).is_empty());
    }
}
