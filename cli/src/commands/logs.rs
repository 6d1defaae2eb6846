//! `aldis logs`: what the agents wrote while they worked on a job, merged by time, the target first.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use aldis_core::ids::{TargetName, Timestamp};
use aldis_core::view::JobView;
use jiff::tz::TimeZone;
use tokio::time::Instant;

use crate::app::App;
use crate::backoff::Backoff;
use crate::client::{Broken, Client, LogEvent};
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::standing::{self, Class, name_in, named};
use crate::render::text::{Line, Tone};
use crate::render::time::{clock, rfc3339};

/// A pause after which the lines heard so far are put in order and shown.
const PAUSE: Duration = Duration::from_millis(200);

/// Lines that are put in order together. More are shown in the order they come.
const BATCH: usize = 50_000;

/// `aldis logs`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// Go on until the job ends
    #[arg(short, long)]
    follow: bool,
    /// Only this target; may be repeated
    #[arg(short = 't', long = "target", value_name = "REGION/CLUSTER")]
    targets: Vec<TargetName>,
    /// Only targets that failed or are unknown
    #[arg(long)]
    failed: bool,
    /// Only lines of this step
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// Only the last lines that are there
    #[arg(long, value_name = "NUMBER", conflicts_with = "follow")]
    tail: Option<usize>,
    /// Day and time in UTC instead of the time of day here
    #[arg(long)]
    timestamps: bool,
    /// Show a line that several targets wrote once
    #[arg(long)]
    fold_same: bool,
}

/// Shows the lines.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = client.job(&args.job).await?;
    let targets = wanted(&view, args)?;
    let mut reader = Reader {
        app,
        args,
        view: &view,
        zone: app.zone(),
        read: BTreeMap::new(),
        gaps: 0,
        unread: BTreeSet::new(),
        batch: Vec::new(),
    };
    let mut backoff = Backoff::default();
    loop {
        let before = reader.read.clone();
        let Err(broken) = reader.one_stream(&client, &targets).await else {
            break;
        };
        if reader.read != before {
            backoff.contact();
        }
        let wait = backoff.after(&broken, Instant::now())?;
        let why = format!("lost the control plane ({}); trying again", broken.error);
        app.printer.note([Line::of(Tone::Warn, "! ").and(why)]);
        tokio::time::sleep(wait).await;
        client.move_on();
    }
    reader.flush();
    // Lines that could not be read were named; silence about them would be a lie.
    Ok(if reader.gaps == 0 && reader.unread.is_empty() {
        Exit::Ok
    } else {
        Exit::Other
    })
}

fn wanted(view: &JobView, args: &Args) -> Result<Vec<TargetName>, Error> {
    for target in &args.targets {
        if !view.targets.contains_key(target) {
            let job = view.header.id.short();
            return Err(
                Error::usage(format!("{target} is not part of job {job}")).hint(format!(
                    "`aldis status {job} --targets` lists those that are"
                )),
            );
        }
    }
    if !args.failed {
        return Ok(args.targets.clone());
    }
    let failed: Vec<TargetName> = view
        .targets
        .iter()
        .filter(|(name, target)| {
            let class = standing::of(view, name, target).class;
            class <= Class::Failed || target.failure.is_some()
        })
        .map(|(name, _)| name.clone())
        .collect();
    if failed.is_empty() {
        let message = format!("no target of job {} failed", view.header.id.short());
        return Err(Error::new(Exit::Other, message));
    }
    Ok(failed)
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    target: String,
    step: String,
    at: Timestamp,
    text: String,
}

struct Reader<'a> {
    app: &'a App,
    args: &'a Args,
    view: &'a JobView,
    zone: TimeZone,
    /// Highest number read of each target, so that a stream that is opened again shows nothing twice.
    read: BTreeMap<String, u64>,
    /// Lines that are lost.
    gaps: usize,
    /// Targets that could not be read when they were last asked.
    unread: BTreeSet<String>,
    batch: Vec<Entry>,
}

impl Reader<'_> {
    /// Reads to the end of a stream, showing what came after each pause.
    async fn one_stream(&mut self, client: &Client, targets: &[TargetName]) -> Result<(), Broken> {
        let job = &self.view.header.id;
        let mut stream = client.logs(job, targets, self.args.follow).await?;
        loop {
            let next = match tokio::time::timeout(PAUSE, stream.next()).await {
                Ok(next) => next,
                Err(_) => {
                    self.pause();
                    stream.next().await
                }
            };
            match next? {
                Some(LogEvent::Line {
                    target,
                    step,
                    sequence,
                    at_ms,
                    text,
                }) => {
                    let at = Timestamp(at_ms);
                    let entry = Entry {
                        target,
                        step,
                        at,
                        text,
                    };
                    self.line(sequence, entry);
                }
                Some(LogEvent::Gap { target, reason }) => {
                    self.say(&target, &reason);
                    self.unread.insert(target);
                }
                None => return Ok(()),
            }
            if self.app.printer.is_closed() {
                return Ok(());
            }
        }
    }

    fn line(&mut self, sequence: u64, entry: Entry) {
        let last = self.read.entry(entry.target.clone()).or_default();
        if sequence > 0 && sequence <= *last {
            return;
        }
        let missing = sequence.saturating_sub(*last + 1);
        *last = sequence;
        // It can be read again; what was written meanwhile comes first, or is missing.
        self.unread.remove(&entry.target);
        if missing > 0 {
            self.gaps += 1;
            let what = format!("{missing} lines are missing before line {sequence}");
            self.say(&entry.target, &what);
        }
        if self
            .args
            .step
            .as_ref()
            .is_none_or(|step| *step == entry.step)
        {
            self.batch.push(entry);
        }
        if self.batch.len() >= BATCH && self.args.tail.is_none() {
            self.flush();
        }
        // The tail is cut as it grows, so that a long log needs little room.
        if let Some(tail) = self.args.tail
            && self.batch.len() >= BATCH.max(tail * 2)
        {
            self.keep_tail(tail);
        }
    }

    fn keep_tail(&mut self, tail: usize) {
        self.batch.sort_by_key(|entry| entry.at);
        let surplus = self.batch.len().saturating_sub(tail);
        self.batch.drain(..surplus);
    }

    fn say(&self, target: &str, reason: &str) {
        let line = Line::of(Tone::Warn, "! ").with(Tone::Strong, self.name(target));
        self.app.printer.note([line.and(format!("  {reason}"))]);
    }

    /// While following, what came is shown; else there is more to put in order.
    fn pause(&mut self) {
        if self.args.follow {
            self.flush();
        }
    }

    fn flush(&mut self) {
        if let Some(tail) = self.args.tail {
            self.keep_tail(tail);
        }
        let mut batch = std::mem::take(&mut self.batch);
        batch.sort_by_key(|entry| entry.at);
        if self.app.printer.output == Output::Json {
            for entry in &batch {
                self.app.printer.json_line(&serde_json::json!({
                    "target": entry.target,
                    "simulated": self.is_simulated(&entry.target),
                    "step": entry.step,
                    "time": rfc3339(entry.at),
                    "text": entry.text,
                }));
            }
            return;
        }
        let lines = self.lines(&batch);
        if !lines.is_empty() {
            self.app.printer.data(lines);
        }
    }

    fn lines(&self, batch: &[Entry]) -> Vec<Line> {
        let names = self
            .view
            .targets
            .keys()
            .map(|name| name_in(self.view, name).len());
        let layout = Layout {
            target: names.max().unwrap_or(0),
            step: self.steps().max().unwrap_or(0),
            zone: &self.zone,
            timestamps: self.args.timestamps,
        };
        if !self.args.fold_same {
            let line = |entry: &Entry| layout.line(&self.name(&entry.target), entry);
            return batch.iter().map(line).collect();
        }
        folded(batch)
            .into_iter()
            .map(|(entry, targets)| match targets {
                1 => layout.line(&self.name(&entry.target), entry),
                many => layout.line(&format!("[{many} targets]"), entry),
            })
            .collect()
    }

    fn steps(&self) -> impl Iterator<Item = usize> {
        let all = self.view.targets.values().flat_map(|target| &target.steps);
        all.map(|(id, _)| id.as_str().len())
    }

    fn is_simulated(&self, target: &str) -> bool {
        let name: Option<TargetName> = target.parse().ok();
        name.and_then(|name| self.view.targets.get(&name))
            .is_some_and(|target| target.simulated)
    }

    fn name(&self, target: &str) -> String {
        named(&target, self.is_simulated(target))
    }
}

/// Where the columns are.
struct Layout<'a> {
    target: usize,
    step: usize,
    zone: &'a TimeZone,
    timestamps: bool,
}

impl Layout<'_> {
    fn line(&self, who: &str, entry: &Entry) -> Line {
        let mut line = Line::of(Tone::Busy, who);
        line.pad(self.target + 1);
        line.push(Tone::Dim, entry.step.as_str());
        line.pad(self.target + 1 + self.step + 1);
        let at = if self.timestamps {
            rfc3339(entry.at)
        } else {
            clock(entry.at, self.zone)
        };
        line.push(Tone::Dim, at);
        line.push(Tone::Plain, format!(" {}", entry.text));
        line
    }
}

/// Equal lines of several targets once, where the first of them stands.
fn folded(batch: &[Entry]) -> Vec<(&Entry, usize)> {
    let mut folded: Vec<(&Entry, Vec<&str>)> = Vec::new();
    let mut places: BTreeMap<(&str, &str), usize> = BTreeMap::new();
    for entry in batch {
        let key = (entry.step.as_str(), entry.text.as_str());
        match places.get(&key) {
            // The same target again is another line, not the same one.
            Some(place) if !folded[*place].1.contains(&entry.target.as_str()) => {
                folded[*place].1.push(&entry.target);
            }
            _ => {
                places.insert(key, folded.len());
                folded.push((entry, vec![&entry.target]));
            }
        }
    }
    folded
        .into_iter()
        .map(|(entry, targets)| (entry, targets.len()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(target: &str, at: u64, text: &str) -> Entry {
        Entry {
            target: target.into(),
            step: "preflight".into(),
            at: Timestamp(at),
            text: text.into(),
        }
    }

    #[test]
    fn equal_lines_of_several_targets_are_one() {
        let batch = [
            entry("a/1", 1, "registry has v2"),
            entry("b/1", 2, "registry has v2"),
            entry("a/1", 3, "ready"),
            entry("a/1", 4, "registry has v2"),
        ];
        let said: Vec<_> = folded(&batch)
            .into_iter()
            .map(|(entry, targets)| (entry.text.as_str(), targets))
            .collect();
        assert_eq!(
            said,
            [("registry has v2", 2), ("ready", 1), ("registry has v2", 1)]
        );
    }

    #[test]
    fn what_is_read_on_after_all_is_no_gap_and_a_number_that_is_left_out_is_one() {
        let app = App::new(crate::cli::Global::default());
        let job = crate::render::sample::job(crate::render::sample::plan(&["a/1"]));
        let view = crate::render::sample::view(&job, &[], 0);
        let args = Args {
            job: "j".into(),
            follow: true,
            targets: vec![],
            failed: false,
            step: None,
            tail: None,
            timestamps: false,
            fold_same: false,
        };
        let mut reader = Reader {
            app: &app,
            args: &args,
            view: &view,
            zone: TimeZone::UTC,
            read: BTreeMap::new(),
            gaps: 0,
            unread: BTreeSet::from(["a/1".to_owned()]),
            batch: Vec::new(),
        };
        reader.line(1, entry("a/1", 1, "one"));
        assert_eq!((reader.gaps, reader.unread.len()), (0, 0));
        reader.line(3, entry("a/1", 2, "three"));
        assert_eq!(reader.gaps, 1);
    }

    #[test]
    fn columns_line_up() {
        let layout = Layout {
            target: 14,
            step: 12,
            zone: &TimeZone::UTC,
            timestamps: false,
        };
        let line = layout.line(
            "eu-west/prod-1",
            &entry("x", 1_795_600_000_000, "12/12 ready"),
        );
        assert_eq!(
            line.plain(),
            "eu-west/prod-1 preflight    09:46:40 12/12 ready"
        );
    }
}
