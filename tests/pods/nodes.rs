//! Faults that only real nodes have, each with what an operator sees of it.

use std::time::Duration;

use aldis_core::job::TargetState;
use aldis_core::view::JobView;
use aldis_tests::fleet::application::manifest::Resources;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::shop::{self, Reload};
use aldis_tests::practice::rests;
use aldis_tests::runbooks;
use aldis_tests::stage::{PATIENCE, SERVICE, Stage, joined, name, state};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use rustix::process::Signal;

use crate::{alone_on_real_nodes, real_nodes};

const OLD: &str = "shop/checkout:v1";
const NEW: &str = "shop/checkout:v2";
/// Ready for long enough that a kubelet sees it, and unready for as long.
const FLAPPING: &str = "shop/checkout:v2-flapping-3s";
/// Serves errors, so that no look at its health in between finds it well.
const CRASHING: &str = "shop/checkout:v2-failing-crash-after-3s";
const TARGET: &str = "eu-west/prod-1";

/// A node that is switched off is found out after 51 s.
const FOUND_OUT: Duration = Duration::from_secs(150);

/// `deploy-image` on one cluster, which gives up after 20 s without progress, and after 7 s without health.
fn impatient(stage: &Stage, image: &str) -> Vec<String> {
    let changes = [
        ("failAfterNoProgress: 2m", "failAfterNoProgress: 20s"),
        ("retry: {max: 5, delay: 2s", "retry: {max: 3, delay: 1s"),
    ];
    let text = runbooks::deploy("deploy-impatiently", &changes);
    let file = stage.file("deploy.yaml", &text).unwrap();
    let words = stage.words(file.to_str().unwrap(), &[&format!("image={image}")]);
    joined(&["--target", TARGET], &words)
}

/// `deploy-image` on one cluster, which asks the pods how they are before it changes anything.
fn careful(stage: &Stage, image: &str) -> Vec<String> {
    const FIRST: &str = "    - id: now\n";
    const ALIVE: &str = r#"    - id: alive
      use: http.probe@v1
      with: {service: "${params.service}", namespace: "${params.namespace}", port: "${params.port}", path: /healthz, via: portForward, samples: 1}
      require: steps.alive.outputs.errorRate < 0.01
"#;
    let text = runbooks::deploy("deploy-carefully", &[(FIRST, &format!("{ALIVE}{FIRST}"))]);
    let file = stage.file("careful.yaml", &text).unwrap();
    let words = stage.words(file.to_str().unwrap(), &[&format!("image={image}")]);
    joined(&["--target", TARGET], &words)
}

/// What a person sees of a job that ended with this code.
async fn told(stage: &Stage, job: &str, code: i32) -> String {
    let said = stage.aldis(&["watch", job, "--progress", "plain"]).await;
    said.unwrap().ended(code).unwrap().out
}

async fn node(cluster: &Cluster) -> anyhow::Result<Node> {
    let nodes = Api::<Node>::all(cluster.client())
        .list(&Default::default())
        .await?;
    nodes.items.into_iter().next().context("a node")
}

/// Whether Kubernetes believes that the node runs.
async fn is_ready(cluster: &Cluster) -> anyhow::Result<bool> {
    let status = node(cluster).await?.status.unwrap_or_default();
    let mut conditions = status.conditions.into_iter().flatten();
    let ready = conditions.find(|one| one.type_ == "Ready");
    Ok(ready.context("a condition")?.status == "True")
}

/// Processors of the node that pods may have, in thousandths.
async fn processors(cluster: &Cluster) -> anyhow::Result<u64> {
    let status = node(cluster).await?.status.unwrap_or_default();
    let all = status.allocatable.context("what pods may have")?;
    let text = all.get("cpu").context("processors")?.0.clone();
    match text.strip_suffix('m') {
        Some(thousandths) => Ok(thousandths.parse()?),
        None => Ok(text.parse::<u64>()? * 1000),
    }
}

#[tokio::test]
async fn a_release_for_which_the_node_has_no_room_is_put_back_and_the_scheduler_says_why() {
    let Some(fleet) = real_nodes("no room for a pod").await else {
        return;
    };
    let stage = Stage::shared(fleet, "no-room").await;
    let cluster = fleet.cluster(TARGET).unwrap();
    let most = processors(cluster).await.unwrap() * 6 / 10;
    let mut app = stage.application(&[OLD]);
    app.replicas = 1;
    app.max_unavailable = Some(0);
    app.container.resources = Some(Resources {
        cpu: format!("{most}m"),
        memory: "16Mi".to_owned(),
        memory_limit: "64Mi".to_owned(),
    });
    stage.release_on(TARGET, &app).await.unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let job = stage.submit(&impatient(&stage, NEW)).await.unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!((code, rests(&view)), (4, vec!["restored"]));
    let said = told(&stage, &job, 4).await;
    for word in ["Unschedulable", "Insufficient cpu", TARGET] {
        assert!(said.contains(word), "the verdict names {word}: {said}");
    }
    assert_eq!(stage.seen(TARGET).await.unwrap().images, [OLD]);
}

#[tokio::test]
async fn a_release_that_does_not_stay_ready_is_put_back_and_the_verdict_says_which_pod_and_how_often()
 {
    let Some(fleet) = real_nodes("readiness that flaps").await else {
        return;
    };
    let stage = Stage::shared(fleet, "flapping").await;
    let mut app = stage.application(&[OLD]);
    // Longer than it ever stays ready.
    app.min_ready = Duration::from_secs(8);
    stage.release_on(TARGET, &app).await.unwrap();
    stage.publish(&[FLAPPING]).await.unwrap();
    let job = stage.submit(&impatient(&stage, FLAPPING)).await.unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    let said = told(&stage, &job, code).await;
    assert_eq!((code, rests(&view)), (4, vec!["restored"]), "{said}");
    let words = [
        TARGET,
        "wait_rollout",
        "has not moved",
        "was ready and became unready again",
        "times, container app: running",
    ];
    for word in words {
        assert!(said.contains(word), "the verdict names {word}: {said}");
    }
    let name = said.split("pod checkout-").nth(1).expect("a pod's name");
    assert!(name.contains(" was ready"), "{said}");
    assert_eq!(stage.seen(TARGET).await.unwrap().images, [OLD]);
}

#[tokio::test]
async fn a_release_that_counts_as_ready_and_crashes_fails_its_health_and_the_verdict_says_that_it_crashed()
 {
    let Some(fleet) = real_nodes("a crash without a probe").await else {
        return;
    };
    let stage = Stage::shared(fleet, "crash-unprobed").await;
    let mut app = stage.application(&[OLD]);
    // Nobody asks it how it is, so that it is rolled out as soon as it runs.
    app.container.probes = None;
    stage.release_on(TARGET, &app).await.unwrap();
    stage.publish(&[CRASHING]).await.unwrap();
    let job = stage.submit(&impatient(&stage, CRASHING)).await.unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    let said = told(&stage, &job, code).await;
    assert_eq!((code, rests(&view)), (4, vec!["restored"]), "{said}");
    let failure = view.targets[&name(TARGET)].failure.as_ref().unwrap();
    assert_eq!(failure.step, Some("health".into()), "{said}");
    for word in ["pod checkout-", "container app", "restarted", "exit code 1"] {
        assert!(said.contains(word), "the verdict names {word}: {said}");
    }
    assert_eq!(stage.seen(TARGET).await.unwrap().images, [OLD]);
}

#[tokio::test]
async fn a_node_that_is_switched_off_in_a_rollout_is_no_success_and_takes_the_next_release_once_it_is_back()
 {
    let Some(stage) = alone_on_real_nodes("node-off").await else {
        return;
    };
    let cluster = stage.fleet.cluster(TARGET).unwrap();
    let power = cluster.node().unwrap().process();
    let mut app = shop::application(&stage.namespace, SERVICE, [OLD], Reload::OnChange);
    app.replicas = 2;
    stage.release_on(TARGET, &app).await.unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let off = stage
        .fleet
        .folder()
        .write(format!("down/{}", power.name()), "");
    let off = off.unwrap();
    let job = stage.submit(&impatient(&stage, NEW)).await.unwrap();
    let at_work = |view: &JobView| matches!(state(view, TARGET), TargetState::Running { .. });
    stage.until(&job, "it is at work", at_work).await.unwrap();
    power.signal(Signal::KILL).unwrap();

    let stuck = |view: &JobView| view.targets[&name(TARGET)].failure.is_some();
    stage.until(&job, "it is no success", stuck).await.unwrap();
    eventually(FOUND_OUT, "Kubernetes finds out", || async {
        ensure!(!is_ready(cluster).await?, "the node is Ready");
        Ok(())
    })
    .await
    .unwrap();
    // Its pods are listed as they were, for minutes: no word of theirs counts.
    let pods = Api::<Pod>::namespaced(cluster.client(), &stage.namespace);
    let listed = pods.list(&Default::default()).await.unwrap().items;
    let running = |pod: &Pod| {
        let status = pod.status.as_ref();
        status.and_then(|status| status.phase.as_deref()) == Some("Running")
    };
    assert!(listed.iter().any(running), "{listed:?}");

    std::fs::remove_file(off).unwrap();
    eventually(PATIENCE, "the node is back", || async {
        ensure!(is_ready(cluster).await?, "the node is not Ready");
        Ok(())
    })
    .await
    .unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    let said = told(&stage, &job, code).await;
    assert_ne!(code, 0, "{said}");
    assert!(
        said.contains(TARGET) && said.contains("has not moved") && said.contains("on node node-1"),
        "{said}"
    );
    assert_ne!(rests(&view), ["changed"], "{said}");

    // Its health step asks the pods themselves, whatever the node says of them.
    let words = stage.words("deploy-image", &["image=shop/checkout:v3"]);
    stage.publish(&["shop/checkout:v3"]).await.unwrap();
    let (code, view) = stage
        .run(&joined(&["--target", TARGET], &words))
        .await
        .unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"]));
}

/// Whether Kubernetes lists a pod of a namespace as Ready.
async fn some_pod_is_ready(pods: &Api<Pod>) -> anyhow::Result<bool> {
    let listed = pods.list(&Default::default()).await?.items;
    let statuses = listed.into_iter().filter_map(|pod| pod.status);
    let mut conditions = statuses.flat_map(|status| status.conditions.unwrap_or_default());
    Ok(conditions.any(|one| one.type_ == "Ready" && one.status == "True"))
}

#[tokio::test]
async fn pods_that_are_ready_to_kubernetes_are_not_believed_while_their_node_is_gone_and_until_it_answers()
 {
    let Some(stage) = alone_on_real_nodes("node-gone").await else {
        return;
    };
    let cluster = stage.fleet.cluster(TARGET).unwrap();
    let power = cluster.node().unwrap().process();
    stage
        .release_on(TARGET, &stage.application(&[OLD]))
        .await
        .unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let words = joined(&["submit", "--yes", "--watch"], &careful(&stage, NEW));
    let off = stage
        .fleet
        .folder()
        .write(format!("down/{}", power.name()), "");
    let off = off.unwrap();
    power.signal(Signal::KILL).unwrap();
    let pods = Api::<Pod>::namespaced(cluster.client(), &stage.namespace);
    assert!(
        is_ready(cluster).await.unwrap() && some_pod_is_ready(&pods).await.unwrap(),
        "or it is not put to the test"
    );
    let refused = stage.aldis(&words).await.unwrap();
    assert_eq!(refused.code, 4, "{refused}");
    for said in ["failed at alive", "1 untouched", TARGET] {
        assert!(refused.to_string().contains(said), "{said}: {refused}");
    }
    assert_eq!(stage.seen(TARGET).await.unwrap().images, [OLD]);

    // Whenever Kubernetes calls it Ready: what counts is that its pods answer.
    std::fs::remove_file(off).unwrap();
    eventually(PATIENCE, "its pods answer again", || async {
        stage.aldis(&words).await?.ended(0)
    })
    .await
    .unwrap();
    assert_eq!(stage.seen(TARGET).await.unwrap().images, [NEW]);
}
