//! The command line as clap reads it: one place for names, flags and help.

use std::time::Duration;

use clap::{Args, Parser, Subcommand};

use crate::commands::{
    agents, context, describe, dev, jobs, linked, list, logs, plan, resolve, runbook, status,
    submit, version, wait, watch, whoami,
};
use crate::context::Server;
use crate::exit;
use crate::printer::{Color, Output, ProgressMode};

/// Runs operational runbooks safely over a fleet of Kubernetes clusters.
#[derive(Debug, Parser)]
#[command(
    name = "aldis",
    version,
    after_help = exit::table(),
    arg_required_else_help = true,
    disable_help_subcommand = true,
    max_term_width = 100
)]
pub struct Cli {
    /// What holds for every command.
    #[command(flatten)]
    pub global: Global,
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What holds for every command.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Everywhere")]
pub struct Global {
    /// Which control plane, as whom [env: ALDIS_CONTEXT; a repository names its own in .aldis.yaml; the file is ALDIS_CONFIG]
    #[arg(short = 'c', long, global = true, value_name = "NAME")]
    pub context: Option<String>,
    /// Another address for the context's control plane, https://HOST:PORT; may be repeated
    #[arg(long, global = true, value_name = "URL")]
    pub server: Vec<Server>,
    /// Form of the result on standard output
    #[arg(
        short,
        long,
        global = true,
        value_enum,
        default_value_t,
        value_name = "FORM"
    )]
    pub output: Output,
    /// How progress is shown
    #[arg(long, global = true, value_enum, default_value_t, value_name = "HOW")]
    pub progress: ProgressMode,
    /// When colour is used [NO_COLOR turns it off as well]
    #[arg(long, global = true, value_enum, default_value_t, value_name = "WHEN")]
    pub color: Color,
    /// Go on without asking; a protected context must then be named by --context
    #[arg(short, long, global = true)]
    pub yes: bool,
    /// Never ask; fail where an answer is needed
    #[arg(long, global = true)]
    pub no_input: bool,
    /// Say which control plane is asked, as whom, and under which trace id
    #[arg(short, long, global = true)]
    pub verbose: bool,
    /// Give up after this time (90s, 5m, 2h): a job goes on, and the exit code is 7
    #[arg(long, global = true, value_parser = duration, value_name = "TIME")]
    pub timeout: Option<Duration>,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Plan a runbook on every target; changes nothing
    Plan(plan::Args),
    /// Plan, ask, make a job of it, and follow it
    Submit(submit::Args),
    /// Follow a job until it ends
    Watch(watch::Args),
    /// Show a job as it stands
    Status(status::Args),
    /// Wait until a job is in a state; for scripts
    Wait(wait::Args),
    /// List jobs, newest first
    #[command(visible_alias = "history")]
    List(list::Args),
    /// Show everything about a job
    Describe(describe::Args),
    /// Show what the agents wrote while they worked on a job
    Logs(logs::Args),
    /// Stop a job at the next safe points
    Cancel(jobs::CancelArgs),
    /// Let a job rest at the next safe points
    Pause(jobs::Args),
    /// Let a paused job go on
    Resume(jobs::Args),
    /// Put back what a job changed, by a job of its own
    Undo(linked::Args),
    /// Try the targets again that a job left behind
    Retry(linked::Args),
    /// Say what became of a step that nobody else can say it of
    Resolve(resolve::Args),
    /// The fleet
    #[command(subcommand)]
    Agents(agents::Args),
    /// Write runbooks, and see those that there are
    #[command(subcommand)]
    Runbook(runbook::Args),
    /// Which control planes there are, and which one is used
    #[command(subcommand)]
    Context(context::Args),
    /// Run a whole system on this machine, to try and to learn
    Dev(dev::Args),
    /// Print versions
    Version(version::Args),
    /// Say who the control plane takes you for
    Whoami(whoami::Args),
}

/// Reads a duration as runbooks write it.
pub fn duration(text: &str) -> Result<Duration, String> {
    aldis_core::runbook::duration::parse(text)
}

/// Reads `KEY=VALUE`.
pub fn pair(text: &str) -> Result<(String, String), String> {
    match text.split_once('=') {
        Some((key, value)) if !key.is_empty() => Ok((key.to_owned(), value.to_owned())),
        _ => Err(format!("`{text}` is not KEY=VALUE")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_definition_holds_together() {
        Cli::command().debug_assert();
    }

    #[test]
    fn help_lists_every_exit_code() {
        let help = Cli::command().render_long_help().to_string();
        for exit in exit::Exit::ALL {
            assert!(help.contains(&format!("{:>3}  {}", exit.code(), exit.meaning())));
        }
    }
}
