//! Tasks that are to run as long as their part of the program.
//!
//! A panic in one of them would leave a process that looks alive and does half of its work: orders
//! sent and no reports written, or a leader that decides nothing and keeps its lease. So it ends the
//! process, which something restarts; everything that counts is in the store.

use std::future::Future;
use std::panic::AssertUnwindSafe;

use futures::FutureExt;
use tokio::task::JoinHandle;
use tracing::error;

/// Starts a task that ends by itself.
pub fn spawn<F>(what: &'static str, work: F) -> JoinHandle<()>
where
    F: Future<Output = ()> + Send + 'static,
{
    tokio::spawn(or_end_the_process(what, work))
}

/// A task that ends with its owner.
#[derive(Debug)]
pub struct Lasting(JoinHandle<()>);

impl Lasting {
    /// Starts it; `what` names it should it panic.
    pub fn start<F>(what: &'static str, work: F) -> Self
    where
        F: Future<Output = ()> + Send + 'static,
    {
        Self(spawn(what, work))
    }
}

impl Drop for Lasting {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn or_end_the_process(what: &'static str, work: impl Future<Output = ()>) {
    if AssertUnwindSafe(work).catch_unwind().await.is_err() {
        error!(task = what, "a task panicked: the process ends");
        std::process::abort();
    }
}
