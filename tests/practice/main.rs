//! Jobs from submission to rest on practice clusters: everything is real but the clusters.

mod asked;
mod jobs;
mod linked;
mod locks;
mod replicas;
mod submissions;
mod watching;

/// A remedy: wave of one, then the rest; no soak.
const ROLLBACK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: back, version: 1}
spec:
  direction: remedy
  params:
    type: object
    properties: {from: {type: string, default: 'checkout:v2.18.0'}}
  targets: {select: {matchLabels: {env: prod}}, whenUnreachable: defer}
  rollout:
    waves: [{name: canary, pick: {max: 1}}, {name: rest, pick: {percent: 100}}]
    maxFailures: 25%
  preflight:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: checkout, namespace: shop}, barrier: true}
  steps:
    - {id: back, use: kube.rollout-undo@v1, with: {deployment: checkout, namespace: shop, from: '${params.from}', to: previous}}
    - {id: wait, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";

/// A change: wave of one, then the rest; undone when anything fails.
const DEPLOY: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: deploy, version: 1}
spec:
  params:
    type: object
    required: [image]
    properties: {image: {type: string}}
  targets: {select: {matchLabels: {env: prod}}}
  rollout:
    waves: [{name: canary, pick: {max: 1}}, {name: rest, pick: {percent: 100}}]
    maxFailures: 0
  preflight:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: checkout, namespace: shop}, barrier: true}
  steps:
    - {id: set, use: kube.set-image@v1, with: {deployment: checkout, namespace: shop, image: '${params.image}'}}
    - {id: wait, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";

/// Two regions of two.
const FOUR: [&str; 4] = [
    "eu-west/prod-1",
    "eu-west/prod-2",
    "us-east/prod-1",
    "us-east/prod-2",
];
