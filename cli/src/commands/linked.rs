//! `aldis undo`, `aldis retry`: a new job beside an old one, with a plan of its own.

use aldis_core::ids::TargetName;

use super::plan;
use super::submit::{self, Options};
use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::plan::refusals;
use crate::render::text::Line;

/// `aldis undo`, `aldis retry`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// Only this target; may be repeated
    #[arg(short = 't', long = "target", value_name = "REGION/CLUSTER")]
    targets: Vec<TargetName>,
    /// Only show the plan
    #[arg(long)]
    plan: bool,
    #[command(flatten)]
    options: Options,
}

/// Puts back what a job changed.
pub async fn undo(app: &App, args: &Args) -> Result<Exit, Error> {
    run(app, args, "undoes").await
}

/// Tries the targets again that a job left behind.
pub async fn retry(app: &App, args: &Args) -> Result<Exit, Error> {
    run(app, args, "retries").await
}

async fn run(app: &App, args: &Args, kind: &str) -> Result<Exit, Error> {
    let client = app.client()?;
    let job = client.job(&args.job).await?.header.id;
    let planned = client.plan_linked(&job, kind, &args.targets, |step| app.planning(&step));
    let view = planned.await;
    app.printer.clear_frame();
    let view = view?;
    if app.printer.output == Output::Human {
        let text = format!(
            "{} job {}",
            if kind == "undoes" {
                "Undoes"
            } else {
                "Retries"
            },
            job.short()
        );
        app.tell([Line::from(text)]);
    }
    if !args.plan {
        return submit::plan_to_job(app, &client, &view, &args.options).await;
    }
    plan::finish(app, &view, false);
    Ok(if refusals(&view).is_empty() {
        Exit::Ok
    } else {
        Exit::Refused
    })
}
