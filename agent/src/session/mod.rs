//! The agent's one stream to the control plane: dialled by the agent, opened again for ever.
//!
//! | file | does |
//! |---|---|
//! | `dial.rs` | which replica next, and how long to wait before it |
//! | `open.rs` | connection, registration: a stream that counts |
//! | `stream.rs` | one stream from its registration to its end |
//! | `lines.rs` | log lines, on connections of their own: a slow reader must not hold up an order |
//! | `machine.rs` | what proves that a later process took over on the same machine |
//!
//! Nothing of a stream outlives it but what the journal, the reports and the permit hold. A move opens the new stream
//! while the old one still serves.

mod dial;
mod lines;
mod machine;
mod open;
mod stream;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis_core::plan::ClusterIdentity;
use tokio::sync::watch;
use tokio::time::Instant;
use tracing::{info, warn};

use crate::actions::Trouble;
use crate::config::Endpoint;
use crate::desk::Desk;
use crate::journal::JournalId;
use crate::parts::Parts;
use crate::tls::Files;
use dial::Dial;
use open::{Opened, Stream};
use stream::End;

pub use machine::machine;
pub use open::{Error as NoStream, Incoming, Outgoing, Reach};

/// A stream that lived for so long was a good one: the next is opened without a growing pause.
const GOOD: Duration = Duration::from_secs(10);

/// Where the control plane is, and who calls.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Replicas, tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// The agent's certificate, key, CA.
    pub tls: Files,
    /// What runbooks select the target by.
    pub labels: BTreeMap<String, String>,
    /// Drawn at each start of the process.
    pub process: String,
    /// See [`machine`].
    pub machine: String,
}

/// Keeps a stream open until told to close.
pub struct Session {
    parts: Parts,
    desk: Desk,
    settings: Arc<Settings>,
    /// The cluster's identity as read last.
    identity: Arc<Mutex<ClusterIdentity>>,
    reach: Arc<dyn Reach>,
    streams: u64,
    /// The journal that a stream of this process counts or counted with.
    counted_with: Option<JournalId>,
}

impl Session {
    /// `identity` is what the cluster said when the process began.
    pub fn new(parts: Parts, desk: Desk, settings: Settings, identity: ClusterIdentity) -> Self {
        Self {
            parts,
            desk,
            settings: Arc::new(settings),
            identity: Arc::new(Mutex::new(identity)),
            reach: Arc::new(open::OverTls),
            streams: 0,
            counted_with: None,
        }
    }

    /// The same, with another way to replicas than mutual TLS.
    #[must_use]
    pub fn over(mut self, reach: Arc<dyn Reach>) -> Self {
        self.reach = reach;
        self
    }

    /// Serves until `closing` becomes true; then says goodbye.
    pub async fn run(mut self, mut closing: watch::Receiver<bool>) {
        let mut dial = Dial::new(self.settings.endpoints.clone());
        loop {
            let opened = tokio::select! {
                stream = self.open(&mut dial) => stream,
                () = closed(&mut closing) => return,
            };
            if !self.serve(opened, &mut dial, &mut closing).await {
                return;
            }
        }
    }

    /// Opens a stream, however long it takes.
    async fn open(&mut self, dial: &mut Dial) -> Stream {
        let mut said = String::new();
        loop {
            let endpoint = dial.next().await;
            self.streams += 1;
            match self.open_one(&endpoint).await {
                Ok(Opened::Registered(stream)) => return *stream,
                Ok(Opened::SetAside(reason)) => {
                    if let Err(error) = self.desk.set_aside(reason).await {
                        warn!(%error, "journal not set aside");
                    }
                }
                Err(error) => {
                    let text = format!("{:#}", anyhow::Error::from(error));
                    // The same words once a minute are noise; other words are news.
                    if text == said {
                        tracing::debug!(%endpoint, error = text, "no session");
                    } else {
                        warn!(%endpoint, error = text, "no session");
                    }
                    said = text;
                }
            }
            dial.failed();
        }
    }

    async fn open_one(&mut self, endpoint: &Endpoint) -> Result<Opened, open::Error> {
        let identity = self.read_identity().await;
        let journal = self.parts.ledger.id();
        let register = open::register(&self.parts, &self.settings, &identity);
        let list_ends_at = register.journal_sequence;
        let stream = open::open(
            &*self.reach,
            &self.parts,
            &self.settings,
            endpoint,
            register,
            self.streams,
        )
        .await?;
        match &stream {
            Opened::Registered(_) => {
                self.counted_with = Some(journal);
                self.desk.registered().await;
            }
            Opened::SetAside(_) if self.is_overtaken(journal, list_ends_at) => {
                return Err(open::Error::Overtaken);
            }
            Opened::SetAside(_) => {}
        }
        Ok(stream)
    }

    /// Whether the list that was sent was shorter than what was recorded only because the stream before went on
    /// reporting meanwhile. Not so for a process that has not counted with this journal: what it wrote since then says
    /// nothing about records that were lost before it began.
    fn is_overtaken(&self, journal: JournalId, list_ends_at: u64) -> bool {
        self.counted_with == Some(journal) && self.parts.ledger.sequence() > list_ends_at
    }

    /// Serves a stream and those that take its place by a move; false when the agent closes.
    async fn serve(
        &mut self,
        mut stream: Stream,
        dial: &mut Dial,
        closing: &mut watch::Receiver<bool>,
    ) -> bool {
        let mut began = Instant::now();
        loop {
            let end = stream.serve(&self.parts, &self.desk, closing).await;
            if began.elapsed() >= GOOD {
                dial.lived();
            }
            match end {
                End::Goodbye => return false,
                End::Broken(why) => {
                    warn!(replica = stream.replica, why, "session ends");
                    dial.failed();
                    return true;
                }
                End::Move { within, reason } => {
                    info!(replica = stream.replica, reason, "asked to move");
                    match self.replace(&mut stream, dial, within, closing).await {
                        Some(next) => stream = next,
                        None => return !*closing.borrow(),
                    }
                    began = Instant::now();
                }
            }
        }
    }

    /// Opens the next stream while the old one still serves. None when neither is left.
    async fn replace(
        &mut self,
        old: &mut Stream,
        dial: &mut Dial,
        within: Duration,
        closing: &mut watch::Receiver<bool>,
    ) -> Option<Stream> {
        let (parts, desk) = (self.parts.clone(), self.desk.clone());
        dial.moved(within);
        let mut next = std::pin::pin!(self.open(dial));
        loop {
            let end = tokio::select! {
                // The old one is dropped without a word: by then it is not the current one any more.
                stream = &mut next => return Some(stream),
                end = old.serve(&parts, &desk, closing) => end,
            };
            match end {
                End::Move { .. } => {}
                End::Goodbye => return None,
                End::Broken(_) => {
                    return tokio::select! {
                        stream = next => Some(stream),
                        () = closed(closing) => None,
                    };
                }
            }
        }
    }

    /// Reads which cluster this is; the last answer where there is none now.
    async fn read_identity(&self) -> ClusterIdentity {
        /// A registration must not wait for a cluster that is ill: what is journalled can be reported without it.
        const WITHIN: Duration = Duration::from_secs(3);
        let known = || self.identity.lock().unwrap_or_else(PoisonError::into_inner);
        match tokio::time::timeout(WITHIN, self.parts.actions.identity()).await {
            Ok(Ok(identity)) => *known() = identity,
            Ok(Err(Trouble::Failed { failure, .. } | Trouble::Retriable { failure })) => {
                warn!(%failure, "the cluster does not say who it is");
            }
            Ok(Err(Trouble::Unknown { .. })) | Err(_) => {
                warn!("the cluster does not say who it is");
            }
        }
        known().clone()
    }
}

/// Returns when the agent is to close.
async fn closed(closing: &mut watch::Receiver<bool>) {
    // A sender that is gone means the same.
    let _ = closing.wait_for(|closing| *closing).await;
}
