//! `aldis-agent`: acts on one cluster for the control plane that it dials.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use aldis_agent::{config, run, telemetry};
use anyhow::Context;
use clap::{Parser, Subcommand};
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

/// Acts on one Kubernetes cluster for the control plane of Aldis.
#[derive(Parser)]
#[command(version)]
struct Arguments {
    /// Configuration file (YAML).
    #[arg(long, global = true, value_name = "FILE", env = "ALDIS_AGENT_CONFIG")]
    config: Option<PathBuf>,
    /// Ends when standard input does: for whoever starts it and must not leave it behind.
    #[arg(long, hide = true)]
    end_with_stdin: bool,
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Reports every mistake in the configuration, and does nothing else.
    CheckConfig,
}

fn main() -> ExitCode {
    // Named once, so that a second provider in the tree changes nothing. Fails only where one is named already.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    match begin(Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            complain(&error);
            ExitCode::FAILURE
        }
    }
}

fn begin(arguments: Arguments) -> anyhow::Result<()> {
    let file = arguments
        .config
        .context("no configuration: give `--config FILE`")?;
    let config = config::load(&file)?;
    if let Some(Command::CheckConfig) = arguments.command {
        return Ok(());
    }
    telemetry::start(&config.log);
    // Two threads: an agent waits for others nearly all of its time, and blocking work has threads of its own.
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .context("start the runtime")?
        .block_on(async {
            let ending = CancellationToken::new();
            end_on_signals(ending.clone())?;
            if arguments.end_with_stdin {
                end_with_input(ending.clone())?;
            }
            Ok(run::run(config, ending).await?)
        })
}

fn end_on_signals(ending: CancellationToken) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        ending.cancel();
    });
    Ok(())
}

/// Ends when whoever holds the other end of standard input is gone, however they went. Read without a
/// thread, which could not be ended.
fn end_with_input(ending: CancellationToken) -> anyhow::Result<()> {
    let input = std::io::stdin().as_fd().try_clone_to_owned()?;
    let mut input = Receiver::from_owned_fd(input)
        .context("`--end-with-stdin` wants a pipe as standard input")?;
    tokio::spawn(async move {
        let mut nothing = [0; 16];
        while input.read(&mut nothing).await.is_ok_and(|read| read > 0) {}
        ending.cancel();
    });
    Ok(())
}

/// The error on standard error, where no log was started or it is filtered.
fn complain(error: &anyhow::Error) {
    use std::io::Write;
    // Nobody is left to tell when that fails.
    let _ = writeln!(std::io::stderr(), "error: {error:#}");
}
