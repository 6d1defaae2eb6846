//! A store that loses replies, for tests of callers: does it re-read, or does it assume?
//!
//! It wraps a real adapter and makes one commit, by number, an unknown outcome, either after it was
//! written or without writing it. Everything else passes through.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use super::Watch;
use super::{Commit, Error, Group, Key, Lease, Listing, Outcome, Record, Result, Revision, Store};

/// What really happens to the commit whose reply is lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Really {
    /// It is written.
    Written,
    /// It is not.
    NotWritten,
}

/// The wrapper.
pub struct Lossy {
    inner: Arc<dyn Store>,
    really: Really,
    loses: u64,
    commits: AtomicU64,
}

impl Lossy {
    /// Loses the reply to the n-th commit or group from here on, counted from 1.
    pub fn losing(inner: Arc<dyn Store>, nth: u64, really: Really) -> Self {
        Self {
            inner,
            really,
            loses: nth,
            commits: AtomicU64::new(0),
        }
    }

    fn loses_this(&self) -> bool {
        self.commits.fetch_add(1, Ordering::SeqCst) + 1 == self.loses
    }
}

/// The reply was lost on purpose.
#[derive(Debug, thiserror::Error)]
#[error("the reply was lost on purpose")]
struct Lost;

fn lost<T>() -> Result<T> {
    Err(Error::Unknown {
        doing: "commit",
        source: Arc::new(Lost),
    })
}

#[async_trait]
impl Store for Lossy {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.get(key).await
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        self.inner.list(prefix).await
    }

    async fn list_page(
        &self,
        prefix: &str,
        behind: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        self.inner.list_page(prefix, behind, limit).await
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        let loses = self.loses_this();
        if loses && self.really == Really::NotWritten {
            return lost();
        }
        let outcome = self.inner.commit(commit).await;
        if loses { lost() } else { outcome }
    }

    async fn commit_group(&self, group: Group) -> Result<Vec<Outcome>> {
        let loses = self.loses_this();
        if loses && self.really == Really::NotWritten {
            return lost();
        }
        let outcomes = self.inner.commit_group(group).await;
        if loses { lost() } else { outcomes }
    }

    async fn watch(&self, prefixes: Vec<String>, after: Revision) -> Result<Watch> {
        self.inner.watch(prefixes, after).await
    }

    async fn read_revision(&self) -> Result<Revision> {
        self.inner.read_revision().await
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        self.inner.grant(ttl).await
    }

    async fn keep_alive(&self, lease: Lease) -> Result<Duration> {
        self.inner.keep_alive(lease).await
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        self.inner.revoke(lease).await
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        self.inner.compact(revision).await
    }

    async fn read_despite(&self, key: &Key) -> Result<Option<Record>> {
        self.inner.read_despite(key).await
    }

    async fn put_despite(&self, key: &Key, value: Bytes) -> Result<()> {
        self.inner.put_despite(key, value).await
    }

    fn accept_restored(&self) {
        self.inner.accept_restored();
    }
}
