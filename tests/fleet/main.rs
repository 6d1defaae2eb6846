//! `aldis-fleet`: a whole fleet on this machine, and the story that shows what Aldis is for.
//!
//! `make fleet-up`, `make fleet-down` and `make demo` call it. Nothing here is part of the product.
#![allow(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "speaks to a terminal"
)]

mod callers;
mod checkout;
mod demo;
mod down;
mod foreground;
mod size;
mod up;

use std::path::PathBuf;
use std::process::ExitCode;

use aldis_tests::fleet::services::Wanted as Services;
use clap::{Parser, Subcommand};
use tracing::Level;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;

use self::size::Size;

/// A fleet of real Kubernetes clusters on this machine, with Aldis over it
#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Starts a fleet and leaves it running
    Up {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        size: Size,
    },
    /// Stops it
    Down {
        #[command(flatten)]
        at: At,
    },
    /// Runs a fleet in a folder that `up` has laid out, until it is told to end
    #[command(hide = true)]
    Run {
        #[command(flatten)]
        at: At,
        #[command(flatten)]
        size: Size,
    },
    /// Takes a bad release out of every cluster, then stops one that cannot start
    Demo {
        /// Where the fleet of the demo keeps its files
        #[arg(long, default_value = "target/demo")]
        folder: PathBuf,
        #[command(flatten)]
        size: Size,
    },
}

#[derive(clap::Args)]
struct At {
    /// Where the fleet keeps its files
    #[arg(long, default_value = "target/fleet")]
    folder: PathBuf,
}

fn main() -> ExitCode {
    warn_on_the_terminal();
    match begin(Arguments::parse().command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// What goes wrong beside the command that was typed, such as a route that cannot be removed. Ours only: libraries warn
/// of connections to servers that are still on their way up.
fn warn_on_the_terminal() {
    let ours = Targets::new().with_target("aldis_tests", Level::WARN);
    let shown = tracing_subscriber::fmt::layer()
        .without_time()
        .with_target(false)
        .with_writer(std::io::stderr)
        .with_filter(ours);
    tracing_subscriber::registry().with(shown).init();
}

fn begin(command: Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match command {
        Command::Up { at, size } => {
            runtime.block_on(up::up(&at.folder, &size.or_with(Services::default())))
        }
        Command::Down { at } => runtime.block_on(down::down(&at.folder)),
        Command::Run { at, size } => runtime.block_on(foreground::run(&at.folder, &size)),
        // Nothing in the story asks a service, and a newcomer waits.
        Command::Demo { folder, size } => {
            runtime.block_on(demo::tell(&folder, &size.or_with(Services::none())))
        }
    }
}
