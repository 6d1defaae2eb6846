//! A fleet under this process, until somebody tells it to end.

use std::path::Path;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::running::Running;
use aldis_tests::fleet::{Fleet, environment};
use anyhow::Context;
use tokio::signal::unix::{SignalKind, signal};

use crate::checkout;
use crate::size::Size;

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
        checkout::release(&fleet, &shop).await?;
        println!("the shop is up in every cluster: {}", checkout::GOOD);
    }
    environment::write(&fleet)?;
    std::future::pending().await
}
