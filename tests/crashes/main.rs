//! Agents that are killed: real processes, SIGKILL at every crash point, journals deleted and cut, under a real control
//! plane. Only the clusters are practice clusters, each in a file that outlives its agent.

mod agent;
mod journals;
mod points;

/// One target, one change, one wait.
const DEPLOY: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: deploy, version: 1}
spec:
  params:
    type: object
    required: [image]
    properties: {image: {type: string}}
  targets: {select: {matchLabels: {env: prod}}}
  rollout: {maxFailures: 0}
  steps:
    - {id: set, use: kube.set-image@v1, with: {deployment: checkout, namespace: shop, image: '${params.image}'}}
    - {id: rolled, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";

const TARGET: &str = "eu-west/prod-1";
