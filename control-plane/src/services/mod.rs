//! What people ask of the control plane, apart from how the question travels.
//!
//! | file | answers |
//! |---|---|
//! | `planning.rs` | what would this runbook do, everywhere |
//! | `selection.rs` | whom a plan is for |
//! | `submission.rs` | make a job of that plan, once; cancel, pause, resume, resolve it |
//! | `gathering.rs` | how are many submissions written at once |
//! | `listing.rs` | how do plans and jobs stand |
//! | `linked.rs` | plan another job over what a job left behind |
//! | `library.rs` | which runbooks are there; keep this one |
//! | `fleet.rs` | which agents are there; accept another cluster behind a name |
//!
//! Everything here works on any replica. Nothing decides what happens to a job: that is the leader's.
//!
//! **A replica that cannot see the store answers nothing**: what it remembers looks like the truth and may be
//! hours old. Whoever serves a call asks [`Services::fresh`] first; the command line goes to another replica
//! when it is told *unavailable*.

mod error;
mod fleet;
mod gathering;
mod library;
mod linked;
mod listing;
mod planning;
mod prefix;
mod selection;
mod submission;

use std::sync::Arc;
use std::time::Duration;

use aldis_core::ids::Timestamp;
use aldis_core::inventory::Limits;

use crate::agents::Agents;
use crate::clock::Clock;
use crate::jobs::Plans;
use crate::store::{self, Store};
use crate::turns::Turns;
use crate::view::View;

pub use error::{Error, Kind};
use gathering::Gathering;
pub use library::{Entry, Origin};
pub(crate) use listing::Logged;
pub use listing::{Filter, Listed};
pub use planning::{Asked, Progress, Wanted};
pub use submission::{Submission, Submitted};

/// How often a view that is not proved fresh is looked at again, and how long apart: together less than anybody
/// waits before they try another replica.
const LOOKS: usize = 10;
const BETWEEN_LOOKS: Duration = Duration::from_millis(100);

/// What the services work with. Clones are the same.
#[derive(Clone)]
pub struct Services(Arc<Shared>);

struct Shared {
    parts: Parts,
    planning: planning::Pace,
    gathering: Gathering,
}

impl std::ops::Deref for Shared {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.parts
    }
}

/// Joined in `run.rs`.
pub struct Parts {
    /// Where everything is kept.
    pub store: Arc<dyn Store>,
    /// What is known of it.
    pub view: View,
    /// For records and expiry.
    pub clock: Arc<dyn Clock>,
    /// Draws the ids of plans: nobody may guess or repeat one.
    pub draw: fn() -> u128,
    /// Plans by id.
    pub plans: Arc<Plans>,
    /// Whom to ask.
    pub agents: Arc<dyn Agents>,
    /// Whose turn it is in the queue.
    pub turns: Arc<Turns>,
    /// Times that decisions depend on.
    pub limits: Limits,
    /// Jobs that have not ended, beyond which no more are taken.
    pub open_jobs: usize,
    /// How long a plan can be submitted.
    pub plan_expiry: Duration,
}

impl Services {
    /// Serves from these parts.
    pub fn new(parts: Parts) -> Self {
        Self(Arc::new(Shared {
            gathering: Gathering::start(parts.store.clone()),
            parts,
            planning: planning::Pace::default(),
        }))
    }

    /// These services, if this replica's view is proved to be complete; else *unavailable*. For the top of each
    /// call, and for each answer of a call that goes on.
    pub async fn fresh(&self) -> Result<&Self, Error> {
        let is_fresh = || {
            let now = self.0.clock.boot_now();
            self.0.view.freshness(now).is_some()
        };
        if is_fresh() {
            return Ok(self);
        }
        // A proof may be under way: of a replica that was just started.
        if let Err(error @ store::Error::WentBack { .. }) = self.0.store.read_revision().await {
            return Err(error.into());
        }
        for _ in 0..LOOKS {
            tokio::time::sleep(BETWEEN_LOOKS).await;
            if is_fresh() {
                return Ok(self);
            }
        }
        Err(self.unseen())
    }

    /// What a replica says that is cut off from the store: its view looks complete and is not.
    fn unseen(&self) -> Error {
        let stale = self.0.view.stale_for(self.0.clock.boot_now()).as_secs();
        let why =
            format!("this replica has not seen the store for {stale} s: what it knows may be over");
        Error::new(Kind::Unavailable, why)
            .hint("ask another replica; jobs do not depend on this one")
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.clock.wall_now())
    }
}
