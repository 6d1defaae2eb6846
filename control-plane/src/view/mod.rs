//! What this replica knows of the store, and how fresh that is.
//!
//! A copy in memory of the watched prefixes, record by record, without looking inside. Decisions and
//! answers read it instead of asking etcd each time, so it must say how old it may be: a replica that
//! was cut off keeps a view that looks complete and is not.
//!
//! **Freshness** is proved, never assumed: a linearizable read tells the store's revision, and once
//! the watch has reached it, the view was complete *when the read was sent*. Work is sent and permits
//! are granted only on a proof not older than [`FRESH_FOR`]; without one for [`HOPELESS_AFTER`] a
//! replica closes its agents' streams, so that they find another.

mod follow;
mod prove;

use std::collections::BTreeMap;
use std::ops::Bound;
use std::sync::{Arc, PoisonError, RwLock};
use std::time::Duration;

use tokio::sync::watch;

use crate::clock::Clock;
use crate::lasting::Lasting;
use crate::store::{Key, ProgressRequests, Record, Revision, Store, keys};

/// Longest that a proof is good for.
pub const FRESH_FOR: Duration = Duration::from_secs(2);

/// Time without a proof after which a replica closes its agents' streams.
pub const HOPELESS_AFTER: Duration = Duration::from_secs(10);

/// What is watched: the hot prefixes, and the few keys that say who decides. Nothing else, since
/// the echo of our own writes is what limits submissions.
pub fn watched() -> Vec<String> {
    [
        keys::JOBS,
        keys::FLEET,
        keys::LOCKS,
        keys::REPLICAS,
        keys::META,
    ]
    .into_iter()
    .map(str::to_owned)
    .chain([keys::leader(), keys::epoch()].map(|key| key.as_str().to_owned()))
    .collect()
}

/// The view. Clones are the same view; it ends with the last of them.
#[derive(Clone)]
pub struct View(Arc<Running>);

struct Running {
    shared: Arc<Shared>,
    _work: [Lasting; 2],
}

/// What the follower and the prover write and everybody reads.
struct Shared {
    known: RwLock<Known>,
    /// Rises with each change, so that waiting for the next one misses none.
    changed: watch::Sender<u64>,
    /// The revision that the watch has reached. `None` until everything was listed once.
    reached: watch::Sender<Option<Revision>>,
    /// When the last read that proved the view complete was sent, on the boot clock.
    proved: watch::Sender<Option<Duration>>,
    /// How to ask the open watch for progress, while there is one.
    progress: watch::Sender<Option<ProgressRequests>>,
    /// When the view was started, on the boot clock.
    started: Duration,
}

#[derive(Default)]
struct Known {
    records: BTreeMap<Key, Record>,
    /// Headers of jobs among them, counted as they come and go.
    open_jobs: usize,
    /// The highest revision among all that was told.
    revision: Revision,
}

impl View {
    /// Begins to list and follow. Empty and not fresh until that is done.
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>) -> Self {
        let shared = Arc::new(Shared {
            known: RwLock::default(),
            changed: watch::Sender::new(0),
            reached: watch::Sender::new(None),
            proved: watch::Sender::new(None),
            progress: watch::Sender::new(None),
            started: clock.boot_now(),
        });
        let follower = follow::follow(store.clone(), shared.clone());
        let prover = prove::prove(store, clock, shared.clone());
        Self(Arc::new(Running {
            shared,
            _work: [
                Lasting::start("following the store", follower),
                Lasting::start("proving the view", prover),
            ],
        }))
    }

    /// One record.
    pub fn get(&self, key: &Key) -> Option<Record> {
        self.read(|records| records.get(key).cloned())
    }

    /// All records under a prefix, in order of their keys.
    pub fn list(&self, prefix: &str) -> Vec<Record> {
        self.read(|records| under(records, prefix).cloned().collect())
    }

    /// Looks at all records at once. Nothing can change meanwhile, so be quick and do not wait.
    pub fn read<T>(&self, look: impl FnOnce(&BTreeMap<Key, Record>) -> T) -> T {
        look(&self.0.shared.known().records)
    }

    /// How many jobs have not left the hot prefix.
    pub fn open_jobs(&self) -> usize {
        self.0.shared.known().open_jobs
    }

    /// Wakes with each change. It carries no data: read afresh.
    pub fn changed(&self) -> watch::Receiver<u64> {
        self.0.shared.changed.subscribe()
    }

    /// How many changes there were: with the same number, nothing has changed.
    pub fn changes(&self) -> u64 {
        *self.0.shared.changed.borrow()
    }

    /// The revision that the view has reached; `None` until everything was listed once.
    pub fn revision(&self) -> Option<Revision> {
        *self.0.shared.reached.borrow()
    }

    /// Returns once the view has reached a revision, such as that of one's own commit.
    pub async fn reaches(&self, revision: Revision) {
        let mut reached = self.0.shared.reached.subscribe();
        if let Some(progress) = &*self.0.shared.progress.borrow() {
            progress.request();
        }
        // The sender lives as long as this view.
        let _ = reached
            .wait_for(|reached| reached.is_some_and(|reached| reached >= revision))
            .await;
    }

    /// The age of the proof that this view is complete; `None` where it is older than
    /// [`FRESH_FOR`], or where there is none: then send no work and grant no permit.
    pub fn freshness(&self, boot_now: Duration) -> Option<Duration> {
        let proved = (*self.0.shared.proved.borrow())?;
        let age = boot_now.saturating_sub(proved);
        (age <= FRESH_FOR).then_some(age)
    }

    /// How long ago the view was last proved complete; counted from the start where it never was.
    pub fn stale_for(&self, boot_now: Duration) -> Duration {
        let proved = *self.0.shared.proved.borrow();
        boot_now.saturating_sub(proved.unwrap_or(self.0.shared.started))
    }
}

/// The records under a prefix, in order of their keys.
pub fn under<'a>(
    records: &'a BTreeMap<Key, Record>,
    prefix: &'a str,
) -> impl Iterator<Item = &'a Record> {
    records
        .range::<str, (Bound<&str>, Bound<&str>)>((Bound::Included(prefix), Bound::Unbounded))
        .take_while(move |(key, _)| key.as_str().starts_with(prefix))
        .map(|(_, record)| record)
}

impl Shared {
    fn known(&self) -> std::sync::RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn change(&self, change: impl FnOnce(&mut Known)) {
        change(&mut self.known.write().unwrap_or_else(PoisonError::into_inner));
        self.changed.send_modify(|count| *count += 1);
    }
}
