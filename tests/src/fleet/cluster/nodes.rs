//! The nodes of one cluster as objects of its API. Simulated ones are registered here, and kwok makes them
//! ready; a real one registers itself.

use aldis_core::ids::TargetName;
use anyhow::Context;
use futures::future::try_join_all;
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde_json::json;

use super::rights::MANAGER;
use crate::fleet::nodes::Nodes;

/// Two, in two zones: enough for a drain and for spreading.
const NODES: [(&str, &str); 2] = [("node-1", "a"), ("node-2", "b")];

/// How many of a kind a cluster has.
pub(super) fn count(nodes: Nodes) -> usize {
    match nodes {
        Nodes::Real => 1,
        Nodes::Simulated => NODES.len(),
    }
}

/// Registers simulated nodes.
pub(super) async fn register(client: &Client, target: &TargetName) -> anyhow::Result<()> {
    let api = Api::<Node>::all(client.clone());
    try_join_all(NODES.map(|(name, zone)| {
        let api = api.clone();
        async move {
            let node = json!({
                "apiVersion": "v1",
                "kind": "Node",
                "metadata": {"name": name, "labels": {
                    "kubernetes.io/hostname": name,
                    "topology.kubernetes.io/region": target.region(),
                    "topology.kubernetes.io/zone": format!("{}{zone}", target.region()),
                }},
            });
            api.patch(name, &PatchParams::apply(MANAGER), &Patch::Apply(&node))
                .await
                .with_context(|| format!("register {name} of {target}"))
        }
    }))
    .await?;
    Ok(())
}

/// Whether so many are ready and take pods.
pub(super) async fn ready(client: &Client, wanted: usize) -> anyhow::Result<()> {
    let nodes = Api::<Node>::all(client.clone())
        .list(&Default::default())
        .await?;
    let ready = |node: &&Node| {
        let conditions = node.status.as_ref().and_then(|s| s.conditions.as_ref());
        let tainted = node.spec.as_ref().and_then(|spec| spec.taints.as_ref());
        conditions.is_some_and(|all| all.iter().any(|c| c.type_ == "Ready" && c.status == "True"))
            && tainted.is_none_or(Vec::is_empty)
    };
    let count = nodes.iter().filter(ready).count();
    anyhow::ensure!(count == wanted, "{count} of {wanted} nodes are ready");
    Ok(())
}
