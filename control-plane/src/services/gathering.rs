//! Submissions that arrive while another is being written are written together.
//!
//! Each is one small transaction, and the store's price for a transaction is mostly that of the round: agreement,
//! the disk, an answer. So whoever comes while a write is under way waits for the next one, with all others that
//! came: alone on a quiet system, where nobody waits for company, and dozens at once under load. Every commit
//! keeps preconditions and an outcome of its own (see [`Group`]).

use std::sync::Arc;

use tokio::sync::{mpsc, oneshot};

use crate::lasting::Lasting;
use crate::store::{Commit, Error, Group, Outcome, Result, Store};

/// Commits that wait: more than these do so outside, each in its own call.
const WAITING: usize = 256;

/// Commits written at once: what one transaction holds beside their preconditions.
const TOGETHER: usize = 64;

/// Writes commits in company. Ends when dropped; whoever still waits is told that the outcome is unknown.
pub(super) struct Gathering {
    arrivals: mpsc::Sender<Arrival>,
    _work: Lasting,
}

struct Arrival {
    commit: Commit,
    answer: oneshot::Sender<Result<Outcome>>,
}

impl Gathering {
    /// Over this store.
    pub(super) fn start(store: Arc<dyn Store>) -> Self {
        let (arrivals, arriving) = mpsc::channel(WAITING);
        Self {
            arrivals,
            _work: Lasting::start("writing submissions", write(store, arriving)),
        }
    }

    /// Writes a commit if its preconditions hold. [`Error::Unknown`] also where only the company of the commit
    /// had trouble: read again, as after any unknown outcome.
    pub(super) async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let (answer, answered) = oneshot::channel();
        let gone = || unknown(Arc::new(std::io::Error::other("this replica stops")));
        let arrival = Arrival { commit, answer };
        if self.arrivals.send(arrival).await.is_err() {
            return Err(gone());
        }
        answered.await.unwrap_or_else(|_| Err(gone()))
    }
}

async fn write(store: Arc<dyn Store>, mut arriving: mpsc::Receiver<Arrival>) {
    let mut arrived = Vec::with_capacity(TOGETHER);
    while arriving.recv_many(&mut arrived, TOGETHER).await > 0 {
        let (commits, answers): (Vec<_>, Vec<_>) = arrived
            .drain(..)
            .map(|arrival| (arrival.commit, arrival.answer))
            .unzip();
        for (answer, outcome) in answers.into_iter().zip(together(&*store, commits).await) {
            // Who gave up waiting reads again, if they care.
            let _ = answer.send(outcome);
        }
    }
}

async fn together(store: &dyn Store, mut commits: Vec<Commit>) -> Vec<Result<Outcome>> {
    if commits.len() == 1
        && let Some(commit) = commits.pop()
    {
        return vec![store.commit(commit).await];
    }
    let count = commits.len();
    let group = Group {
        fence: vec![],
        commits,
    };
    match store.commit_group(group).await {
        Ok(outcomes) => outcomes.into_iter().map(Ok).collect(),
        // It says nothing of any single one: a part of the group may be written.
        Err(error) => vec![Err(unknown(Arc::new(error))); count],
    }
}

fn unknown(source: crate::store::Cause) -> Error {
    Error::Unknown {
        doing: "commit",
        source,
    }
}

#[cfg(test)]
mod tests {
    use futures::future::join_all;

    use super::*;
    use crate::clock::SystemClock;
    use crate::store::embedded::Embedded;
    use crate::store::{Key, Precondition, Write};

    fn store() -> Arc<dyn Store> {
        Arc::new(Embedded::in_memory(Arc::new(SystemClock)).unwrap())
    }

    /// Makes what is not there yet.
    fn make(name: &str) -> Commit {
        let key = Key::raw(format!("/test/{name}"));
        Commit {
            preconditions: vec![Precondition::Absent(key.clone())],
            writes: vec![Write::put(key, "made")],
        }
    }

    #[tokio::test]
    async fn many_at_once_are_few_transactions_and_each_has_an_outcome_of_its_own() {
        const MANY: usize = 60;
        let store = store();
        let before = store.read_revision().await.unwrap();
        let gathering = Gathering::start(store.clone());
        let names = (0..MANY).map(|number| number.to_string());
        let twice = names.chain(["7".to_owned()]);
        let outcomes = join_all(twice.map(|name| {
            let gathering = &gathering;
            async move { gathering.commit(make(&name)).await }
        }))
        .await;
        let made = outcomes
            .into_iter()
            .map(|outcome| outcome.unwrap().is_committed());
        let expected: Vec<bool> = (0..=MANY).map(|number| number < MANY).collect();
        assert_eq!(
            made.collect::<Vec<_>>(),
            expected,
            "the second 7 finds the first"
        );
        let transactions = store.read_revision().await.unwrap().0 - before.0;
        assert!(transactions < 10, "{transactions} for {MANY} commits");
    }

    #[tokio::test]
    async fn where_a_group_fails_nobody_is_told_that_nothing_was_written() {
        let gathering = Gathering::start(store());
        let too_large = Commit {
            preconditions: vec![],
            writes: (0..200)
                .map(|n| Write::put(Key::raw(format!("/test/{n}")), "x"))
                .collect(),
        };
        let outcomes =
            join_all([make("fine"), too_large.clone()].map(|one| gathering.commit(one))).await;
        for outcome in outcomes {
            assert!(matches!(outcome, Err(Error::Unknown { .. })), "{outcome:?}");
        }
        let alone = gathering.commit(too_large).await;
        assert!(matches!(alone, Err(Error::Refused { .. })), "{alone:?}");
    }
}
