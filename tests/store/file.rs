//! What only the embedded store has: a file, and a clock that a test can move.

use std::os::unix::fs::PermissionsExt;
use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::clock::{Clock, ManualClock};
use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::{Commit, Error, Key, Store, Write};
use anyhow::{Context, ensure};

use crate::bench::{next_change, put, tell};

#[tokio::test]
async fn everything_outlives_the_process() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let clock = Arc::new(ManualClock::starting_at(0));
    let (before, lease) = {
        let store = Embedded::open(&file, clock.clone())?;
        put(&store, "/a", "1").await?;
        let lease = store.grant(Duration::from_secs(5)).await?;
        store.commit(leased(lease)).await?;
        let refused = Embedded::open(&file, clock.clone());
        ensure!(
            matches!(refused, Err(Error::Refused { .. })),
            "opened twice"
        );
        (store.list("/").await?, lease)
    };
    // The process is gone when its sweeper has noticed.
    let store = opened(&file, clock.clone()).await?;
    ensure!(store.list("/").await? == before);
    let mut watch = store
        .watch(vec!["/".to_owned()], before.records[0].modified)
        .await?;
    ensure!(
        tell(&next_change(&mut watch).await?) == "/leased=x",
        "history is kept too"
    );

    clock.advance(Duration::from_secs(4));
    ensure!(
        store.get(&Key::raw("/leased")).await?.is_some(),
        "its whole time again"
    );
    ensure!(store.keep_alive(lease).await? == Duration::from_secs(5));
    clock.advance(Duration::from_secs(4));
    ensure!(
        store.get(&Key::raw("/leased")).await?.is_some(),
        "kept alive"
    );
    clock.advance(Duration::from_secs(1));
    ensure!(store.get(&Key::raw("/leased")).await?.is_none());
    ensure!(store.keep_alive(lease).await?.is_zero());
    Ok(())
}

#[tokio::test]
async fn its_file_is_for_its_owner_only() -> anyhow::Result<()> {
    let folder = tempfile::tempdir()?;
    let file = folder.path().join("store");
    let _store = Embedded::open(&file, Arc::new(ManualClock::starting_at(0)))?;
    let mode = file.metadata()?.permissions().mode();
    ensure!(mode & 0o777 == 0o600, "its mode is {mode:o}");
    Ok(())
}

async fn opened(file: &std::path::Path, clock: Arc<dyn Clock>) -> anyhow::Result<Embedded> {
    for _ in 0..100 {
        if let Ok(store) = Embedded::open(file, clock.clone()) {
            return Ok(store);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Embedded::open(file, clock).context("open the file again")
}

fn leased(lease: aldis_control_plane::store::Lease) -> Commit {
    Commit {
        preconditions: Vec::new(),
        writes: vec![Write::Put {
            key: Key::raw("/leased"),
            value: "x".into(),
            lease: Some(lease),
        }],
    }
}
