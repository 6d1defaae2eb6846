//! One file for each command.

pub mod agents;
pub mod context;
pub mod describe;
pub mod dev;
pub mod jobs;
pub mod linked;
pub mod list;
pub mod logs;
pub mod plan;
pub mod resolve;
pub mod runbook;
pub mod status;
pub mod submit;
pub mod version;
pub mod wait;
pub mod watch;
pub mod whoami;

use crate::app::App;
use crate::cli::Command;
use crate::error::Error;
use crate::exit::Exit;

/// Runs one command.
pub async fn run(app: &App, command: Command) -> Result<Exit, Error> {
    match command {
        Command::Plan(args) => plan::run(app, &args).await,
        Command::Submit(args) => submit::run(app, &args).await,
        Command::Watch(args) => watch::run(app, &args).await,
        Command::Status(args) => status::run(app, &args).await,
        Command::Wait(args) => wait::run(app, &args).await,
        Command::List(args) => list::run(app, &args).await,
        Command::Describe(args) => describe::run(app, &args).await,
        Command::Cancel(args) => jobs::cancel(app, &args).await,
        Command::Pause(args) => jobs::pause(app, &args).await,
        Command::Resume(args) => jobs::resume(app, &args).await,
        Command::Logs(args) => logs::run(app, &args).await,
        Command::Undo(args) => linked::undo(app, &args).await,
        Command::Retry(args) => linked::retry(app, &args).await,
        Command::Resolve(args) => resolve::run(app, &args).await,
        Command::Agents(args) => agents::run(app, &args).await,
        Command::Runbook(args) => runbook::run(app, &args).await,
        Command::Context(args) => context::run(app, &args),
        Command::Dev(args) => dev::run(app, &args).await,
        Command::Version(args) => version::run(app, &args).await,
        Command::Whoami(args) => whoami::run(app, &args).await,
    }
}
