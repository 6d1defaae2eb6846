//! Gives the agent's user, or its account where it is a pod, the rights of `deploy/agent-rights.yaml` or of the
//! chart, and nothing else.
//!
//! In a fleet on this machine the agent may change every namespace but Kubernetes' own and those that
//! are labelled `aldis.dev/agent: none`. RBAC cannot say that, so each namespace that appears is given
//! its binding by [`Rights`], within milliseconds.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Namespace;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, RoleBinding, RoleRef, Subject};
use kube::api::{Patch, PatchParams};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, ResourceExt};
use tokio_util::task::AbortOnDropHandle;

use super::certificates::AGENT_USER;

/// The roles as a user of Aldis installs them.
const ROLES: &str = include_str!("../../../../deploy/agent-rights.yaml");

/// The role of the whole cluster.
pub const CLUSTER_ROLE: &str = "aldis-agent";

/// The role that is bound in each namespace.
pub const NAMESPACE_ROLE: &str = "aldis-agent-namespace";

/// A namespace with this label at `none` is not the agent's.
pub const LABEL: &str = "aldis.dev/agent";

/// Field manager of everything that the fleet itself applies.
pub(in crate::fleet) const MANAGER: &str = "aldis-fleet";

/// A namespace is bound at the first try unless its API server is hard pressed.
const TRIES: usize = 20;

const BETWEEN_TRIES: Duration = Duration::from_millis(500);

/// Binds roles in namespaces as they appear. Ends when dropped.
pub struct Rights {
    client: Client,
    following: Mutex<AbortOnDropHandle<()>>,
}

impl Rights {
    /// Installs the roles, binds the cluster's, and goes on with the namespaces'.
    pub async fn give(client: &Client) -> anyhow::Result<Self> {
        install(client).await?;
        Ok(Self {
            client: client.clone(),
            following: Mutex::new(start(client.clone(), agent())),
        })
    }

    /// Binds the namespaces' role to a service account in place of the agent's user, in each namespace that is
    /// there and each that appears. The roles of that name, and the binding of the cluster's, are then the
    /// chart's, which has replaced them.
    pub fn pass_to(&self, account: Account) {
        let mut following = self
            .following
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        *following = start(self.client.clone(), account.subject());
    }
}

/// A service account.
#[derive(Clone, Copy, Debug)]
pub struct Account {
    /// Where it is.
    pub namespace: &'static str,
    /// What it is called there.
    pub name: &'static str,
}

impl Account {
    fn subject(self) -> Subject {
        Subject {
            api_group: None,
            kind: "ServiceAccount".to_owned(),
            name: self.name.to_owned(),
            namespace: Some(self.namespace.to_owned()),
        }
    }
}

fn start(client: Client, subject: Subject) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(follow(client, subject)))
}

async fn install(client: &Client) -> anyhow::Result<()> {
    let roles: Vec<ClusterRole> =
        serde_saphyr::from_multiple(ROLES).context("read deploy/agent-rights.yaml")?;
    let api = Api::<ClusterRole>::all(client.clone());
    for role in &roles {
        api.patch(&role.name_any(), &apply(), &Patch::Apply(role))
            .await
            .with_context(|| format!("install role {}", role.name_any()))?;
    }
    let mut binding = ClusterRoleBinding {
        role_ref: role_ref(CLUSTER_ROLE),
        subjects: Some(vec![agent()]),
        ..ClusterRoleBinding::default()
    };
    binding.metadata.name = Some(CLUSTER_ROLE.to_owned());
    Api::<ClusterRoleBinding>::all(client.clone())
        .patch(CLUSTER_ROLE, &apply(), &Patch::Apply(&binding))
        .await
        .context("bind the agent's role")?;
    Ok(())
}

async fn follow(client: Client, subject: Subject) {
    let namespaces = Api::<Namespace>::all(client.clone());
    let mut seen = watcher(namespaces, watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .boxed();
    while let Some(namespace) = seen.next().await {
        let Ok(namespace) = namespace else { continue };
        if is_the_agents(&namespace) {
            bind_at_last(&client, &namespace.name_any(), &subject).await;
        }
    }
}

/// Tries some times: no other event need come of a namespace. One that is going away refuses for good.
async fn bind_at_last(client: &Client, namespace: &str, subject: &Subject) {
    for _ in 0..TRIES {
        match bind(client, namespace, subject).await {
            Ok(()) => return,
            Err(error) => tracing::warn!("{error:#}"),
        }
        tokio::time::sleep(BETWEEN_TRIES).await;
    }
}

/// Whether the agent may change what is in a namespace.
fn is_the_agents(namespace: &Namespace) -> bool {
    let refused = namespace.labels().get(LABEL).map(String::as_str) == Some("none");
    let leaving = namespace.metadata.deletion_timestamp.is_some();
    !refused && !leaving && !namespace.name_any().starts_with("kube-")
}

async fn bind(client: &Client, namespace: &str, subject: &Subject) -> anyhow::Result<()> {
    let mut binding = RoleBinding {
        role_ref: role_ref(NAMESPACE_ROLE),
        subjects: Some(vec![subject.clone()]),
        ..RoleBinding::default()
    };
    binding.metadata.name = Some(NAMESPACE_ROLE.to_owned());
    Api::<RoleBinding>::namespaced(client.clone(), namespace)
        .patch(NAMESPACE_ROLE, &apply(), &Patch::Apply(&binding))
        .await
        .with_context(|| format!("bind the agent's role in namespace {namespace}"))?;
    Ok(())
}

fn apply() -> PatchParams {
    PatchParams::apply(MANAGER).force()
}

fn role_ref(name: &str) -> RoleRef {
    RoleRef {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "ClusterRole".to_owned(),
        name: name.to_owned(),
    }
}

fn agent() -> Subject {
    Subject {
        api_group: Some("rbac.authorization.k8s.io".to_owned()),
        kind: "User".to_owned(),
        name: AGENT_USER.to_owned(),
        namespace: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn namespace(name: &str, label: Option<&str>) -> Namespace {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.to_owned());
        namespace.metadata.labels = label.map(|text| [(LABEL.to_owned(), text.to_owned())].into());
        namespace
    }

    #[test]
    fn kubernetes_own_and_refused_namespaces_are_out_of_reach() {
        assert!(is_the_agents(&namespace("shop", None)));
        assert!(!is_the_agents(&namespace("shop", Some("none"))));
        assert!(!is_the_agents(&namespace("kube-system", None)));
    }

    #[test]
    fn the_roles_never_allow_everything_nor_to_change_more_than_deployments() {
        let roles: Vec<ClusterRole> = serde_saphyr::from_multiple(ROLES).unwrap();
        assert_eq!(roles.len(), 2);
        for rule in roles.iter().flat_map(|role| role.rules.iter().flatten()) {
            let resources = rule.resources.clone().unwrap_or_default();
            for verb in &rule.verbs {
                match verb.as_str() {
                    "get" | "list" | "watch" => {}
                    "patch" => assert_eq!(resources, ["deployments"]),
                    "create" => assert_eq!(resources, ["pods/portforward"]),
                    other => panic!("{other} on {resources:?}"),
                }
            }
            assert!(!resources.iter().any(|resource| resource.contains('*')));
        }
    }
}
