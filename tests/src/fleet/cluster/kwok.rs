//! kwok's configuration: the stages, and a slot for each connection that our kubelet passes on.
//!
//! kwok forwards ports and reads logs by rules that are fixed when it starts, and tells the other end
//! nothing of the pod. So our kubelet, which stands before it, gives each connection a slot and asks kwok
//! for a pod of the slot's name: its rule leads to the slot's own listener and log file.

use serde_json::{Value, json};

use crate::fleet::kubelet::slots::Slot;

const STAGES: &str = include_str!("../../../fleet/stages.yaml");

/// What stands in the stages for the name of the cluster.
const THIS_CLUSTER: &str = "THIS_CLUSTER";

/// The whole file of a cluster, whose name is in the form that file names have.
pub(super) fn config(cluster: &str, slots: &[Slot]) -> String {
    let mut file = STAGES.replace(THIS_CLUSTER, cluster);
    for rule in slots.iter().flat_map(rules) {
        file.push_str(&format!("---\n{rule}\n"));
    }
    file
}

fn rules(slot: &Slot) -> [Value; 2] {
    let rule = |kind: &str, of: &str, value: Value| {
        json!({
            "apiVersion": "kwok.x-k8s.io/v1alpha1",
            "kind": kind,
            "metadata": {"name": slot.name()},
            "spec": {"selector": {"matchNames": [slot.name()]}, of: [value]},
        })
    };
    let address = slot.address();
    [
        rule(
            "ClusterPortForward",
            "forwards",
            json!({"target": {"address": address.ip(), "port": address.port()}}),
        ),
        rule(
            "ClusterLogs",
            "logs",
            json!({"logsFile": slot.log(), "previousLogsFile": slot.log(), "follow": true}),
        ),
    ]
}
