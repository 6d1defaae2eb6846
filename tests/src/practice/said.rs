//! What agents have done by their journals, and whether the control plane has heard of it.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::TargetName;
use anyhow::Context;

use super::Practice;

/// What one agent has told the control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Said {
    /// Attempts of its journal: whether the end of each was acknowledged.
    pub acknowledged: Vec<bool>,
    /// Reports that wait for their acknowledgement.
    pub waiting: usize,
}

impl Practice {
    /// What each running agent has done and what of that the control plane has not acknowledged, by its journal.
    pub fn said(&self) -> BTreeMap<&TargetName, Said> {
        let mut said = BTreeMap::new();
        for (name, agent) in &self.agents {
            let Some((ledger, reports)) = &agent.words else {
                continue;
            };
            let acknowledged = ledger.read(|known| {
                let all = known.list(0).map(|(_, attempt)| attempt.acked_at.is_some());
                all.collect()
            });
            let waiting = reports.count();
            said.insert(
                name,
                Said {
                    acknowledged,
                    waiting,
                },
            );
        }
        said
    }

    /// Waits until the control plane has acknowledged all that agents have done.
    pub async fn until_heard(&self) -> anyhow::Result<()> {
        let unheard = || {
            let mut said = self.said();
            said.retain(|_, said| said.waiting > 0 || said.acknowledged.contains(&false));
            said
        };
        let heard = async {
            while !unheard().is_empty() {
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        };
        let result = tokio::time::timeout(self.patience, heard).await;
        result.with_context(|| format!("not heard: {:?}", unheard()))
    }
}
