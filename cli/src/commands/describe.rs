//! `aldis describe`: everything that is known of a job.

use aldis_core::job::{Link, Verdict};
use aldis_core::view::{JobView, PlanView};
use jiff::tz::TimeZone;

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::job::state_words;
use crate::render::standing::{self, name_in};
use crate::render::text::{Line, Tone};
use crate::render::time::{full, span};
use crate::render::verdict;

/// `aldis describe`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
}

/// Shows it, with what its plan says of it.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = client.job(&args.job).await?;
    // A plan leaves with its job; one that cannot be read hides nothing else.
    let plan = client.stored_plan(view.header.plan.as_str()).await;
    match app.printer.output {
        Output::Json => app
            .printer
            .json(&serde_json::json!({"job": view, "plan": plan.ok()})),
        Output::Name => app.printer.data([view.header.id.as_str()]),
        Output::Human => app
            .printer
            .data(lines(&view, plan.as_ref().ok(), &app.zone())),
    }
    Ok(Exit::Ok)
}

fn lines(view: &JobView, plan: Option<&PlanView>, zone: &TimeZone) -> Vec<Line> {
    let mut lines = facts(view, plan, zone);
    lines.push(Line::new());
    for (index, wave) in view.waves.iter().enumerate() {
        let name = crate::render::job::wave_name(index, &wave.name);
        lines.push(Line::of(Tone::Strong, name));
        for name in &wave.targets {
            lines.extend(target(view, name));
        }
    }
    lines.push(Line::new());
    if view.exit_code.is_some() {
        lines.extend(verdict::lines(view));
    } else {
        lines.extend(verdict::so_far(view));
    }
    lines
}

fn facts(view: &JobView, plan: Option<&PlanView>, zone: &TimeZone) -> Vec<Line> {
    let header = &view.header;
    let mut facts: Vec<(&str, String)> = vec![
        ("job", header.id.to_string()),
        ("state", state_words(&header.state).to_owned()),
        (
            "runbook",
            format!("{}  sha256 {}", header.runbook, header.runbook.digest),
        ),
        ("plan", header.plan.to_string()),
        ("digest", header.digest.to_string()),
        ("by", header.submitted_by.clone()),
    ];
    if let Some(reason) = &header.reason {
        facts.push(("reason", reason.clone()));
    }
    match &header.link {
        Some(Link::Undoes { job }) => facts.push(("undoes", job.to_string())),
        Some(Link::Retries { job }) => facts.push(("retries", job.to_string())),
        None => {}
    }
    facts.push(("submitted", full(header.submitted_at, zone)));
    if let Some(at) = header.started_at {
        facts.push(("started", full(at, zone)));
    }
    if let Some(at) = header.ended_at {
        let from = header.started_at.unwrap_or(header.submitted_at);
        facts.push((
            "ended",
            format!("{}  after {}", full(at, zone), span(at.since(from))),
        ));
    }
    facts.push(("budget", format!("{} failures accepted", view.budget)));
    if header.priority != 0 {
        facts.push(("priority", header.priority.to_string()));
    }
    if let Some(trace) = &header.trace {
        facts.push(("trace", trace.clone()));
    }
    if let Some(plan) = plan {
        facts.push(("params", plan.plan.scope.params.to_string()));
    }
    if header.simulated {
        facts.push(("note", "has simulated targets".to_owned()));
    }
    facts
        .into_iter()
        .map(|(name, value)| {
            let mut line = Line::of(Tone::Dim, name);
            line.pad(11);
            line.push(Tone::Plain, value);
            line
        })
        .collect()
}

fn target(view: &JobView, name: &aldis_core::ids::TargetName) -> Vec<Line> {
    use aldis_core::outcome::StepState as S;
    let Some(target) = view.targets.get(name) else {
        return Vec::new();
    };
    let at = standing::of(view, name, target);
    let mut head = Line::from("  ").with(at.tone, format!("{} ", at.glyph));
    head.push(Tone::Strong, name_in(view, name));
    head.push(Tone::Plain, "  ");
    head.append(&at.line());
    if target.attempt.0 > 0 {
        head.push(Tone::Dim, format!("  attempt {}", target.attempt));
    }
    let mut lines = vec![head];
    for (id, state) in &target.steps {
        let said = match state {
            S::NotStarted => continue,
            S::Running { tries } => format!("running, try {tries}"),
            S::Succeeded { outputs, changed } => {
                let did = if *changed { "changed" } else { "done" };
                let empty = outputs.is_null() || outputs.as_object().is_some_and(|o| o.is_empty());
                if empty {
                    did.to_owned()
                } else {
                    format!("{did}  {outputs}")
                }
            }
            S::Failed { failure, applied } => {
                let effect = if *applied { "; an effect began" } else { "" };
                format!("failed: {}{effect}", failure.cause)
            }
            S::Unknown { .. } => "unknown".to_owned(),
            S::Skipped { why } => format!("skipped: {why}"),
            S::Undone => "undone".to_owned(),
            S::Passed => "left in place: the way back goes past it".to_owned(),
            S::UndoFailed { failure } => format!("undo failed: {}", failure.cause),
            S::Abandoned { why } => format!("abandoned: {why}"),
        };
        let mut line = Line::from("      ").with(Tone::Plain, id.as_str());
        line.pad(24);
        line.push(Tone::Plain, said);
        lines.push(line);
    }
    for resolution in &target.resolutions {
        let verdict = match resolution.verdict {
            Verdict::Done => "done",
            Verdict::NotDone => "not done",
            Verdict::Abandon => "abandoned",
        };
        let mut text = format!(
            "      {} said that {} is {verdict}",
            resolution.by, resolution.step
        );
        if !resolution.reason.is_empty() {
            text.push_str(&format!(": {}", resolution.reason));
        }
        lines.push(Line::of(Tone::Warn, text));
        if let Some(truth) = &resolution.contradicted_by {
            lines.push(Line::of(
                Tone::Bad,
                format!("      but its agent says: {truth}"),
            ));
        }
    }
    lines
}
