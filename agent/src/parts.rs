//! What every part of the agent works with.

use std::sync::Arc;

use aldis_core::ids::TargetName;
use aldis_core::plan::ClusterIdentity;

use crate::actions::Actions;
use crate::clock::Clock;
use crate::ledger::Ledger;
use crate::logs::Logs;
use crate::permit::Permits;
use crate::policy::Policy;
use crate::reports::Reports;

/// Joined in [`crate::run`], and by tests. Clones are the same.
#[derive(Clone)]
pub struct Parts {
    /// The one cluster.
    pub target: TargetName,
    /// Whether it is a practice cluster.
    pub simulated: bool,
    /// The identity that its operators pinned, where they did.
    pub pin: Option<ClusterIdentity>,
    /// What can be done to it.
    pub actions: Arc<dyn Actions>,
    /// What its operators allow.
    pub policy: Arc<Policy>,
    /// What was written down.
    pub ledger: Ledger,
    /// What the control plane must still hear.
    pub reports: Reports,
    /// Lines for people.
    pub logs: Logs,
    /// Whether something may start.
    pub permits: Permits,
    /// For deadlines and dates.
    pub clock: Arc<dyn Clock>,
}
