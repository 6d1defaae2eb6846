//! The command line as a process: what scripts and people rely on, with everything real but the clusters.
//!
//! | file | shows |
//! |---|---|
//! | `codes.rs` | each exit code that can be reached |
//! | `forms.rs` | what stands on standard output in each form |
//! | `prompts.rs` | questions, and leaving them |
//! | `submissions.rs` | one job for one submission, whatever happens on the way |
//! | `following.rs` | leaving a job that is followed, and stopping it |
//! | `dev.rs` | a whole system in one command, and nothing left of it |

mod codes;
mod dev;
mod following;
mod forms;
mod harness;
mod prompts;
mod submissions;

/// A change that nothing stands in the way of, and that nothing makes wait.
const DEPLOY: [&str; 8] = [
    "submit",
    "deploy-image",
    "-p",
    "service=checkout",
    "-p",
    "namespace=shop",
    "-p",
    "image=checkout:v2.19.0",
];

/// A change that waits for ten minutes after its canary, as `{on_failure}` says.
const SLOW: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: slow, version: 1}
spec:
  params:
    type: object
    properties: {image: {type: string, default: 'checkout:v2.19.0'}}
  targets: {select: {matchLabels: {env: prod}}}
  rollout:
    waves: [{name: canary, pick: {max: 1}, soak: {for: 10m}}, {name: rest, pick: {percent: 100}}]
    maxFailures: 0
  steps:
    - {id: set, use: kube.set-image@v1, with: {deployment: checkout, namespace: shop, image: '${params.image}'}}
  verify:
    - {id: wait, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";
