//! What a view shows, and how fresh it says it is.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::clock::{Clock, SystemClock};
use aldis_control_plane::store::{Commit, Write, keys};
use aldis_control_plane::view::{FRESH_FOR, View};
use anyhow::{Context, ensure};

use crate::bench::{Bench, PATIENCE};

pub(crate) async fn a_view_follows_and_proves_itself(bench: &Bench) -> anyhow::Result<()> {
    let header = keys::job_header("j1");
    bench.put(header.as_str(), "queued").await?;
    let view = View::start(bench.store.clone(), Arc::new(SystemClock));
    fresh(&view).await?;
    ensure!(view.get(&header).context("listed")?.value == "queued");

    let mut changed = view.changed();
    changed.borrow_and_update();
    let target = keys::job_target("j1", "eu/one");
    bench.put(target.as_str(), "assigned").await?;
    bench
        .put(keys::job_header("j12").as_str(), "another")
        .await?;
    let delete = Commit {
        preconditions: Vec::new(),
        writes: vec![Write::delete(header.clone())],
    };
    let revision = bench.store.commit(delete).await?.revision();
    tokio::time::timeout(PATIENCE, view.reaches(revision)).await?;
    ensure!(changed.has_changed()?);
    ensure!(view.get(&header).is_none());
    let listed = view.list(&keys::job_prefix("j1"));
    ensure!(listed.len() == 1 && listed[0].key == target);
    ensure!(view.revision().context("reached")? >= revision);

    bench.put("/aldis/v1/plans/p/header", "not watched").await?;
    fresh(&view).await?;
    ensure!(view.list(keys::PLANS).is_empty());
    Ok(())
}

pub(crate) async fn a_view_survives_compaction(bench: &Bench) -> anyhow::Result<()> {
    let view = View::start(bench.store.clone(), Arc::new(SystemClock));
    fresh(&view).await?;
    let key = keys::job_header("j");
    for number in 0..50 {
        let revision = bench.put(key.as_str(), &number.to_string()).await?;
        bench.store.compact(revision).await?;
    }
    let revision = bench.store.read_revision().await?;
    tokio::time::timeout(PATIENCE, view.reaches(revision)).await?;
    ensure!(view.get(&key).context("there")?.value == "49");
    fresh(&view).await
}

/// Waits for a proof made after the call.
pub(crate) async fn fresh(view: &View) -> anyhow::Result<()> {
    let asked = SystemClock.boot_now();
    let proved = async {
        loop {
            let now = SystemClock.boot_now();
            if view.freshness(now).is_some_and(|age| now - age >= asked) {
                return age_is_sane(view, now);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, proved)
        .await
        .context("no proof")?
}

fn age_is_sane(view: &View, now: Duration) -> anyhow::Result<()> {
    ensure!(view.stale_for(now) <= FRESH_FOR);
    ensure!(
        view.freshness(now + FRESH_FOR + Duration::from_secs(1))
            .is_none()
    );
    Ok(())
}
