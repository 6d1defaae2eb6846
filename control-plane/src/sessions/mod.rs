//! The streams of agents that hang on this replica.
//!
//! | file | does |
//! |---|---|
//! | `register.rs` | decides in one transaction whether a process may speak for a cluster, and as what |
//! | `stream.rs` | one agent's stream: reads its frames, closes it when another took its place |
//! | `orders.rs` | sends what the store says that agents should hold |
//! | `reports.rs` | writes what agents report, grouped, each only if nobody was quicker |
//! | `late.rs` | what agents say of jobs that have ended |
//! | `halt.rs` | whether anybody may be given work, for all who ask |
//! | `permits.rs` | lets agents begin segments for a while, on a fresh view only |
//! | `directory.rs` | asks agents, here or one hop away |
//! | `lines.rs` | hands on the log lines that an agent was asked for |
//! | `contests.rs` | counts how long two processes have used one identity |
//! | `leftovers.rs` | ends sessions of this process that no stream stands for |
//!
//! Everything here works on any replica. Nothing decides: an order is sent because it is committed.

mod contests;
mod directory;
mod halt;
mod late;
mod leftovers;
mod lines;
mod orders;
mod permits;
mod register;
mod reports;
mod stream;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_core::ids::{Fence, JournalId, TargetName};
use aldis_proto::v1;
use tokio::sync::{mpsc, oneshot};

use crate::clock::Clock;
use crate::jobs::Plans;
use crate::lasting;
use crate::presence::fence;
use crate::records::Fleet;
use crate::store::{Revision, Store};
use crate::view::View;

pub use directory::{Directory, Hop};
pub use lines::LogAnswers;
pub use stream::Frames;

/// Control frames that may wait for one agent. An agent that reads nothing for so long is cut off: it
/// reconnects and is told everything anew.
const FRAMES: usize = 256;

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
    /// How long ended jobs are kept: what an agent holds from before may have been swept.
    pub retention: Duration,
}

/// How full the queues are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    /// Reports of all agents.
    pub reports: usize,
    /// Frames to the agent that is furthest behind.
    pub frames: usize,
}

/// Every agent that hangs on this replica. Clones are the same.
#[derive(Clone)]
pub struct Sessions(Arc<Shared>);

struct Shared {
    parts: Parts,
    live: Mutex<BTreeMap<TargetName, Arc<Live>>>,
    reports: mpsc::Sender<reports::Reported>,
    next: AtomicU64,
    logs: lines::LogStreams,
    contests: contests::Contests,
    halt: halt::Halt,
    /// Set once this replica leaves: no agent is taken in any more.
    leaving: AtomicBool,
}

/// One live stream.
struct Live {
    target: TargetName,
    generation: u64,
    journal: JournalId,
    frames: mpsc::Sender<Result<v1::SessionResponse, tonic::Status>>,
    asked: Mutex<BTreeMap<u64, oneshot::Sender<v1::Answer>>>,
    /// When the agent was last heard of, in milliseconds of the boot clock.
    heard_ms: AtomicU64,
    /// What was sent on this stream, so that it is not sent again before it changes.
    sent: Mutex<BTreeMap<orders::Slot, orders::Sent>>,
    /// How far its journal is recorded through this stream, and at which revision of the store.
    recorded: Mutex<(Revision, u64)>,
    /// Orders that the agent would not take, with its words and when they came.
    refused: Mutex<BTreeMap<orders::Slot, orders::Refused>>,
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
            logs: Default::default(),
            contests: Default::default(),
            halt: Default::default(),
            leaving: AtomicBool::new(false),
        }));
        let shared = || Arc::downgrade(&sessions.0);
        lasting::spawn("writing reports", reports::write_all(shared(), received));
        lasting::spawn("sending orders", orders::send_all(shared()));
        lasting::spawn("ending leftover sessions", leftovers::end_all(shared()));
        sessions
    }

    /// Number of streams.
    pub fn count(&self) -> usize {
        self.0.live().len()
    }

    /// What waits to be written or read.
    pub fn waiting(&self) -> Waiting {
        let shared = &self.0;
        let frames = |live: &Arc<Live>| FRAMES - live.frames.capacity().min(FRAMES);
        Waiting {
            reports: REPORTS - shared.reports.capacity().min(REPORTS),
            frames: shared.live().values().map(frames).max().unwrap_or(0),
        }
    }

    /// Asks every agent to open a stream elsewhere, before this replica ends, and takes in no other.
    pub async fn move_all(&self, within: Duration) {
        self.0.leaving.store(true, Ordering::SeqCst);
        let all: Vec<Arc<Live>> = self.0.live().values().cloned().collect();
        for live in all {
            self.0.ask_to_move(&live, within).await;
        }
    }
}

impl Shared {
    fn is_leaving(&self) -> bool {
        self.leaving.load(Ordering::SeqCst)
    }

    async fn ask_to_move(&self, live: &Live, within: Duration) {
        let message = v1::session_response::Message::Move(v1::Move {
            within_ms: u64::try_from(within.as_millis()).unwrap_or(u64::MAX),
            reason: "this replica is leaving".to_owned(),
        });
        self.send(live, message).await;
    }

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
    /// So much of the agent's journal was recorded at this revision.
    fn was_recorded(&self, at: Revision, sequence: u64) {
        let mut recorded = self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        if sequence > recorded.1 {
            *recorded = (at, sequence);
        }
    }

    /// Whether the store has lost what was recorded through this stream, by a view that has reached that revision.
    fn is_lost(&self, reached: Revision, fleet: &Fleet) -> bool {
        let (at, sequence) = *self.recorded.lock().unwrap_or_else(PoisonError::into_inner);
        reached >= at && fleet.journal.id == self.journal && fleet.journal.sequence < sequence
    }

    fn asked(&self) -> MutexGuard<'_, BTreeMap<u64, oneshot::Sender<v1::Answer>>> {
        self.asked.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refused(&self) -> MutexGuard<'_, BTreeMap<orders::Slot, orders::Refused>> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn sent(&self) -> MutexGuard<'_, BTreeMap<orders::Slot, orders::Sent>> {
        self.sent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
