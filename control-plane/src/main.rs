//! `aldis-control-plane`: reads its configuration and runs a replica.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::config::{self, Config, Given};
use aldis_control_plane::run::{self, Ended};
use aldis_control_plane::{leadership, telemetry};
use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

/// The control plane of Aldis
#[derive(Parser)]
#[command(version, args_conflicts_with_subcommands = true)]
struct Arguments {
    #[command(flatten)]
    config: ConfigFile,
    /// Ends when standard input does: for whoever starts it and must not leave it behind
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(clap::Args)]
struct ConfigFile {
    /// Its YAML file
    #[arg(
        long,
        env = "ALDIS_CONTROL_PLANE_CONFIG",
        default_value = "/etc/aldis/control-plane.yaml"
    )]
    config: PathBuf,
    /// Name of this replica, in place of the file's `replica`: for a file that all replicas share
    #[arg(long, value_name = "NAME", env = "ALDIS_CONTROL_PLANE_REPLICA")]
    replica: Option<String>,
    /// How other replicas reach it, in place of the file's `advertise`
    #[arg(long, value_name = "HOST:PORT", env = "ALDIS_CONTROL_PLANE_ADVERTISE")]
    advertise: Option<String>,
}

impl ConfigFile {
    fn load(self) -> Result<Config, config::Error> {
        let given = Given {
            replica: self.replica,
            advertise: self.advertise,
        };
        config::load_with(&self.config, given)
    }
}

#[derive(Subcommand)]
enum Command {
    /// Reports every mistake of a configuration and does nothing else
    CheckConfig {
        #[command(flatten)]
        config: ConfigFile,
    },
    /// Declares the store restored from a backup, so that dispatch goes on
    RaiseIncarnation {
        #[command(flatten)]
        config: ConfigFile,
        /// Why, for the record
        #[arg(long)]
        reason: String,
        /// The highest incarnation that any agent has seen, where that is known
        #[arg(long, default_value_t = 0)]
        highest_seen: u64,
    },
}

fn main() -> ExitCode {
    match begin(Arguments::parse()) {
        Ok(code) => code,
        Err(error) => {
            report(&format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: Arguments) -> anyhow::Result<ExitCode> {
    // Without it a library may pick another one by itself.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()?;
    match arguments.command {
        None => {
            let config = arguments.config.load()?;
            telemetry::start(&config.log)?;
            let ended = runtime.block_on(async {
                run::run(config, asked_to_stop(arguments.end_with_stdin)?).await
            })?;
            // Whoever supervises restarts what lost leadership, and leaves alone what was asked to end.
            Ok(match ended {
                Ended::Asked => ExitCode::SUCCESS,
                Ended::LostLeadership => ExitCode::from(3),
            })
        }
        Some(Command::CheckConfig { config }) => {
            let file = config.config.clone();
            config.load()?;
            report(&format!("{}: no mistakes", file.display()));
            Ok(ExitCode::SUCCESS)
        }
        Some(Command::RaiseIncarnation {
            config,
            reason,
            highest_seen,
        }) => {
            let config = config.load()?;
            let raised = runtime.block_on(async {
                let clock = Arc::new(SystemClock);
                let store = run::open_store(&config, clock.clone()).await?;
                leadership::raise_incarnation(&*store, &*clock, highest_seen, &reason)
                    .await
                    .context("raise the incarnation")
            })?;
            report(&format!(
                "incarnation is {raised}: dispatch goes on with the next leader\n\nhint: see `aldis agents list` for work that agents know and the store does not"
            ));
            Ok(ExitCode::SUCCESS)
        }
    }
}

fn asked_to_stop(with_input: bool) -> anyhow::Result<impl Future<Output = ()>> {
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let mut input = with_input.then(input).transpose()?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
            () = end_of(input.as_mut()) => {}
        }
    })
}

/// Standard input, which must be a pipe. Read without a thread, which could not be ended.
fn input() -> anyhow::Result<Receiver> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    Receiver::from_owned_fd(input).context("`--end-with-stdin` wants a pipe as standard input")
}

/// Returns when whoever holds the other end is gone, however they went.
async fn end_of(input: Option<&mut Receiver>) {
    let Some(input) = input else {
        return std::future::pending().await;
    };
    let mut nothing = [0; 16];
    while input.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
}

#[expect(
    clippy::print_stderr,
    reason = "the one place where this program speaks to a terminal"
)]
fn report(text: &str) {
    eprintln!("{text}");
}
