//! One agent runs in its cluster, as a pod that the chart in `deploy/` made: what its account may do, and what becomes
//! of a job when the pod is killed.

use std::path::Path;

use aldis_tests::fleet::cluster::{Cluster, kubeconfig};
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::system::agents::{Agent, IN_ITS_CLUSTER};
use aldis_tests::fleet::system::pod::{ACCOUNT, CERTIFICATE, Pod};
use aldis_tests::practice::rests;
use aldis_tests::runbooks;
use aldis_tests::stage::{PATIENCE, SERVICE, Stage, joined};
use anyhow::{Context, ensure};
use http::{Method, Request};
use k8s_openapi::api::authentication::v1::{TokenRequest, TokenRequestSpec};
use k8s_openapi::api::core::v1::{self, ServiceAccount};
use kube::api::{DeleteParams, PostParams};
use kube::config::{AuthInfo, KubeConfigOptions, Kubeconfig};
use kube::{Api, Client};

use crate::{alone_on_real_nodes, real_nodes};

const OLD: &str = "shop/checkout:v1";
const NEW: &str = "shop/checkout:v2";

fn agent(stage: &Stage) -> (&'static Agent, &'static Pod) {
    let agent = stage.system().agent(IN_ITS_CLUSTER).unwrap();
    (agent, agent.pod().expect("on real nodes it is a pod"))
}

/// `deploy-image` on its cluster. One unknown is within its budget, so that the job goes on once it is known what
/// became of it.
fn deploy(stage: &Stage) -> Vec<String> {
    let text = runbooks::deploy("deploy-patiently", &[("maxFailures: 0", "maxFailures: 1")]);
    let file = stage.file("deploy.yaml", &text).unwrap();
    let words = stage.words(file.to_str().unwrap(), &[&format!("image={NEW}")]);
    joined(&["--target", IN_ITS_CLUSTER], &words)
}

/// A client with a token of the agent's account.
async fn as_account(cluster: &Cluster) -> anyhow::Result<Client> {
    let accounts = Api::<ServiceAccount>::namespaced(cluster.client(), ACCOUNT.namespace);
    let request = TokenRequest {
        spec: Some(TokenRequestSpec::default()),
        ..TokenRequest::default()
    };
    let made = accounts
        .create_token_request(ACCOUNT.name, &PostParams::default(), &request)
        .await?;
    let mut file = Kubeconfig::read_from(cluster.agent_kubeconfig())?;
    let token = made.status.context("a token")?.token;
    for user in &mut file.auth_infos {
        user.auth_info = Some(AuthInfo {
            token: token.clone().map(Into::into),
            ..AuthInfo::default()
        });
    }
    let options = KubeConfigOptions {
        context: Some(IN_ITS_CLUSTER.to_owned()),
        ..KubeConfigOptions::default()
    };
    let config = kube::Config::from_custom_kubeconfig(file, &options).await?;
    Ok(Client::try_from(config)?)
}

/// The HTTP status that a request gets.
async fn answer(client: &Client, method: Method, path: &str) -> anyhow::Result<u16> {
    let request = Request::builder()
        .method(method)
        .uri(path)
        .header("content-type", "application/merge-patch+json")
        .body(b"{}".to_vec())?;
    match client.request_text(request).await {
        Ok(_) => Ok(200),
        Err(kube::Error::Api(status)) => Ok(status.code),
        Err(error) => Err(error.into()),
    }
}

#[tokio::test]
async fn with_the_rights_that_its_policy_needs_it_deploys_and_probes_and_it_has_no_others() {
    let Some(fleet) = real_nodes("an agent's own account").await else {
        return;
    };
    let stage = Stage::shared(fleet, "pod-rights").await;
    let cluster = fleet.cluster(IN_ITS_CLUSTER).unwrap();
    let app = stage.application(&[OLD]);
    stage.release_on(IN_ITS_CLUSTER, &app).await.unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let (code, view) = stage.run(&deploy(&stage)).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"]));

    let ours = &stage.namespace;
    let deployment = format!("/apis/apps/v1/namespaces/{ours}/deployments/{SERVICE}");
    let account = as_account(cluster).await.unwrap();
    assert_eq!(
        answer(&account, Method::GET, &deployment).await.unwrap(),
        200
    );
    let beyond = [
        (
            Method::GET,
            "/api/v1/namespaces/kube-system/secrets/any".to_owned(),
        ),
        (
            Method::PATCH,
            "/apis/apps/v1/namespaces/kube-system/deployments/any".to_owned(),
        ),
        (
            Method::GET,
            format!(
                "/api/v1/namespaces/{}/secrets/{CERTIFICATE}",
                ACCOUNT.namespace
            ),
        ),
        (Method::GET, format!("/api/v1/namespaces/{ours}/secrets")),
        (
            Method::POST,
            format!("/api/v1/namespaces/{ours}/pods/any/exec"),
        ),
        (Method::DELETE, deployment.clone()),
        (
            Method::PATCH,
            format!("/api/v1/namespaces/{ours}/configmaps/any"),
        ),
        (Method::GET, "/api/v1/nodes".to_owned()),
    ];
    for (method, path) in beyond {
        let code = answer(&account, method.clone(), &path).await.unwrap();
        assert_eq!(code, 403, "{method} {path}");
    }
    // No second way in is left open: the user that agents beside their clusters have may do nothing here.
    let file = cluster.agent_kubeconfig();
    let user = kubeconfig::client(&file, IN_ITS_CLUSTER).await.unwrap();
    assert_eq!(answer(&user, Method::GET, &deployment).await.unwrap(), 403);
}

async fn uid(pods: &Api<v1::Pod>, name: &str) -> anyhow::Result<String> {
    pods.get(name).await?.metadata.uid.context("an id")
}

/// What is written of a journal, without the room that is kept behind it.
fn written(journal: &Path) -> Vec<u8> {
    let mut bytes = std::fs::read(journal).unwrap();
    while bytes.last() == Some(&0) {
        bytes.pop();
    }
    bytes
}

#[tokio::test]
async fn killed_and_replaced_in_the_middle_it_comes_back_with_its_journal_and_makes_the_change_once()
 {
    let Some(stage) = alone_on_real_nodes("pod-killed").await else {
        return;
    };
    let cluster = stage.fleet.cluster(IN_ITS_CLUSTER).unwrap();
    let (agent, pod) = agent(&stage);
    let pods = Api::<v1::Pod>::namespaced(cluster.client(), ACCOUNT.namespace);
    let app = stage.application(&[OLD]);
    stage.release_on(IN_ITS_CLUSTER, &app).await.unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let before = stage.seen(IN_ITS_CLUSTER).await.unwrap();
    let first = uid(&pods, &pod.name()).await.unwrap();

    let killed = pod.arm("agent-after-effect").unwrap();
    let job = stage.submit(&deploy(&stage)).await.unwrap();
    eventually(PATIENCE, "it is killed after its effect", || async {
        ensure!(killed.exists(), "it lives");
        Ok(())
    })
    .await
    .unwrap();
    let begun = written(&agent.journal());
    let at_once = DeleteParams {
        grace_period_seconds: Some(0),
        ..DeleteParams::default()
    };
    pods.delete(&pod.name(), &at_once).await.unwrap();
    pod.disarm();

    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"]));
    assert_ne!(uid(&pods, &pod.name()).await.unwrap(), first, "another pod");
    assert!(
        !begun.is_empty() && written(&agent.journal()).starts_with(&begun),
        "the other pod went on with the journal"
    );
    let after = stage.seen(IN_ITS_CLUSTER).await.unwrap();
    assert_eq!(after.images, [NEW]);
    assert_eq!(after.generation - before.generation, 1, "one change");
    assert_eq!(after.history.len(), 2, "one ReplicaSet more");
}
