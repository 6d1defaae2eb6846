//! `aldis whoami`: who the control plane takes us for, and which replica says so.

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::text::Line;

/// `aldis whoami`.
#[derive(Debug, clap::Args)]
pub struct Args {}

/// Asks.
pub async fn run(app: &App, _: &Args) -> Result<Exit, Error> {
    let context = app.context()?;
    let me = app.client()?.whoami().await?;
    match app.printer.output {
        Output::Json => app
            .printer
            .json(&serde_json::json!({"context": context.name, "server": me})),
        Output::Name => app.printer.data([me.identity.as_str()]),
        Output::Human => {
            let leader = if me.leader.is_empty() {
                "none known"
            } else {
                &me.leader
            };
            app.printer.data([
                Line::from(format!("{}  in context {}", me.identity, context.name)),
                Line::from(format!(
                    "replica {}  version {}  leader {leader}",
                    me.replica, me.version
                )),
            ]);
        }
    }
    Ok(Exit::Ok)
}
