//! The way to the cluster that an agent in a pod takes: a folder with a token and a CA, and an address.

use std::path::Path;

use aldis_agent::actions::Actions;
use aldis_agent::actions::cluster::Cluster as Actor;
use aldis_tests::fleet::cluster::rights;
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::ServiceAccount;
use k8s_openapi::api::rbac::v1::ClusterRoleBinding;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use kube::config::Kubeconfig;
use serde_json::json;

use crate::support::{World, app, failure, key, rollback, world};

pub(crate) const ACCOUNT: &str = "in-pod";

/// Puts token and CA of a service account into `folder`, as a kubelet does.
async fn mount(world: &World, namespace: &str, folder: &Path) {
    let account: ServiceAccount =
        serde_json::from_value(json!({"metadata": {"name": ACCOUNT}})).unwrap();
    let accounts = Api::<ServiceAccount>::namespaced(world.admin.clone(), namespace);
    accounts
        .create(&PostParams::default(), &account)
        .await
        .unwrap();
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let token = accounts
        .create_token_request(ACCOUNT, &PostParams::default(), &request)
        .await
        .unwrap();
    std::fs::write(folder.join("token"), token.status.unwrap().token.unwrap()).unwrap();
    let kubeconfig = Kubeconfig::read_from(world.cluster.agent_kubeconfig()).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
    std::fs::copy(
        cluster.certificate_authority.unwrap(),
        folder.join("ca.crt"),
    )
    .unwrap();
}

/// The way to the cluster of a new account of `namespace`, which may do nothing.
pub(crate) async fn account(world: &World, namespace: &str) -> Actor {
    // Kept: the token is read again while it is used.
    let folder = Path::new(env!("CARGO_TARGET_TMPDIR"))
        .join("accounts")
        .join(namespace);
    std::fs::create_dir_all(&folder).unwrap();
    mount(world, namespace, &folder).await;
    let kubeconfig = Kubeconfig::read_from(world.cluster.agent_kubeconfig()).unwrap();
    let cluster = kubeconfig.clusters[0].cluster.clone().unwrap();
    let server = cluster.server.unwrap();
    let (host, port) = server
        .trim_start_matches("https://")
        .rsplit_once(':')
        .unwrap();
    Actor::by_account(&folder, host, port, key()).unwrap()
}

async fn bind(world: &World, namespace: &str) {
    for role in ["aldis-agent", rights::NAMESPACE_ROLE] {
        let binding = json!({
            "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRoleBinding",
            "metadata": {"name": format!("in-pod-{role}")},
            "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": role},
            "subjects": [{"kind": "ServiceAccount", "name": ACCOUNT, "namespace": namespace}],
        });
        Api::<ClusterRoleBinding>::all(world.admin.clone())
            .patch(
                &format!("in-pod-{role}"),
                &PatchParams::apply("test"),
                &Patch::Apply(binding),
            )
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn an_agent_in_a_pod_acts_with_the_rights_of_its_account_on_the_same_cluster() {
    let world = world().await;
    app("account", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let actor = account(&world, "account").await;
    let call = rollback("account", "v2", "previous");
    assert_eq!(
        failure(actor.plan(&call).await.unwrap_err()).kind,
        "refused"
    );
    bind(&world, "account").await;
    let planned = aldis_tests::fleet::ready::eventually(
        std::time::Duration::from_secs(30),
        "the rights of the account",
        || async { Ok(actor.plan(&call).await?) },
    )
    .await
    .unwrap();
    assert!(planned.plan.changes);
    let (in_pod, outside) = (actor.identity().await, world.actor.identity().await);
    assert_eq!(in_pod.unwrap(), outside.unwrap());
}
