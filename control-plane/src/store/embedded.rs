//! The store inside the process: one redb file, or memory in tests. Default of `aldis dev`.
//!
//! It keeps the same laws as etcd, limits included, so that what works here works there. What it
//! does not do: serve two processes (redb locks the file), or notice a restored backup (a file
//! cannot be exchanged under a process that holds it open).
//!
//! ```text
//! records   key            → created, modified, lease, value      what is
//! history   revision, key  → the same, or nothing for a deletion   what happened, for watches
//! leases    lease          → ttl                                   their ends are in memory
//! counters  name           → revision, compacted, last lease
//! ```
//!
//! Lease ends are on the boot clock and die with the process, so opening a file gives each lease its
//! whole time again, as a new etcd leader does: late, never early.

use std::collections::BTreeMap;
use std::fs::OpenOptions;
use std::ops::Bound;
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redb::backends::{FileBackend, InMemoryBackend};
use redb::{
    Database, ReadTransaction, ReadableDatabase, ReadableTable, Table, TableDefinition,
    WriteTransaction,
};
use tokio::sync::{Notify, mpsc, watch};

use super::{
    Cause, Commit, Error, Event, Group, Key, Lease, Listing, Outcome, Precondition, Record, Result,
    Revision, Store, WATCH_BUFFER, Watch, Write, chunks,
};
use crate::clock::Clock;

/// Created, modified, lease (0: none), value.
type Stored = (i64, i64, i64, &'static [u8]);

const RECORDS: TableDefinition<&str, Stored> = TableDefinition::new("records");
const HISTORY: TableDefinition<(i64, &str), Option<Stored>> = TableDefinition::new("history");
const LEASES: TableDefinition<i64, u64> = TableDefinition::new("leases");
const COUNTERS: TableDefinition<&str, i64> = TableDefinition::new("counters");

const REVISION: &str = "revision";
const COMPACTED: &str = "compacted";
const LAST_LEASE: &str = "last lease";

/// How often ended leases are looked for when nobody calls: much shorter than any lease, so that
/// watchers hear of an end about when etcd would tell them (it looks every 500 ms).
const SWEEP_EVERY: Duration = Duration::from_millis(250);

/// The embedded store. Clones are the same store.
#[derive(Clone)]
pub struct Embedded(Arc<Inner>);

struct Inner {
    database: Database,
    clock: Arc<dyn Clock>,
    /// When each lease ends, on the boot clock.
    ends: Mutex<BTreeMap<Lease, Duration>>,
    /// Wakes watches; they read what happened from the history.
    revision: watch::Sender<Revision>,
    /// Whether a commit waits for a disk and so may not run on a runtime thread.
    on_disk: bool,
}

impl Embedded {
    /// Opens a file, or creates it for its owner only. Needs a tokio runtime.
    pub fn open(path: &Path, clock: Arc<dyn Clock>) -> Result<Self> {
        let mut options = OpenOptions::new();
        options.read(true).write(true).create(true).mode(0o600);
        let database = options
            .open(path)
            .map_err(redb::DatabaseError::from)
            .and_then(FileBackend::new)
            .and_then(|file| Database::builder().create_with_backend(file))
            .map_err(|error| refused_or_corrupt(path, error))?;
        Self::start(database, clock, true)
    }

    /// A store that is gone with the process. Needs a tokio runtime.
    pub fn in_memory(clock: Arc<dyn Clock>) -> Result<Self> {
        let database = Database::builder()
            .create_with_backend(InMemoryBackend::new())
            .map_err(reading("open the store in memory"))?;
        Self::start(database, clock, false)
    }

    fn start(database: Database, clock: Arc<dyn Clock>, on_disk: bool) -> Result<Self> {
        let revision = prepare(&database)?;
        let ends = renewed(&database, clock.boot_now())?;
        let inner = Arc::new(Inner {
            database,
            clock,
            ends: Mutex::new(ends),
            revision: watch::Sender::new(revision),
            on_disk,
        });
        tokio::spawn(sweep(Arc::downgrade(&inner)));
        Ok(Self(inner))
    }

    /// Runs where waiting for a disk harms nobody. In memory it runs in place, so that a seeded
    /// simulation stays on one thread.
    async fn run<T: Send + 'static>(
        &self,
        what: impl FnOnce(&Inner) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let inner = self.0.clone();
        if !inner.on_disk {
            inner.end_due_leases()?;
            return what(&inner);
        }
        let ran = tokio::task::spawn_blocking(move || {
            inner.end_due_leases()?;
            what(&inner)
        });
        ran.await.unwrap_or_else(|stopped| {
            Err(Error::Unknown {
                doing: "what was asked",
                source: Arc::new(stopped),
            })
        })
    }
}

#[async_trait]
impl Store for Embedded {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let key = key.clone();
        self.run(move |inner| inner.get(&key)).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        let prefixes = vec![prefix.to_owned()];
        self.run(move |inner| inner.list(&prefixes)).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        behind: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let (prefix, behind) = (prefix.to_owned(), behind.cloned());
        self.run(move |inner| inner.list_page(&prefix, behind.as_ref(), limit))
            .await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        chunks::check(&commit)?;
        let outcomes = self.run(move |inner| inner.apply(&[], &[commit])).await?;
        Ok(outcomes[0])
    }

    async fn commit_group(&self, group: Group) -> Result<Vec<Outcome>> {
        let ranges = chunks::cut(&group)?;
        let group = Arc::new(group);
        let mut outcomes = Vec::with_capacity(group.commits.len());
        for range in ranges {
            let group = group.clone();
            let applied = self
                .run(move |inner| inner.apply(&group.fence, &group.commits[range]))
                .await?;
            outcomes.extend(applied);
        }
        Ok(outcomes)
    }

    async fn watch(&self, prefixes: Vec<String>, after: Revision) -> Result<Watch> {
        let (sender, events) = mpsc::channel(WATCH_BUFFER);
        let asked = Arc::new(Notify::new());
        let follower = Follower {
            store: self.clone(),
            prefixes,
            at: after,
            sender,
        };
        tokio::spawn(follower.follow(asked.clone()));
        Ok(Watch::new(events, asked))
    }

    async fn read_revision(&self) -> Result<Revision> {
        self.run(|inner| Ok(*inner.revision.borrow())).await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.run(move |inner| inner.grant(ttl)).await
    }

    async fn keep_alive(&self, lease: Lease) -> Result<Duration> {
        self.run(move |inner| inner.keep_alive(lease)).await
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        self.run(move |inner| inner.end(&[lease])).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.run(move |inner| inner.compact(revision)).await
    }

    async fn read_despite(&self, key: &Key) -> Result<Option<Record>> {
        self.get(key).await
    }

    async fn put_despite(&self, key: &Key, value: Bytes) -> Result<()> {
        let commit = Commit {
            preconditions: vec![],
            writes: vec![Write::put(key.clone(), value)],
        };
        self.commit(commit).await.map(drop)
    }

    fn accept_restored(&self) {}
}

impl Inner {
    fn get(&self, key: &Key) -> Result<Option<Record>> {
        let doing = "read a record";
        let records = self.reader(doing)?.open_table(RECORDS);
        let records = records.map_err(reading(doing))?;
        let found = records.get(key.as_str()).map_err(reading(doing))?;
        Ok(found.map(|stored| record(key.clone(), stored.value())))
    }

    fn list(&self, prefixes: &[String]) -> Result<Listing> {
        let doing = "list records";
        let transaction = self.reader(doing)?;
        let table = transaction.open_table(RECORDS).map_err(reading(doing))?;
        let mut records = Vec::new();
        for prefix in prefixes {
            for entry in table.range(prefix.as_str()..).map_err(reading(doing))? {
                let (key, stored) = entry.map_err(reading(doing))?;
                if !key.value().starts_with(prefix.as_str()) {
                    break;
                }
                records.push(record(Key::raw(key.value()), stored.value()));
            }
        }
        let revision = Revision(counter(&transaction, REVISION)?);
        Ok(Listing { records, revision })
    }

    fn list_page(&self, prefix: &str, behind: Option<&Key>, limit: usize) -> Result<Vec<Record>> {
        let doing = "list records";
        let table = self.reader(doing)?.open_table(RECORDS);
        let table = table.map_err(reading(doing))?;
        let from = behind.map_or(Bound::Included(prefix), |key| Bound::Excluded(key.as_str()));
        let range = table.range::<&str>((from, Bound::Unbounded));
        let mut records = Vec::new();
        for entry in range.map_err(reading(doing))?.take(limit) {
            let (key, stored) = entry.map_err(reading(doing))?;
            if !key.value().starts_with(prefix) {
                break;
            }
            records.push(record(Key::raw(key.value()), stored.value()));
        }
        Ok(records)
    }

    /// Makes the commits that may be made, one after the other, in one transaction.
    fn apply(&self, fence: &[Precondition], commits: &[Commit]) -> Result<Vec<Outcome>> {
        let transaction = self.writer("commit")?;
        let mut change = Change::begin(&transaction)?;
        let mut written = Vec::with_capacity(commits.len());
        let fenced = change.all_hold(fence)?;
        for commit in commits {
            let holds = fenced && change.all_hold(&commit.preconditions)?;
            if holds {
                change.write(&commit.writes)?;
            }
            written.push(holds);
        }
        let revision = change.finish()?;
        self.conclude(transaction, revision)?;
        Ok(written
            .into_iter()
            .map(|written| match written {
                true => Outcome::Committed { revision },
                false => Outcome::Conflict { revision },
            })
            .collect())
    }

    fn grant(&self, ttl: Duration) -> Result<Lease> {
        let doing = "grant a lease";
        let transaction = self.writer(doing)?;
        let lease = {
            let mut counters = transaction.open_table(COUNTERS).map_err(reading(doing))?;
            let lease = read_counter(&counters, LAST_LEASE)? + 1;
            counters.insert(LAST_LEASE, lease).map_err(reading(doing))?;
            let mut leases = transaction.open_table(LEASES).map_err(reading(doing))?;
            leases.insert(lease, millis(ttl)).map_err(reading(doing))?;
            Lease(lease)
        };
        transaction.commit().map_err(writing(doing))?;
        self.ends().insert(lease, self.clock.boot_now() + ttl);
        Ok(lease)
    }

    fn keep_alive(&self, lease: Lease) -> Result<Duration> {
        let doing = "keep a lease alive";
        let leases = self.reader(doing)?.open_table(LEASES);
        let leases = leases.map_err(reading(doing))?;
        let Some(ttl) = leases.get(lease.0).map_err(reading(doing))? else {
            return Ok(Duration::ZERO);
        };
        let ttl = Duration::from_millis(ttl.value());
        self.ends().insert(lease, self.clock.boot_now() + ttl);
        Ok(ttl)
    }

    fn end_due_leases(&self) -> Result<()> {
        let now = self.clock.boot_now();
        let due: Vec<Lease> = {
            let ends = self.ends();
            let due = ends.iter().filter(|(_, end)| **end <= now);
            due.map(|(lease, _)| *lease).collect()
        };
        if due.is_empty() {
            return Ok(());
        }
        self.end(&due)
    }

    /// Ends leases and deletes their keys, each lease at a revision of its own, as etcd does.
    fn end(&self, leases: &[Lease]) -> Result<()> {
        for lease in leases {
            let transaction = self.writer("end a lease")?;
            let mut change = Change::begin(&transaction)?;
            change.end(*lease)?;
            let revision = change.finish()?;
            self.conclude(transaction, revision)?;
            self.ends().remove(lease);
        }
        Ok(())
    }

    fn compact(&self, revision: Revision) -> Result<()> {
        let doing = "compact";
        if revision > *self.revision.borrow() {
            return Err(Error::Refused {
                doing,
                why: format!("revision {revision} is not reached yet"),
            });
        }
        let transaction = self.writer(doing)?;
        {
            let mut counters = transaction.open_table(COUNTERS).map_err(reading(doing))?;
            if read_counter(&counters, COMPACTED)? >= revision.0 {
                return Ok(());
            }
            counters
                .insert(COMPACTED, revision.0)
                .map_err(reading(doing))?;
            let mut history = transaction.open_table(HISTORY).map_err(reading(doing))?;
            history
                .retain_in(..(revision.0, ""), |_, _| false)
                .map_err(reading(doing))?;
        }
        transaction.commit().map_err(writing(doing))
    }

    /// What happened after a revision, and up to which one; `None` where that is compacted.
    fn changes(&self, prefixes: &[String], after: Revision) -> Result<Option<Changes>> {
        let doing = "read history";
        let transaction = self.reader(doing)?;
        if after.0 < counter(&transaction, COMPACTED)? {
            return Ok(None);
        }
        let history = transaction.open_table(HISTORY).map_err(reading(doing))?;
        let mut events = Vec::new();
        for entry in history.range((after.0 + 1, "")..).map_err(reading(doing))? {
            let (at, stored) = entry.map_err(reading(doing))?;
            let (revision, key) = at.value();
            if prefixes
                .iter()
                .any(|prefix| key.starts_with(prefix.as_str()))
            {
                let key = Key::raw(key);
                events.push(Event::Changed {
                    record: stored.value().map(|stored| record(key.clone(), stored)),
                    key,
                    revision: Revision(revision),
                });
            }
        }
        let revision = Revision(counter(&transaction, REVISION)?);
        Ok(Some(Changes { events, revision }))
    }

    fn reader(&self, doing: &'static str) -> Result<ReadTransaction> {
        self.database.begin_read().map_err(reading(doing))
    }

    fn writer(&self, doing: &'static str) -> Result<WriteTransaction> {
        self.database.begin_write().map_err(reading(doing))
    }

    /// Makes a change durable and wakes watches, or lets go of a transaction that changed nothing.
    fn conclude(&self, transaction: WriteTransaction, revision: Revision) -> Result<()> {
        transaction.commit().map_err(writing("commit"))?;
        self.revision.send_if_modified(|seen| {
            let rises = *seen < revision;
            *seen = revision.max(*seen);
            rises
        });
        Ok(())
    }

    fn ends(&self) -> MutexGuard<'_, BTreeMap<Lease, Duration>> {
        self.ends.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

struct Changes {
    events: Vec<Event>,
    revision: Revision,
}

/// The tables of one open transaction. All it writes has one revision.
struct Change<'a> {
    records: Table<'a, &'static str, Stored>,
    history: Table<'a, (i64, &'static str), Option<Stored>>,
    leases: Table<'a, i64, u64>,
    counters: Table<'a, &'static str, i64>,
    before: i64,
    wrote: bool,
}

impl<'a> Change<'a> {
    fn begin(transaction: &'a WriteTransaction) -> Result<Self> {
        let failed = "open tables";
        let counters = transaction.open_table(COUNTERS).map_err(reading(failed))?;
        Ok(Self {
            records: transaction.open_table(RECORDS).map_err(reading(failed))?,
            history: transaction.open_table(HISTORY).map_err(reading(failed))?,
            leases: transaction.open_table(LEASES).map_err(reading(failed))?,
            before: read_counter(&counters, REVISION)?,
            counters,
            wrote: false,
        })
    }

    fn all_hold(&self, preconditions: &[Precondition]) -> Result<bool> {
        for one in preconditions {
            if !self.holds(one)? {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, precondition: &Precondition) -> Result<bool> {
        let found = self
            .records
            .get(precondition.key().as_str())
            .map_err(reading("check preconditions"))?;
        let found = found.map(|stored| {
            let (created, modified, ..) = stored.value();
            (Revision(created), Revision(modified))
        });
        Ok(match (precondition, found) {
            (Precondition::Absent(_), found) => found.is_none(),
            (Precondition::Exists(_), found) => found.is_some(),
            (Precondition::Modified { at, .. }, Some((_, modified))) => modified == *at,
            (Precondition::Created { at, .. }, Some((created, _))) => created == *at,
            // As etcd compares: a key that does not exist has revision 0.
            (Precondition::Modified { at, .. } | Precondition::Created { at, .. }, None) => {
                *at == Revision(0)
            }
        })
    }

    fn write(&mut self, writes: &[Write]) -> Result<()> {
        for write in writes {
            match write {
                Write::Put { key, value, lease } => self.put(key, value, *lease)?,
                Write::Delete { key } => self.delete(key.as_str())?,
            }
        }
        Ok(())
    }

    fn put(&mut self, key: &Key, value: &Bytes, lease: Option<Lease>) -> Result<()> {
        let doing = "commit";
        let lease = self.granted(lease)?;
        let now = self.before + 1;
        let created = self
            .records
            .get(key.as_str())
            .map_err(reading(doing))?
            .map_or(now, |stored| stored.value().0);
        let stored = (created, now, lease, value.as_ref());
        self.records
            .insert(key.as_str(), stored)
            .map_err(reading(doing))?;
        self.history
            .insert((now, key.as_str()), Some(stored))
            .map_err(reading(doing))?;
        self.wrote = true;
        Ok(())
    }

    fn granted(&self, lease: Option<Lease>) -> Result<i64> {
        let Some(Lease(lease)) = lease else {
            return Ok(0);
        };
        match self.leases.get(lease).map_err(reading("commit"))? {
            Some(_) => Ok(lease),
            None => Err(Error::Refused {
                doing: "commit",
                why: "there is no such lease".to_owned(),
            }),
        }
    }

    fn delete(&mut self, key: &str) -> Result<()> {
        let doing = "commit";
        let found = self.records.remove(key).map_err(reading(doing))?.is_some();
        if found {
            self.history
                .insert((self.before + 1, key), None::<(i64, i64, i64, &[u8])>)
                .map_err(reading(doing))?;
            self.wrote = true;
        }
        Ok(())
    }

    fn end(&mut self, lease: Lease) -> Result<()> {
        let doing = "end a lease";
        self.leases.remove(lease.0).map_err(reading(doing))?;
        let mut held = Vec::new();
        for entry in self.records.iter().map_err(reading(doing))? {
            let (key, stored) = entry.map_err(reading(doing))?;
            if stored.value().2 == lease.0 {
                held.push(key.value().to_owned());
            }
        }
        held.iter().try_for_each(|key| self.delete(key))
    }

    /// The revision after this change: one more if anything was written.
    fn finish(mut self) -> Result<Revision> {
        if !self.wrote {
            return Ok(Revision(self.before));
        }
        let revision = self.before + 1;
        self.counters
            .insert(REVISION, revision)
            .map_err(reading("commit"))?;
        Ok(Revision(revision))
    }
}

/// One watch.
struct Follower {
    store: Embedded,
    prefixes: Vec<String>,
    /// Everything up to here has been delivered.
    at: Revision,
    sender: mpsc::Sender<Result<Event>>,
}

impl Follower {
    async fn follow(mut self, asked: Arc<Notify>) {
        let mut revisions = self.store.0.revision.subscribe();
        loop {
            let reached = *revisions.borrow_and_update();
            if reached > self.at && !self.catch_up().await {
                return;
            }
            tokio::select! {
                () = self.sender.closed() => return,
                changed = revisions.changed() => if changed.is_err() { return },
                () = asked.notified() => if !self.tell_progress().await { return },
            }
        }
    }

    /// Delivers what happened; false where nobody listens any more.
    async fn catch_up(&mut self) -> bool {
        let prefixes = self.prefixes.clone();
        let after = self.at;
        let changes = self
            .store
            .run(move |inner| match inner.changes(&prefixes, after)? {
                Some(changes) => Ok(changes),
                None => inner.list(&prefixes).map(reset),
            });
        match changes.await {
            Ok(Changes { events, revision }) => {
                self.at = revision;
                self.send_all(events).await
            }
            Err(error) => {
                // The reader has gone where this is not taken; either way the watch is over.
                let _ = self.sender.send(Err(error)).await;
                false
            }
        }
    }

    async fn tell_progress(&mut self) -> bool {
        // Asking may have ended leases; what that did comes before the progress.
        let reached = *self.store.0.revision.borrow();
        if reached > self.at && !self.catch_up().await {
            return false;
        }
        let revision = self.at;
        self.send_all(vec![Event::Progress { revision }]).await
    }

    async fn send_all(&self, events: Vec<Event>) -> bool {
        for event in events {
            if self.sender.send(Ok(event)).await.is_err() {
                return false;
            }
        }
        true
    }
}

fn reset(listing: Listing) -> Changes {
    let Listing { records, revision } = listing;
    Changes {
        events: vec![Event::Reset { records, revision }],
        revision,
    }
}

/// Ends leases although nobody calls, so that watchers hear of it.
async fn sweep(inner: Weak<Inner>) {
    let mut ticks = tokio::time::interval(SWEEP_EVERY);
    loop {
        ticks.tick().await;
        let Some(inner) = inner.upgrade() else { return };
        let store = Embedded(inner);
        if let Err(error) = store.run(|_| Ok(())).await {
            tracing::warn!(%error, "cannot end leases");
        }
    }
}

/// Creates what is missing and says where the history stands. It begins at 1, as etcd's does.
fn prepare(database: &Database) -> Result<Revision> {
    let doing = "prepare the store";
    let transaction = database.begin_write().map_err(reading(doing))?;
    let revision = {
        let mut change = Change::begin(&transaction)?;
        if change.before == 0 {
            change.wrote = true;
        }
        change.finish()?
    };
    transaction.commit().map_err(writing(doing))?;
    Ok(revision)
}

fn renewed(database: &Database, now: Duration) -> Result<BTreeMap<Lease, Duration>> {
    let doing = "read leases";
    let transaction = database.begin_read().map_err(reading(doing))?;
    let leases = transaction.open_table(LEASES).map_err(reading(doing))?;
    let mut ends = BTreeMap::new();
    for entry in leases.iter().map_err(reading(doing))? {
        let (lease, ttl) = entry.map_err(reading(doing))?;
        let end = now + Duration::from_millis(ttl.value());
        ends.insert(Lease(lease.value()), end);
    }
    Ok(ends)
}

fn counter(transaction: &ReadTransaction, name: &str) -> Result<i64> {
    let counters = transaction.open_table(COUNTERS);
    read_counter(&counters.map_err(reading("read counters"))?, name)
}

fn read_counter(counters: &impl ReadableTable<&'static str, i64>, name: &str) -> Result<i64> {
    let found = counters.get(name).map_err(reading("read counters"))?;
    Ok(found.map_or(0, |count| count.value()))
}

fn record(key: Key, (created, modified, lease, value): (i64, i64, i64, &[u8])) -> Record {
    let value = Bytes::copy_from_slice(value);
    let mut record = Record::new(key, value, Revision(created), Revision(modified));
    record.lease = (lease != 0).then_some(Lease(lease));
    record
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// Before the commit of a transaction, whatever fails leaves nothing behind.
fn reading<E: Into<redb::Error>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| match error.into() {
        redb::Error::Corrupted(why) => Error::Corrupt {
            place: "the embedded store".to_owned(),
            why,
        },
        other => Error::Unavailable {
            doing,
            source: cause(other),
        },
    }
}

/// A commit that failed may have reached the disk all the same.
fn writing<E: Into<redb::Error>>(doing: &'static str) -> impl Fn(E) -> Error {
    move |error| Error::Unknown {
        doing,
        source: cause(error.into()),
    }
}

fn refused_or_corrupt(path: &Path, error: redb::DatabaseError) -> Error {
    match error {
        redb::DatabaseError::DatabaseAlreadyOpen => Error::Refused {
            doing: "open the embedded store",
            why: format!("another process has `{}` open", path.display()),
        },
        other => reading("open the embedded store")(other),
    }
}

fn cause(error: redb::Error) -> Cause {
    Arc::new(error)
}
