//! `aldis submit`: plan, show, ask, make a job of it, follow it.

use aldis_core::ids::JobId;
use aldis_core::view::PlanView;

use super::plan;
use crate::app::{App, Stage};
use crate::client::{Client, Submission};
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{self, Named};
use crate::input::Input;
use crate::printer::{Output, ProgressMode};
use crate::render::plan::has_changes;
use crate::render::text::{Line, Tone, count};

/// `aldis submit`.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[command(flatten)]
    input: Input,
    /// Submit this stored plan, by its id or the beginning of it
    #[arg(
        long,
        value_name = "PLAN",
        conflicts_with_all = ["runbook", "params", "files", "selector", "targets"],
        required_unless_present = "runbook"
    )]
    plan: Option<String>,
    #[command(flatten)]
    options: Options,
}

/// How a plan becomes a job.
#[derive(Clone, Debug, clap::Args)]
pub struct Options {
    /// Why; kept with the job
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    pub reason: String,
    /// Follow the job until it ends; without a flag, done on a terminal
    #[arg(short, long, conflicts_with = "detach")]
    pub watch: bool,
    /// Do not follow the job
    #[arg(short, long)]
    pub detach: bool,
    /// The same key is the same job, however often it is submitted [default: the plan's id]
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Higher goes first in the queue
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        allow_negative_numbers = true
    )]
    pub priority: i32,
}

/// Plans if need be, and submits.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = match &args.plan {
        Some(plan) => client.stored_plan(plan).await?,
        None => {
            let request = args.input.request(&client).await?;
            let view = client.plan(&request, |step| app.planning(&step)).await;
            app.printer.clear_frame();
            view?
        }
    };
    plan_to_job(app, &client, &view, &args.options).await
}

/// Shows the plan, asks, submits, and follows where that is wanted.
pub async fn plan_to_job(
    app: &App,
    client: &Client,
    view: &PlanView,
    options: &Options,
) -> Result<Exit, Error> {
    if app.printer.output == Output::Human {
        plan::show(app, view, false);
        app.tell([Line::new()]);
    }
    // Whether it is too old is the server's to judge: of a plan that became a job, it names the job.
    let refusals = view.plan.refusals();
    if !refusals.is_empty() {
        return Err(refused(view, refusals));
    }
    app.confirm(&question(view)).await?;
    let (job, existed) = submit(app, client, view, options).await?;
    let follows = options.watch || (!options.detach && app.printer.is_interactive());
    announce(app, &job, existed, follows);
    if follows {
        return follow::to_the_end(app, client, &job, Named::Already).await;
    }
    Ok(Exit::Ok)
}

fn question(view: &PlanView) -> String {
    let plan = &view.plan;
    let targets = count(plan.runs().count(), "target", "targets");
    let simulated = plan.parts.values().filter(|part| part.simulated).count();
    let practice = match simulated {
        0 => String::new(),
        all if all == plan.parts.len() => " (all simulated)".to_owned(),
        some => format!(" ({some} of {} simulated)", plan.parts.len()),
    };
    if has_changes(plan) {
        format!("Run {} on {targets}{practice}?", plan.scope.runbook)
    } else {
        format!(
            "Nothing would change. Run {} on {targets}{practice} all the same?",
            plan.scope.runbook
        )
    }
}

fn refused(view: &PlanView, mut reasons: Vec<String>) -> Error {
    // More than this is one cause many times; the plan itself shows all.
    let more = reasons.len().saturating_sub(10);
    reasons.truncate(10);
    if more > 0 {
        reasons.push(format!("and {more} more"));
    }
    let plan = view.plan.id.short();
    Error::new(
        Exit::Refused,
        format!("plan {plan} is refused; nothing was touched"),
    )
    .details(reasons)
    .hint(format!(
        "`aldis plan show {plan} --full` shows each target; leave some out with --target or -l"
    ))
}

async fn submit(
    app: &App,
    client: &Client,
    view: &PlanView,
    options: &Options,
) -> Result<(JobId, bool), Error> {
    let submission = Submission {
        plan: view.plan.id.clone(),
        digest: view.plan.digest.clone(),
        key: options.idempotency_key.clone(),
        reason: options.reason.clone(),
        priority: options.priority,
    };
    let again = app.again(&submission);
    app.reach(Stage::Submitting {
        again: again.clone(),
    });
    let submitted = client.submit(&submission).await;
    let find_out = format!("find out, without making a second job: `{again}`");
    let submitted = submitted.map_err(|error| error.of_a_change("a job was made", find_out))?;
    app.reach(Stage::Following(submitted.0.clone()));
    Ok(submitted)
}

/// Says which job it is. The one document of `-o json` is the job's end where that is waited for.
fn announce(app: &App, job: &JobId, existed: bool, follows: bool) {
    let short = job.short();
    if app.progress_mode() == ProgressMode::Json {
        app.printer
            .json_line(&serde_json::json!({"type": "submitted", "job": job, "existed": existed}));
        return;
    }
    match app.printer.output {
        Output::Human => {
            let mut line = Line::of(Tone::Strong, format!("Job {short}"));
            line.push(
                Tone::Plain,
                if existed {
                    " was submitted before; this is the same one"
                } else {
                    " is accepted"
                },
            );
            line.push(Tone::Plain, format!("   aldis watch {short}"));
            app.printer.data([line]);
        }
        Output::Json if follows => {}
        Output::Json => app
            .printer
            .json(&serde_json::json!({"job": job, "existed": existed})),
        Output::Name => app.printer.data([job.as_str()]),
    }
}
