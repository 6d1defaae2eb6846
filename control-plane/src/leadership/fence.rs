//! The token of a term, and the only way for a leader to write.
//!
//! A [`FencedTxn`] is made from a token that lives and adds the leader key, as created by this term's
//! election, to the preconditions. The token's deadline saves useless work; the precondition is what
//! makes a write by a deposed leader impossible, however late it arrives.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use crate::clock::Clock;
use crate::store::{self, Commit, Group, Lease, Outcome, Precondition, Revision, Store, keys};

/// Why a leader's write has no outcome.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The term is over: the deadline passed, or the fence failed. Nothing was written by this call
    /// unless it was a group, of which earlier parts may be.
    #[error("epoch {epoch} is over")]
    Deposed {
        /// The term.
        epoch: u64,
    },
    /// The store has no answer.
    #[error(transparent)]
    Store(#[from] store::Error),
}

/// One term of one leader. Agents compare (incarnation, epoch).
#[derive(Clone, Debug)]
pub struct Token {
    /// Which life of the store.
    pub incarnation: u64,
    /// Which term in it.
    pub epoch: u64,
    /// The leader key's create revision, by which this term is known.
    pub created: Revision,
    /// What the leader key hangs on.
    pub lease: Lease,
    term: Arc<Term>,
}

/// What clones of a token share.
#[derive(Debug)]
struct Term {
    /// On the boot clock, in milliseconds; zero once the term is over.
    deadline_ms: AtomicU64,
    over: Notify,
}

impl Token {
    pub(super) fn new(
        incarnation: u64,
        epoch: u64,
        created: Revision,
        lease: Lease,
        deadline: Duration,
    ) -> Self {
        Self {
            incarnation,
            epoch,
            created,
            lease,
            term: Arc::new(Term {
                deadline_ms: AtomicU64::new(millis(deadline)),
                over: Notify::new(),
            }),
        }
    }

    /// Whether its holder may still act.
    pub fn is_live(&self, clock: &dyn Clock) -> bool {
        !self.left(clock).is_zero()
    }

    /// Time until its holder must stop, unless it is renewed.
    pub fn left(&self, clock: &dyn Clock) -> Duration {
        let deadline = self.term.deadline_ms.load(Ordering::SeqCst);
        Duration::from_millis(deadline).saturating_sub(clock.boot_now())
    }

    /// Moves the deadline, unless the term is over: what ended stays ended.
    pub(super) fn extend(&self, deadline: Duration) {
        let later = |old| (old != 0).then_some(millis(deadline).max(old));
        // Not moving it is right where the term is over.
        let _ = self
            .term
            .deadline_ms
            .fetch_update(Ordering::SeqCst, Ordering::SeqCst, later);
    }

    /// Ends the term for all clones.
    pub(super) fn end(&self) {
        self.term.deadline_ms.store(0, Ordering::SeqCst);
        self.term.over.notify_one();
    }

    /// Returns when a failed fence has ended the term.
    pub(super) async fn over(&self) {
        self.term.over.notified().await;
    }

    fn fence(&self) -> Precondition {
        Precondition::Created {
            key: keys::leader(),
            at: self.created,
        }
    }
}

/// A leader's write, not yet sent.
#[derive(Debug)]
pub struct FencedTxn<'a>(&'a Token);

impl<'a> FencedTxn<'a> {
    /// Only a live token makes one.
    pub fn new(token: &'a Token, clock: &dyn Clock) -> Result<Self, Error> {
        if token.is_live(clock) {
            Ok(Self(token))
        } else {
            Err(deposed(token))
        }
    }

    /// Writes if the term goes on and the preconditions hold. A conflict is one of the preconditions;
    /// a failed fence is [`Error::Deposed`].
    pub async fn commit(self, store: &dyn Store, mut commit: Commit) -> Result<Outcome, Error> {
        commit.preconditions.insert(0, self.0.fence());
        let outcome = store.commit(commit).await?;
        self.still_leading(store, &[outcome]).await?;
        Ok(outcome)
    }

    /// Writes each commit on its own; see [`Store::commit_group`].
    pub async fn commit_group(
        self,
        store: &dyn Store,
        commits: Vec<Commit>,
    ) -> Result<Vec<Outcome>, Error> {
        let fence = vec![self.0.fence()];
        let outcomes = store.commit_group(Group { fence, commits }).await?;
        self.still_leading(store, &outcomes).await?;
        Ok(outcomes)
    }

    /// A conflict may have been the fence: then the leader key is not ours. Where it cannot be read
    /// the conflict stands, nothing was written, and the deadline bounds how long nobody knows.
    async fn still_leading(&self, store: &dyn Store, outcomes: &[Outcome]) -> Result<(), Error> {
        if outcomes.iter().all(|outcome| outcome.is_committed()) {
            return Ok(());
        }
        match store.get(&keys::leader()).await {
            Ok(Some(leader)) if leader.created == self.0.created => Ok(()),
            Ok(_) => {
                self.0.end();
                Err(deposed(self.0))
            }
            Err(_) => Ok(()),
        }
    }
}

fn deposed(token: &Token) -> Error {
    Error::Deposed { epoch: token.epoch }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_token_dies_at_its_deadline_and_at_its_end() {
        let clock = ManualClock::starting_at(0);
        let deadline = clock.boot_now() + Duration::from_secs(4);
        let token = Token::new(1, 2, Revision(3), Lease(4), deadline);
        assert!(FencedTxn::new(&token, &clock).is_ok());

        clock.advance(Duration::from_secs(4));
        assert!(FencedTxn::new(&token, &clock).is_err(), "past its deadline");

        token.extend(clock.boot_now() + Duration::from_secs(4));
        assert!(FencedTxn::new(&token, &clock).is_ok(), "renewed");

        token.end();
        token.extend(clock.boot_now() + Duration::from_secs(4));
        assert!(
            FencedTxn::new(&token, &clock).is_err(),
            "what ended stays ended"
        );
    }
}
