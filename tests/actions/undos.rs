//! The way back: only what our step left is put back, once, and as far as it was.

use std::time::Duration;

use aldis_agent::actions::{Actions, Observed, Progress, Trouble};
use aldis_tests::fleet::cluster::kubeconfig::render;
use aldis_tests::fleet::ready::eventually;
use anyhow::ensure;
use kube::api::{Patch, PatchParams};
use serde_json::json;

use crate::support::{World, app, back, effect, failure, rollback, set_image, world};

async fn released(world: &World, namespace: &str) {
    app(namespace, &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .expect("released");
}

#[tokio::test]
async fn an_effect_is_put_back_once_and_returns_rolled_out() {
    let world = world().await;
    released(&world, "undo-once").await;
    let first = world.object("undo-once").await;
    let call = set_image("undo-once", "shop:v3");
    let (before, applied) = world.run(&call).await.unwrap();
    let effect = effect(&call, &before, Some(&applied));
    world.undo(&call, &effect).await.unwrap();

    let seen = world.seen("undo-once").await;
    assert_eq!(
        (seen.images.clone(), seen.available),
        (vec!["shop:v2".to_owned()], 3)
    );
    assert_eq!(seen.generation, 4);
    assert_eq!(seen.marks["aldis.dev/attempt"], back(&call).stamp.key());
    let object = world.object("undo-once").await;
    assert_eq!(object["spec"]["template"], first["spec"]["template"]);

    world.undo(&call, &effect).await.unwrap();
    assert_eq!(
        world.seen("undo-once").await.generation,
        4,
        "harmless when done"
    );
    let observed = world.actor.observe(&back(&call), Some(&before)).await;
    assert!(matches!(observed, Ok(Observed::Done(_))), "{observed:?}");
}

#[tokio::test]
async fn nothing_is_put_back_where_nothing_was_done() {
    let world = world().await;
    released(&world, "undo-nothing").await;
    let call = set_image("undo-nothing", "shop:v3");
    let before = world.actor.capture(&call).await.unwrap();
    world
        .undo(&call, &effect(&call, &before, None))
        .await
        .unwrap();
    assert_eq!(world.seen("undo-nothing").await.generation, 2);
}

#[tokio::test]
async fn a_request_that_may_still_land_is_shut_out_before_nothing_is_called_back() {
    let world = world().await;
    released(&world, "undo-late-request").await;
    let call = set_image("undo-late-request", "shop:v3");
    let before = world.actor.capture(&call).await.unwrap();
    let version = world.object("undo-late-request").await["metadata"]["resourceVersion"].clone();
    // The request was sent, and nobody knows where it is.
    world
        .undo(&call, &effect(&call, &before, None))
        .await
        .unwrap();
    let container = json!({"name": "app", "image": "shop:v3"});
    let late = json!({
        "metadata": {"resourceVersion": version},
        "spec": {"template": {"spec": {"containers": [container]}}},
    });
    let landed = world
        .deployments("undo-late-request")
        .patch("shop", &PatchParams::default(), &Patch::Strategic(late))
        .await;
    assert!(landed.is_err(), "it landed behind our back");
    assert_eq!(world.seen("undo-late-request").await.images, ["shop:v2"]);
}

/// A change of the image by somebody else, made before this returns, from within a call that cannot wait.
fn change_at_once(kubeconfig: String, namespace: &'static str, image: &'static str) {
    let changed = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async {
            let kubeconfig = kube::config::Kubeconfig::from_yaml(&kubeconfig)?;
            let options = kube::config::KubeConfigOptions::default();
            let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?;
            let admin = kube::Client::try_from(config)?;
            let container = json!({"name": "app", "image": image});
            let change = json!({"spec": {"template": {"spec": {"containers": [container]}}}});
            let healer = PatchParams {
                field_manager: Some("healer".to_owned()),
                ..PatchParams::default()
            };
            kube::Api::<k8s_openapi::api::apps::v1::Deployment>::namespaced(admin, namespace)
                .patch("shop", &healer, &Patch::Strategic(change))
                .await?;
            anyhow::Ok(())
        })
    });
    changed.join().expect("it ends").expect("changed");
}

#[tokio::test]
async fn an_undo_that_something_reverts_before_the_first_look_is_not_called_back() {
    let world = world().await;
    released(&world, "undo-healed").await;
    let call = set_image("undo-healed", "shop:v3");
    let (before, applied) = world.run(&call).await.unwrap();
    world.settled("undo-healed").await;
    let admin = render(&[world.cluster.entry("admin")]);
    let healing = Progress::new(move |line| {
        if line.ends_with("pod template put back") {
            change_at_once(admin.clone(), "undo-healed", "shop:v3");
        }
    });
    let effect = effect(&call, &before, Some(&applied));
    let undone = world.actor.undo(&back(&call), &effect, &healing).await;
    let told = failure(undone.unwrap_err());
    assert_eq!(told.kind, "drift");
    assert!(told.cause.contains("by healer at"), "{told}");
}

#[tokio::test]
async fn what_somebody_changed_after_us_stays_and_they_are_named() {
    let world = world().await;
    released(&world, "undo-interfered").await;
    let call = set_image("undo-interfered", "shop:v3");
    let (before, applied) = world.run(&call).await.unwrap();
    world
        .interfere_with_image("undo-interfered", "shop:hotfix")
        .await;
    for after in [Some(&applied), None] {
        let stuck = world.undo(&call, &effect(&call, &before, after)).await;
        let told = failure(stuck.unwrap_err());
        assert_eq!(told.kind, "drift");
        assert!(
            told.cause.contains("was changed after our step, by mei at"),
            "{told}"
        );
    }
    assert_eq!(world.seen("undo-interfered").await.images, ["shop:hotfix"]);
}

#[tokio::test]
async fn an_effect_whose_end_was_never_recorded_is_put_back_by_its_stamp() {
    let world = world().await;
    released(&world, "undo-unrecorded").await;
    let call = set_image("undo-unrecorded", "shop:v3");
    let (before, _) = world.run(&call).await.unwrap();
    world
        .undo(&call, &effect(&call, &before, None))
        .await
        .unwrap();
    assert_eq!(world.seen("undo-unrecorded").await.images, ["shop:v2"]);
}

#[tokio::test]
async fn replicas_of_meanwhile_are_kept() {
    let world = world().await;
    released(&world, "undo-scaled").await;
    let call = set_image("undo-scaled", "shop:v3");
    let (before, applied) = world.run(&call).await.unwrap();
    world
        .interfere("undo-scaled", json!({"spec": {"replicas": 5}}))
        .await;
    world
        .undo(&call, &effect(&call, &before, Some(&applied)))
        .await
        .unwrap();
    let seen = world.seen("undo-scaled").await;
    assert_eq!(
        (seen.images.clone(), seen.available),
        (vec!["shop:v2".to_owned()], 5)
    );
}

#[tokio::test]
async fn a_release_that_cannot_start_is_put_back_while_it_fails() {
    let world = world().await;
    released(&world, "undo-broken").await;
    let call = set_image("undo-broken", "shop:v3-broken");
    let (before, applied) = world.run(&call).await.unwrap();
    world
        .undo(&call, &effect(&call, &before, Some(&applied)))
        .await
        .unwrap();
    let seen = world.seen("undo-broken").await;
    assert_eq!(
        (seen.images.clone(), seen.available),
        (vec!["shop:v2".to_owned()], 3)
    );
}

#[tokio::test]
async fn what_was_broken_before_is_put_back_as_far_as_it_was() {
    let world = world().await;
    let mut broken = app("undo-to-broken", &["shop:v1", "shop:v2-broken"]);
    broken.wait_for_last = false;
    broken.release(&world.admin).await.unwrap();
    eventually(Duration::from_secs(30), "one broken pod", || async {
        let object = world.object("undo-to-broken").await;
        ensure!(
            object["status"]["updatedReplicas"] == 1,
            "{}",
            object["status"]
        );
        Ok(())
    })
    .await
    .unwrap();
    let call = rollback("undo-to-broken", "v2-broken", "previous");
    let (before, applied) = world.run(&call).await.unwrap();
    world.settled("undo-to-broken").await;
    world
        .undo(&call, &effect(&call, &before, Some(&applied)))
        .await
        .unwrap();
    let seen = world.seen("undo-to-broken").await;
    assert_eq!(
        (seen.images.clone(), seen.available),
        (vec!["shop:v2-broken".to_owned()], 3)
    );
}

#[tokio::test]
async fn an_undo_that_cannot_get_there_says_so_and_that_it_began() {
    let world = world().await;
    released(&world, "undo-late").await;
    let call = set_image("undo-late", "shop:v3");
    let (before, applied) = world.run(&call).await.unwrap();
    world.settled("undo-late").await;
    // Pods of the old template find no room any more.
    let quota = json!({
        "apiVersion": "v1", "kind": "ResourceQuota", "metadata": {"name": "none"},
        "spec": {"hard": {"pods": "0"}},
    });
    kube::Api::<k8s_openapi::api::core::v1::ResourceQuota>::namespaced(
        world.admin.clone(),
        "undo-late",
    )
    .patch(
        "none",
        &kube::api::PatchParams::apply("test"),
        &kube::api::Patch::Apply(quota),
    )
    .await
    .unwrap();
    let stuck = world
        .actor
        .undo(
            &back(&call),
            &effect(&call, &before, Some(&applied)),
            &Progress::none(),
        )
        .await;
    let Err(Trouble::Failed { failure, applied }) = stuck else {
        panic!("{stuck:?}");
    };
    assert!(applied);
    assert!(
        failure
            .evidence
            .iter()
            .any(|line| line.contains("exceeded quota")),
        "{failure:?}"
    );
    // The template is back, the rollout is not: not done, so that the undo is called again and waits.
    let observed = world.actor.observe(&back(&call), Some(&before)).await;
    assert_eq!(observed, Ok(Observed::NotDone));
}
