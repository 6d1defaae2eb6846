//! Agents, and the clusters pinned to their names.

use std::collections::BTreeMap;

use aldis_core::ids::TargetName;

use super::{Error, Kind, Services};
use crate::agents::AgentFacts;
use crate::presence;
use crate::records::{self, Fleet};
use crate::store::{Commit, Precondition, Write};

impl Services {
    /// The same as [`Self::agents`], from a replica that sees the store.
    pub fn list_agents(
        &self,
        selector: &BTreeMap<String, String>,
        region: &str,
    ) -> Result<Vec<AgentFacts>, Error> {
        self.sees_the_store()?;
        Ok(self.agents(selector, region))
    }

    /// Agents with all of these labels, in one region where one is named.
    pub fn agents(&self, selector: &BTreeMap<String, String>, region: &str) -> Vec<AgentFacts> {
        let mut all = self.0.agents.fleet();
        all.retain(|facts| {
            let labels = labels(&facts.fleet);
            (region.is_empty() || facts.fleet.target.region() == region)
                && selector
                    .iter()
                    .all(|(key, value)| labels.get(key) == Some(value))
        });
        all
    }

    /// One agent.
    pub fn agent(&self, target: &TargetName) -> Result<AgentFacts, Error> {
        self.sees_the_store()?;
        let all = self.0.agents.fleet();
        let found = all.into_iter().find(|facts| facts.fleet.target == *target);
        found.ok_or_else(|| unknown(target))
    }

    /// Pins the cluster that was offered under a name. The operator says which one they mean, so that
    /// nobody accepts what was not looked at.
    pub async fn repin(
        &self,
        target: &TargetName,
        uid: &str,
        reason: &str,
        by: &str,
    ) -> Result<(), Error> {
        let known = self.0.view.read(|all| presence::one(all, target))?;
        let known = known.ok_or_else(|| unknown(target))?;
        let Some(offered) = known.fleet.offered.clone() else {
            return Err(
                Error::refused(format!("no other cluster registered as {target}"))
                    .hint(format!("see `aldis agents show {target}`")),
            );
        };
        if offered.cluster_uid != uid {
            return Err(Error::refused(format!(
                "the cluster that registered as {target} has UID {}, not {uid}",
                offered.cluster_uid
            ))
            .hint(format!("look at it first: `aldis agents show {target}`")));
        }
        let fleet = Fleet {
            identity: offered,
            offered: None,
            ..Fleet::clone(&known.fleet)
        };
        let record = known.fleet_record;
        let commit = Commit {
            preconditions: vec![Precondition::unchanged(&record.key, Some(&record))],
            writes: vec![Write::put(record.key.clone(), records::write(&fleet))],
        };
        if self.0.store.commit(commit).await?.is_committed() {
            tracing::warn!(%target, uid, by, reason, "another cluster pinned");
            return Ok(());
        }
        Err(
            Error::new(Kind::Unavailable, format!("{target} changed meanwhile"))
                .hint("look again, then try again"),
        )
    }
}

/// A cluster's own labels with `region` and `cluster`, which its name gives.
pub(super) fn labels(fleet: &Fleet) -> BTreeMap<String, String> {
    let mut labels = fleet.labels.clone();
    labels.insert("region".to_owned(), fleet.target.region().to_owned());
    labels.insert("cluster".to_owned(), fleet.target.cluster().to_owned());
    labels
}

fn unknown(target: &TargetName) -> Error {
    Error::not_found(format!("no agent ever registered for {target}"))
        .hint("see `aldis agents list`")
}
