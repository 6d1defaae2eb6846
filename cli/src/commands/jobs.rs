//! `aldis cancel`, `pause`, `resume`: what is asked of a running job.

use aldis_core::ids::RequestId;
use aldis_core::job::{JobState, Wish};
use aldis_core::view::JobView;

use crate::app::{App, Stage};
use crate::client::Client;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{self, Named};
use crate::printer::{Output, ProgressMode};
use crate::render::job::{state_words, title};
use crate::render::text::{Line, Tone, count};
use crate::render::verdict::stands;

/// `aldis pause`, `aldis resume`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// Why; kept with the job
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
}

/// `aldis cancel`.
#[derive(Debug, clap::Args)]
pub struct CancelArgs {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// Put back what was changed
    #[arg(long)]
    undo: bool,
    /// Why; kept with the job
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true
    )]
    reason: String,
    /// Follow until every target rests; without a flag, done on a terminal
    #[arg(short, long, conflicts_with = "detach")]
    watch: bool,
    /// Do not follow
    #[arg(short, long)]
    detach: bool,
}

/// Cancels. Stopping is made to wait for an answer in protected contexts only; going back asks first.
pub async fn cancel(app: &App, args: &CancelArgs) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = client.job(&args.job).await?;
    refuse_ended(&view)?;
    if args.undo {
        app.printer.note([title(&view)]);
        let changed = changed(&view);
        app.confirm(&format!(
            "Cancel it, and put back what was changed on {changed}?"
        ))
        .await?;
    } else {
        app.confirm_if_protected(&format!("Cancel job {}?", view.header.id.short()))
            .await?;
    }
    let wish = Wish::Cancel { undo: args.undo };
    let request = ask(app, &client, &view, &args.reason, &wish).await?;
    let job = &view.header.id;
    let follows = args.watch || (!args.detach && app.printer.is_interactive());
    say(
        app,
        &view,
        "will stop at the next safe points; each target's answer comes from its agent",
        follows,
    );
    if !follows {
        return Ok(Exit::Ok);
    }
    let mode = app.progress_mode();
    // A job that rested before the request is not at its end until the request is folded in.
    let ended = |view: &JobView| {
        let heard = view.header.folded.contains(&request) || view.header.state.is_ended();
        heard && view.exit_code.is_some()
    };
    let view = follow::until(app, &client, job, mode, ended).await?;
    follow::tell(app, &view, mode, Named::Already);
    match &view.header.state {
        // What was asked for.
        JobState::Cancelled { .. } => Ok(Exit::Ok),
        JobState::Succeeded => Err(Error::new(
            Exit::Other,
            format!(
                "job {} had succeeded before the cancel reached it",
                job.short()
            ),
        )
        .hint(format!("`aldis undo {}` puts it back", job.short()))),
        _ => Ok(follow::exit_of(&view)),
    }
}

/// Pauses.
pub async fn pause(app: &App, args: &Args) -> Result<Exit, Error> {
    let next = "will rest at its next safe points; go on with `aldis resume`";
    simple(app, args, &Wish::Pause, "Pause", next).await
}

/// Resumes.
pub async fn resume(app: &App, args: &Args) -> Result<Exit, Error> {
    simple(app, args, &Wish::Resume, "Resume", "goes on").await
}

async fn simple(
    app: &App,
    args: &Args,
    wish: &Wish,
    verb: &str,
    next: &str,
) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = client.job(&args.job).await?;
    refuse_ended(&view)?;
    let job = view.header.id.short();
    app.confirm_if_protected(&format!("{verb} job {job}?"))
        .await?;
    ask(app, &client, &view, &args.reason, wish).await?;
    say(app, &view, next, false);
    Ok(Exit::Ok)
}

/// Sends a wish under an id of its own, so that a repeat after a broken connection is the same one.
pub async fn ask(
    app: &App,
    client: &Client,
    view: &JobView,
    reason: &str,
    wish: &Wish,
) -> Result<RequestId, Error> {
    let job = &view.header.id;
    app.reach(Stage::Requesting(job.clone()));
    let id = format!("r-{:032x}", rand::random::<u128>());
    let asked = client.request(job, &id, reason, wish).await;
    asked.map_err(|error| {
        let find_out = format!(
            "`aldis status {}` shows it; asking again is harmless",
            job.short()
        );
        error.of_a_change("the request was received", find_out)
    })?;
    app.reach(Stage::Following(job.clone()));
    Ok(RequestId::new(id))
}

/// Says that the job was asked. The one document of `-o json` is the job's end where that is waited for.
fn say(app: &App, view: &JobView, what: &str, follows: bool) {
    let job = &view.header.id;
    if app.progress_mode() == ProgressMode::Json {
        let line = serde_json::json!({"type": "requested", "job": job});
        return app.printer.json_line(&line);
    }
    match app.printer.output {
        Output::Json if follows => {}
        Output::Human => {
            let line = Line::of(Tone::Strong, format!("Job {}", job.short()));
            app.printer.data([
                line.and(format!(" {what}")),
                Line::from(format!("  aldis watch {}", job.short())),
            ]);
        }
        Output::Json => app
            .printer
            .json(&serde_json::json!({"job": job, "requested": true})),
        Output::Name => app.printer.data([job.as_str()]),
    }
}

/// An ended job can be asked for nothing; what can be done instead depends on how it ended.
pub fn refuse_ended(view: &JobView) -> Result<(), Error> {
    let header = &view.header;
    if !header.state.is_ended() {
        return Ok(());
    }
    let job = header.id.short();
    let message = format!("job {job} has ended: {}", state_words(&header.state));
    let error = Error::new(Exit::Refused, message);
    Err(if view.targets.values().any(stands) {
        error.hint(format!("`aldis undo {job}` puts back what it changed"))
    } else {
        error
    })
}

/// How many targets a way back would go over.
fn changed(view: &JobView) -> String {
    let may_be_changed = view.targets.values().filter(|target| {
        use aldis_core::outcome::StepState;
        target
            .steps
            .iter()
            .any(|(_, state)| StepState::may_have_effect(state))
    });
    count(may_be_changed.count(), "target", "targets")
}
