//! Views of a job, shown as they come: a tree redrawn in place, a line for each change, or JSON.
//!
//! One model, three renderings: the renderer takes whole views and works out what changed, so that a
//! stream that broke and was opened again shows nothing twice and leaves nothing out.

pub mod changes;

use aldis_core::ids::Timestamp;
use aldis_core::view::JobView;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use crate::printer::{Printer, ProgressMode};
use crate::render::job::{Drawing, Seen};
use crate::render::standing::named;
use crate::render::text::{Line, Tone};
use crate::render::time::{clock, rfc3339, span};
use changes::Change;

/// Shows one job.
pub struct Progress<'a> {
    printer: &'a Printer,
    mode: ProgressMode,
    zone: TimeZone,
    seen: Seen,
    /// The newest view, and when it came.
    last: Option<(JobView, Instant)>,
    /// Why there is no news, while there is none.
    trouble: Option<String>,
}

impl<'a> Progress<'a> {
    /// Nothing shown yet.
    pub fn new(printer: &'a Printer, mode: ProgressMode, zone: TimeZone) -> Self {
        Self {
            printer,
            mode,
            zone,
            seen: Seen::default(),
            last: None,
            trouble: None,
        }
    }

    /// Takes the next view.
    pub fn view(&mut self, view: JobView) {
        let before = self.last.as_ref().map(|(view, _)| view);
        self.seen.note(before, &view);
        let changes = changes::between(before, &view);
        match self.mode {
            ProgressMode::Plain | ProgressMode::Auto => {
                self.printer
                    .progress(changes.iter().flat_map(|change| self.plain(change, &view)));
            }
            ProgressMode::Json => {
                for change in &changes {
                    self.json(change, &view);
                }
            }
            ProgressMode::Tty | ProgressMode::Quiet => {}
        }
        self.last = Some((view, Instant::now()));
        self.draw();
    }

    /// Time passed; only what counts it is drawn again.
    pub fn tick(&self) {
        self.draw();
    }

    /// There is no news for now, for this reason.
    pub fn lost(&mut self, why: &str) {
        if self.trouble.is_none() {
            self.say(&format!(
                "lost the control plane ({why}); the job does not depend on being watched; trying again"
            ));
        }
        self.trouble = Some(why.to_owned());
        self.draw();
    }

    /// There is news again.
    pub fn found(&mut self) {
        if self.trouble.take().is_some() {
            self.say("in contact with the control plane again");
        }
    }

    /// Leaves what is drawn, with nothing to redraw it.
    pub fn end(&mut self) {
        if self.mode == ProgressMode::Tty {
            self.printer.clear_frame();
        }
    }

    fn say(&self, text: &str) {
        if self.mode != ProgressMode::Tty {
            self.printer.note([Line::of(Tone::Warn, "! ").and(text)]);
        }
    }

    fn draw(&self) {
        if self.mode != ProgressMode::Tty {
            return;
        }
        let rows = self.printer.rows().saturating_sub(2);
        let lines = match &self.last {
            Some((view, _)) => self.tree(view, rows, "Ctrl-C detaches"),
            None => vec![Line::of(Tone::Dim, "waiting for the control plane …")],
        };
        let trouble = self.trouble.as_ref().map(|why| {
            let text = format!("! lost the control plane ({why}); the job goes on; trying again");
            Line::of(Tone::Warn, text)
        });
        self.printer.frame(&fitted(lines, trouble, rows));
    }

    fn tree(&self, view: &JobView, rows: usize, footer: &str) -> Vec<Line> {
        let drawing = Drawing {
            view,
            seen: &self.seen,
            now: self.now(),
            rows,
            footer,
        };
        drawing.lines()
    }

    /// The server's clock, carried on by ours.
    fn now(&self) -> Timestamp {
        match &self.last {
            Some((view, came)) if view.exit_code.is_none() => view.now.plus(came.elapsed()),
            Some((view, _)) => view.now,
            None => Timestamp(0),
        }
    }

    /// The last tree, for the end of a run on a terminal.
    pub fn last_tree(&self) -> Vec<Line> {
        match (&self.last, self.mode) {
            (Some((view, _)), ProgressMode::Tty) => self.tree(view, usize::MAX, ""),
            _ => Vec::new(),
        }
    }

    fn json(&self, change: &Change, view: &JobView) {
        let mut value = serde_json::to_value(change).unwrap_or_default();
        if let Some(fields) = value.as_object_mut() {
            fields.insert("time".to_owned(), rfc3339(view.now).into());
            fields.insert("job".to_owned(), view.header.id.as_str().into());
        }
        self.printer.json_line(&value);
    }

    /// The lines of one change, the time first.
    fn plain(&self, change: &Change, view: &JobView) -> Vec<Line> {
        plain(change, view, &self.seen, &self.zone)
    }
}

/// The tree, cut where it is taller than the screen, and below it what must be seen.
fn fitted(mut lines: Vec<Line>, last: Option<Line>, rows: usize) -> Vec<Line> {
    lines.truncate(rows);
    lines.extend(last);
    lines
}

fn plain(change: &Change, view: &JobView, seen: &Seen, zone: &TimeZone) -> Vec<Line> {
    let column = column(view);
    let mut line = Line::of(Tone::Dim, clock(view.now, zone));
    let mut subject = |name: &str| {
        line.push(Tone::Plain, " ");
        line.push(Tone::Strong, name);
        line.pad(column);
    };
    match change {
        Change::Job { state, cause } => {
            subject("job");
            let tone = crate::render::job::tone(&view.header.state);
            match cause {
                // A cancel names itself.
                Some(cause) if cause.starts_with(state.as_str()) => line.push(tone, cause.as_str()),
                Some(cause) => {
                    line.push(tone, state.as_str());
                    line.push(Tone::Plain, format!("  {cause}"));
                }
                None => line.push(tone, state.as_str()),
            }
        }
        Change::Wave {
            wave,
            name,
            targets,
        } => {
            subject("job");
            let name = crate::render::job::wave_name(wave - 1, name);
            let targets = crate::render::text::count(*targets, "target", "targets");
            line.push(Tone::Plain, format!("{name} begins  {targets}"));
        }
        Change::Step {
            target,
            simulated,
            step,
            position,
            of,
            tries,
        } => {
            subject(&named(target, *simulated));
            let again = if *tries > 1 {
                format!("  try {tries}")
            } else {
                String::new()
            };
            line.push(Tone::Plain, format!("step {position}/{of} {step}{again}"));
        }
        Change::Target {
            target,
            simulated,
            state,
            detail,
            evidence,
        } => {
            subject(&named(target, *simulated));
            let tone = tone_of(state);
            let word = if tone == Tone::Bad {
                state.to_uppercase()
            } else {
                state.clone()
            };
            line.push(tone, word);
            if !detail.is_empty() {
                line.push(Tone::Plain, format!("  {detail}"));
            }
            if let Some(length) = seen.rested(target) {
                line.push(Tone::Dim, format!("  {}", span(length)));
            }
            let mut lines = vec![line];
            lines.extend(evidence.iter().take(5).map(|fact| {
                let mut line = Line::new();
                line.pad(column);
                line.push(Tone::Dim, fact.as_str());
                line
            }));
            return lines;
        }
        Change::Waiting { on, next } => {
            subject("job");
            line.push(Tone::Warn, format!("waits for {on}"));
            if let Some(next) = next {
                line.push(Tone::Dim, format!("  {next}"));
            }
        }
    }
    vec![line]
}

/// Where the text begins: after the time and the longest name.
fn column(view: &JobView) -> usize {
    let widths = view
        .targets
        .iter()
        .map(|(name, target)| named(name, target.simulated).len());
    9 + widths.max().unwrap_or(0).clamp(3, 48) + 2
}

fn tone_of(state: &str) -> Tone {
    match state {
        "failed" | "stuck" | "unknown" | "needs operator" => Tone::Bad,
        "changed" | "restored" => Tone::Good,
        "absent" | "held" | "deferred" => Tone::Warn,
        _ => Tone::Plain,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, fail, image_gone, plan, put, step, view};
    use crate::render::text;
    use aldis_core::job::{JobState, Rest, StopCause, TargetState};
    use aldis_core::outcome::StepState;

    #[test]
    fn that_there_is_no_news_stands_below_a_tree_of_any_height() {
        let tree: Vec<Line> = (0..50).map(|n| Line::from(format!("row {n}"))).collect();
        let shown = fitted(tree, Some(Line::from("lost")), 20);
        assert_eq!(shown.len(), 21);
        assert_eq!(shown.last().unwrap().plain(), "lost");
    }

    #[test]
    fn plain_lines_tell_a_run_without_a_cursor() {
        let mut plan = plan(&["eu-west/prod-1", "us-east/prod-1"]);
        let east = sample::target("us-east/prod-1");
        plan.parts.get_mut(&east).unwrap().simulated = true;
        let mut job = sample::job(plan);
        let mut views = Vec::new();
        job.header.state = JobState::Queued;
        job.header.started_at = None;
        views.push(view(&job, &[aldis_core::decide::WaitingOn::Turn], 0));
        job.header.state = JobState::Running;
        job.header.started_at = Some(sample::NOW);
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Running { segment: 0 },
        );
        step(
            &mut job,
            "eu-west/prod-1",
            "now",
            StepState::Running { tries: 1 },
        );
        views.push(view(&job, &[], 1));
        step(&mut job, "eu-west/prod-1", "now", sample::done());
        put(&mut job, "eu-west/prod-1", TargetState::Rest(Rest::Changed));
        job.header.wave = 1;
        put(
            &mut job,
            "us-east/prod-1",
            TargetState::Running { segment: 1 },
        );
        step(
            &mut job,
            "us-east/prod-1",
            "health",
            StepState::Running { tries: 2 },
        );
        views.push(view(&job, &[], 60));
        fail(
            &mut job,
            "us-east/prod-1",
            "wait_rollout",
            image_gone(),
            TargetState::Failed { segment: 1 },
        );
        let cause = StopCause::Budget {
            failed: 1,
            unknown: 0,
            budget: 0,
        };
        job.header.state = JobState::Unwinding { cause };
        views.push(view(&job, &[], 153));
        let mut lines = Vec::new();
        let mut before = None;
        let mut seen = Seen::default();
        for view in &views {
            seen.note(before, view);
            for change in changes::between(before, view) {
                lines.extend(plain(&change, view, &seen, &TimeZone::UTC));
            }
            before = Some(view);
        }
        insta::assert_snapshot!(text::plain(&lines), @r"
        09:46:40 job                         queued
        09:46:40 job                         waits for its turn: other jobs stand before it
        09:46:41 job                         running
        09:46:41 job                         wave 1 canary begins  1 target
        09:46:41 eu-west/prod-1              step 1/5 now
        09:47:40 job                         wave 2 rest begins  1 target
        09:47:40 eu-west/prod-1              changed  59s
        09:47:40 us-east/prod-1 (simulated)  step 5/5 health  try 2
        09:49:13 job                         going back  1 failed and 0 unknown, more than the 0 that `maxFailures` accepts
        09:49:13 us-east/prod-1 (simulated)  FAILED  wait_rollout: Deployment shop/checkout: 7 of 12 pods ready, not progressing for 120s (limit 120s)  1m33s
                                             pod checkout-6f9c-x2k: ImagePullBackOff checkout:v2.17.4 (not found)
                                             12:11:58 pull checkout:v2.17.4: manifest unknown
        ");
    }
}
