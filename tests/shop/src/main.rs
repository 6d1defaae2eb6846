//! The program of the shop.

use std::process::ExitCode;

use aldis_shop::arguments::Arguments;
use clap::Parser;

fn main() -> ExitCode {
    aldis_shop::run::run(Arguments::parse())
}
