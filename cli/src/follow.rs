//! Follows a job to its end, over as many connections as that takes.
//!
//! A job does not need us: whatever happens here, it goes on. So a stream that breaks is opened again
//! with growing waits, and the operator is told that there is no news, not that something failed.

use std::time::Duration;

use aldis_core::ids::JobId;
use aldis_core::view::JobView;
use tokio::time::Instant;

use crate::app::{App, Stage};
use crate::backoff::Backoff;
use crate::client::{Broken, Client};
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::{Output, ProgressMode};
use crate::progress::Progress;
use crate::render::text::Line;
use crate::render::{time, verdict};

/// How often what counts time is drawn again.
const TICK: Duration = Duration::from_millis(500);

/// Follows until `enough`, showing progress. The last view is returned.
pub async fn until(
    app: &App,
    client: &Client,
    job: &JobId,
    mode: ProgressMode,
    enough: impl Fn(&JobView) -> bool,
) -> Result<JobView, Error> {
    app.reach(Stage::Following(job.clone()));
    let mut progress = Progress::new(&app.printer, mode, app.zone());
    let mut backoff = Backoff::default();
    loop {
        let (reached, contact) = one_stream(client, job, &mut progress, &enough).await;
        let broken = match reached {
            Ok(view) => {
                progress.end();
                let mut tree = progress.last_tree();
                if !tree.is_empty() {
                    tree.push(Line::new());
                }
                app.printer.note(tree);
                return Ok(view);
            }
            Err(broken) => broken,
        };
        if contact {
            backoff.contact();
        }
        let wait = backoff.after(&broken, Instant::now()).map_err(|error| {
            progress.end();
            gave_up(error, job)
        })?;
        progress.lost(&broken.error.message);
        rest(wait, &progress).await;
        client.move_on();
    }
}

/// Reads one stream. Says besides whether anything came.
async fn one_stream(
    client: &Client,
    job: &JobId,
    progress: &mut Progress<'_>,
    enough: &impl Fn(&JobView) -> bool,
) -> (Result<JobView, Broken>, bool) {
    let mut contact = false;
    let mut stream = match client.watch(job).await {
        Ok(stream) => stream,
        Err(broken) => return (Err(broken), contact),
    };
    let mut tick = tokio::time::interval(TICK);
    loop {
        tokio::select! {
            next = stream.next() => match next {
                Ok(Some(view)) => {
                    contact = true;
                    progress.found();
                    progress.view(view.clone());
                    if enough(&view) {
                        return (Ok(view), contact);
                    }
                }
                Ok(None) => {
                    let error = Error::new(Exit::Unreachable, "the server ended the stream");
                    return (Err(Broken { error, passing: true }), contact);
                }
                Err(broken) => return (Err(broken), contact),
            },
            _ = tick.tick() => progress.tick(),
        }
    }
}

async fn rest(wait: Duration, progress: &Progress<'_>) {
    let until = Instant::now() + wait;
    while Instant::now() < until {
        tokio::time::sleep(TICK.min(until - Instant::now())).await;
        progress.tick();
    }
}

fn gave_up(mut error: Error, job: &JobId) -> Error {
    let again = format!(
        "the job does not depend on being watched; `aldis watch {}`",
        job.short()
    );
    error.hint = Some(match error.hint {
        Some(hint) => format!("{hint}\n      {again}"),
        None => again,
    });
    error
}

/// Whether the job's name stands on standard output already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Named {
    /// It does.
    Already,
    /// It does not.
    Not,
}

/// Follows to the end, tells the verdict, and says what to exit with.
pub async fn to_the_end(
    app: &App,
    client: &Client,
    job: &JobId,
    named: Named,
) -> Result<Exit, Error> {
    let mode = app.progress_mode();
    let view = until(app, client, job, mode, |view| view.exit_code.is_some()).await?;
    tell(app, &view, mode, named);
    Ok(exit_of(&view))
}

/// The verdict, in the form that was asked for.
pub fn tell(app: &App, view: &JobView, mode: ProgressMode, named: Named) {
    if mode == ProgressMode::Json {
        app.printer.json_line(&serde_json::json!({
            "type": "end",
            "time": time::rfc3339(view.now),
            "job": view.header.id,
            "state": view.header.state.word(),
            "exit": view.exit_code,
        }));
        return;
    }
    match app.printer.output {
        Output::Human => app.printer.data(verdict::lines(view)),
        Output::Json => app.printer.json(view),
        Output::Name if named == Named::Already => {}
        Output::Name => app.printer.data([view.header.id.as_str()]),
    }
}

/// What the view says to exit with.
pub fn exit_of(view: &JobView) -> Exit {
    view.exit_code
        .and_then(Exit::from_code)
        .unwrap_or(Exit::Other)
}
