//! `down`: stops a fleet, and whatever one that was killed has left behind. Doing it twice is harmless.

use std::path::Path;
use std::time::Duration;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::nodes::leftovers;
use aldis_tests::fleet::running::Running;
use anyhow::{Context, bail};
use rustix::process::Signal;
use tokio::time::Instant;

use crate::foreground::NAME;

/// All of a fleet is killed within a second.
const LIMIT: Duration = Duration::from_secs(30);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(50);

/// Stops the fleet in a folder. One that no fleet laid out is refused.
pub(crate) async fn down(folder: &Path) -> anyhow::Result<()> {
    Folder::find(folder)?;
    let Some(runner) = runner(folder) else {
        println!("no fleet runs in {}", folder.display());
        return sweep(folder);
    };
    let stop = |signal| {
        runner.signal(signal).with_context(|| {
            format!(
                "stop the fleet in {}\n\nhint: another user runs it, and can stop it",
                folder.display()
            )
        })
    };
    stop(Signal::TERM)?;
    if !gone(runner).await {
        // The kernel kills its programs with it.
        stop(Signal::KILL)?;
        if !gone(runner).await {
            bail!("process {runner} does not end");
        }
    }
    sweep(folder)?;
    println!(
        "the fleet is down; its logs stay in {}",
        Folder::open(folder)?.logs().display()
    );
    Ok(())
}

/// The process that runs the fleet of a folder.
pub(crate) fn runner(folder: &Path) -> Option<Running> {
    let noted = Folder::open(folder).ok()?.processes();
    let runner = noted.into_iter().find(|(name, _)| name == NAME)?.1;
    runner.is_alive().then_some(runner)
}

/// Kills what a killed fleet left, and says so.
pub(crate) fn sweep(folder: &Path) -> anyhow::Result<()> {
    let Some(open) = Folder::find(folder)? else {
        return Ok(());
    };
    for (name, process) in open.processes() {
        if process.kill_group() {
            println!("stopped {name}, which a killed fleet had left");
        }
        open.forget_process(&name);
    }
    for removed in leftovers::sweep(folder)? {
        println!("{removed}");
    }
    // A shell that reads it would believe that the fleet is up.
    let _ = std::fs::remove_file(open.path(aldis_tests::fleet::environment::FILE));
    Ok(())
}

async fn gone(process: Running) -> bool {
    let deadline = Instant::now() + LIMIT;
    while process.is_alive() {
        if Instant::now() >= deadline {
            return false;
        }
        tokio::time::sleep(LOOK).await;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis_tests::fleet::environment;

    #[tokio::test]
    async fn a_folder_that_is_no_fleets_is_refused_and_left_as_it_is() {
        let foreign = tempfile::tempdir().unwrap();
        let file = foreign.path().join(environment::FILE);
        std::fs::write(&file, "export MINE=1").unwrap();
        let refused = down(foreign.path()).await.unwrap_err().to_string();
        assert!(refused.contains("no fleet's folder"), "{refused}");
        assert_eq!(std::fs::read_to_string(&file).unwrap(), "export MINE=1");
    }

    #[tokio::test]
    async fn a_fleet_that_is_gone_is_told_so_and_its_addresses_are_forgotten() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::make(root.path()).unwrap();
        let file = folder.write(environment::FILE, "export OURS=1").unwrap();
        for _ in ["once", "twice"] {
            down(root.path()).await.unwrap();
            assert!(!file.exists());
        }
    }

    #[tokio::test]
    async fn where_there_is_nothing_there_is_nothing_to_stop() {
        let nothing = tempfile::tempdir().unwrap();
        down(&nothing.path().join("never")).await.unwrap();
        assert!(!nothing.path().join("never").exists());
    }
}
