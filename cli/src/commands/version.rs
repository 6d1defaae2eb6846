//! `aldis version`: ours, and the server's where one is chosen and answers.

use std::time::Duration;

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::text::{Line, Tone};

/// A version is not worth a longer wait.
const WAIT: Duration = Duration::from_secs(3);

/// `aldis version`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only this program's
    #[arg(long)]
    client: bool,
}

/// Prints versions. That a server does not answer is said and is no error.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let ours = env!("CARGO_PKG_VERSION");
    let server = if args.client {
        None
    } else {
        Some(server(app).await)
    };
    match app.printer.output {
        Output::Json => {
            let (version, error) = match &server {
                Some(Ok(version)) => (Some(version), None),
                Some(Err(error)) => (None, Some(error.message.as_str())),
                None => (None, None),
            };
            let value =
                serde_json::json!({"client": ours, "server": version, "serverError": error});
            app.printer.json(&value);
        }
        Output::Name => app.printer.data([ours]),
        Output::Human => {
            app.printer.data([format!("aldis {ours}")]);
            match server {
                Some(Ok(version)) => app.printer.data([format!("server {version}")]),
                Some(Err(error)) => {
                    let text = format!("server not asked: {error}");
                    app.printer.note([Line::of(Tone::Dim, text)]);
                }
                None => {}
            }
        }
    }
    Ok(Exit::Ok)
}

async fn server(app: &App) -> Result<String, Error> {
    let client = app.client()?;
    match tokio::time::timeout(WAIT, client.whoami()).await {
        Ok(me) => me.map(|me| me.version),
        Err(_) => Err(Error::new(Exit::Unreachable, "no answer within 3 s")),
    }
}
