//! The store in etcd, for production. Uses keys, transactions, watches and leases only, so any
//! etcd ≥ 3.5 serves.
//!
//! etcd-client heals nothing by itself. Measured on a frozen etcd, its defaults hang for ever, so
//! all four of these are set: HTTP/2 keepalive also while idle, a leader required, timeouts on
//! connecting and on calls, and a clock of our own around each call, which the other three cannot
//! outlast. Keeping leases alive belongs to whoever holds them (`leadership`).
//!
//! Errors become our kinds by gRPC code and by whether the connection was ever made. etcd says
//! `Unavailable` also for requests that it may have executed (a leader change half way), so for a
//! write only a connection that was never made counts as nothing sent.

mod follow;
mod txn;

use std::error::Error as _;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use etcd_client::{
    Certificate, Client, ConnectOptions, GetOptions, Identity, KeyValue, ResponseHeader,
    TlsOptions, Txn, TxnResponse,
};
use tokio::sync::{Notify, mpsc};
use tonic::Code;

use super::history::{Asked, History};
use super::{
    CALL_TIMEOUT, Cause, Commit, Error, Group, Key, Lease, Listing, Outcome, Record, Result,
    Revision, Store, WATCH_BUFFER, Watch, Write, chunks, keys,
};

/// Time for a connection to come up: a fraction of [`CALL_TIMEOUT`], so that another endpoint can
/// still be tried within the call.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);

/// Silence after which a connection is asked whether it lives, and time for its answer. A dead one is
/// known after 4 s; calls on it have given up by then.
///
/// **Trap:** etcd closes a connection that pings more often than every 5 s (`too_many_pings`), unless
/// it sent something in between. Pings are sent only in silence, so a connection in use never sends
/// any; a watch keeps its own from falling silent (`follow`), and a connection without a watch that is
/// closed for this is made again with the next call.
const KEEPALIVE_EVERY: Duration = Duration::from_secs(2);
/// See [`KEEPALIVE_EVERY`].
const KEEPALIVE_ANSWER: Duration = Duration::from_secs(2);

/// Records of one page of a listing. Bounds the answer to a page of our largest values.
const PAGE: i64 = 256;

/// Largest answer taken: a page of records at etcd's own limit of a request. tonic's default of
/// 4 MiB would refuse an ordinary page.
const MAX_ANSWER_BYTES: usize = 400 * 1024 * 1024;

/// How often a listing begins again because its revision was compacted between two pages.
const LISTING_TRIES: usize = 3;

/// How to reach etcd.
#[derive(Clone, Default)]
pub struct Config {
    /// URLs of its members, `https://` with [`Config::tls`].
    pub endpoints: Vec<String>,
    /// Certificates. Without them the connection is in clear text, for loopback and tests.
    pub tls: Option<Tls>,
}

/// Certificates for etcd, all PEM.
#[derive(Clone)]
pub struct Tls {
    /// The CA that signed etcd's certificates.
    pub ca: Vec<u8>,
    /// Our certificate, with its chain.
    pub certificate: Vec<u8>,
    /// Its key.
    pub key: Vec<u8>,
}

/// The etcd store. Clones share a connection and what was seen of the history.
#[derive(Clone)]
pub struct Etcd {
    client: Client,
    history: Arc<History>,
}

impl Etcd {
    /// Prepares a connection; it is made with the first call, and again whenever it broke. Fails
    /// only for settings that can never work.
    pub async fn connect(config: &Config) -> Result<Self> {
        let mut options = ConnectOptions::new()
            .with_keep_alive(KEEPALIVE_EVERY, KEEPALIVE_ANSWER)
            .with_keep_alive_while_idle(true)
            .with_require_leader(true)
            .with_connect_timeout(CONNECT_TIMEOUT)
            .with_timeout(CALL_TIMEOUT);
        if let Some(tls) = &config.tls {
            options = options.with_tls(tls_options(tls));
        }
        let client = Client::connect(&config.endpoints, Some(options))
            .await
            .map_err(|error| Error::Refused {
                doing: "prepare a connection to etcd",
                why: error.to_string(),
            })?;
        Ok(Self {
            client,
            history: Arc::default(),
        })
    }

    /// One page, at a revision or at the newest one. `None` where that revision is compacted.
    async fn page(
        &self,
        from: Vec<u8>,
        end: &[u8],
        at: Option<Revision>,
        limit: i64,
    ) -> Result<Option<Page>> {
        let options = GetOptions::new()
            .with_range(end)
            .with_limit(limit)
            .with_revision(at.map_or(0, |at| at.0));
        let asked = self.history.ask()?;
        let mut client = self.kv();
        let got = bounded("list records", client.get(from, Some(options))).await;
        let answer = match got {
            Ok(answer) => answer,
            Err(failed) if failed.code() == Some(Code::OutOfRange) => return Ok(None),
            Err(failed) => return Err(failed.of_a_read()),
        };
        let revision = self.read_answer(asked, answer.header())?;
        let records = answer.kvs().iter().map(record).collect::<Result<_>>()?;
        Ok(Some(Page {
            records,
            more: answer.more(),
            // The header holds the newest revision also where an older one was asked for.
            revision: at.unwrap_or(revision),
        }))
    }

    /// All pages at one revision. `None` where that was compacted meanwhile.
    async fn list_at(&self, prefix: &str, at: Option<Revision>) -> Result<Option<Listing>> {
        let end = keys::prefix_end(prefix).unwrap_or_else(|| vec![0]);
        let mut from = prefix.as_bytes().to_vec();
        let mut listing = Listing::default();
        let mut at = at;
        loop {
            let Some(mut page) = self.page(from, &end, at, PAGE).await? else {
                return Ok(None);
            };
            at = Some(page.revision);
            listing.revision = page.revision;
            listing.records.append(&mut page.records);
            match listing.records.last() {
                Some(last) if page.more => from = behind(&last.key),
                _ => return Ok(Some(listing)),
            }
        }
    }

    /// Everything under all the prefixes, at one revision. `None` where that was compacted.
    async fn list_all(&self, prefixes: &[String]) -> Result<Option<Listing>> {
        let mut all = Listing::default();
        let mut at = None;
        for prefix in prefixes {
            let Some(mut listing) = self.list_at(prefix, at).await? else {
                return Ok(None);
            };
            at = Some(listing.revision);
            all.revision = listing.revision;
            all.records.append(&mut listing.records);
        }
        Ok(Some(all))
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the adapter is where transactions are sent"
    )]
    async fn send(&self, txn: Txn) -> Result<(Asked, TxnResponse)> {
        let asked = self.history.ask()?;
        let mut client = self.kv();
        let answer = bounded("commit", client.txn(txn))
            .await
            .map_err(Failed::of_a_write)?;
        Ok((asked, answer))
    }

    async fn commit_chunk(&self, group: &Group, commits: &[Commit]) -> Result<Vec<Outcome>> {
        let (asked, answer) = self.send(txn::group(&group.fence, commits)).await?;
        let written = txn::written(&answer, commits.len())?;
        let puts = commits.iter().zip(&written);
        let rose = puts.into_iter().any(|(commit, is)| *is && puts_any(commit));
        let revision = self.txn_answer(asked, &answer, rose)?;
        Ok(written
            .into_iter()
            .map(|written| outcome(written, revision))
            .collect())
    }

    async fn read(&self, key: &Key) -> Result<(Option<Record>, ResponseHeader)> {
        let mut client = self.kv();
        let mut answer = bounded("read a record", client.get(key.as_str(), None))
            .await
            .map_err(Failed::of_a_read)?;
        let header = answer.take_header().ok_or_else(|| no_header("a read"))?;
        let found = answer.kvs().first().map(record).transpose()?;
        Ok((found, header))
    }

    fn kv(&self) -> etcd_client::KvClient {
        self.client
            .kv_client()
            .max_decoding_message_size(MAX_ANSWER_BYTES)
    }

    fn read_answer(&self, asked: Asked, header: Option<&ResponseHeader>) -> Result<Revision> {
        let revision = revision_of(header)?;
        self.history.read(asked, revision)?;
        Ok(revision)
    }

    /// The revision in a transaction's answer, which must have risen where something was put.
    fn txn_answer(&self, asked: Asked, answer: &TxnResponse, rose: bool) -> Result<Revision> {
        let revision = revision_of(answer.header())?;
        if rose {
            self.history.wrote(asked, revision)?;
        } else {
            self.history.read(asked, revision)?;
        }
        Ok(revision)
    }
}

struct Page {
    records: Vec<Record>,
    more: bool,
    revision: Revision,
}

#[async_trait]
impl Store for Etcd {
    async fn get(&self, key: &Key) -> Result<Option<Record>> {
        let asked = self.history.ask()?;
        let (found, header) = self.read(key).await?;
        self.read_answer(asked, Some(&header))?;
        Ok(found)
    }

    async fn list(&self, prefix: &str) -> Result<Listing> {
        for _ in 0..LISTING_TRIES {
            if let Some(listing) = self.list_at(prefix, None).await? {
                return Ok(listing);
            }
        }
        Err(Error::Unavailable {
            doing: "list records",
            source: Arc::new(CompactedMeanwhile),
        })
    }

    async fn list_page(
        &self,
        prefix: &str,
        behind_key: Option<&Key>,
        limit: usize,
    ) -> Result<Vec<Record>> {
        let end = keys::prefix_end(prefix).unwrap_or_else(|| vec![0]);
        let from = behind_key.map_or_else(|| prefix.as_bytes().to_vec(), behind);
        let limit = i64::try_from(limit).unwrap_or(PAGE).min(PAGE);
        let page = self.page(from, &end, None, limit).await?;
        Ok(page.map(|page| page.records).unwrap_or_default())
    }

    async fn commit(&self, commit: Commit) -> Result<Outcome> {
        chunks::check(&commit)?;
        let puts = puts_any(&commit);
        let (asked, answer) = self.send(txn::single(&commit)).await?;
        let written = answer.succeeded();
        let revision = self.txn_answer(asked, &answer, written && puts)?;
        Ok(outcome(written, revision))
    }

    async fn commit_group(&self, group: Group) -> Result<Vec<Outcome>> {
        let mut outcomes = Vec::with_capacity(group.commits.len());
        for range in chunks::cut(&group)? {
            let commits = &group.commits[range];
            outcomes.extend(self.commit_chunk(&group, commits).await?);
        }
        Ok(outcomes)
    }

    async fn watch(&self, prefixes: Vec<String>, after: Revision) -> Result<Watch> {
        self.history.ask()?;
        let (sender, events) = mpsc::channel(WATCH_BUFFER);
        let asked = Arc::new(Notify::new());
        tokio::spawn(follow::follow(
            self.clone(),
            prefixes,
            after,
            follow::Reader {
                events: sender,
                asked: asked.clone(),
            },
        ));
        Ok(Watch::new(events, asked))
    }

    async fn read_revision(&self) -> Result<Revision> {
        let asked = self.history.ask()?;
        let options = GetOptions::new().with_count_only();
        let mut client = self.kv();
        let answer = bounded(
            "read the revision",
            client.get(keys::leader().as_str(), Some(options)),
        )
        .await
        .map_err(Failed::of_a_read)?;
        self.read_answer(asked, answer.header())
    }

    async fn grant(&self, ttl: Duration) -> Result<Lease> {
        let asked = self.history.ask()?;
        let seconds = i64::try_from(ttl.as_millis().div_ceil(1000)).unwrap_or(i64::MAX);
        let mut client = self.client.lease_client();
        // A lease that was granted without our knowing holds no keys and ends by itself, so to the
        // caller nothing was written.
        let answer = bounded("grant a lease", client.grant(seconds, None))
            .await
            .map_err(Failed::of_a_read)?;
        self.read_answer(asked, answer.header())?;
        Ok(Lease(answer.id()))
    }

    async fn keep_alive(&self, lease: Lease) -> Result<Duration> {
        self.history.ask()?;
        let mut client = self.client.lease_client();
        let kept = bounded("keep a lease alive", async {
            // Opening the stream asks once and does not tell the answer's ttl, so ask again on it.
            let (mut keeper, mut answers) = client.keep_alive(lease.0).await?;
            keeper.keep_alive().await?;
            answers.message().await
        });
        match kept.await {
            Ok(Some(answer)) => Ok(Duration::from_secs(
                u64::try_from(answer.ttl()).unwrap_or(0),
            )),
            Ok(None) => Ok(Duration::ZERO),
            Err(Failed {
                cause: Why::Etcd(etcd_client::Error::LeaseKeepAliveError(_)),
                ..
            }) => Ok(Duration::ZERO),
            Err(failed) => Err(failed.of_a_read()),
        }
    }

    async fn revoke(&self, lease: Lease) -> Result<()> {
        let asked = self.history.ask()?;
        let mut client = self.client.lease_client();
        match bounded("revoke a lease", client.revoke(lease.0)).await {
            Ok(answer) => self.read_answer(asked, answer.header()).map(drop),
            Err(failed) if failed.code() == Some(Code::NotFound) => Ok(()),
            Err(failed) => Err(failed.of_a_write()),
        }
    }

    async fn compact(&self, revision: Revision) -> Result<()> {
        let asked = self.history.ask()?;
        let mut client = self.kv();
        match bounded("compact", client.compact(revision.0, None)).await {
            Ok(answer) => self.read_answer(asked, answer.header()).map(drop),
            // One code for two cases: compacted already, which is what was wanted, or not reached.
            Err(failed) if failed.code() == Some(Code::OutOfRange) => {
                if revision <= self.read_revision().await? {
                    Ok(())
                } else {
                    Err(failed.of_a_write())
                }
            }
            Err(failed) => Err(failed.of_a_write()),
        }
    }

    async fn read_despite(&self, key: &Key) -> Result<Option<Record>> {
        Ok(self.read(key).await?.0)
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "the adapter is where transactions are sent"
    )]
    async fn put_despite(&self, key: &Key, value: Bytes) -> Result<()> {
        let commit = Commit {
            preconditions: vec![],
            writes: vec![Write::put(key.clone(), value)],
        };
        let mut client = self.kv();
        // The answer's revision is left alone: that the store went back is known.
        let put = bounded("put a record", client.txn(txn::single(&commit))).await;
        put.map(drop).map_err(Failed::of_a_write)
    }

    fn accept_restored(&self) {
        self.history.accept();
    }
}

/// A call without an answer, before it is known what that means to the caller.
struct Failed {
    doing: &'static str,
    cause: Why,
}

enum Why {
    Etcd(etcd_client::Error),
    TookTooLong,
}

impl Failed {
    fn code(&self) -> Option<Code> {
        match &self.cause {
            Why::Etcd(etcd_client::Error::GRpcStatus(status)) => Some(status.code()),
            Why::Etcd(_) | Why::TookTooLong => None,
        }
    }

    fn of_a_read(self) -> Error {
        if self.was_refused() {
            return self.refused();
        }
        Error::Unavailable {
            doing: self.doing,
            source: self.source(),
        }
    }

    fn of_a_write(self) -> Error {
        if self.was_refused() || self.code() == Some(Code::OutOfRange) {
            return self.refused();
        }
        if self.never_sent() {
            return Error::Unavailable {
                doing: self.doing,
                source: self.source(),
            };
        }
        Error::Unknown {
            doing: self.doing,
            source: self.source(),
        }
    }

    /// Codes with which etcd says no before or instead of doing anything. `OutOfRange` is not among
    /// them: for a read it means that the revision was compacted, and reading anew helps.
    fn was_refused(&self) -> bool {
        matches!(
            self.code(),
            Some(
                Code::InvalidArgument
                    | Code::NotFound
                    | Code::AlreadyExists
                    | Code::PermissionDenied
                    | Code::Unauthenticated
                    | Code::FailedPrecondition
                    | Code::ResourceExhausted
                    | Code::Unimplemented
            )
        )
    }

    fn never_sent(&self) -> bool {
        let Why::Etcd(etcd_client::Error::GRpcStatus(status)) = &self.cause else {
            return false;
        };
        let mut cause = status.source();
        while let Some(error) = cause {
            if error.is::<tonic::ConnectError>() {
                return true;
            }
            cause = error.source();
        }
        false
    }

    fn refused(self) -> Error {
        Error::Refused {
            doing: self.doing,
            why: self.source().to_string(),
        }
    }

    fn source(self) -> Cause {
        match self.cause {
            Why::Etcd(error) => Arc::new(error),
            Why::TookTooLong => Arc::new(TookTooLong),
        }
    }
}

/// Our own clock ran out, not etcd's.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {} s", CALL_TIMEOUT.as_secs())]
struct TookTooLong;

/// Compactions came faster than pages.
#[derive(Debug, thiserror::Error)]
#[error("its revision was compacted {LISTING_TRIES} times between two pages")]
struct CompactedMeanwhile;

async fn bounded<T>(
    doing: &'static str,
    call: impl Future<Output = std::result::Result<T, etcd_client::Error>>,
) -> std::result::Result<T, Failed> {
    match tokio::time::timeout(CALL_TIMEOUT, call).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(Failed {
            doing,
            cause: Why::Etcd(error),
        }),
        Err(_elapsed) => Err(Failed {
            doing,
            cause: Why::TookTooLong,
        }),
    }
}

/// The first key after a key.
fn behind(key: &Key) -> Vec<u8> {
    let mut next = key.as_str().as_bytes().to_vec();
    next.push(0);
    next
}

fn tls_options(tls: &Tls) -> TlsOptions {
    TlsOptions::new()
        .ca_certificate(Certificate::from_pem(&tls.ca))
        .identity(Identity::from_pem(&tls.certificate, &tls.key))
}

fn puts_any(commit: &Commit) -> bool {
    commit
        .writes
        .iter()
        .any(|write| matches!(write, Write::Put { .. }))
}

fn outcome(written: bool, revision: Revision) -> Outcome {
    if written {
        Outcome::Committed { revision }
    } else {
        Outcome::Conflict { revision }
    }
}

fn revision_of(header: Option<&ResponseHeader>) -> Result<Revision> {
    let header = header.ok_or_else(|| no_header("an answer"))?;
    Ok(Revision(header.revision()))
}

fn no_header(place: &str) -> Error {
    Error::Corrupt {
        place: place.to_owned(),
        why: "etcd's answer has no header".to_owned(),
    }
}

fn record(stored: &KeyValue) -> Result<Record> {
    let key = std::str::from_utf8(stored.key()).map_err(|error| Error::Corrupt {
        place: String::from_utf8_lossy(stored.key()).into_owned(),
        why: error.to_string(),
    })?;
    let mut record = Record::new(
        Key::raw(key),
        Bytes::copy_from_slice(stored.value()),
        Revision(stored.create_revision()),
        Revision(stored.mod_revision()),
    );
    record.lease = (stored.lease() != 0).then_some(Lease(stored.lease()));
    Ok(record)
}
