//! The only place that prints. Data goes to standard output, everything else to standard error.
//!
//! | what | where |
//! |---|---|
//! | what was asked for, also in JSON | standard output |
//! | the tree that is redrawn in place, questions, notes, errors | standard error |
//! | plain progress lines | standard output, unless that is to hold JSON or names |
//!
//! A reader that has gone (`aldis list | head`) is no error: what it does not want is not written.

use std::io::{BufRead, IsTerminal, Write};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, PoisonError};

use anstream::{AutoStream, ColorChoice};
use serde::Serialize;

use crate::error::Error;
use crate::exit::Exit;
use crate::render::text::{Line, Tone};

/// Columns where no terminal says otherwise.
const COLUMNS: usize = 100;

/// Rows where no terminal says otherwise.
const ROWS: usize = 24;

/// How results are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    #[default]
    Human,
    /// One JSON document.
    Json,
    /// Names only, one a line.
    Name,
}

/// When colour is used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Color {
    /// On a terminal, unless NO_COLOR is set.
    #[default]
    Auto,
    /// Also into files.
    Always,
    /// Nowhere.
    Never,
}

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ProgressMode {
    /// `tty` on a terminal, else `plain`.
    #[default]
    Auto,
    /// A tree that is redrawn in place.
    Tty,
    /// One line for each change.
    Plain,
    /// One JSON object for each change, on standard output.
    Json,
    /// Nothing until the end.
    Quiet,
}

/// Writes to the two streams.
pub struct Printer {
    /// Form of results.
    pub output: Output,
    colour: [ColorChoice; 2],
    out_is_terminal: bool,
    err_is_terminal: bool,
    input: bool,
    /// Rows of the frame that stands on the terminal now.
    frame: Mutex<usize>,
    closed: AtomicBool,
    /// Why standard output could not be written, where that is not its reader's wish.
    trouble: Mutex<Option<std::io::Error>>,
}

impl Printer {
    /// A printer for this process. `input` = questions may be asked.
    pub fn new(output: Output, color: Color, input: bool) -> Self {
        let (out, err) = (std::io::stdout(), std::io::stderr());
        let colour = match color {
            Color::Auto => [AutoStream::choice(&out), AutoStream::choice(&err)],
            Color::Always => [ColorChoice::AlwaysAnsi; 2],
            Color::Never => [ColorChoice::Never; 2],
        };
        Self {
            output,
            colour,
            out_is_terminal: out.is_terminal(),
            err_is_terminal: err.is_terminal(),
            input: input && std::io::stdin().is_terminal(),
            frame: Mutex::new(0),
            closed: AtomicBool::new(false),
            trouble: Mutex::default(),
        }
    }

    /// Whether a person looks at progress.
    pub fn is_interactive(&self) -> bool {
        self.err_is_terminal
    }

    /// Whether a person looks at results.
    pub fn is_out_terminal(&self) -> bool {
        self.out_is_terminal
    }

    /// Whether nobody reads standard output any more.
    pub fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Relaxed)
    }

    /// Why what was to stand on standard output does not, such as a full disk; told once.
    pub fn trouble(&self) -> Option<Error> {
        let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
        let error = trouble.take()?;
        Some(Error::new(
            Exit::Other,
            format!("write to standard output: {error}"),
        ))
    }

    /// Columns to draw in.
    pub fn columns(&self) -> usize {
        self.size().0
    }

    /// Rows to draw in.
    pub fn rows(&self) -> usize {
        self.size().1
    }

    fn size(&self) -> (usize, usize) {
        let size = if self.err_is_terminal {
            rustix::termios::tcgetwinsize(std::io::stderr()).ok()
        } else if self.out_is_terminal {
            rustix::termios::tcgetwinsize(std::io::stdout()).ok()
        } else {
            None
        };
        match size {
            Some(size) if size.ws_col > 0 && size.ws_row > 0 => {
                (size.ws_col.into(), size.ws_row.into())
            }
            _ => (COLUMNS, ROWS),
        }
    }

    /// Lines of a result.
    pub fn data<L: Into<Line>>(&self, lines: impl IntoIterator<Item = L>) {
        self.clear_frame();
        let text = joined(lines);
        self.write_out(&text);
    }

    /// Text of a result, as it is.
    pub fn text(&self, text: &str) {
        self.write_out(text);
    }

    /// A result as one JSON document over several lines.
    pub fn json<T: Serialize + ?Sized>(&self, value: &T) {
        let text = serde_json::to_string_pretty(value).unwrap_or_default();
        self.write_out(&format!("{text}\n"));
    }

    /// A result as one JSON document on one line.
    pub fn json_line<T: Serialize + ?Sized>(&self, value: &T) {
        let text = serde_json::to_string(value).unwrap_or_default();
        self.write_out(&format!("{text}\n"));
    }

    /// Lines beside the result.
    pub fn note<L: Into<Line>>(&self, lines: impl IntoIterator<Item = L>) {
        self.clear_frame();
        let text = joined(lines);
        self.write_err(&text);
    }

    /// Lines of progress, one for each change.
    pub fn progress<L: Into<Line>>(&self, lines: impl IntoIterator<Item = L>) {
        match self.output {
            Output::Human => self.data(lines),
            Output::Json | Output::Name => self.note(lines),
        }
    }

    /// An error with its way forward.
    pub fn error(&self, error: &Error) {
        self.clear_frame();
        if self.output == Output::Json {
            let text = serde_json::to_string(&error.document()).unwrap_or_default();
            self.write_err(&format!("{text}\n"));
            return;
        }
        self.write_err(&joined(error_lines(error)));
    }

    /// Draws lines over the frame that was drawn before.
    pub fn frame(&self, lines: &[Line]) {
        let (columns, rows) = self.size();
        let room = rows.saturating_sub(1).max(1);
        let shown = lines.len().min(room);
        let mut text = String::new();
        let mut frame = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        text.push_str(&back_over(*frame));
        for line in lines.iter().take(shown) {
            // One column is left free: some terminals wrap when the last one is written.
            text.push_str(&line.cut(columns.saturating_sub(1)).styled());
            text.push_str("\u{1b}[K\n");
        }
        text.push_str("\u{1b}[J");
        *frame = shown;
        self.write_raw(&text);
    }

    /// Leaves the frame as it stands: what is printed next comes below it.
    pub fn keep_frame(&self) {
        *self.frame.lock().unwrap_or_else(PoisonError::into_inner) = 0;
    }

    /// Takes the frame away.
    pub fn clear_frame(&self) {
        let mut frame = self.frame.lock().unwrap_or_else(PoisonError::into_inner);
        if *frame > 0 {
            self.write_raw(&format!("{}\u{1b}[J", back_over(*frame)));
            *frame = 0;
        }
    }

    /// Asks, and reads one line. `instead` says what to type where nobody can be asked. The line is read
    /// on a thread of its own: while nobody answers, Ctrl-C and `--timeout` are heard.
    pub async fn ask(&self, question: &str, instead: &str) -> Result<String, Error> {
        if !self.input {
            let why = "this needs an answer, and nobody can be asked here";
            return Err(Error::usage(why).hint(instead));
        }
        self.clear_frame();
        self.write_err(&Line::of(Tone::Strong, question).and(" ").styled());
        let read = tokio::task::spawn_blocking(read_line).await;
        match read.unwrap_or_else(|error| Err(std::io::Error::other(error))) {
            Ok(None) => {
                self.write_err("\n");
                Err(declined())
            }
            Ok(Some(answer)) => Ok(answer.trim().to_owned()),
            Err(error) => Err(Error::new(Exit::Other, format!("read the answer: {error}"))),
        }
    }

    fn write_out(&self, text: &str) {
        if self.is_closed() {
            return;
        }
        let mut stream = AutoStream::new(std::io::stdout(), self.colour[0]);
        let written = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.flush());
        let Err(error) = written else { return };
        self.closed.store(true, Ordering::Relaxed);
        if error.kind() != std::io::ErrorKind::BrokenPipe {
            let mut trouble = self.trouble.lock().unwrap_or_else(PoisonError::into_inner);
            *trouble = Some(error);
        }
    }

    fn write_err(&self, text: &str) {
        let mut stream = AutoStream::new(std::io::stderr(), self.colour[1]);
        // Nobody is left to be told that standard error is gone.
        let _ = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.flush());
    }

    /// With cursor codes also where colour is off: only frames, which are drawn on terminals, have any.
    fn write_raw(&self, text: &str) {
        let text = match self.colour[1] {
            ColorChoice::Never => without_colour(text),
            _ => text.to_owned(),
        };
        let mut stream = std::io::stderr().lock();
        let _ = stream
            .write_all(text.as_bytes())
            .and_then(|()| stream.flush());
    }
}

/// One line of standard input; none at its end.
fn read_line() -> std::io::Result<Option<String>> {
    let mut line = String::new();
    let read = std::io::stdin().lock().read_line(&mut line)?;
    Ok((read > 0).then_some(line))
}

/// What a command ends with when the answer is no.
pub fn declined() -> Error {
    Error::new(Exit::Cancelled, "not confirmed; nothing was changed")
}

fn back_over(rows: usize) -> String {
    match rows {
        0 => String::new(),
        rows => format!("\r\u{1b}[{rows}A"),
    }
}

fn joined<L: Into<Line>>(lines: impl IntoIterator<Item = L>) -> String {
    let mut text = String::new();
    for line in lines {
        text.push_str(line.into().styled().trim_end_matches(' '));
        text.push('\n');
    }
    text
}

/// Takes colour codes (`ESC [ … m`) out and leaves cursor codes in.
fn without_colour(text: &str) -> String {
    let mut kept = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("\u{1b}[") {
        let (before, code) = rest.split_at(at);
        kept.push_str(before);
        let end = code
            .find(|c: char| c.is_ascii_alphabetic())
            .map_or(code.len(), |end| end + 1);
        let (code, after) = code.split_at(end);
        if !code.ends_with('m') {
            kept.push_str(code);
        }
        rest = after;
    }
    kept.push_str(rest);
    kept
}

/// `error: …`, facts, and after a blank line the way forward.
fn error_lines(error: &Error) -> Vec<Line> {
    let mut message = error.message.lines();
    let first = message.next().unwrap_or_default();
    let mut lines = vec![Line::of(Tone::Bad, "error: ").and(first)];
    lines.extend(message.map(Line::from));
    lines.extend(
        error
            .details
            .iter()
            .map(|detail| Line::from(format!("  {detail}"))),
    );
    if error.hint.is_some() || error.request.is_some() {
        lines.push(Line::new());
    }
    for (row, hint) in error.hint.iter().flat_map(|hint| hint.lines()).enumerate() {
        let head = if row == 0 { "hint: " } else { "      " };
        lines.push(Line::of(Tone::Busy, head).and(hint.trim_start()));
    }
    if let Some(request) = &error.request {
        lines.push(Line::of(Tone::Dim, format!("request: {request}")));
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::text::plain;

    #[test]
    fn an_error_ends_with_a_way_forward() {
        let mut error = Error::new(Exit::Other, "no job matches `j-12`")
            .details(vec!["3 jobs are known".into()])
            .hint("list them with `aldis list`");
        error.request = Some("8f3a".into());
        insta::assert_snapshot!(plain(&error_lines(&error)), @r"
        error: no job matches `j-12`
          3 jobs are known

        hint: list them with `aldis list`
        request: 8f3a
        ");
    }

    #[test]
    fn a_hint_of_two_lines_is_two_lines() {
        let error = Error::new(Exit::Unreachable, "gone").hint("try again\n      or elsewhere");
        insta::assert_snapshot!(plain(&error_lines(&error)), @r"
        error: gone

        hint: try again
              or elsewhere
        ");
    }

    #[test]
    fn cursor_codes_stay_where_colour_goes() {
        let line = Line::of(Tone::Bad, "b").styled();
        assert_eq!(
            without_colour(&format!("\u{1b}[2A{line}\u{1b}[K")),
            "\u{1b}[2Ab\u{1b}[K"
        );
    }
}
