//! One replica's way to the store: the real embedded store behind a network with weather.
//!
//! | weather | what the replica sees |
//! |---|---|
//! | slow | every answer takes a while |
//! | lost answer | [`Error::Unknown`], and the write was made |
//! | lost request | [`Error::Unknown`], and it was not |
//! | late request | [`Error::Unknown`], and it is made seconds later, whoever leads by then |
//! | cut | nothing is sent: [`Error::Unavailable`]; what the store tells waits for the end of it |
//! | stale | what the store tells and renewals of leases wait; reads and writes do not |
//!
//! A write is applied and judged in one go: nobody acts between a commit and the look of the
//! [`Witness`](crate::witness::Witness) at it.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis_control_plane::store::embedded::Embedded;
use aldis_control_plane::store::keys::Name;
use aldis_control_plane::store::{
    self, CALL_TIMEOUT, Commit, Error, Group, Key, Lease, Listing, Outcome, Record, Result,
    Revision, Store, WATCH_BUFFER, Watch, keys,
};
use async_trait::async_trait;
use tokio::sync::{Notify, mpsc, watch};
use tokio_util::bytes::Bytes;
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;
use crate::history::History;
use crate::witness::{Witness, Writer};

/// What a replica can reach of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Way {
    Open,
    Cut,
    Stale,
}

/// The way of one process. Clones are the same.
#[derive(Clone)]
pub(crate) struct Link {
    pub(crate) store: Embedded,
    pub(crate) writer: Writer,
    pub(crate) witness: Arc<Witness>,
    pub(crate) history: History,
    pub(crate) chance: Chance,
    pub(crate) way: watch::Sender<Way>,
    /// How late a leader's next decision is written, where that is scripted.
    pub(crate) late: Arc<Mutex<Option<Duration>>>,
    /// Whether single calls fail.
    pub(crate) storm: watch::Receiver<bool>,
    pub(crate) life: CancellationToken,
}

#[derive(Debug, thiserror::Error)]
#[error("the network of the story")]
struct Weather;

fn unavailable<T>(doing: &'static str) -> Result<T> {
    let source = Arc::new(Weather);
    Err(Error::Unavailable { doing, source })
}

fn unknown<T>() -> Result<T> {
    let (doing, source) = ("commit", Arc::new(Weather));
    Err(Error::Unknown { doing, source })
}

/// What becomes of one write.
enum Fate {
    Answered,
    AnswerLost,
    RequestLost,
    Late(Duration),
}

impl Link {
    /// A call on its way: what has ended never gets anywhere.
    async fn travel(&self, doing: &'static str) -> Result<()> {
        self.pause().await;
        if *self.way.borrow() == Way::Cut && !self.opens_within(CALL_TIMEOUT).await {
            return unavailable(doing);
        }
        self.live_on().await;
        Ok(())
    }

    async fn pause(&self) {
        let longest = if *self.storm.borrow() && self.chance.one_in(20) {
            1500
        } else {
            4
        };
        tokio::time::sleep(self.chance.between(0, longest)).await;
    }

    async fn opens_within(&self, patience: Duration) -> bool {
        let mut way = self.way.subscribe();
        let opens = way.wait_for(|way| *way != Way::Cut);
        tokio::time::timeout(patience, opens).await.is_ok()
    }

    /// Never returns in a process that has ended.
    async fn live_on(&self) {
        if self.life.is_cancelled() {
            std::future::pending().await
        }
    }

    fn fate(&self, decides: bool) -> Fate {
        let mut scripted = self.late.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(by) = scripted.take_if(|_| decides) {
            return Fate::Late(by);
        }
        if !*self.storm.borrow() || !self.chance.one_in(25) {
            return Fate::Answered;
        }
        match self.chance.below(3) {
            0 => Fate::AnswerLost,
            1 => Fate::RequestLost,
            _ => Fate::Late(self.chance.between(3_000, 15_000)),
        }
    }

    async fn write<T: Send + 'static>(
        &self,
        decides: bool,
        apply: impl Future<Output = Result<T>> + Send + 'static,
    ) -> Result<T> {
        self.travel("commit").await?;
        match self.fate(decides) {
            Fate::Answered => {
                let answer = apply.await;
                self.pause().await;
                self.live_on().await;
                return answer;
            }
            Fate::AnswerLost => {
                self.history
                    .say(format!("{}: an answer is lost", self.writer));
                // Its error, if it is one, is lost as well.
                let _ = apply.await;
            }
            Fate::RequestLost => self
                .history
                .say(format!("{}: a write is lost", self.writer)),
            Fate::Late(by) => {
                self.history
                    .say(format!("{}: a write is late", self.writer));
                tokio::spawn(async move {
                    tokio::time::sleep(by).await;
                    let _ = apply.await;
                });
            }
        }
        tokio::time::sleep(CALL_TIMEOUT).await;
        unknown()
    }

    async fn apply(self, commit: Commit) -> Result<Outcome> {
        let leader = self.store.get(&keys::leader()).await?;
        let outcome = self.store.commit(commit.clone()).await?;
        if outcome.is_committed() {
            self.witness
                .committed(&self.writer, leader.as_ref(), &commit);
        }
        Ok(outcome)
    }

    async fn apply_group(self, group: Group) -> Result<Vec<Outcome>> {
        let leader = self.store.get(&keys::leader()).await?;
        let outcomes = self.store.commit_group(group.clone()).await?;
        for (commit, outcome) in group.commits.iter().zip(&outcomes) {
            if outcome.is_committed() {
                self.witness
                    .committed(&self.writer, leader.as_ref(), commit);
            }
        }
        Ok(outcomes)
    }

    /// Passes on what the store tells, when the way is open.
    async fn tell(
        self,
        mut told: Watch,
        teller: mpsc::Sender<Result<store::Event>>,
        asked: Arc<Notify>,
    ) {
        let progress = told.progress();
        let mut way = self.way.subscribe();
        loop {
            tokio::select! {
                biased;
                () = teller.closed() => return,
                () = asked.notified() => progress.request(),
                event = told.next() => {
                    let Some(event) = event else { return };
                    tokio::time::sleep(self.chance.between(0, 3)).await;
                    let open = way.wait_for(|way| *way == Way::Open).await.is_ok();
                    if !open || teller.send(event).await.is_err() {
                        return;
                    }
                }
            }
        }
    }
}

/// Whether it is a decision over targets. Reports come in groups.
fn decides(commit: &Commit) -> bool {
    let of_target =
        |write: &store::Write| matches!(write.key().name(), Some(Name::JobTarget { .. }));
    commit.writes.iter().any(of_target)
}

#[async_trait]
impl Store for Link {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.travel("read a record").await?;
        self.store.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.travel("list records").await?;
        self.store.list(prefix).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        behind: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.travel("list records by page").await?;
        self.store.list_page(prefix, behind, limit).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        self.write(decides(&commit), self.clone().apply(commit))
            .await
    }

    async fn commit_group(&self, group: Group) -> Result<Vec<Outcome>> {
        self.write(false, self.clone().apply_group(group)).await
    }

    async fn watch(&self, prefixes: Vec<String>, after: Revision) -> Result<Watch> {
        self.travel("watch").await?;
        let told = self.store.watch(prefixes, after).await?;
        let (teller, events) = mpsc::channel(WATCH_BUFFER);
        let asked = Arc::new(Notify::new());
        tokio::spawn(self.clone().tell(told, teller, asked.clone()));
        Ok(Watch::new(events, asked))
    }

    async fn read_revision(&self) -> Result<Revision> {
        self.travel("read the revision").await?;
        self.store.read_revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.travel("grant a lease").await?;
        self.store.grant(ttl).await
    }

    async fn keep_alive(&self, lease: Lease) -> Result<Duration> {
        self.travel("keep a lease alive").await?;
        if *self.way.borrow() == Way::Stale {
            tokio::time::sleep(CALL_TIMEOUT).await;
            return unavailable("keep a lease alive");
        }
        self.store.keep_alive(lease).await
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        self.travel("revoke a lease").await?;
        self.store.revoke(lease).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.travel("compact").await?;
        self.store.compact(revision).await
    }

    async fn read_despite(&self, key: &Key) -> Result<Option<Record>> {
        self.get(key).await
    }

    async fn put_despite(&self, key: &Key, value: Bytes) -> Result<()> {
        self.travel("put a record despite all").await?;
        self.store.put_despite(key, value).await
    }

    fn accept_restored(&self) {}
}
