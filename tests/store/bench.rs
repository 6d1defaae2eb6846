//! A store to test, whichever it is.

use std::sync::Arc;

use aldis_control_plane::clock::SystemClock;
use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::{
    Commit, Event, Key, Outcome, Precondition, Revision, Store, Watch, Write,
};
use aldis_tests::etcd::Server;
use anyhow::{Context, bail};
use std::time::Duration;

/// Longest that anything awaited in a test may take: far above the slowest, a lease that ends on a
/// busy machine.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A store and what it runs on.
pub(crate) struct Bench {
    /// The store.
    pub(crate) store: Arc<dyn Store>,
    _server: Option<Server>,
}

impl Bench {
    pub(crate) fn embedded() -> anyhow::Result<Self> {
        Ok(Self {
            store: Arc::new(Embedded::in_memory(Arc::new(SystemClock))?),
            _server: None,
        })
    }

    pub(crate) async fn etcd() -> anyhow::Result<Self> {
        let server = Server::start().await?;
        Ok(Self {
            store: Arc::new(server.store().await?),
            _server: Some(server),
        })
    }

    /// Writes without preconditions and says at which revision.
    pub(crate) async fn put(&self, key: &str, value: &str) -> anyhow::Result<Revision> {
        put(&*self.store, key, value).await
    }

    /// The value at a key.
    pub(crate) async fn value(&self, key: &str) -> anyhow::Result<Option<String>> {
        let record = self.store.get(&Key::raw(key)).await?;
        Ok(record.map(|record| String::from_utf8_lossy(&record.value).into_owned()))
    }
}

/// Writes without preconditions and says at which revision.
pub(crate) async fn put(store: &dyn Store, key: &str, value: &str) -> anyhow::Result<Revision> {
    match store.commit(write(key, value)).await? {
        Outcome::Committed { revision } => Ok(revision),
        Outcome::Conflict { .. } => bail!("a conflict without preconditions"),
    }
}

/// A commit of one put.
pub(crate) fn write(key: &str, value: &str) -> Commit {
    Commit {
        preconditions: Vec::new(),
        writes: vec![Write::put(Key::raw(key), value.to_owned())],
    }
}

/// A commit that creates a key.
pub(crate) fn create(key: &str, value: &str) -> Commit {
    Commit {
        preconditions: vec![Precondition::Absent(Key::raw(key))],
        ..write(key, value)
    }
}

/// The next event, progress left out.
pub(crate) async fn next_change(watch: &mut Watch) -> anyhow::Result<Event> {
    loop {
        match next(watch).await? {
            Event::Progress { .. } => {}
            event => return Ok(event),
        }
    }
}

/// The next event.
pub(crate) async fn next(watch: &mut Watch) -> anyhow::Result<Event> {
    let event = tokio::time::timeout(PATIENCE, watch.next()).await;
    Ok(event.context("no event")?.context("the watch ended")??)
}

/// An event as text: `key=value`, `key gone`, `progress`, `reset`.
pub(crate) fn tell(event: &Event) -> String {
    match event {
        Event::Changed {
            key,
            record: Some(record),
            ..
        } => format!("{key}={}", String::from_utf8_lossy(&record.value)),
        Event::Changed { key, .. } => format!("{key} gone"),
        Event::Progress { .. } => "progress".to_owned(),
        Event::Reset { .. } => "reset".to_owned(),
    }
}
