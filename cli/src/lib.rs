//! The command line of Aldis: thin, and quick to start.
//!
//! It asks a control plane, shows what it is told, and holds no rule of its own: plans, states and exit
//! codes are computed by the core and shown here.
//!
//! | module | does |
//! |---|---|
//! | [`cli`] | names, flags, help |
//! | [`commands`] | one file for each command |
//! | [`client`], [`context`] | the way to a control plane |
//! | [`render`], [`progress`] | documents to lines, views to changes |
//! | [`dev`] | a whole system on one machine |
//! | [`printer`] | the only place that prints |
//! | [`exit`], [`error`] | how a command ends |

#![deny(missing_docs)]

pub mod app;
pub mod backoff;
pub mod cli;
pub mod client;
pub mod commands;
pub mod context;
pub mod dev;
pub mod error;
pub mod exit;
pub mod follow;
pub mod input;
pub mod printer;
pub mod progress;
pub mod render;

use std::ffi::OsString;

use clap::Parser;

use app::App;
use cli::Cli;
use exit::Exit;

/// Runs one command line.
pub fn run(args: impl IntoIterator<Item = OsString>) -> Exit {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Help and version are no errors, and go to standard output.
            let exit = if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            };
            let _ = error.print();
            return exit;
        }
    };
    let app = App::new(cli.global);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let runtime = match runtime {
        Ok(runtime) => runtime,
        Err(error) => {
            let error = error::Error::new(Exit::Other, format!("start: {error}"));
            app.printer.error(&error);
            return error.exit;
        }
    };
    let exit = written(&app, runtime.block_on(drive(&app, cli.command)));
    // A question that nobody answered may still be reading standard input.
    runtime.shutdown_background();
    exit
}

/// Runs the command until it ends, Ctrl-C is pressed, or its time is up.
async fn drive(app: &App, command: cli::Command) -> Exit {
    if matches!(command, cli::Command::Dev(_)) {
        // It ends by signals and times of its own, since it has programs to stop.
        return ended(app, commands::run(app, command).await);
    }
    let timeout = app.global.timeout;
    let deadline = async {
        match timeout {
            Some(after) => {
                tokio::time::sleep(after).await;
                after
            }
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        result = commands::run(app, command) => ended(app, result),
        Ok(()) = tokio::signal::ctrl_c() => app.interrupted(),
        after = deadline => app.timed_out(after),
    }
}

/// A result that could not be written is none, however well the rest went.
fn written(app: &App, exit: Exit) -> Exit {
    let Some(error) = app.printer.trouble() else {
        return exit;
    };
    app.printer.error(&error);
    match exit {
        Exit::Ok => error.exit,
        worse => worse,
    }
}

fn ended(app: &App, result: Result<Exit, error::Error>) -> Exit {
    result.unwrap_or_else(|error| {
        app.printer.error(&error);
        error.exit
    })
}
