//! The command line of the shop.

use std::net::SocketAddr;
use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;

use crate::release::{Behaviour, Crash, Probes, Share, duration};

/// The variable that holds the database's URL: an argument would show it to every process of the node.
pub const DATABASE_URL: &str = "SHOP_DATABASE_URL";

/// A small shop whose releases misbehave on purpose
#[derive(Clone, Debug, Parser)]
#[command(name = "shop", version)]
pub struct Arguments {
    /// Address to serve on
    #[arg(long, value_name = "ADDRESS", default_value = "0.0.0.0:8080")]
    pub listen: SocketAddr,
    /// Name of this release, said in `/version`, in a header of each answer and in metrics
    #[arg(long, value_name = "TAG", default_value = "latest")]
    pub release: String,
    /// File that holds the secret of its sessions
    #[arg(long, value_name = "FILE")]
    pub session_secret: Option<PathBuf>,
    /// Read that file again when it changes; else it is read at the start only
    #[arg(long, requires = "session_secret")]
    pub reload: bool,
    /// After SIGTERM it says that it is not ready, and serves on until no customer has come for so long
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "2s")]
    pub linger: Duration,
    /// At most so long it serves on, and at most so long requests under way may take after that
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "8s")]
    pub grace: Duration,
    /// Requests of one kind (served, failed) that are logged in a second, at most
    #[arg(long, value_name = "COUNT", default_value_t = 5)]
    pub log_requests: u32,
    #[command(flatten)]
    misbehaving: Misbehaving,
}

#[derive(Clone, Debug, clap::Args)]
#[command(next_help_heading = "Misbehaving")]
struct Misbehaving {
    /// Take so much longer for each request
    #[arg(long, value_name = "TIME", value_parser = duration, default_value = "0s")]
    delay: Duration,
    /// Answer 500 to so many of a hundred requests
    #[arg(long, value_name = "PERCENT", default_value_t = 0, value_parser = clap::value_parser!(u64).range(0..=100))]
    fail_percent: u64,
    /// Fail the probes: never be ready
    #[arg(long)]
    never_ready: bool,
    /// Be ready so long, then not ready so long, and so on
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "never_ready")]
    flap: Option<Duration>,
    /// End as soon as started
    #[arg(long)]
    crash_at_start: bool,
    /// Serve so long, then end
    #[arg(long, value_name = "TIME", value_parser = duration, conflicts_with = "crash_at_start")]
    crash_after: Option<Duration>,
    /// Keep so many MiB more every second
    #[arg(long, value_name = "MIB", default_value_t = 0)]
    leak_mib: u64,
}

impl Arguments {
    /// What it shall do.
    pub fn behaviour(&self) -> Behaviour {
        let given = &self.misbehaving;
        let crash = match given.crash_after {
            Some(time) => Crash::After(time),
            None if given.crash_at_start => Crash::AtStart,
            None => Crash::Never,
        };
        let probes = match given.flap {
            Some(time) => Probes::Flapping(time),
            None if given.never_ready => Probes::Failing,
            None => Probes::Honest,
        };
        Behaviour {
            delay: given.delay,
            failing: Share::of(given.fail_percent),
            probes,
            crash,
            leak: given.leak_mib,
        }
    }
}
