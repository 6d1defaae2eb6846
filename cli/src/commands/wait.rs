//! `aldis wait`: for scripts. Ends when a job is in one of some states, or can no longer get there.

use aldis_core::view::JobView;

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{self, Named};
use crate::printer::ProgressMode;
use crate::render::text::Line;

/// The words of job states.
pub const STATES: [&str; 11] = [
    "queued",
    "running",
    "paused",
    "stopping",
    "unwinding",
    "succeeded",
    "partly-done",
    "failed",
    "undone",
    "cancelled",
    "needs-operator",
];

/// `aldis wait`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// States that are waited for; without it, the end of the job
    #[arg(long = "for", value_delimiter = ',', value_name = "STATE,…",
        value_parser = clap::builder::PossibleValuesParser::new(STATES))]
    states: Vec<String>,
}

/// Waits. With `--for`, 0 says that one of these states was reached; else the job's own code.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let job = client.job(&args.job).await?.header.id;
    // Silent, unless progress was asked for.
    let mode = match app.global.progress {
        ProgressMode::Auto => ProgressMode::Quiet,
        chosen => chosen,
    };
    let reached = |view: &JobView| args.states.iter().any(|s| s == view.header.state.word());
    let view = follow::until(app, &client, &job, mode, |view| {
        reached(view) || view.exit_code.is_some()
    })
    .await?;
    if args.states.is_empty() {
        follow::tell(app, &view, mode, Named::Not);
        return Ok(follow::exit_of(&view));
    }
    let state = view.header.state.word();
    if reached(&view) {
        app.printer
            .note([Line::from(format!("job {}: {state}", job.short()))]);
        return Ok(Exit::Ok);
    }
    let wanted = args.states.join(" or ");
    let exit = match follow::exit_of(&view) {
        Exit::Ok => Exit::Other,
        exit => exit,
    };
    let message = format!("job {} is {state}, and will not be {wanted}", job.short());
    Err(Error::new(exit, message).hint(format!("`aldis status {}` says why", job.short())))
}
