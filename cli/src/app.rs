//! What every command works with: the printer, the chosen context, and how far it has come, so that
//! Ctrl-C and `--timeout` can say what goes on without us.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use aldis_core::ids::JobId;
use jiff::tz::TimeZone;

use crate::cli::Global;
use crate::client::{Client, PlanStep, Submission, Trace};
use crate::context::{self, Context};
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::{Printer, ProgressMode, declined};
use crate::render::standing::named;
use crate::render::text::{Line, Tone, quoted};
use crate::render::time::span;

/// How far a command has come.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Stage {
    /// Nothing was changed.
    #[default]
    Reading,
    /// A plan is on its way to become a job.
    Submitting {
        /// The command that finds out whether it did, and makes no second one.
        again: String,
    },
    /// A job is being asked for something.
    Requesting(JobId),
    /// Something that belongs to no job is being changed.
    Changing {
        /// The command that shows whether it was.
        look: String,
    },
    /// A job is followed.
    Following(JobId),
}

/// One run of a command.
pub struct App {
    /// Where all output goes.
    pub printer: Printer,
    /// Flags that hold for every command.
    pub global: Global,
    /// Names this run in the logs of servers and agents.
    pub trace: Trace,
    stage: Mutex<Stage>,
}

impl App {
    /// Gets ready.
    pub fn new(global: Global) -> Self {
        Self {
            printer: Printer::new(global.output, global.color, !global.no_input),
            global,
            trace: Trace::draw(),
            stage: Mutex::default(),
        }
    }

    /// Takes note of how far the command has come.
    pub fn reach(&self, stage: Stage) {
        *self.stage.lock().unwrap_or_else(PoisonError::into_inner) = stage;
    }

    fn stage(&self) -> Stage {
        self.stage
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone()
    }

    /// The context that `--context`, then `ALDIS_CONTEXT`, then the nearest `.aldis.yaml`, then the
    /// configuration chooses.
    pub fn context(&self) -> Result<Context, Error> {
        let path = context::path()?;
        let of_the_shell = || std::env::var("ALDIS_CONTEXT").ok();
        let wanted = self.global.context.clone().or_else(of_the_shell);
        let wanted = match wanted.filter(|name| !name.is_empty()) {
            Some(name) => Some(name),
            None => context::pinned(&std::env::current_dir().unwrap_or_default())?,
        };
        Ok(context::load(&path)?.choose(wanted.as_deref(), &path)?)
    }

    /// A client of the chosen context.
    pub fn client(&self) -> Result<Client, Error> {
        let context = self.context()?;
        if self.global.verbose {
            self.printer.note(self.about(&context));
        }
        Client::new(&context, &self.global.server, self.trace.clone())
    }

    /// Where calls go, as whom, and the name to find them by in the logs of servers and agents.
    fn about(&self, context: &Context) -> [Line; 3] {
        let given = self.global.server.iter().map(ToString::to_string);
        let own = context.server.iter().chain(&context.servers).cloned();
        let servers: Vec<String> = match self.global.server.as_slice() {
            [] => own.collect(),
            _ => given.collect(),
        };
        let auth = context.auth.as_ref();
        let identity = auth.map_or("nobody".to_owned(), |auth| auth.cert.display().to_string());
        [
            Line::of(
                Tone::Dim,
                format!("context {}: {}", context.name, servers.join(", ")),
            ),
            Line::of(Tone::Dim, format!("as {identity}")),
            Line::of(Tone::Dim, format!("trace {}", self.trace.id())),
        ]
    }

    /// The reader's time zone.
    pub fn zone(&self) -> TimeZone {
        TimeZone::system()
    }

    /// How progress is shown here and now.
    pub fn progress_mode(&self) -> ProgressMode {
        match self.global.progress {
            ProgressMode::Auto if self.printer.is_interactive() => ProgressMode::Tty,
            ProgressMode::Auto => ProgressMode::Plain,
            chosen => chosen,
        }
    }

    /// The command that makes the same submission again. The whole of it: another reason, another
    /// priority or another key would be another submission.
    pub fn again(&self, submission: &Submission) -> String {
        let mut words = vec![format!("aldis submit --plan {}", submission.plan.short())];
        if let Some(key) = &submission.key {
            words.push(format!("--idempotency-key {}", quoted(key)));
        }
        if !submission.reason.is_empty() {
            words.push(format!("--reason {}", quoted(&submission.reason)));
        }
        if submission.priority != 0 {
            words.push(format!("--priority {}", submission.priority));
        }
        if let Some(context) = &self.global.context {
            words.push(format!("--context {}", quoted(context)));
        }
        words.join(" ")
    }

    /// Lines of a result for people. Where standard output is to hold progress as JSON, and nothing
    /// else, they stand beside it.
    pub fn tell<L: Into<Line>>(&self, lines: impl IntoIterator<Item = L>) {
        if self.progress_mode() == ProgressMode::Json {
            self.printer.note(lines);
        } else {
            self.printer.data(lines);
        }
    }

    /// Shows how far planning has come.
    pub fn planning(&self, step: &PlanStep) {
        match self.progress_mode() {
            ProgressMode::Tty => {
                let text = format!("planning  {}/{}", step.done, step.total);
                let who = named(&step.target, step.simulated);
                let line = Line::of(Tone::Busy, text).and(format!("  {who} {}", step.state));
                self.printer.frame(&[line]);
            }
            ProgressMode::Json => self.printer.json_line(&serde_json::json!({
                "type": "planning",
                "target": step.target,
                "simulated": step.simulated,
                "state": step.state,
                "done": step.done,
                "total": step.total,
            })),
            ProgressMode::Auto | ProgressMode::Plain | ProgressMode::Quiet => {}
        }
    }

    /// Asks before a cluster is changed. A protected context wants its name typed; `--yes` stands for
    /// that only together with `--context`, which is the name typed as well.
    pub async fn confirm(&self, question: &str) -> Result<(), Error> {
        let context = self.context()?;
        if context.protected {
            return self.confirm_by_name(&context.name, question).await;
        }
        if self.global.yes {
            return Ok(());
        }
        let instead = "add `--yes` to go on without being asked";
        let question = format!("{question} [y/N]");
        let answer = self.printer.ask(&question, instead).await?;
        match answer.to_lowercase().as_str() {
            "y" | "yes" => Ok(()),
            _ => Err(declined()),
        }
    }

    /// Asks where the context is protected, and nowhere else: for what must not wait, or is taken back
    /// as easily as it is done.
    pub async fn confirm_if_protected(&self, question: &str) -> Result<(), Error> {
        let context = self.context()?;
        if context.protected {
            return self.confirm_by_name(&context.name, question).await;
        }
        Ok(())
    }

    /// The name is shown also where nobody is asked: what is changed, and where, belongs together.
    async fn confirm_by_name(&self, name: &str, question: &str) -> Result<(), Error> {
        let line = Line::from("context ")
            .with(Tone::Strong, name)
            .and(" is protected");
        self.printer.note([line]);
        if self.global.yes && self.global.context.as_deref() == Some(name) {
            return Ok(());
        }
        let question = format!("{question} Type the name of the context to go on:");
        let instead = format!("add `--yes --context {name}` to go on without being asked");
        match self.printer.ask(&question, &instead).await? == name {
            true => Ok(()),
            false => Err(declined()),
        }
    }

    /// What Ctrl-C means here.
    pub fn interrupted(&self) -> Exit {
        self.printer.keep_frame();
        let lines = match self.stage() {
            Stage::Reading => vec![Line::from("interrupted; nothing was changed")],
            Stage::Submitting { again } => submitting(&again),
            Stage::Requesting(job) => sent(&status_of(&job)),
            Stage::Changing { look } => sent(&look),
            Stage::Following(job) => detached("detached", &job),
        };
        self.printer.note(lines);
        Exit::Detached
    }

    /// What a passed `--timeout` means here.
    pub fn timed_out(&self, after: Duration) -> Exit {
        self.printer.keep_frame();
        let passed = format!("{} passed (--timeout)", span(after));
        let lines = match self.stage() {
            Stage::Reading => vec![Line::from(format!("{passed}; nothing was changed"))],
            Stage::Submitting { again } => submitting(&again),
            Stage::Requesting(job) => sent(&status_of(&job)),
            Stage::Changing { look } => sent(&look),
            Stage::Following(job) => detached(&passed, &job),
        };
        self.printer.note(lines);
        Exit::TimedOut
    }
}

fn submitting(again: &str) -> Vec<Line> {
    vec![
        Line::of(
            Tone::Warn,
            "left while the plan was being submitted: the job may have begun",
        ),
        Line::from("  see         aldis list"),
        Line::from(format!(
            "  find out    {again}   (the same submission is one job, however often it is made)"
        )),
    ]
}

fn status_of(job: &JobId) -> String {
    format!("aldis status {}", job.short())
}

fn sent(look: &str) -> Vec<Line> {
    vec![
        Line::of(
            Tone::Warn,
            "left while the request was on its way: it may have been received",
        ),
        Line::from(format!("  see  {look}")),
    ]
}

fn detached(why: &str, job: &JobId) -> Vec<Line> {
    let job = job.short();
    vec![
        Line::of(Tone::Strong, format!("{why}: job {job} goes on")),
        Line::from(format!("  follow  aldis watch {job}")),
        Line::from(format!(
            "  stop    aldis cancel {job}          (with --undo: put back what was changed)"
        )),
    ]
}
