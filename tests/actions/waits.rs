//! Waiting for a rollout: the end, and every way in which it does not come.

use std::time::Duration;

use aldis_agent::actions::{Actions, Progress, left};
use aldis_core::outcome::Failure;
use aldis_tests::fleet::application::Application;
use k8s_openapi::api::core::v1::ResourceQuota;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::json;

use crate::support::{World, app, failure, set_image, wait, world};

/// Releases v1, then an image that is not waited for.
async fn releasing(world: &World, namespace: &str, image: &str) -> Application {
    let mut app = app(namespace, &["shop:v1", image]);
    app.wait_for_last = false;
    app.release(&world.admin).await.expect("released");
    app
}

/// With so much patience that only a reason of the pods' own ends the wait before the call's time.
async fn fails(world: &World, namespace: &str) -> Failure {
    failure(world.run(&wait(namespace, "10m")).await.unwrap_err())
}

#[tokio::test]
async fn a_rollout_is_followed_to_its_end() {
    let world = world().await;
    let mut slow = app("wait-done", &["shop:v1", "shop:v2"]);
    slow.wait_for_last = false;
    slow.pod_annotations = [("fleet.aldis.dev/ready-after".to_owned(), "1s".to_owned())].into();
    slow.release(&world.admin).await.unwrap();
    let said = std::sync::Arc::new(std::sync::Mutex::new(Vec::new()));
    let lines = std::sync::Arc::clone(&said);
    let progress = Progress::new(move |line| lines.lock().unwrap().push(line));
    let call = wait("wait-done", "30s");
    let read = world
        .actor
        .apply(&call, &serde_json::Value::Null, &progress)
        .await
        .unwrap();
    assert_eq!(read.outputs, json!({"ready": 3, "replicas": 3}));
    assert_eq!(world.seen("wait-done").await.available, 3);
    let said = said.lock().unwrap();
    assert!(
        said.iter().any(|line| line.contains("of 3 pods updated")),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_image_that_cannot_be_pulled_ends_the_wait_with_the_pods_reason() {
    let world = world().await;
    releasing(&world, "wait-pull", "shop:v2-broken").await;
    let told = fails(&world, "wait-pull").await;
    assert_eq!(told.kind, "noProgress");
    assert!(
        told.cause
            .contains("cannot start: ImagePullBackOff in pod shop-"),
        "{told}"
    );
    assert!(told.evidence[0].contains("shop:v2-broken"), "{told:?}");
    assert!(
        told.hint
            .unwrap()
            .contains("kubectl -n wait-pull get pods -l app=shop")
    );
}

#[tokio::test]
async fn a_crash_loop_ends_the_wait_with_the_last_words() {
    let world = world().await;
    releasing(&world, "wait-crash", "shop:v2-crash").await;
    let told = fails(&world, "wait-crash").await;
    assert!(
        told.cause.contains("CrashLoopBackOff in pod shop-"),
        "{told}"
    );
    assert!(
        told.evidence[0].contains("restarted 2 times, exit code 1 (Error)"),
        "{told:?}"
    );
    assert!(
        told.evidence
            .iter()
            .any(|line| line.contains("panic: open /etc/app/config.json")),
        "{told:?}"
    );
}

#[tokio::test]
async fn a_pod_that_no_node_takes_ends_the_wait_with_the_schedulers_reason() {
    let world = world().await;
    app("wait-room", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let greedy = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "app", "resources": {"requests": {"cpu": "5000"}}},
    ]}}}});
    world.interfere("wait-room", greedy).await;
    let told = failure(world.run(&wait("wait-room", "10s")).await.unwrap_err());
    assert!(told.cause.contains("cannot start: Unschedulable"), "{told}");
    assert!(told.evidence[0].contains("Insufficient cpu"), "{told:?}");
}

#[tokio::test]
async fn pods_that_cannot_be_made_end_the_wait_with_the_quotas_reason() {
    let world = world().await;
    app("wait-quota", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    });
    Api::<ResourceQuota>::namespaced(world.admin.clone(), "wait-quota")
        .patch("none", &PatchParams::apply("test"), &Patch::Apply(quota))
        .await
        .unwrap();
    world.interfere_with_image("wait-quota", "shop:v2").await;
    let told = fails(&world, "wait-quota").await;
    assert!(told.evidence[0].contains("exceeded quota"), "{told:?}");
}

#[tokio::test]
async fn pods_that_never_get_ready_end_the_wait_when_nothing_moves() {
    let world = world().await;
    releasing(&world, "wait-unready", "shop:v2-unready").await;
    let told = failure(world.run(&wait("wait-unready", "3s")).await.unwrap_err());
    assert_eq!(told.kind, "noProgress");
    assert!(
        told.cause
            .contains("has not moved for 3 s: 1 of 3 pods updated"),
        "{told}"
    );
    assert!(
        told.evidence[0].contains("container app: running, not ready, restarted 0 times"),
        "{told:?}"
    );
    assert_eq!(told.evidence.last().unwrap(), "log: listening");
}

#[tokio::test]
async fn a_template_that_was_reverted_before_the_first_look_is_drift_though_all_its_pods_are_ready()
{
    let world = world().await;
    app("wait-reverted", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let (_, applied) = world
        .run(&set_image("wait-reverted", "shop:v3"))
        .await
        .unwrap();
    world.interfere_with_image("wait-reverted", "shop:v2").await;
    world.settled("wait-reverted").await;
    let mut behind = wait("wait-reverted", "10m");
    behind.left = left(&applied.after);
    let told = failure(world.run(&behind).await.unwrap_err());
    assert_eq!(told.kind, "drift");
    assert!(
        told.cause.contains("after the job wrote it, by mei at"),
        "{told}"
    );
}

#[tokio::test]
async fn kubernetes_own_deadline_ends_the_wait() {
    let world = world().await;
    let mut late = app("wait-deadline", &["shop:v1", "shop:v2-unready"]);
    late.progress_deadline = Duration::from_secs(3);
    late.wait_for_last = false;
    late.release(&world.admin).await.unwrap();
    let told = fails(&world, "wait-deadline").await;
    assert!(
        told.cause.contains("passed its progress deadline"),
        "{told}"
    );
}

#[tokio::test]
async fn the_steps_own_time_ends_the_wait_before_the_caller_stops_listening() {
    let world = world().await;
    releasing(&world, "wait-timeout", "shop:v2-unready").await;
    let mut call = wait("wait-timeout", "10m");
    call.timeout = Duration::from_secs(4);
    let waited = tokio::time::timeout(call.timeout, world.run(&call)).await;
    let told = failure(waited.expect("in time").unwrap_err());
    assert_eq!(told.kind, "timeout");
}

#[tokio::test]
async fn a_rollout_that_is_paused_deleted_or_taken_over_is_not_waited_for() {
    let world = world().await;
    releasing(&world, "wait-paused", "shop:v2-unready").await;
    world
        .interfere("wait-paused", json!({"spec": {"paused": true}}))
        .await;
    assert_eq!(fails(&world, "wait-paused").await.kind, "paused");

    for (namespace, kind) in [("wait-deleted", "notFound"), ("wait-taken", "drift")] {
        releasing(&world, namespace, "shop:v2-unready").await;
        let call = wait(namespace, "10m");
        let (started, first) = tokio::sync::oneshot::channel();
        let started = std::sync::Mutex::new(Some(started));
        let progress = Progress::new(move |_| {
            if let Some(started) = started.lock().unwrap().take() {
                let _ = started.send(());
            }
        });
        let waiting = world
            .actor
            .apply(&call, &serde_json::Value::Null, &progress);
        let interfering = async {
            first.await.expect("the first look");
            if kind == "notFound" {
                let deployments = world.deployments(namespace);
                let deleted = deployments.delete("shop", &DeleteParams::default()).await;
                deleted.expect("deleted");
            } else {
                world
                    .interfere_with_image(namespace, "shop:v3-unready")
                    .await;
            }
        };
        let (waited, ()) = tokio::join!(waiting, interfering);
        assert_eq!(failure(waited.unwrap_err()).kind, kind);
    }
}
