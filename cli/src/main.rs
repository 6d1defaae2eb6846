//! `aldis`: operational runbooks over a fleet of Kubernetes clusters, from the command line.

fn main() -> std::process::ExitCode {
    aldis_cli::run(std::env::args_os()).into()
}
