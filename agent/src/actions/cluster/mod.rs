//! The actions on a real Kubernetes cluster: [`Cluster`] keeps the law of [`Actions`] with an API server.
//!
//! ```no_run
//! # async fn example() -> Result<(), aldis_agent::actions::cluster::Error> {
//! use aldis_agent::actions::cluster::Cluster;
//! use aldis_agent::actions::redact::Key;
//!
//! // The agent draws the key once, at random, and keeps it in its data directory.
//! let key = Key::new([7; 32]);
//! let file = std::path::Path::new("/etc/aldis/kubeconfig.yaml");
//! let cluster = Cluster::from_kubeconfig(file, "eu-west/prod-1", key).await?;
//! // Or, where the agent runs in its cluster: Cluster::in_cluster(key)?
//! # Ok(()) }
//! ```
//!
//! Building a request and judging an answer is pure and in files of its own; sending is thin.
//!
//! | file | what it holds |
//! |---|---|
//! | `connect` | the way to the API server, and the fingerprint of its CA |
//! | `server`, `error`, `paths` | sending, with deadlines and bounds; what an error means |
//! | `deployment`, `patch`, `references`, `rollout`, `owners` | pure: reading, requests, judgements |
//! | `get`, `write`, `wait`, `resolve_template`, `probe` | the actions |
//! | `behind` | what ails the pods that a probe was about |

mod behind;
mod connect;
mod deployment;
mod error;
mod get;
mod owners;
mod patch;
mod paths;
mod probe;
mod read;
mod references;
mod resolve_template;
pub mod rights;
mod rollout;
mod server;
mod wait;
mod write;

use std::path::Path;
use std::time::Duration;

use aldis_core::action::{Action, inputs};
use aldis_core::outcome::Failure;
use aldis_core::plan::ClusterIdentity;
use async_trait::async_trait;
use serde_json::Value;

use self::paths::NAMESPACE;
use self::rights::{Right, Use, right};
use self::server::{Deadline, Server, Shape};
use super::redact::Key;
use super::{
    Actions, Applied, Before, Call, Effect, Observed, Planned, Progress, Trouble, inputs as input,
    planned,
};

pub use connect::Error;

/// The namespace whose UID names a cluster: it is made once, with the cluster, and cannot be deleted.
const IDENTITY: &str = "kube-system";

/// What reading the identity needs.
const RIGHTS: [Right; 1] = [right(
    "get",
    NAMESPACE,
    &[Use::Plan, Use::Observe, Use::Apply, Use::Undo],
    "to prove which cluster this is",
)
.of(IDENTITY)];

/// Time to read the identity, which has no call around it.
const IDENTITY_TIMEOUT: Duration = Duration::from_secs(10);

/// One Kubernetes cluster. It holds connections and nothing else: what must survive is in the cluster or in the journal.
pub struct Cluster {
    server: Server,
    ca_fingerprint: String,
    key: Key,
}

impl Cluster {
    /// By the named context of a kubeconfig file, and by nothing from the environment. `key` hashes what a plan does not
    /// show. Nothing is sent yet.
    pub async fn from_kubeconfig(file: &Path, context: &str, key: Key) -> Result<Self, Error> {
        Ok(Self::new(connect::by_kubeconfig(file, context).await?, key))
    }

    /// By the service account of the pod that this process runs in.
    pub fn in_cluster(key: Key) -> Result<Self, Error> {
        Ok(Self::new(connect::in_cluster()?, key))
    }

    /// By the service account in `folder`, for an API server at `host` and `port`.
    pub fn by_account(folder: &Path, host: &str, port: &str, key: Key) -> Result<Self, Error> {
        Ok(Self::new(connect::by_account(folder, host, port)?, key))
    }

    fn new(connection: connect::Connection, key: Key) -> Self {
        Self {
            server: Server {
                client: connection.client,
            },
            ca_fingerprint: connection.ca_fingerprint,
            key,
        }
    }

    /// What a reading says right now.
    async fn reading(
        &self,
        call: &Call,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Trouble> {
        match call.action {
            Action::KubeGet => self.get(&input::read(call)?, deadline).await,
            Action::KubeResolveTemplate => {
                let chosen = self.resolve_template(&input::read(call)?, deadline).await?;
                for warning in &chosen.warnings {
                    progress.say(warning.clone());
                }
                Ok(chosen.outputs)
            }
            Action::KubeWait => {
                let left = call.left.clone();
                self.wait(&input::read(call)?, left, progress, deadline)
                    .await
            }
            Action::HttpProbe => self.probe(&input::read(call)?, progress, deadline).await,
            Action::KubeRolloutUndo | Action::KubeSetImage => {
                let cause = format!("{} is no reading", call.action.name());
                Err(Trouble::refused(Failure::new("invalid", cause)))
            }
        }
    }
}

#[async_trait]
impl Actions for Cluster {
    async fn identity(&self) -> Result<ClusterIdentity, Trouble> {
        let deadline = Deadline::after(IDENTITY_TIMEOUT);
        let what = "read namespace kube-system, which identifies the cluster";
        let path = NAMESPACE.one(None, IDENTITY).map_err(Trouble::refused)?;
        let found = self.server.find(&path, Shape::Metadata, deadline).await;
        let found = found.map_err(|error| error.reading(what))?;
        let uid = found
            .as_ref()
            .and_then(|found| found.pointer("/metadata/uid")?.as_str())
            .filter(|uid| !uid.is_empty());
        match uid {
            Some(uid) => Ok(ClusterIdentity {
                cluster_uid: uid.to_owned(),
                ca_fingerprint: self.ca_fingerprint.clone(),
            }),
            None => {
                let cause = format!("cannot {what}: it has no UID");
                Err(Trouble::refused(Failure::new("identity", cause)))
            }
        }
    }

    async fn plan(&self, call: &Call) -> Result<Planned, Trouble> {
        let deadline = Deadline::after(call.timeout);
        match call.action {
            Action::KubeRolloutUndo | Action::KubeSetImage => self.plan_write(call, deadline).await,
            Action::KubeGet => {
                let outputs = self.get(&input::read(call)?, deadline).await?;
                Ok(planned::read(call, Some(outputs), Vec::new()))
            }
            Action::KubeResolveTemplate => {
                let chosen = self.resolve_template(&input::read(call)?, deadline).await?;
                Ok(planned::read(call, Some(chosen.outputs), chosen.warnings))
            }
            Action::KubeWait => {
                let with: inputs::KubeWait = input::read(call)?;
                let warnings = self.missing_rights(call.action, &with.namespace, deadline);
                Ok(planned::read(call, None, warnings.await))
            }
            Action::HttpProbe => {
                let with: inputs::HttpProbe = input::read(call)?;
                self.probed(&with, deadline).await?;
                let warnings = match with.via {
                    inputs::Via::PortForward => {
                        self.missing_rights(call.action, &with.namespace, deadline)
                            .await
                    }
                    inputs::Via::Direct => Vec::new(),
                };
                Ok(planned::read(call, None, warnings))
            }
        }
    }

    async fn explain(&self, call: &Call) -> Vec<String> {
        match call.action {
            Action::HttpProbe => match input::read(call) {
                Ok(with) => self.ailing(&with, Deadline::after(call.timeout)).await,
                Err(_) => Vec::new(),
            },
            // A wait's own verdict says it; the others are about no pods.
            Action::KubeWait
            | Action::KubeGet
            | Action::KubeResolveTemplate
            | Action::KubeRolloutUndo
            | Action::KubeSetImage => Vec::new(),
        }
    }

    async fn capture(&self, call: &Call) -> Result<Before, Trouble> {
        if !input::writes(call) {
            return Ok(Value::Null);
        }
        self.capture_write(call, Deadline::after(call.timeout))
            .await
    }

    async fn apply(
        &self,
        call: &Call,
        before: &Before,
        progress: &Progress,
    ) -> Result<Applied, Trouble> {
        let deadline = Deadline::after(call.timeout);
        if input::writes(call) {
            return self.apply_write(call, before, progress, deadline).await;
        }
        Ok(Applied {
            outputs: self.reading(call, progress, deadline).await?,
            changed: false,
            after: Value::Null,
        })
    }

    async fn observe(&self, call: &Call, before: Option<&Before>) -> Result<Observed, Trouble> {
        if !input::writes(call) {
            return Ok(Observed::NotDone);
        }
        let deadline = Deadline::after(call.timeout);
        self.observe_write(call, before, deadline).await
    }

    async fn fence(&self, call: &Call, _before: Option<&Before>) -> Result<(), Trouble> {
        if !input::writes(call) {
            return Ok(());
        }
        self.fence_write(call, Deadline::after(call.timeout)).await
    }

    async fn undo(&self, call: &Call, effect: &Effect, progress: &Progress) -> Result<(), Trouble> {
        if !input::writes(call) {
            return Ok(());
        }
        let deadline = Deadline::after(call.timeout);
        self.undo_write(call, effect, progress, deadline).await
    }
}
