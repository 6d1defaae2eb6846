//! The streams of agents that hang on this replica.
//!
//! | file | does |
//! |---|---|
//! | `register.rs` | decides in one transaction whether a process may speak for a cluster, and as what |
//! | `stream.rs` | one agent's stream: reads its frames, closes it when another took its place |
//! | `orders.rs` | sends what the store says that agents should hold |
//! | `reports.rs` | writes what agents report, grouped, each only if nobody was quicker |
//! | `permits.rs` | lets agents begin segments for a while, on a fresh view only |
//! | `directory.rs` | asks agents, here or one hop away |
//!
//! Everything here works on any replica. Nothing decides: an order is sent because it is committed.

mod directory;
mod orders;
mod permits;
mod register;
mod reports;
mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_core::ids::{Fence, TargetName};
use aldis_proto::v1;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::jobs::Plans;
use crate::presence::fence;
use crate::store::Store;
use crate::view::View;

pub use directory::{Directory, Hop};
pub use stream::Frames;

/// Control frames that may wait for one agent. An agent that reads nothing for so long is cut off: it
/// reconnects and is told everything anew.
const FRAMES: usize = 256;

/// Log lines that may wait for one reader.
const LINES: usize = 256;

/// Reports that may wait to be written.
const REPORTS: usize = 4096;

/// What sessions work with.
#[derive(Clone)]
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What is known of it.
    pub view: View,
    /// For permits and records.
    pub clock: Arc<dyn Clock>,
    /// Plans by id.
    pub plans: Arc<Plans>,
    /// This replica's configured name.
    pub replica: String,
    /// This process of that name.
    pub boot_id: String,
    /// Length of a permit (30 s).
    pub permit: Duration,
}

/// Every agent that hangs on this replica. Clones are the same.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    parts: Parts,
    live: Mutex<BTreeMap<TargetName, Arc<Live>>>,
    reports: mpsc::Sender<reports::Reported>,
    next: AtomicU64,
    logs: Mutex<BTreeMap<u64, mpsc::Sender<v1::LogLine>>>,
}

/// One live stream.
struct Live {
    target: TargetName,
    generation: u64,
    frames: mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>,
    asked: Mutex<BTreeMap<u64, oneshot::Sender<v1::Answer>>>,
    /// When the agent was last heard of, in milliseconds of the boot clock.
    heard_ms: AtomicU64,
    /// What was sent on this stream, so that it is not sent again before it changes.
    sent: Mutex<BTreeMap<orders::Slot, orders::Sent>>,
}

impl Sessions {
    /// Begins to send orders and write reports. Ends with the last clone.
    pub fn start(parts: Parts) -> Self {
        let (reports, received) = mpsc::channel(REPORTS);
        let sessions = Self(Arc::new(Shared {
            parts,
            live: Mutex::default(),
            reports,
            next: AtomicU64::new(1),
            logs: Mutex::default(),
        }));
        tokio::spawn(reports::write_all(Arc::downgrade(&sessions.0), received));
        tokio::spawn(orders::send_all(Arc::downgrade(&sessions.0)));
        sessions
    }

    /// Number of streams.
    pub fn count(&self) -> usize {
        self.0.live().len()
    }

    /// Asks every agent to open a stream elsewhere, before this replica ends.
    pub async fn move_all(&self, within: Duration, reason: &str) {
        let all: Vec<Arc<Live>> = self.0.live().values().cloned().collect();
        for live in all {
            let within_ms = u64::try_from(within.as_millis()).unwrap_or(u64::MAX);
            let message = v1::session_response::Message::Move(v1::Move {
                within_ms,
                reason: reason.to_owned(),
            });
            self.0.send(&live, message).await;
        }
    }
}

impl Shared {
    fn live(&self) -> MutexGuard<'_, BTreeMap<TargetName, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn session(&self, target: &TargetName) -> Option<Arc<Live>> {
        self.live().get(target).cloned()
    }

    fn fence(&self) -> Fence {
        self.parts.view.read(fence)
    }

    fn number(&self) -> u64 {
        self.next.fetch_add(1, Ordering::Relaxed)
    }

    /// Wraps a message with the newest fence and sends it; false when the stream is gone or full.
    async fn send(&self, live: &Live, message: v1::session_response::Message) -> bool {
        let frame = v1::SessionResponse {
            fence: Some(aldis_proto::convert::fence(self.fence())),
            store_revision: self.parts.view.revision().unwrap_or_default().0,
            message: Some(message),
        };
        live.frames.try_send(Ok(frame)).is_ok()
    }
}

impl Live {
    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<v1::Answer>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<orders::Slot, orders::Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
