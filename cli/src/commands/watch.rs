//! `aldis watch`: follows a job to its end.

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::follow::{self, Named};

/// `aldis watch`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
}

/// Follows.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let job = client.job(&args.job).await?.header.id;
    follow::to_the_end(app, &client, &job, Named::Not).await
}
