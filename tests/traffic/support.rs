//! A shop that runs, and how it is asked.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use aldis_shop::release::Release;
use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::process::{Process, Program};
use aldis_tests::fleet::shop::program;
use aldis_tests::fleet::{ports, ready};
use aldis_tests::load::source::Source;
use aldis_tests::load::{Load, Options};
use aldis_tests::requests::{self, Answer};
use anyhow::{Context, ensure};
use rustix::process::Signal;
use serde_json::Value;
use tempfile::TempDir;
use tokio::sync::{OnceCell, watch};

/// Things that take a moment are waited for so long: a busy machine stands still for seconds.
pub(crate) const LIMIT: Duration = Duration::from_secs(60);

static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();

/// The static program, built once.
pub(crate) async fn program() -> &'static PathBuf {
    let built = PROGRAM.get_or_try_init(program::build).await;
    built.unwrap_or_else(|error| panic!("{error:#}"))
}

/// A running shop. Killed when dropped.
pub(crate) struct Shop {
    pub(crate) process: Process,
    pub(crate) address: SocketAddr,
    _folder: TempDir,
}

impl Shop {
    /// The shop of a tag, started as its image would start it. Not waited for.
    pub(crate) async fn begin(tag: &str, more: &[&str]) -> Self {
        Self::begin_with(tag, more, |program| program).await
    }

    /// As [`Self::begin`], with something about the program changed.
    pub(crate) async fn begin_with(
        tag: &str,
        more: &[&str],
        change: impl FnOnce(Program) -> Program,
    ) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let folder = Folder::make(directory.path()).unwrap();
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, ports::free().unwrap()));
        let shop = Program::new("shop", program().await)
            .arguments(Release::of_tag(tag).arguments())
            .arguments(["--listen".to_owned(), address.to_string()])
            .arguments(more);
        Self {
            process: Process::start(&folder, change(shop)).unwrap(),
            address,
            _folder: directory,
        }
    }

    /// One that serves.
    pub(crate) async fn start(tag: &str, more: &[&str]) -> Self {
        Self::begin(tag, more).await.serving().await
    }

    /// Waits until it serves.
    pub(crate) async fn serving(self) -> Self {
        ready::until(&self.process, LIMIT, "the shop serves", || async {
            let answer = requests::get(self.address, "/livez").await?;
            ensure!(answer.status.is_success(), "{}", answer.status);
            Ok(())
        })
        .await
        .unwrap();
        self
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        let answer = requests::get(self.address, path).await;
        answer.unwrap_or_else(|error| panic!("GET {path}: {error:#}\n{}", self.log()))
    }

    pub(crate) async fn status(&self, path: &str) -> u16 {
        self.get(path).await.status.as_u16()
    }

    pub(crate) async fn json(&self, path: &str) -> Value {
        self.get(path).await.json().unwrap()
    }

    pub(crate) fn terminate(&self) {
        self.process.signal(Signal::TERM).unwrap();
    }

    /// Waits until it has ended by itself; its exit code.
    pub(crate) async fn code(&self) -> Option<i32> {
        let ended = || async { self.process.exits().pop().context("it runs") };
        let status = ready::eventually(LIMIT, "the shop ends", ended).await;
        status
            .unwrap_or_else(|e| panic!("{e:#}\n{}", self.log()))
            .code()
    }

    pub(crate) fn log(&self) -> String {
        std::fs::read_to_string(self.process.log()).unwrap()
    }

    /// What it counted: the sum of a metric's samples whose labels say all of this.
    pub(crate) async fn counted(&self, metric: &str, labels: &[&str]) -> f64 {
        let text = self.get("/metrics").await.body;
        let samples = text.lines().filter(|line| {
            let name = line.split(['{', ' ']).next();
            name == Some(metric) && labels.iter().all(|label| line.contains(label))
        });
        samples
            .map(|line| line.rsplit(' ').next().unwrap().parse::<f64>().unwrap())
            .sum()
    }
}

/// Requests to some shops, which stand for the pods of one cluster.
pub(crate) fn load(options: Options, shops: &[&Shop]) -> (Load, watch::Sender<Vec<SocketAddr>>) {
    let addresses = shops.iter().map(|shop| shop.address).collect();
    let (sender, receiver) = watch::channel(addresses);
    let source = Source::Given(receiver);
    (
        Load::start(options, [("eu/one".to_owned(), source)]),
        sender,
    )
}
