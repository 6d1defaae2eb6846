//! What goes wrong on a node, as an operator sees it.

use k8s_openapi::api::core::v1::Pod;

use super::images::{CRASHES, MISSING};
use super::stage::{container, stage};

#[tokio::test]
async fn an_image_that_does_not_exist_is_seen_and_then_backed_off_from() {
    let Some(stage) = stage("pulls").await else {
        return;
    };
    stage.make("missing", MISSING).await;
    stage
        .until("missing", "ErrImagePull", waits_for("ErrImagePull"))
        .await;
    let message = stage
        .until("missing", "ImagePullBackOff", waits_for("ImagePullBackOff"))
        .await;
    assert!(message.unwrap().contains(MISSING));
}

/// What a container waits with, while it waits for this reason.
fn waits_for(reason: &str) -> impl Fn(&Pod) -> Option<Option<String>> {
    move |pod| {
        let waiting = container(pod)?.state.as_ref()?.waiting.as_ref()?;
        (waiting.reason.as_deref() == Some(reason)).then(|| waiting.message.clone())
    }
}

/// By its count and its last end: `CrashLoopBackOff` stands there between two starts only.
#[tokio::test]
async fn a_crash_loop_is_told_by_its_restarts_and_its_last_end() {
    let Some(stage) = stage("crashes").await else {
        return;
    };
    stage.make("crashing", CRASHES).await;
    let ended = stage
        .until("crashing", "started a third time", |pod| {
            let container = container(pod).filter(|container| container.restart_count >= 2)?;
            container.last_state.as_ref()?.terminated.clone()
        })
        .await;
    assert_eq!(ended.exit_code, 3);
}

/// A pod that was there before is started again, and serves.
#[tokio::test]
async fn a_node_that_was_switched_off_comes_back_with_its_pods() {
    let Some(stage) = stage("returns").await else {
        return;
    };
    stage.serving("web").await;
    let process = stage.node().process();
    let starts = process.starts();
    process.signal(rustix::process::Signal::KILL).unwrap();
    let address = stage
        .until("web", "running again", |pod| {
            let container = container(pod)?;
            let again = container.restart_count > 0 && container.ready;
            again.then(|| pod.status.as_ref()?.pod_ip.clone()).flatten()
        })
        .await;
    assert!(process.starts() > starts);
    tokio::net::TcpStream::connect(format!("{address}:8080"))
        .await
        .unwrap();
}
