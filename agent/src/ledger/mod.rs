//! The journal as the rest of the agent uses it: asynchronous, shared, with what it adds up to in memory.
//!
//! ```text
//! runner, session, desk ─append─▶ one thread at a time: write, fsync ─▶ what is known in memory ─▶ reports, lists
//! ```
//!
//! What is known is changed only after the entry is on disk, so whatever is read here has been written. Who appends
//! says for which journal: after a journal was set aside, nobody who began under the old one writes to its successor.
//! A journal that failed ends the process ([`Ledger::failed`]): nothing here is tried twice.

pub mod notes;

use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aldis_core::ids;
use aldis_core::reconcile::AttemptList;
use tokio::sync::watch;

use crate::journal::state::{Attempts, Fence};
use crate::journal::{self, Damage, Entry, Journal, JournalId};

/// The revision of the store alone is written down only when it rose by so much: it serves to notice a restored
/// backup, and a few hundred writes more or less make no difference to that.
const REVISIONS: u64 = 1000;

/// Compaction is worth a rewrite of the file from this size on.
const COMPACT_FROM: u64 = 8 << 20;

/// The journal and what it says. Clones are the same.
#[derive(Clone)]
pub struct Ledger(Arc<Shared>);

struct Shared {
    /// Held for as long as a write takes. Taken before `known`, never after.
    journal: Mutex<Journal>,
    /// Held for moments.
    known: Mutex<Known>,
    failed: watch::Sender<Option<String>>,
    /// Whether the disk is memory, so that writing to it holds up nobody.
    in_place: bool,
}

struct Known {
    id: JournalId,
    sequence: u64,
    attempts: Attempts,
    /// The highest that any message carried. Its fence is on disk; its revision may be ahead of the disk.
    seen: Fence,
    /// Why earlier entries are missing, until a leader has heard of it.
    damage: Option<String>,
}

/// Why nothing was written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal refused or failed.
    #[error(transparent)]
    Journal(#[from] journal::Error),
    /// The journal that the caller began under was set aside.
    #[error("journal {0} was set aside")]
    SetAside(JournalId),
    /// The process is ending.
    #[error("the agent ends")]
    Ending,
}

impl Error {
    /// Nothing was written, nothing is broken: the disk is full.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Journal(journal::Error::Full { .. }))
    }
}

/// How a message's token compares with the highest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Token {
    /// It may be acted on.
    Current,
    /// A later leader has spoken before.
    Older,
}

impl Ledger {
    /// Opens and locks the journal in `dir`. A blocking call.
    pub fn open(dir: &Path) -> Result<Self, journal::Error> {
        Ok(Self::over(Journal::open(dir, draw_id)?))
    }

    /// Over a journal that is open.
    pub fn over(opened: journal::Opened) -> Self {
        Self::with(opened, false)
    }

    /// The same over one in memory, written to where it is asked: a simulation stays on one thread.
    pub fn in_place(opened: journal::Opened) -> Self {
        Self::with(opened, true)
    }

    fn with(opened: journal::Opened, in_place: bool) -> Self {
        let attempts = Attempts::replay(&opened.replayed);
        let known = Known {
            id: opened.journal.id(),
            sequence: opened.journal.highest_sequence(),
            seen: attempts.fence(),
            attempts,
            damage: opened
                .damage
                .as_ref()
                .map(why_damaged)
                .or_else(|| Some(opened.journal.replaces()?.reason.clone())),
        };
        Self(Arc::new(Shared {
            journal: Mutex::new(opened.journal),
            known: Mutex::new(known),
            failed: watch::Sender::new(None),
            in_place,
        }))
    }

    /// The id of the journal.
    pub fn id(&self) -> JournalId {
        self.known().id
    }

    /// The same, as the control plane writes it.
    pub fn core_id(&self) -> ids::JournalId {
        ids::JournalId::new(self.id().to_string())
    }

    /// The sequence of the last entry.
    pub fn sequence(&self) -> u64 {
        self.known().sequence
    }

    /// The highest token and revision that any message carried.
    pub fn seen(&self) -> Fence {
        self.known().seen
    }

    /// Reads what is known.
    pub fn read<T>(&self, look: impl FnOnce(&Attempts) -> T) -> T {
        look(&self.known().attempts)
    }

    /// Every attempt that the control plane must hear of, at one moment.
    pub fn list(&self, now_ms: u64) -> AttemptList {
        let known = self.known();
        AttemptList {
            journal: ids::JournalId::new(known.id.to_string()),
            sequence: known.sequence,
            damage: known.damage.clone(),
            attempts: known
                .attempts
                .list(now_ms)
                .filter_map(|(key, attempt)| notes::listed(key, attempt))
                .collect(),
        }
    }

    /// Why earlier entries are missing, until [`Ledger::heard`].
    pub fn damage(&self) -> Option<String> {
        self.known().damage.clone()
    }

    /// A leader has merged the list: what it gives from here on was committed for this journal, and the damage of the
    /// one before says nothing about it. A process that dies before this says it again.
    pub async fn heard(&self) -> Result<(), Error> {
        if self.known().damage.take().is_none() {
            return Ok(());
        }
        self.on_disk(|journal, _| Ok(journal.forget_replaced()?))
            .await
    }

    /// Becomes some text when the journal failed. The process must end.
    pub fn failed(&self) -> watch::Receiver<Option<String>> {
        self.0.failed.subscribe()
    }

    /// Writes entries for the journal `of`, with one sync. Returns the last one's sequence.
    pub async fn append(&self, of: JournalId, entries: Vec<Entry>) -> Result<u64, Error> {
        self.on_disk(move |journal, shared| {
            if journal.id() != of {
                return Err(Error::SetAside(of));
            }
            let sequence = journal.append_many(&entries)?;
            let mut known = shared.known();
            entries.iter().for_each(|entry| known.attempts.apply(entry));
            known.sequence = sequence;
            Ok(sequence)
        })
        .await
    }

    /// Takes notice of a message's token, on disk before it returns where that rose.
    pub async fn notice(&self, fence: ids::Fence, store_revision: u64) -> Result<Token, Error> {
        let heard = Fence {
            incarnation: fence.incarnation,
            epoch: fence.epoch,
            store_revision,
        };
        let (of, rose) = {
            let mut known = self.known();
            if !known.seen.admits(fence.incarnation, fence.epoch) {
                return Ok(Token::Older);
            }
            let stable = known.attempts.fence();
            let is_new = (stable.incarnation, stable.epoch) != (heard.incarnation, heard.epoch);
            if !is_new {
                known.seen = known.seen.max(heard);
            }
            let far = known.seen.store_revision >= stable.store_revision + REVISIONS;
            (known.id, (is_new || far).then(|| known.seen.max(heard)))
        };
        let Some(rose) = rose else {
            return Ok(Token::Current);
        };
        match self.append(of, vec![Entry::from(rose)]).await {
            Ok(_) => {
                let mut known = self.known();
                known.seen = known.seen.max(rose);
                Ok(Token::Current)
            }
            Err(error) => Err(error),
        }
    }

    /// Puts the journal aside and begins another one, with nothing but the fence in it. Whoever acts under the old one
    /// must have been stopped.
    pub async fn set_aside(&self, reason: String) -> Result<JournalId, Error> {
        self.on_disk(move |journal, shared| {
            let aside = journal.set_aside(&reason, draw_id())?;
            let mut known = shared.known();
            known.attempts = Attempts::default();
            if let Some(fence) = Fence::highest(&aside.readable) {
                known.attempts.apply(&Entry::from(fence));
            }
            known.id = journal.id();
            known.sequence = journal.highest_sequence();
            known.damage = Some(aside.replaces.reason);
            Ok(journal.id())
        })
        .await
    }

    /// Drops what was acknowledged more than seven days before `now_ms`, where the file is large enough to care.
    pub async fn compact(&self, now_ms: u64) -> Result<(), Error> {
        self.on_disk(move |journal, shared| {
            if journal.bytes() < COMPACT_FROM {
                return Ok(());
            }
            match journal.compact(now_ms) {
                Ok(_) => {
                    shared.known().attempts.forget(now_ms);
                    Ok(())
                }
                // It goes on as it is.
                Err(journal::Error::Full { .. }) => Ok(()),
                Err(error) => Err(error.into()),
            }
        })
        .await
    }

    fn known(&self) -> MutexGuard<'_, Known> {
        self.0.known()
    }

    /// Runs `work` on the journal, off the runtime's threads. A failure of the journal ends the agent.
    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce(&mut Journal, &Shared) -> Result<T, Error> + Send + 'static,
    ) -> Result<T, Error> {
        let shared = self.0.clone();
        let in_place = shared.in_place;
        let write = move || {
            let mut journal = shared
                .journal
                .lock()
                .unwrap_or_else(PoisonError::into_inner);
            let result = work(&mut journal, &shared);
            if let Err(Error::Journal(error)) = &result
                && is_fatal(error)
            {
                shared.failed.send_replace(Some(error_text(error)));
            }
            result
        };
        if in_place {
            return write();
        }
        let done = tokio::task::spawn_blocking(write);
        done.await.unwrap_or(Err(Error::Ending))
    }
}

impl Shared {
    fn known(&self) -> MutexGuard<'_, Known> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// What the process must not live on with.
fn is_fatal(error: &journal::Error) -> bool {
    use journal::Error as E;
    match error {
        E::Full { .. } | E::TooLong { .. } | E::Encode(_) => false,
        E::Lock(_)
        | E::Fsync(_)
        | E::Io { .. }
        | E::Failed
        | E::Later { .. }
        | E::LaterFormat { .. }
        | E::Damaged { .. } => true,
    }
}

fn error_text(error: &journal::Error) -> String {
    match std::error::Error::source(error) {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

fn why_damaged(damage: &Damage) -> String {
    match damage {
        Damage::Quarantined(aside) | Damage::Missing(aside) => aside.replaces.reason.clone(),
    }
}

fn draw_id() -> JournalId {
    JournalId(rand::random())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::journal::AttemptKey;
    use aldis_core::ids::Fence as CoreFence;

    fn fence(epoch: u64) -> CoreFence {
        CoreFence {
            incarnation: 1,
            epoch,
        }
    }

    fn acked() -> Entry {
        Entry::Acked {
            attempt: AttemptKey {
                job: "j".into(),
                target: "a/b".into(),
                number: 1,
            },
            at: 0,
        }
    }

    #[tokio::test]
    async fn a_higher_token_is_on_disk_before_it_is_acted_on_and_a_lower_one_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        assert_eq!(ledger.notice(fence(5), 90).await.unwrap(), Token::Current);
        assert_eq!(ledger.notice(fence(4), 95).await.unwrap(), Token::Older);
        drop(ledger);
        let again = Ledger::open(dir.path()).unwrap();
        assert_eq!(again.seen().epoch, 5);
        assert_eq!(again.notice(fence(4), 99).await.unwrap(), Token::Older);
    }

    #[tokio::test]
    async fn a_rising_revision_alone_is_no_write() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.notice(fence(5), 1).await.unwrap();
        let before = ledger.sequence();
        ledger.notice(fence(5), REVISIONS).await.unwrap();
        assert_eq!(
            (ledger.sequence(), ledger.seen().store_revision),
            (before, REVISIONS)
        );
        ledger.notice(fence(5), 1 + REVISIONS).await.unwrap();
        assert_eq!(ledger.sequence(), before + 1);
    }

    #[tokio::test]
    async fn damage_is_said_by_every_process_until_a_leader_has_heard_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.notice(fence(5), 1).await.unwrap();
        ledger.set_aside("a copy".into()).await.unwrap();
        drop(ledger);
        let next = Ledger::open(dir.path()).unwrap();
        assert_eq!(next.damage().as_deref(), Some("a copy"), "nobody has heard");
        let id = next.id();
        next.heard().await.unwrap();
        assert_eq!(next.damage(), None);
        drop(next);
        let last = Ledger::open(dir.path()).unwrap();
        assert_eq!((last.damage(), last.id()), (None, id));
        assert_eq!(last.seen().epoch, 5);
    }

    #[tokio::test]
    async fn who_began_under_a_journal_that_was_set_aside_writes_nothing_more() {
        let dir = tempfile::tempdir().unwrap();
        let ledger = Ledger::open(dir.path()).unwrap();
        ledger.notice(fence(5), 1).await.unwrap();
        let old = ledger.id();
        let new = ledger.set_aside("a copy".into()).await.unwrap();
        assert!(matches!(
            ledger.append(old, vec![acked()]).await,
            Err(Error::SetAside(_))
        ));
        ledger.append(new, vec![acked()]).await.unwrap();
        assert_eq!(ledger.damage().as_deref(), Some("a copy"));
        assert_eq!(ledger.seen().epoch, 5, "the fence is carried over");
        assert!(ledger.failed().borrow().is_none());
    }
}
