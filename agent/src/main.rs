//! `aldis-agent`: acts on one cluster for the control plane that it dials.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::process::ExitCode;

use aldis_agent::actions::cluster::rights::Choice;
use aldis_agent::policy::Policy;
use aldis_agent::rights::{self, Subject, Wish};
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
    /// Prints the roles that a policy needs, for `kubectl apply -f -`. Needs no configuration.
    Rights(RightsArguments),
}

#[derive(clap::Args)]
struct RightsArguments {
    /// The local policy (YAML).
    #[arg(long, value_name = "FILE")]
    policy: PathBuf,
    /// Binds them to the service account of an agent in its cluster.
    #[arg(long, value_name = "NAMESPACE/NAME", conflicts_with = "user")]
    service_account: Option<String>,
    /// Binds them to the user of an agent beside its cluster.
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
    /// What the roles are called.
    #[arg(long, value_name = "NAME", default_value = "aldis-agent", value_parser = role_name)]
    name: String,
    /// Where the policy has a pattern of namespaces: binds them in every namespace, also those it does not mean.
    #[arg(long)]
    every_namespace: bool,
    /// Adds rights to read who would put a change back.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = added)]
    with: Vec<Choice>,
    /// Leaves out rights that plans can do without.
    #[arg(long, value_name = "WHAT", value_delimiter = ',', value_parser = left_out)]
    without: Vec<Choice>,
}

fn role_name(text: &str) -> Result<String, String> {
    let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.:".contains(c);
    (!text.is_empty() && text.chars().all(known))
        .then(|| text.to_owned())
        .ok_or_else(|| "it is lower-case letters, digits, hyphens, dots and colons".to_owned())
}

fn added(text: &str) -> Result<Choice, String> {
    [Choice::ArgoCd, Choice::Flux]
        .into_iter()
        .find(|choice| choice.name() == text)
        .ok_or_else(|| "it can be `argo-cd` or `flux`".to_owned())
}

fn left_out(text: &str) -> Result<Choice, String> {
    (text == Choice::Secrets.name())
        .then_some(Choice::Secrets)
        .ok_or_else(|| "it can be `secrets`".to_owned())
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
    let only_checks = match arguments.command {
        Some(Command::Rights(wished)) => return print_rights(wished),
        Some(Command::CheckConfig) => true,
        None => false,
    };
    let file = arguments
        .config
        .context("no configuration: give `--config FILE`")?;
    let config = config::load(&file)?;
    if only_checks {
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

fn print_rights(wished: RightsArguments) -> anyhow::Result<()> {
    use std::io::Write;
    let policy = Policy::load(&wished.policy)?;
    let account = wished.service_account.as_deref().map(Subject::account);
    let subject = account.transpose().context("--service-account")?;
    let wish = Wish {
        name: Some(wished.name),
        subject: subject.or(wished.user.map(Subject::User)),
        every_namespace: wished.every_namespace,
        with: wished.with.into_iter().collect(),
        without: wished.without.into_iter().collect(),
    };
    std::io::stdout()
        .write_all(rights::render(&policy, &wish).as_bytes())
        .context("write to standard output")
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
