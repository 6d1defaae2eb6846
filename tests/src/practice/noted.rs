//! A practice cluster that says when a step begins on it.

use std::sync::Arc;

use aldis_agent::actions::simulated::Simulated;
use aldis_agent::actions::{
    Actions, Applied, Before, Call, Effect, Observed, Planned, Progress, Trouble,
};
use aldis_core::plan::ClusterIdentity;
use async_trait::async_trait;
use tokio::sync::watch;

/// Counts the steps that were begun, and does what the cluster does.
pub(super) struct Noted {
    cluster: Arc<Simulated>,
    begun: watch::Sender<u64>,
}

impl Noted {
    pub(super) fn new(cluster: Arc<Simulated>) -> Self {
        Self {
            cluster,
            begun: watch::Sender::new(0),
        }
    }

    /// The cluster itself.
    pub(super) fn cluster(&self) -> &Simulated {
        &self.cluster
    }

    /// The number of steps begun so far, and each one after.
    pub(super) fn begun(&self) -> watch::Receiver<u64> {
        self.begun.subscribe()
    }
}

#[async_trait]
impl Actions for Noted {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        self.cluster.identity().await
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        self.cluster.plan(call).await
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        self.cluster.capture(call).await
    }

    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble> {
        self.begun.send_modify(|begun| *begun += 1);
        self.cluster.apply(call, before, progress).await
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        self.cluster.observe(call, before).await
    }

    async fn fence(&self, call: &Call, before: Option<&Before>) -> Result<(), Trouble> {
        self.cluster.fence(call, before).await
    }

    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble> {
        self.cluster.undo(call, effect, progress).await
    }
}
