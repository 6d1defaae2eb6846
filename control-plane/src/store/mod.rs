//! The `Store` port: where everything durable lives, and the only way to it.
//!
//! Two adapters keep these laws, etcd and embedded (redb); one conformance suite in `tests/store`
//! runs on both. Nothing here knows what a record means: keys come from [`keys`], values are bytes.
//!
//! The unpleasant cases first, since callers are written for them:
//!
//! | case | what the caller sees |
//! |---|---|
//! | the reply to a write was lost | [`Error::Unknown`]: written or not written; re-read, never assume |
//! | somebody else was quicker | [`Outcome::Conflict`]; nothing of that commit was written |
//! | a watch broke, or fell behind a compaction | [`Event::Reset`] with everything listed afresh |
//! | the store was restored from a backup | [`Error::WentBack`], on every call from then on |
//! | a lease ended | its keys are deleted by the store, and watchers are told as of any deletion |
//!
//! There is deliberately no unconditional put: a write without preconditions is a [`Commit`] whose
//! list of them is visibly empty.

pub mod chunks;
pub mod embedded;
pub mod etcd;
mod history;
pub mod keys;
pub mod lossy;
mod memo;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use tokio::sync::mpsc;

pub use keys::Key;

/// Longest that any call may take, connecting included.
///
/// Why three seconds: shorter than a leader's own deadline (lease of 5 s less a margin of 1 s), so
/// that a leader whose store froze learns that an outcome is unknown before it stops being leader;
/// far longer than the slow fsyncs of a healthy etcd (tens of milliseconds).
pub const CALL_TIMEOUT: Duration = Duration::from_secs(3);

/// Operations that one transaction holds: etcd's default `--max-txn-ops`, kept by both adapters so
/// that what works on a laptop works in production.
pub const MAX_OPERATIONS: usize = 128;

/// Bytes of keys and values that one transaction holds. etcd refuses requests above 1.5 MiB; the
/// rest is room for the encoding and the preconditions.
pub const MAX_BYTES: usize = 1024 * 1024 - 1;

/// A point in the store's history. It rises by one with each transaction that writes, and never
/// falls in one life of a store.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Revision(pub i64);

impl fmt::Display for Revision {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(formatter)
    }
}

/// A lease: keys put with it are deleted when it ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lease(pub i64);

/// One key with its value, as it was at some revision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Where it is kept.
    pub key: Key,
    /// What is kept. The store never looks inside.
    pub value: Bytes,
    /// The revision at which the key came to be. A key deleted and put again has another one.
    pub created: Revision,
    /// The revision of its last put.
    pub modified: Revision,
    /// The lease of the last put. A put without a lease takes the key off its lease.
    pub lease: Option<Lease>,
    memo: memo::Memo,
}

impl Record {
    /// A record as the store has it, without a lease.
    pub fn new(key: Key, value: impl Into<Bytes>, created: Revision, modified: Revision) -> Self {
        Self {
            key,
            value: value.into(),
            created,
            modified,
            lease: None,
            memo: memo::Memo::default(),
        }
    }

    /// What the value was read as before, if it was.
    pub fn known<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.memo.get()
    }

    /// What the value reads as. `read` is asked once for all clones of this record, unless it fails.
    pub fn read_once<T: Send + Sync + 'static, E>(
        &self,
        read: impl FnOnce(&Self) -> std::result::Result<T, E>,
    ) -> std::result::Result<Arc<T>, E> {
        if let Some(known) = self.known() {
            return Ok(known);
        }
        let known = Arc::new(read(self)?);
        self.memo.set(known.clone());
        Ok(known)
    }
}

/// What must hold for a commit to be written. All are checked at one revision, together with the
/// writes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// There is no such key.
    Absent(Key),
    /// The key's last put was at this revision: nobody wrote it since it was read.
    Modified {
        /// The key.
        key: Key,
        /// [`Record::modified`] as read.
        at: Revision,
    },
    /// The key came to be at this revision and was not deleted since; its value may have changed.
    Created {
        /// The key.
        key: Key,
        /// [`Record::created`] as read.
        at: Revision,
    },
    /// The key exists, with whatever value.
    Exists(Key),
}

impl Precondition {
    /// The key that it looks at.
    pub fn key(&self) -> &Key {
        match self {
            Self::Absent(key) | Self::Exists(key) => key,
            Self::Modified { key, .. } | Self::Created { key, .. } => key,
        }
    }

    /// That `key` is still as it was read: absent, or with its last put where it was.
    pub fn unchanged(key: &Key, read: Option<&Record>) -> Self {
        match read {
            None => Self::Absent(key.clone()),
            Some(record) => Self::Modified {
                key: key.clone(),
                at: record.modified,
            },
        }
    }
}

/// One change of a commit. No key may be written twice in one commit (refused by both adapters).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Write {
    /// Put a value, creating the key where it does not exist.
    Put {
        /// The key.
        key: Key,
        /// Its value.
        value: Bytes,
        /// The lease that it shall end with. [`Error::Refused`] when there is no such lease.
        lease: Option<Lease>,
    },
    /// Delete a key. Deleting what does not exist is no error and does not raise the revision.
    Delete {
        /// The key.
        key: Key,
    },
}

impl Write {
    /// Puts without a lease.
    pub fn put(key: Key, value: impl Into<Bytes>) -> Self {
        Self::Put {
            key,
            value: value.into(),
            lease: None,
        }
    }

    /// Deletes.
    pub fn delete(key: Key) -> Self {
        Self::Delete { key }
    }

    /// The key that it writes.
    pub fn key(&self) -> &Key {
        match self {
            Self::Put { key, .. } | Self::Delete { key } => key,
        }
    }
}

/// Writes that happen together, or not at all, if their preconditions hold.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Commit {
    /// What must hold.
    pub preconditions: Vec<Precondition>,
    /// What is then written, at one revision.
    pub writes: Vec<Write>,
}

/// Many independent commits for the price of few transactions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Group {
    /// Must hold for any of them: the leader's fence. Where it does not hold, every commit that was
    /// checked against it is a conflict.
    pub fence: Vec<Precondition>,
    /// The commits, each with an outcome of its own.
    pub commits: Vec<Commit>,
}

/// What became of a commit. The third outcome, *unknown*, is [`Error::Unknown`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// Written. The revision is that of the writes, or the store's where nothing was to be written.
    Committed {
        /// The revision.
        revision: Revision,
    },
    /// A precondition did not hold; nothing was written.
    Conflict {
        /// The store's revision when that was found.
        revision: Revision,
    },
}

impl Outcome {
    /// Whether it was written.
    pub fn is_committed(self) -> bool {
        matches!(self, Self::Committed { .. })
    }

    /// The store's revision in the answer.
    pub fn revision(self) -> Revision {
        match self {
            Self::Committed { revision } | Self::Conflict { revision } => revision,
        }
    }
}

/// Everything under a prefix, as it was at one revision.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// In order of their keys.
    pub records: Vec<Record>,
    /// The revision at which all of this was so. A watch from here misses nothing.
    pub revision: Revision,
}

/// What a watch says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A key was put, or deleted (`None`), at a revision. Changes of one key arrive in order; those
    /// of different prefixes may overtake each other until the next [`Event::Progress`].
    Changed {
        /// The key.
        key: Key,
        /// What it holds, if it holds anything.
        record: Option<Record>,
        /// The revision of the change.
        revision: Revision,
    },
    /// Every change up to this revision, under every watched prefix, has been delivered.
    Progress {
        /// The revision reached.
        revision: Revision,
    },
    /// Changes may have been missed: forget what was known under the watched prefixes; this is all
    /// there is. It counts as progress.
    Reset {
        /// Everything under the watched prefixes.
        records: Vec<Record>,
        /// The revision at which it was so.
        revision: Revision,
    },
}

/// Batches that a watch may be ahead of its reader. Small, because a reader that sleeps is better
/// served by etcd holding the rest; large enough that a burst of reports is no stall.
pub const WATCH_BUFFER: usize = 256;

/// An open watch. Dropping it ends it.
#[derive(Debug)]
pub struct Watch {
    events: mpsc::Receiver<Result<Event>>,
    progress: ProgressRequests,
}

/// Asks an open watch how far it is. Cheap to clone; asking again before the answer is one question.
#[derive(Clone, Debug)]
pub struct ProgressRequests(Arc<tokio::sync::Notify>);

impl ProgressRequests {
    /// Asks for an [`Event::Progress`] as soon as possible. Nothing comes while the store cannot be
    /// reached, and a watch behind others answers only when it has caught up.
    pub fn request(&self) {
        self.0.notify_one();
    }
}

impl Watch {
    /// For adapters: what they send into `events` comes out of [`Watch::next`], and `asked` wakes
    /// them when progress is wanted.
    pub fn new(events: mpsc::Receiver<Result<Event>>, asked: Arc<tokio::sync::Notify>) -> Self {
        Self {
            events,
            progress: ProgressRequests(asked),
        }
    }

    /// The next event. An error is the last word (the store went back, or is corrupt, or refused
    /// us); a store out of reach is no error but silence, mended by a [`Event::Reset`].
    ///
    /// Safe to drop while waiting: no event is lost.
    pub async fn next(&mut self) -> Option<Result<Event>> {
        self.events.recv().await
    }

    /// How to ask for progress while somebody else reads the events.
    pub fn progress(&self) -> ProgressRequests {
        self.progress.clone()
    }
}

/// Why a call has no answer. Foreign errors become one of these in their adapter, by kind, never by
/// message text.
#[derive(Clone, Debug, thiserror::Error)]
pub enum Error {
    /// Nothing was written: the request never left, or it was a read. Trying again is harmless.
    #[error("cannot {doing}: the store cannot be reached")]
    Unavailable {
        /// What was tried.
        doing: &'static str,
        /// What the adapter saw.
        #[source]
        source: Cause,
    },
    /// A write was sent and no answer came back. It may have been written, may be written yet, or
    /// never will be. Re-read by the operation's own id before anything else.
    #[error("cannot tell whether the store did {doing}")]
    Unknown {
        /// What was tried.
        doing: &'static str,
        /// What the adapter saw.
        #[source]
        source: Cause,
    },
    /// The store understood and said no: too large, no such lease, no space, no permission. Nothing
    /// was written, and the same request will not fare better.
    #[error("the store refused to {doing}: {why}")]
    Refused {
        /// What was tried.
        doing: &'static str,
        /// What it said.
        why: String,
    },
    /// What is stored cannot be what we wrote.
    #[error("the store holds something unreadable at `{place}`: {why}")]
    Corrupt {
        /// The key, table or file.
        place: String,
        /// What is wrong with it.
        why: String,
    },
    /// The store's history is shorter than it was: a backup was restored under us. Nothing may be
    /// dispatched until an operator raises the incarnation.
    #[error("the store went back in time, from revision {seen} to {now}: was a backup restored?")]
    WentBack {
        /// The highest revision that this process has seen.
        seen: Revision,
        /// The revision in the answer that gave it away.
        now: Revision,
    },
}

/// What an adapter saw, for people to read.
pub type Cause = Arc<dyn std::error::Error + Send + Sync>;

/// Result of a store call.
pub type Result<T> = std::result::Result<T, Error>;

/// The store.
///
/// Laws, beside those of the types above:
/// - **Anybody may have written anything since you read it.** Only preconditions make a write safe.
/// - Reads are linearizable: they see every write that was answered before they were asked.
/// - Revisions in answers never fall. An adapter that sees one fall answers [`Error::WentBack`] to
///   that call and every later one, except [`Store::read_despite`].
/// - Every call ends within [`CALL_TIMEOUT`]; a listing, within that for each page.
/// - Calls may be dropped half way; a dropped write is an unknown one.
#[async_trait]
pub trait Store: Send + Sync + 'static {
    /// The record at a key.
    async fn get(&self, key: &Key) -> Result<Option<Record>>;

    /// All records under a prefix, at one revision however many pages that takes.
    async fn list(&self, prefix: &str) -> Result<Listing>;

    /// Up to `limit` records under a prefix from behind a key on, in order: for going through what is too
    /// much to hold at once. Each page is of its own moment.
    async fn list_page(
        &self,
        prefix: &str,
        behind: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Record>>;

    /// Writes if all preconditions hold. [`Error::Refused`] above [`MAX_OPERATIONS`] preconditions
    /// or writes, or [`MAX_BYTES`]: one commit is never torn into two.
    async fn commit(&self, commit: Commit) -> Result<Outcome>;

    /// Writes each commit of a group if its own preconditions and the fence hold; the outcomes are
    /// in the order of the commits. A conflict of one leaves the others alone.
    ///
    /// A group is *not* one transaction: it is cut where it is too large, the fence is checked in
    /// each cut, and commits take effect as if made one after the other. **An error says nothing of
    /// any commit of the group**: some may be written; re-read all of them.
    async fn commit_group(&self, group: Group) -> Result<Vec<Outcome>>;

    /// Follows all changes under the prefixes made *after* a revision, usually the one of a listing.
    /// Where that lies before a compaction, the first event is a [`Event::Reset`]. A watch that breaks is made
    /// again by the adapter, with a listing and a `Reset`, never by resuming: a restored store would
    /// fill the gap with another history.
    async fn watch(&self, prefixes: Vec<String>, after: Revision) -> Result<Watch>;

    /// The store's revision by a linearizable read: at least as high as that of every write answered
    /// before the question was sent.
    async fn read_revision(&self) -> Result<Revision>;

    /// A lease that ends when it is not kept alive for `ttl`. The store may round up to a second and
    /// may end it late, never early.
    async fn grant(&self, ttl: Duration) -> Result<Lease>;

    /// Keeps a lease alive and says how long it lasts from when the store answered; zero means that
    /// it is gone, with its keys. Count from when you *asked*: the answer may have been slow.
    async fn keep_alive(&self, lease: Lease) -> Result<Duration>;

    /// Ends a lease and deletes its keys. Ending one that is gone is no error.
    async fn revoke(&self, lease: Lease) -> Result<()>;

    /// Forgets history before a revision. Watches from before it get a [`Event::Reset`]. Asking for
    /// what is forgotten already is no error.
    async fn compact(&self, revision: Revision) -> Result<()>;

    /// As [`Store::get`], and answers also after [`Error::WentBack`]: for learning whether an
    /// operator has raised the incarnation, and for nothing else.
    async fn read_despite(&self, key: &Key) -> Result<Option<Record>>;

    /// Puts one record, whatever is there, also after [`Error::WentBack`]: for saying so to those who
    /// have not seen it, and for nothing else.
    async fn put_despite(&self, key: &Key, value: Bytes) -> Result<()>;

    /// An operator has raised the incarnation after a restore: from here on the restored history is
    /// the history. Whoever calls this has dropped everything read before.
    fn accept_restored(&self);
}
