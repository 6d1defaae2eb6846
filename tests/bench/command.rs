//! Start of the command line: it is typed at three in the morning, and by scripts in loops.

use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::Context;

use crate::figure::{Figure, percentile};
use crate::programs;

/// Runs of each command.
const RUNS: usize = 50;

pub(crate) fn measure() -> anyhow::Result<Vec<Figure>> {
    let aldis = programs::path("aldis")?;
    let mut ours = Vec::new();
    let mut nothing = Vec::new();
    for _ in 0..RUNS {
        nothing.push(time(Command::new("/bin/true"))?);
        let mut version = Command::new(&aldis);
        version.args(["version", "--client"]);
        ours.push(time(version)?);
    }
    Ok(vec![Figure {
        name: "start of `aldis version --client`, median".to_owned(),
        unit: "ms",
        ours: percentile(&mut ours, 0.5).as_secs_f64() * 1e3,
        beside: Some((
            "start of /bin/true".to_owned(),
            percentile(&mut nothing, 0.5).as_secs_f64() * 1e3,
        )),
        aim: "< 10 ms",
    }])
}

#[expect(
    clippy::disallowed_types,
    reason = "a child process is timed, and nothing is suspended meanwhile"
)]
fn time(mut command: Command) -> anyhow::Result<Duration> {
    let begun = std::time::Instant::now();
    let status = command
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .context("start")?;
    anyhow::ensure!(status.success(), "{command:?} failed: {status}");
    Ok(begun.elapsed())
}
