//! One effect, whatever is repeated, lost, delayed or written at the same time.

use std::time::Duration;

use aldis_agent::actions::cluster::Cluster as Actor;
use aldis_agent::actions::{Actions, Call, Observed, Progress, Trouble};
use aldis_tests::fleet::cluster::kubeconfig::{Entry, render};
use aldis_tests::fleet::ready::eventually;
use aldis_tests::proxy::{Fault, Proxy};
use anyhow::ensure;
use k8s_openapi::api::apps::v1::ReplicaSet;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use serde_json::{Value, json};

use crate::support::{World, app, failure, key, rollback, set_image, world};

const LIMIT: Duration = Duration::from_secs(30);

async fn released(world: &World, namespace: &str) {
    app(namespace, &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .expect("released");
}

/// The planned form of a call, as it comes back with the job.
async fn planned(world: &World, call: Call) -> Call {
    let plan = world.actor.plan(&call).await.expect("a plan").plan;
    Call {
        planned: Some(plan),
        ..call
    }
}

#[tokio::test]
async fn an_effect_is_exact_and_stamped() {
    let world = world().await;
    released(&world, "effect-exact").await;
    let first = world.object("effect-exact").await;
    let call = planned(&world, set_image("effect-exact", "shop:v3")).await;
    let (_, applied) = world.run(&call).await.unwrap();
    assert!(applied.changed);
    assert_eq!(applied.outputs["previousImage"], "shop:v2");

    let seen = world.seen("effect-exact").await;
    assert_eq!(seen.images, ["shop:v3"]);
    assert_eq!(seen.marks["aldis.dev/job"], call.stamp.job.as_str());
    assert_eq!(seen.marks["aldis.dev/step"], "step");
    assert_eq!(seen.marks["aldis.dev/attempt"], call.stamp.key());
    assert!(seen.managers.iter().any(|manager| manager == "aldis"));
    let mut template = world.object("effect-exact").await["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = json!("shop:v2");
    assert_eq!(template, first["spec"]["template"]);
}

#[tokio::test]
async fn the_same_call_twice_has_one_effect() {
    let world = world().await;
    released(&world, "effect-twice").await;
    let call = rollback("effect-twice", "v2", "previous");
    let before = world.actor.capture(&call).await.unwrap();
    let none = Progress::none();
    // At once, and once more when it is long done.
    let (one, two) = tokio::join!(
        world.actor.apply(&call, &before, &none),
        world.actor.apply(&call, &before, &none)
    );
    let three = world.actor.apply(&call, &before, &none).await.unwrap();
    assert_eq!(one.unwrap(), three);
    assert_eq!(two.unwrap(), three);
    world.settled("effect-twice").await;
    let seen = world.seen("effect-twice").await;
    assert_eq!((seen.generation, seen.revision), (3, 3));
    assert_eq!(seen.images, ["shop:v1"]);
    assert_eq!(seen.history.len(), 2, "no third template");
}

#[tokio::test]
async fn what_somebody_changed_since_the_plan_is_not_overwritten() {
    let world = world().await;
    released(&world, "effect-drift").await;
    let call = planned(&world, rollback("effect-drift", "v2", "previous")).await;
    let before = world.actor.capture(&call).await.unwrap();
    world
        .interfere_with_image("effect-drift", "shop:hotfix")
        .await;

    let told = failure(world.actor.capture(&call).await.unwrap_err());
    assert_eq!(told.kind, "drift");
    assert!(told.cause.contains(", by mei at "), "{told}");
    let applied = world.actor.apply(&call, &before, &Progress::none()).await;
    let told = failure(applied.unwrap_err());
    assert_eq!(told.kind, "drift");
    assert_eq!(world.seen("effect-drift").await.images, ["shop:hotfix"]);
}

#[tokio::test]
async fn labels_replicas_and_status_are_no_drift() {
    let world = world().await;
    released(&world, "effect-no-drift").await;
    let call = planned(&world, rollback("effect-no-drift", "v2", "previous")).await;
    let other = json!({"metadata": {"labels": {"team": "a"}}, "spec": {"replicas": 2}});
    world.interfere("effect-no-drift", other).await;
    world.run(&call).await.unwrap();
    assert_eq!(world.seen("effect-no-drift").await.images, ["shop:v1"]);
}

#[tokio::test]
async fn previous_that_comes_to_mean_another_template_is_drift() {
    let world = world().await;
    app("effect-pinned", &["shop:v1", "shop:v2", "shop:v3"])
        .release(&world.admin)
        .await
        .unwrap();
    let call = planned(&world, rollback("effect-pinned", "v3", "previous")).await;
    let sets = Api::<ReplicaSet>::namespaced(world.admin.clone(), "effect-pinned");
    let all = sets.list(&ListParams::default()).await.unwrap();
    let second = all.items.iter().find(|set| {
        let set = serde_json::to_value(set).unwrap();
        set["spec"]["template"]["spec"]["containers"][0]["image"] == "shop:v2"
    });
    let name = second.unwrap().metadata.name.clone().unwrap();
    sets.delete(&name, &DeleteParams::default()).await.unwrap();
    let told = failure(world.actor.capture(&call).await.unwrap_err());
    assert_eq!(told.kind, "drift");
    assert!(
        told.cause.contains("another template than was planned"),
        "{told}"
    );
    assert_eq!(world.seen("effect-pinned").await.images, ["shop:v3"]);
}

#[tokio::test]
async fn writes_of_others_at_the_same_time_are_no_obstacle_and_no_loss() {
    let world = world().await;
    released(&world, "effect-busy").await;
    let call = rollback("effect-busy", "v2", "previous");
    let before = world.actor.capture(&call).await.unwrap();
    let deployments = world.deployments("effect-busy");
    let busy = tokio::spawn(async move {
        for count in 0..u32::MAX {
            // A label: the generation of a Deployment rises with its annotations as with its spec.
            let noise = json!({"metadata": {"labels": {"noise": count.to_string()}}});
            let patch = Patch::Merge(noise);
            deployments
                .patch("shop", &PatchParams::default(), &patch)
                .await
                .expect("noise");
        }
    });
    eventually(LIMIT, "noise", || async {
        let object = world.object("effect-busy").await;
        let noise = &object["metadata"]["labels"]["noise"];
        ensure!(noise.is_string(), "none yet");
        Ok(())
    })
    .await
    .unwrap();
    // The runner's part: what could be tried again is.
    let applied = loop {
        match world.actor.apply(&call, &before, &Progress::none()).await {
            Err(Trouble::Retriable { .. }) => {}
            decided => break decided,
        }
    };
    busy.abort();
    assert!(applied.unwrap().changed);
    let seen = world.seen("effect-busy").await;
    assert_eq!(
        (seen.generation, seen.images),
        (3, vec!["shop:v1".to_owned()])
    );
}

#[tokio::test]
async fn a_crash_before_and_after_the_effect_is_told_apart() {
    let world = world().await;
    released(&world, "effect-crash").await;
    let call = rollback("effect-crash", "v2", "previous");
    let before = world.actor.capture(&call).await.unwrap();
    let observe = || world.actor.observe(&call, Some(&before));
    assert_eq!(observe().await, Ok(Observed::NotDone));
    assert_eq!(
        world.actor.observe(&call, None).await,
        Ok(Observed::NotDone)
    );

    let applied = world
        .actor
        .apply(&call, &before, &Progress::none())
        .await
        .unwrap();
    assert_eq!(observe().await, Ok(Observed::Done(applied)));
    let Ok(Observed::Done(found)) = world.actor.observe(&call, None).await else {
        panic!("the stamp alone must do");
    };
    assert!(found.changed);
    let later = crate::support::rollback("effect-crash", "v2", "previous");
    assert_eq!(
        world.actor.observe(&later, None).await,
        Ok(Observed::NotDone),
        "another job's stamp is not ours"
    );
}

#[tokio::test]
async fn what_nobody_can_tell_is_told_with_evidence() {
    let world = world().await;
    released(&world, "effect-third").await;
    let call = rollback("effect-third", "v2", "previous");
    let before = world.actor.capture(&call).await.unwrap();
    world
        .interfere_with_image("effect-third", "shop:hotfix")
        .await;
    let observed = world.actor.observe(&call, Some(&before)).await.unwrap();
    let Observed::Indeterminate { evidence } = observed else {
        panic!("{observed:?}");
    };
    assert!(
        evidence.iter().any(|line| line.contains("by mei at")),
        "{evidence:?}"
    );
}

#[tokio::test]
async fn an_effect_that_somebody_took_back_with_its_stamp_is_found_in_the_history() {
    let world = world().await;
    released(&world, "effect-erased").await;
    let old = world.object("effect-erased").await;
    let call = set_image("effect-erased", "shop:v3");
    let (before, _) = world.run(&call).await.unwrap();
    world.settled("effect-erased").await;
    // As `kubectl rollout undo` does it: the old template, and the annotations that it had.
    let marks = json!({"aldis.dev/job": null, "aldis.dev/step": null, "aldis.dev/attempt": null});
    let undone = json!({
        "metadata": {"annotations": marks},
        "spec": {"template": {"spec": {"containers": old["spec"]["template"]["spec"]["containers"]}}},
    });
    world.interfere("effect-erased", undone).await;
    assert_eq!(world.seen("effect-erased").await.images, ["shop:v2"]);

    let observed = world.actor.observe(&call, Some(&before)).await.unwrap();
    let Observed::Indeterminate { evidence } = observed else {
        panic!("it was done: {observed:?}");
    };
    assert!(evidence[0].contains("carries the stamp"), "{evidence:?}");
    let observed = world.actor.observe(&call, None).await.unwrap();
    assert!(matches!(observed, Observed::Done(_)), "{observed:?}");
}

#[tokio::test]
async fn a_deployment_made_anew_is_another_one() {
    let world = world().await;
    released(&world, "effect-anew").await;
    let call = rollback("effect-anew", "v2", "previous");
    let before = world.actor.capture(&call).await.unwrap();
    let deployments = world.deployments("effect-anew");
    let mut again = deployments.get("shop").await.unwrap();
    deployments
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    eventually(LIMIT, "deleted", || async {
        ensure!(deployments.get_opt("shop").await?.is_none(), "still there");
        Ok(())
    })
    .await
    .unwrap();
    let observed = world.actor.observe(&call, Some(&before)).await.unwrap();
    assert!(
        matches!(observed, Observed::Indeterminate { .. }),
        "{observed:?}"
    );

    again.metadata.resource_version = None;
    again.metadata.uid = None;
    deployments
        .create(&PostParams::default(), &again)
        .await
        .unwrap();
    let applied = world.actor.apply(&call, &before, &Progress::none()).await;
    assert_eq!(failure(applied.unwrap_err()).kind, "drift");
    assert_eq!(world.seen("effect-anew").await.images, ["shop:v2"]);
}

/// The request that [`Actions::apply`] would send for what is there now, kept back on its way.
async fn late_request(world: &World, namespace: &str) -> Patch<Value> {
    let object = world.object(namespace).await;
    let mut template = object["spec"]["template"].clone();
    template["spec"]["containers"][0]["image"] = json!("shop:v1");
    Patch::Json(
        serde_json::from_value(json!([
            {"op": "test", "path": "/metadata/resourceVersion", "value": object["metadata"]["resourceVersion"]},
            {"op": "replace", "path": "/spec/template", "value": template},
        ]))
        .expect("a patch"),
    )
}

#[tokio::test]
async fn after_a_fence_a_late_request_cannot_land() {
    let world = world().await;
    let params = PatchParams::default();
    for (namespace, fences) in [
        ("effect-late", 0),
        ("effect-fenced", 1),
        ("effect-fenced-2", 2),
    ] {
        released(&world, namespace).await;
        world.settled(namespace).await;
        let call = rollback(namespace, "v2", "previous");
        let before = world.actor.capture(&call).await.unwrap();
        let mut late = late_request(&world, namespace).await;
        for _ in 0..fences {
            late = late_request(&world, namespace).await;
            world.actor.fence(&call, Some(&before)).await.unwrap();
        }
        assert_eq!(
            world.actor.observe(&call, Some(&before)).await,
            Ok(Observed::NotDone)
        );
        let landed = world
            .deployments(namespace)
            .patch("shop", &params, &late)
            .await;
        // A failed guard is told as 422, as a template that is invalid would be.
        assert_eq!(landed.is_ok(), fences == 0, "{namespace}: {landed:?}");
        let seen = world.seen(namespace).await;
        assert_eq!(seen.generation == 2, fences > 0, "{namespace}");
    }
}

#[tokio::test]
async fn a_fence_on_what_is_gone_has_nothing_to_do() {
    let world = world().await;
    released(&world, "effect-fence-gone").await;
    let call = rollback("effect-fence-gone", "v2", "previous");
    world
        .deployments("effect-fence-gone")
        .delete("shop", &DeleteParams::default())
        .await
        .unwrap();
    eventually(LIMIT, "fenced", || async {
        world.actor.fence(&call, None).await?;
        let found = world
            .deployments("effect-fence-gone")
            .get_opt("shop")
            .await?;
        ensure!(found.is_none(), "still there");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(world.actor.fence(&call, None).await, Ok(()));
}

/// The agent's way to the cluster through a proxy that fails on demand.
async fn through_proxy(world: &World) -> (Actor, Proxy) {
    let entry = world.cluster.entry("agent");
    let upstream = entry.server.strip_prefix("https://").expect("https");
    let proxy = Proxy::start("api", upstream.parse().expect("an address"))
        .await
        .expect("a proxy");
    let entry = Entry {
        server: format!("https://{}", proxy.address()),
        ..entry
    };
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("kubeconfig");
    std::fs::write(&file, render(std::slice::from_ref(&entry))).expect("written");
    let actor = Actor::from_kubeconfig(&file, &entry.context, key())
        .await
        .expect("a way");
    (actor, proxy)
}

#[tokio::test]
async fn an_answer_that_is_lost_leaves_the_effect_unknown_until_it_is_observed() {
    let world = world().await;
    released(&world, "effect-lost").await;
    let (actor, proxy) = through_proxy(&world).await;
    let mut call = rollback("effect-lost", "v2", "previous");
    let before = actor.capture(&call).await.unwrap();
    // Two seconds each way: the read takes four, the write lands after six, its answer would come after eight.
    proxy.set(Fault::Delay(Duration::from_secs(2)));
    call.timeout = Duration::from_secs(7);
    let applied = actor.apply(&call, &before, &Progress::none()).await;
    let Err(Trouble::Unknown { evidence }) = applied else {
        panic!("{applied:?}");
    };
    assert!(
        evidence[0].contains("Deployment effect-lost/shop"),
        "{evidence:?}"
    );
    eventually(LIMIT, "the effect", || async {
        let observed = world.actor.observe(&call, Some(&before)).await?;
        ensure!(matches!(observed, Observed::Done(_)), "{observed:?}");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(world.seen("effect-lost").await.generation, 3);
}

#[tokio::test]
async fn an_api_server_that_cannot_be_reached_was_sent_nothing() {
    let world = world().await;
    released(&world, "effect-unreachable").await;
    let (actor, proxy) = through_proxy(&world).await;
    let mut call = rollback("effect-unreachable", "v2", "previous");
    let before = actor.capture(&call).await.unwrap();
    call.timeout = Duration::from_secs(2);
    for fault in [Fault::Cut, Fault::BlackHole] {
        proxy.set(fault);
        let applied = actor.apply(&call, &before, &Progress::none()).await;
        let Err(Trouble::Retriable { failure }) = applied else {
            panic!("{fault:?}: {applied:?}");
        };
        assert_eq!(failure.kind, "unavailable");
    }
    assert_eq!(world.seen("effect-unreachable").await.generation, 2);
}
