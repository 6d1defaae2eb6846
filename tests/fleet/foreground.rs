//! A fleet under this process, until somebody tells it to end.

use std::path::Path;

use aldis_tests::fleet::application::Application;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::running::Running;
use aldis_tests::fleet::{Fleet, environment};
use anyhow::Context;
use futures::future::try_join_all;
use tokio::signal::unix::{SignalKind, signal};

use crate::size::Size;
use crate::{callers, checkout};

/// Name of this process in the fleet's folder.
pub(crate) const NAME: &str = "fleet";

/// Runs it. The environment file is written when all of it is up: whoever waits, waits for that.
pub(crate) async fn run(folder: &Path, size: &Size) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate()).context("listen for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("listen for SIGINT")?;
    let folder = Folder::open(folder)?;
    let me = Running::me().context("read about this process")?;
    folder.note_process(NAME, me.pid());
    let ended = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let result = tokio::select! {
        result = up_and_stay(folder.clone(), size) => result,
        () = ended => Ok(()),
    };
    folder.forget_process(NAME);
    result
}

/// Comes back only with an error: the fleet ends when this is dropped.
async fn up_and_stay(folder: Folder, size: &Size) -> anyhow::Result<()> {
    let fleet = Fleet::start_in(folder, size.options(|what| println!("{what}"))).await?;
    if size.has_shop() {
        let shop = checkout::application(&[checkout::EARLIER, checkout::GOOD]);
        let clusters = fleet.clusters().iter();
        try_join_all(clusters.map(|cluster| open_shop(&fleet, cluster, &shop))).await?;
    }
    environment::write(&fleet)?;
    std::future::pending().await
}

async fn open_shop(fleet: &Fleet, cluster: &Cluster, shop: &Application) -> anyhow::Result<()> {
    checkout::release_on(fleet, cluster, shop).await?;
    println!("{}", callers::first_served(cluster, shop).await?);
    Ok(())
}
