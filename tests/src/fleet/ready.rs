//! Waiting until a program answers, with a deadline, and an error that shows what it last said.

use std::fmt::Display;
use std::future::Future;
use std::time::Duration;

use anyhow::bail;
use tokio::time::Instant;

use super::process::Process;

/// Between two looks.
const EVERY: Duration = Duration::from_millis(50);

/// Waits until `ready` says so. Ends early when the program ended and is not started again by itself.
pub async fn until<F, E>(
    process: &Process,
    limit: Duration,
    what: impl Display,
    mut ready: impl FnMut() -> F,
) -> anyhow::Result<()>
where
    F: Future<Output = Result<(), E>>,
    E: Display,
{
    let deadline = Instant::now() + limit;
    loop {
        // A single look may hang, on a connection that is accepted and never answered.
        let look = tokio::time::timeout(Duration::from_secs(5), ready()).await;
        let trouble = match look {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(trouble)) => trouble.to_string(),
            Err(_) => "no answer".to_owned(),
        };
        if process.is_down() {
            bail!("{what}: {} ended\n{}", process.name(), process.last_words());
        }
        if Instant::now() >= deadline {
            bail!(
                "{what}: not within {} s: {trouble}\n{}",
                limit.as_secs(),
                process.last_words()
            );
        }
        tokio::time::sleep(EVERY).await;
    }
}

/// Waits for something that is of no single program.
pub async fn eventually<F, T>(
    limit: Duration,
    what: impl Display,
    mut look: impl FnMut() -> F,
) -> anyhow::Result<T>
where
    F: Future<Output = anyhow::Result<T>>,
{
    let deadline = Instant::now() + limit;
    loop {
        match look().await {
            Ok(found) => return Ok(found),
            Err(error) if Instant::now() >= deadline => {
                return Err(error.context(format!("{what}: not within {} s", limit.as_secs())));
            }
            Err(_) => tokio::time::sleep(EVERY).await,
        }
    }
}
