//! Keeps the view's records as the store's.

use std::sync::Arc;
use std::time::Duration;

use super::{Known, Shared, watched};
use crate::store::keys::Name;
use crate::store::{Error, Event, Key, Record, Result, Revision, Store};

/// Pause before beginning again after an error that the watch itself could not mend.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// Follows for as long as the view lives.
pub(super) async fn follow(store: Arc<dyn Store>, shared: Arc<Shared>) {
    loop {
        if let Err(error) = follow_once(&*store, &shared).await {
            tracing::warn!(
                error = crate::telemetry::chain(&error),
                "the view cannot follow the store"
            );
        }
        shared.progress.send_replace(None);
        // A store that went back, or holds something unreadable: nothing known counts.
        shared.proved.send_replace(None);
        shared.reached.send_replace(None);
        tokio::time::sleep(AGAIN_AFTER).await;
    }
}

async fn follow_once(store: &dyn Store, shared: &Shared) -> Result<()> {
    let revision = store.read_revision().await?;
    let mut records = Vec::new();
    for prefix in watched() {
        records.extend(store.list(&prefix).await?.records);
    }
    // Each prefix was listed at or after `revision`; the watch tells again what came between, and
    // nobody takes the view for complete before the watch says how far it is.
    reset(shared, records, revision);
    let mut watch = store.watch(watched(), revision).await?;
    shared.progress.send_replace(Some(watch.progress()));
    watch.progress().request();
    while let Some(event) = watch.next().await {
        apply(shared, event?);
    }
    Err(Error::Refused {
        doing: "watch",
        why: "the watch ended".to_owned(),
    })
}

fn apply(shared: &Shared, event: Event) {
    match event {
        Event::Changed {
            key,
            record,
            revision,
        } => shared.change(|known| known.change(key, record, revision)),
        Event::Progress { revision } => reach(shared, revision),
        Event::Reset { records, revision } => {
            reset(shared, records, revision);
            reach(shared, revision);
        }
    }
}

fn reset(shared: &Shared, records: Vec<Record>, revision: Revision) {
    shared.change(|known| {
        known.records = records
            .into_iter()
            .map(|record| (record.key.clone(), record))
            .collect();
        known.open_jobs = known.records.keys().filter(|key| is_a_job(key)).count();
        known.revision = revision;
    });
}

fn reach(shared: &Shared, revision: Revision) {
    shared.reached.send_replace(Some(revision));
}

impl Known {
    /// Takes in a change, unless it is older than what is known of that key: the first listing may be
    /// ahead of the watch.
    fn change(&mut self, key: Key, record: Option<Record>, revision: Revision) {
        let known = self.records.get(&key).map(|known| known.modified);
        if known.is_some_and(|known| known > revision) {
            return;
        }
        self.revision = self.revision.max(revision);
        let counts = is_a_job(&key);
        let is_there = record.is_some();
        let was_there = match record {
            Some(record) => self.records.insert(key, record),
            None => self.records.remove(&key),
        }
        .is_some();
        match (counts, was_there, is_there) {
            (true, false, true) => self.open_jobs += 1,
            (true, true, false) => self.open_jobs -= 1,
            _ => {}
        }
    }
}

fn is_a_job(key: &Key) -> bool {
    matches!(key.name(), Some(Name::JobHeader { .. }))
}
