//! `up`: starts a fleet in a process of its own, and comes back when it can be used.

use std::fs::File;
use std::path::Path;
use std::time::Duration;

use aldis_tests::fleet::environment;
use aldis_tests::fleet::folder::Folder;
use anyhow::{Context, bail};
use rustix::process::Pid;
use tokio::process::{Child, Command};
use tokio::time::Instant;

use crate::checkout;
use crate::down;
use crate::foreground::NAME;
use crate::size::Size;

/// Between two looks at what has come up.
const LOOK: Duration = Duration::from_millis(100);

/// Starts one, unless one runs in that folder.
pub(crate) async fn up(folder: &Path, size: &Size) -> anyhow::Result<()> {
    if down::runner(folder).is_some() {
        println!(
            "the fleet in {} is up already; `make fleet-down` stops it",
            folder.display()
        );
        return Ok(());
    }
    down::sweep(folder)?;
    let nodes = size.check(folder)?.nodes;
    checkout::build(nodes, |what| println!("{what}")).await?;
    let begun = Instant::now();
    println!(
        "starting {}{}: a minute on an idle machine of two cores, some minutes on a busy one",
        size.about(nodes),
        size.over_them()
    );
    let folder = Folder::make(folder)?;
    let mut child = spawn(&folder, size)?;
    // Whoever stops it at once finds it.
    let pid = child.id().and_then(|pid| Pid::from_raw(pid.cast_signed()));
    folder.note_process(NAME, pid.context("the fleet has ended already")?);
    tokio::select! {
        up = until_up(&folder, &mut child, begun) => up?,
        _ = tokio::signal::ctrl_c() => {
            down::down(folder.root()).await?;
            bail!("interrupted; what was started is stopped");
        }
    }
    println!("up after {:.0} s", begun.elapsed().as_secs_f64());
    println!(
        "\nIn your shell:   . {}",
        folder.path(environment::FILE).display()
    );
    println!("Then:            aldis agents list; kubectl config get-contexts");
    println!("To stop it:      make fleet-down");
    Ok(())
}

/// In a session of its own, so that it outlives the terminal.
fn spawn(folder: &Folder, size: &Size) -> anyhow::Result<Child> {
    let log = File::create(folder.log(NAME)).context("make the fleet's log")?;
    let me = std::env::current_exe().context("find this program")?;
    Command::new("setsid")
        .arg(me)
        .arg("run")
        .arg("--folder")
        .arg(folder.root())
        .args(size.arguments())
        .stdin(std::process::Stdio::null())
        .stdout(log.try_clone().context("share the fleet's log")?)
        .stderr(log)
        .spawn()
        .context("start the fleet\n\nhint: `setsid` is of the package util-linux")
}

/// Shows what comes up as it does, and after which time.
async fn until_up(folder: &Folder, child: &mut Child, begun: Instant) -> anyhow::Result<()> {
    let mut shown = 0;
    loop {
        let up = folder.path(environment::FILE).exists();
        let ended = child.try_wait().context("look at the fleet")?;
        let log = std::fs::read_to_string(folder.log(NAME)).unwrap_or_default();
        let lines: Vec<&str> = log.lines().collect();
        if let Some(status) = ended {
            bail!(
                "the fleet did not come up ({status})\n{}",
                with_a_way_forward(trouble(&log), &folder.logs())
            );
        }
        for line in lines.iter().skip(shown) {
            println!("{:>5.0} s  {line}", begun.elapsed().as_secs_f64());
        }
        shown = lines.len();
        if up {
            return Ok(());
        }
        tokio::time::sleep(LOOK).await;
    }
}

/// What the fleet says of its end: from the line that begins as errors do. All of it where none does.
fn trouble(log: &str) -> &str {
    let begins = if log.starts_with("error: ") {
        Some(0)
    } else {
        log.find("\nerror: ").map(|at| at + 1)
    };
    log[begins.unwrap_or(0)..].trim_end()
}

/// An error's own hint is the better one.
fn with_a_way_forward(trouble: &str, logs: &Path) -> String {
    let logs = logs.display();
    if trouble.contains("\nhint: ") {
        return format!("{trouble}\n\nlogs are in {logs}");
    }
    format!(
        "{trouble}\n\nhint: logs are in {logs}; on a busy or small machine take less: `CLUSTERS=2 WITH=none make fleet-up`"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hint_is_given_once_and_that_of_the_error_before_ours() {
        let logs = Path::new("logs");
        let theirs = with_a_way_forward("error: no port\n\nhint: `ss -ltn` shows them", logs);
        assert_eq!(theirs.matches("hint: ").count(), 1, "{theirs}");
        assert!(theirs.ends_with("logs are in logs"), "{theirs}");
        let ours = with_a_way_forward("error: not within 60 s", logs);
        assert!(ours.contains("CLUSTERS=2 WITH=none"), "{ours}");
    }

    #[test]
    fn of_a_fleet_that_ended_its_error_is_shown_whole_and_nothing_before_it() {
        let log = "cluster a is up\nerror: start cluster b: not within 60 s\nlast words\n";
        assert_eq!(
            trouble(log),
            "error: start cluster b: not within 60 s\nlast words"
        );
        assert_eq!(trouble("killed\n"), "killed");
    }
}
