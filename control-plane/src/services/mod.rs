//! What people ask of the control plane, apart from how the question travels.
//!
//! | file | answers |
//! |---|---|
//! | `planning.rs` | what would this runbook do, everywhere |
//! | `selection.rs` | whom a plan is for |
//! | `submission.rs` | make a job of that plan, once; cancel, pause, resume, resolve it |
//! | `listing.rs` | how do plans and jobs stand |
//! | `linked.rs` | plan another job over what a job left behind |
//! | `library.rs` | which runbooks are there; keep this one |
//! | `fleet.rs` | which agents are there; accept another cluster behind a name |
//!
//! Everything here works on any replica. Nothing decides what happens to a job: that is the leader's.

mod error;
mod fleet;
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
use crate::store::Store;
use crate::turns::Turns;
use crate::view::View;

pub use error::{Error, Kind};
pub use library::{Entry, Origin};
pub(crate) use listing::Logged;
pub use listing::{Filter, Listed};
pub use planning::{Asked, Progress, Wanted};
pub use submission::{Submission, Submitted};

/// What the services work with. Clones are the same.
#[derive(Clone)]
pub struct Services(Arc<Parts>);

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
        Self(Arc::new(parts))
    }

    fn now(&self) -> Timestamp {
        Timestamp(self.0.clock.wall_now())
    }
}
