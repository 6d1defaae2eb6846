//! Holds every attempt of this agent against what the control plane orders, and lets runners begin, rest and end.
//!
//! Orders are levels, not commands: each says what is wanted of an attempt *now*, and a repeat changes nothing. One
//! task owns it all, so that no two orders are weighed at once.
//!
//! ```text
//! order ─▶ refused (says why) │ known: its runner is told │ ended: its end is said again
//!        └ new: Go, Hold ─▶ waits for permit and predecessor ─▶ │Accepted│ ─▶ runner
//!               Stop     ─▶ │Tombstone│, "never began"
//!               Observe  ─▶ a look for the effects that a lost journal may have held
//! ```
//!
//! After a restart every open attempt gets its runner back at once; it observes what was begun and then rests until the
//! first order. What a merged session does not order for [`GRACE`] is not wanted any more: it stops at its safe point
//! and says so (an undo goes on: nobody ever wants half of one). No open attempt is without a runner for long: one that
//! found no room in the journal, or broke, gets another (`amend.rs`). An attempt that ended as unknown is looked at
//! again until it can be told, or a newer one takes its place.

mod amend;
mod table;
#[cfg(test)]
mod tests;
mod weigh;

use std::time::Duration;

use aldis_core::assignments::Assignment;
use tokio::sync::{mpsc, oneshot};

use crate::ledger;
use crate::parts::Parts;
use table::Table;

/// How long a merged session may leave an open attempt unordered: a full permit. A replica that is slow to read the
/// store orders later than it grants permits.
pub const GRACE: Duration = Duration::from_secs(30);

/// What the desk waits for.
#[derive(Clone, Copy, Debug)]
pub struct Pauses {
    /// See [`GRACE`].
    pub grace: Duration,
    /// Before an attempt that found no room in the journal, or whose runner broke, is begun again.
    pub room: Duration,
    /// Before an attempt that ended as unknown is looked at again, at first: what could tell is mostly a person at
    /// work.
    pub doubt: Duration,
}

impl Default for Pauses {
    fn default() -> Self {
        Self {
            grace: GRACE,
            room: Duration::from_secs(5),
            doubt: Duration::from_secs(30),
        }
    }
}

/// Words that may wait for the desk.
const WORDS: usize = 64;

/// Speaks to the desk. Clones are the same.
#[derive(Clone)]
pub struct Desk(mpsc::Sender<Word>);

enum Word {
    Order(Box<Assignment>),
    Registered,
    Merged {
        done: oneshot::Sender<()>,
    },
    SetAside {
        reason: String,
        done: oneshot::Sender<Result<(), ledger::Error>>,
    },
    Close {
        within: Duration,
        done: oneshot::Sender<()>,
    },
}

impl Desk {
    /// Takes up what the journal holds, and listens.
    pub fn start(parts: Parts) -> Self {
        Self::start_with(parts, Pauses::default())
    }

    /// The same with another patience.
    pub fn start_with(parts: Parts, pauses: Pauses) -> Self {
        let (sender, words) = mpsc::channel(WORDS);
        let mut table = Table::new(parts, pauses);
        table.take_up();
        tokio::spawn(table.serve(words));
        Self(sender)
    }

    /// An attempt that the agent should now hold.
    pub async fn order(&self, assignment: Assignment) {
        self.say(Word::Order(Box::new(assignment))).await;
    }

    /// A stream was registered: what the one before it ordered and nobody began is void.
    pub async fn registered(&self) {
        self.say(Word::Registered).await;
    }

    /// The leader has merged this stream's list. Returns when what it has not ordered rests: let in no
    /// permit before.
    pub async fn merged(&self) {
        let (done, rest) = oneshot::channel();
        self.say(Word::Merged { done }).await;
        // A desk that is gone has nothing running.
        let _ = rest.await;
    }

    /// Stops everything at once and puts the journal aside.
    pub async fn set_aside(&self, reason: String) -> Result<(), ledger::Error> {
        let (done, result) = oneshot::channel();
        self.say(Word::SetAside { reason, done }).await;
        result.await.unwrap_or(Err(ledger::Error::Ending))
    }

    /// Lets running attempts reach their safe points, for at most so long. Nothing begins any more.
    pub async fn close(&self, within: Duration) {
        let (done, closed) = oneshot::channel();
        self.say(Word::Close { within, done }).await;
        // A desk that is gone has nothing running.
        let _ = closed.await;
    }

    async fn say(&self, word: Word) {
        // The desk ends with the process only.
        let _ = self.0.send(word).await;
    }
}
