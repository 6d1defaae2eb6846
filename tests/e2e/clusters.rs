//! What the other tests rest on: that clusters behave as clusters do.

use std::time::Duration;

use aldis_tests::fleet::application::{Application, make_namespace};
use aldis_tests::fleet::cluster::{Cluster, kubeconfig};
use aldis_tests::fleet::reader::Seen;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::shop::{self, Reload};
use aldis_tests::requests::Connection;
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::api::{ListParams, LogParams};
use kube::{Api, ResourceExt};

use crate::fleet;

const LIMIT: Duration = Duration::from_secs(30);

async fn pods(cluster: &Cluster, namespace: &str) -> anyhow::Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(cluster.client(), namespace);
    Ok(api.list(&ListParams::default()).await?.items)
}

fn waits_for(pod: &Pod) -> Option<String> {
    let status = pod.status.as_ref()?.container_statuses.as_ref()?.first()?;
    status.state.as_ref()?.waiting.as_ref()?.reason.clone()
}

fn runs(image: &str) -> impl Fn(&&Pod) -> bool {
    let image = image.to_owned();
    move |pod| pod.spec.as_ref().unwrap().containers[0].image.as_ref() == Some(&image)
}

/// Answer of a pod through the API server, and its body.
async fn get(api: &Api<Pod>, pod: &str, port: u16, path: &str) -> anyhow::Result<(u16, String)> {
    let mut forward = api.portforward(pod, &[port]).await?;
    let stream = forward.take_stream(port).context("no stream")?;
    let answer = Connection::over(stream).await?.get(path).await?;
    Ok((answer.status.as_u16(), answer.body))
}

#[tokio::test]
async fn releases_roll_out_and_leave_a_history() {
    let cluster = fleet().await.cluster("eu-west/prod-1").unwrap();
    let app = Application::new("history", "web", ["web:v1", "web:v2", "web:v3"]);
    app.release(&cluster.client()).await.unwrap();
    let seen = Seen::read(&cluster.client(), "history", "web")
        .await
        .unwrap();
    assert_eq!(seen.images, ["web:v3"]);
    assert_eq!((seen.generation, seen.revision, seen.available), (3, 3, 3));
    let history: Vec<_> = seen
        .history
        .iter()
        .map(|release| {
            (
                release.revision,
                release.images[0].as_str(),
                release.replicas,
            )
        })
        .collect();
    assert_eq!(
        history,
        [(1, "web:v1", 0), (2, "web:v2", 0), (3, "web:v3", 3)]
    );
    assert_eq!(seen.managers, ["kube-controller-manager", "someone"]);
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_is_never_ready_and_has_no_log() {
    let cluster = fleet().await.cluster("us-east/prod-1").unwrap();
    let mut app = Application::new("unpullable", "web", ["web:v1", "web:v2-broken"]);
    app.wait_for_last = false;
    app.release(&cluster.client()).await.unwrap();
    let pod = eventually(LIMIT, "back-off", || async {
        let pods = pods(cluster, "unpullable").await?;
        let new = pods.into_iter().find(|pod| runs("web:v2-broken")(&pod));
        let new = new.context("no new pod")?;
        let reason = waits_for(&new);
        ensure!(reason.as_deref() == Some("ImagePullBackOff"), "{reason:?}");
        Ok(new)
    })
    .await
    .unwrap();
    let api = Api::<Pod>::namespaced(cluster.client(), "unpullable");
    let refusal = api.logs(&pod.name_any(), &LogParams::default()).await;
    let refusal = refusal.unwrap_err().to_string();
    assert!(
        refusal.contains("trying and failing to pull image"),
        "{refusal}"
    );
    let forward = get(&api, &pod.name_any(), 8080, "/").await;
    assert!(forward.is_err(), "{forward:?}");
    let seen = Seen::read(&cluster.client(), "unpullable", "web")
        .await
        .unwrap();
    assert_eq!(seen.available, 3, "the old pods stay");
}

#[tokio::test]
async fn an_image_that_crashes_restarts_and_says_why() {
    let cluster = fleet().await.cluster("us-east/prod-2").unwrap();
    let mut app = Application::new("crashing", "web", ["web:crash"]);
    app.wait_for_last = false;
    app.replicas = 1;
    app.release(&cluster.client()).await.unwrap();
    let pod = eventually(LIMIT, "two restarts", || async {
        let pod = pods(cluster, "crashing").await?.pop().context("no pod")?;
        let status = pod
            .status
            .as_ref()
            .and_then(|s| s.container_statuses.clone());
        let restarts = status
            .unwrap_or_default()
            .first()
            .map_or(0, |s| s.restart_count);
        ensure!(restarts >= 2, "{restarts} restarts");
        Ok(pod)
    })
    .await
    .unwrap();
    assert_eq!(waits_for(&pod).as_deref(), Some("CrashLoopBackOff"));
    let logs = Api::<Pod>::namespaced(cluster.client(), "crashing")
        .logs(&pod.name_any(), &LogParams::default())
        .await
        .unwrap();
    assert!(logs.contains("panic: open /etc/app/config.json"), "{logs}");
}

#[tokio::test]
async fn an_image_that_crashes_later_is_ready_first_and_again() {
    let cluster = fleet().await.cluster("us-east/prod-2").unwrap();
    let mut app = Application::new("crashing-later", "web", ["web:v1-crash-after-3s"]);
    app.replicas = 1;
    app.release(&cluster.client()).await.unwrap();
    for wanted in ["crashed", "up again"] {
        eventually(LIMIT, wanted, || async {
            let pod = pods(cluster, "crashing-later")
                .await?
                .pop()
                .context("no pod")?;
            let status = pod
                .status
                .as_ref()
                .and_then(|s| s.container_statuses.as_ref());
            let container = status.and_then(|all| all.first()).context("no container")?;
            let seen = (container.ready, container.restart_count > 0);
            ensure!(seen == (wanted == "up again", true), "{seen:?}");
            Ok(())
        })
        .await
        .unwrap();
    }
}

#[tokio::test]
async fn a_load_would_go_to_every_ready_pod_of_a_shop_and_to_no_other() {
    let cluster = fleet().await.cluster("eu-west/prod-2").unwrap();
    let mut app = shop::application("traffic", "checkout", ["shop/checkout:v1"], Reload::Never);
    app.release(&cluster.client()).await.unwrap();
    let (_, source) = shop::sources([cluster], &app).remove(0);
    let followed = &source.follow();
    let found = |wanted: usize| {
        eventually(LIMIT, format!("{wanted} addresses"), move || async move {
            let found = followed.addresses().clone();
            ensure!(found.len() == wanted, "{found:?}");
            Ok(found)
        })
    };
    assert!(
        found(3)
            .await
            .unwrap()
            .iter()
            .all(|address| address.port() == 8080)
    );
    app.replicas = 1;
    app.apply(&cluster.client(), "shop/checkout:v1")
        .await
        .unwrap();
    let left = found(1).await.unwrap();
    // The release that is never ready gets none, and the one that is keeps its own.
    app.apply(&cluster.client(), "shop/checkout:v2-unready")
        .await
        .unwrap();
    eventually(LIMIT, "two pods", || async {
        let pods = pods(cluster, "traffic").await?;
        let unready = pods.iter().filter(runs("shop/checkout:v2-unready"));
        ensure!(unready.count() == 1, "one release");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(*followed.addresses(), left);
}

#[tokio::test]
async fn port_forward_and_logs_answer_by_the_image() {
    let cluster = fleet().await.cluster("eu-west/prod-2").unwrap();
    let api = Api::<Pod>::namespaced(cluster.client(), "answers");
    for (name, tag, status) in [("good", "v1", 200), ("bad", "v2-failing", 500)] {
        let image = &format!("web:{tag}");
        let mut app = Application::new("answers", name, [image.as_str()]);
        app.replicas = 1;
        app.release(&cluster.client()).await.unwrap();
        let pods = pods(cluster, "answers").await.unwrap();
        let pod = pods.iter().find(runs(image)).unwrap().name_any();
        let (seen, version) = get(&api, &pod, 8080, "/version").await.unwrap();
        assert_eq!(seen, status);
        assert_eq!(version == format!("{tag}\n"), status == 200, "{version}");
        let (seen, body) = get(&api, &pod, 8080, "/healthz").await.unwrap();
        assert_eq!(seen, status);
        assert!(body.starts_with(&pod), "another pod answers: {body}");
        assert!(
            get(&api, &pod, 9, "/").await.is_err(),
            "nobody listens on 9"
        );
        let logs = api.logs(&pod, &LogParams::default()).await.unwrap();
        let wanted = format!("GET /healthz {status}");
        assert!(
            logs.contains(&format!("starting {tag}")) && logs.contains(&wanted),
            "{logs}"
        );
        let last = LogParams {
            tail_lines: Some(1),
            ..LogParams::default()
        };
        assert_eq!(api.logs(&pod, &last).await.unwrap().lines().count(), 1);
    }
}

#[tokio::test]
async fn the_agents_user_may_do_only_what_agents_need() {
    let cluster = fleet().await.cluster("eu-west/prod-1").unwrap();
    let app = Application::new("rights", "web", ["web:v1"]);
    app.release(&cluster.client()).await.unwrap();
    let file = cluster.agent_kubeconfig();
    let agent = kubeconfig::client(&file, "eu-west/prod-1").await.unwrap();
    app.apply(&agent, "web:v2")
        .await
        .expect("an agent may patch a Deployment");
    let pods = Api::<Pod>::namespaced(agent.clone(), "rights");
    let pod = pods.list(&ListParams::default()).await.unwrap().items[0].name_any();
    get(&pods, &pod, 8080, "/")
        .await
        .expect("an agent may probe");
    pods.logs(&pod, &LogParams::default())
        .await
        .expect("an agent may read logs");
    for (what, refused) in [
        (
            "a pod deleted",
            pods.delete(&pod, &Default::default()).await.err(),
        ),
        (
            "a namespace made",
            make_namespace(&agent, "mine").await.err().map(|error| {
                error
                    .downcast::<kube::Error>()
                    .expect("an answer of the API server")
            }),
        ),
        (
            "a Secret of Kubernetes read",
            Api::<k8s_openapi::api::core::v1::Secret>::namespaced(agent.clone(), "kube-system")
                .list(&ListParams::default())
                .await
                .err(),
        ),
    ] {
        match refused {
            Some(kube::Error::Api(status)) => assert_eq!(status.code, 403, "{what}"),
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[tokio::test]
async fn clusters_are_apart() {
    let fleet = fleet().await;
    let one = fleet.cluster("eu-west/prod-1").unwrap();
    let other = fleet.cluster("us-east/prod-1").unwrap();
    make_namespace(&one.client(), "only-here").await.unwrap();
    let names = Api::<k8s_openapi::api::core::v1::Namespace>::all(other.client());
    assert!(names.get_opt("only-here").await.unwrap().is_none());
}
