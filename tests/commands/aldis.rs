//! The command line for its tests: the library that `aldis` is, in a program that the same build makes.

fn main() -> std::process::ExitCode {
    aldis_cli::run(std::env::args_os()).into()
}
