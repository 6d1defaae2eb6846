//! The services beside the clusters, each over its own doors. One set of them for all tests of this program;
//! what a test writes has a name of its own.

mod clusters;
mod databases;
mod ends;
mod fixtures;
mod objects;
mod pods;
mod scraped;
mod sessions;

use std::path::{Path, PathBuf};

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::services::{Options, Service, Services, Wanted};
use aldis_tests::pki::Authority;
use anyhow::Context;
use tokio::sync::OnceCell;

/// The first region, whose database has a replica.
const REGION: &str = "eu-west";

/// They live on a runtime of their own: each test's ends with it.
static RUNTIME: std::sync::LazyLock<tokio::runtime::Runtime> = std::sync::LazyLock::new(|| {
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()
        .expect("a runtime")
});

static SERVICES: OnceCell<Services> = OnceCell::const_new();

/// The services of all tests. Their files stay in `target/tmp/backing` until the next run.
async fn services() -> &'static Services {
    SERVICES
        .get_or_init(|| async {
            let starting = RUNTIME.spawn(async {
                let folder = Folder::make(&folder("backing"))?;
                Services::start(&folder, Options::default()).await
            });
            let started = starting.await.context("start the services");
            started
                .flatten()
                .unwrap_or_else(|error| panic!("{error:?}"))
        })
        .await
}

fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

/// Options for a set of a test's own.
fn only(services: impl IntoIterator<Item = Service>) -> Options {
    Options {
        wanted: Wanted::from_iter(services),
        regions: vec![REGION.to_owned()],
        ..Options::default()
    }
}

/// An authority that has signed nothing here.
fn another_authority(folder: &Path) -> anyhow::Result<PathBuf> {
    let file = folder.join("another.crt");
    std::fs::write(&file, Authority::new("another")?.pem())?;
    Ok(file)
}
