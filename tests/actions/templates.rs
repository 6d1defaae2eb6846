//! What an older template refers to, and whether it is still there.

use aldis_agent::actions::Actions;
use aldis_core::action::Action;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams};
use serde_json::{Value, json};

use crate::support::{World, app, call, failure, world};

fn resolve(namespace: &str, to: &str) -> aldis_agent::actions::Call {
    let with = json!({"deployment": "shop", "namespace": namespace, "to": to});
    call(Action::KubeResolveTemplate, with)
}

async fn put(world: &World, namespace: &str, kind: &str, name: &str, data: Value) {
    let params = PatchParams::apply("test");
    let object =
        json!({"apiVersion": "v1", "kind": kind, "metadata": {"name": name}, "data": data});
    if kind == "Secret" {
        let api = Api::<Secret>::namespaced(world.admin.clone(), namespace);
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .expect("a Secret");
    } else {
        let api = Api::<ConfigMap>::namespaced(world.admin.clone(), namespace);
        api.patch(name, &params, &Patch::Apply(object))
            .await
            .expect("a ConfigMap");
    }
}

/// A release that refers to what this test makes, and one after it that does not.
async fn released(world: &World, namespace: &str) {
    app(namespace, &["shop:v0"])
        .release(&world.admin)
        .await
        .expect("v0");
    put(world, namespace, "ConfigMap", "conf-9f2", json!({"a": "1"})).await;
    put(
        world,
        namespace,
        "Secret",
        "db",
        json!({"password": "aHVudGVyMg=="}),
    )
    .await;
    let refers = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "app", "image": "shop:v1",
            "envFrom": [{"configMapRef": {"name": "conf-9f2"}}],
            "env": [
                {"name": "P", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                {"name": "O", "valueFrom": {"secretKeyRef": {"name": "gone", "key": "x", "optional": true}}},
            ]}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }}}});
    world.interfere(namespace, refers).await;
    // Its pods wait for the volume for ever; the release counts as one all the same.
    let plain = json!({"spec": {"template": {"spec": {
        "containers": [{"name": "app", "image": "shop:v2", "$retainKeys": ["name", "image"]}],
        "volumes": null,
    }}}});
    aldis_tests::fleet::ready::eventually(
        std::time::Duration::from_secs(30),
        "the second revision",
        || async {
            anyhow::ensure!(world.seen(namespace).await.revision == 2, "not yet");
            Ok(())
        },
    )
    .await
    .expect("a revision");
    world.interfere(namespace, plain).await;
    world.settled(namespace).await;
}

#[tokio::test]
async fn what_an_old_template_needs_is_looked_up() {
    let world = world().await;
    released(&world, "template-refers").await;
    let (_, read) = world.run(&resolve("template-refers", "v1")).await.unwrap();
    let outputs = &read.outputs;
    assert_eq!(
        (&outputs["revision"], &outputs["image"]),
        (&json!(2), &json!("shop:v1"))
    );
    assert_eq!(
        outputs["missing"],
        json!(["PersistentVolumeClaim data (volume data)"])
    );
    assert_eq!(
        outputs["unknown"],
        json!(["whether image shop:v1 can be pulled"])
    );
    assert!(outputs["ageSeconds"].as_i64().unwrap() < 600, "{outputs}");

    let configs = Api::<ConfigMap>::namespaced(world.admin.clone(), "template-refers");
    configs
        .delete("conf-9f2", &DeleteParams::default())
        .await
        .unwrap();
    put(
        &world,
        "template-refers",
        "Secret",
        "db",
        json!({"user": "eA=="}),
    )
    .await;
    let planned = world
        .actor
        .plan(&resolve("template-refers", "v1"))
        .await
        .unwrap();
    assert_eq!(
        planned.outputs.unwrap()["missing"],
        json!([
            "ConfigMap conf-9f2 (env of container app)",
            "PersistentVolumeClaim data (volume data)",
            "key password of Secret db (env of container app)",
        ])
    );
    assert!(
        planned
            .warnings
            .iter()
            .any(|w| w.contains("not known: whether image shop:v1 can be pulled")),
        "{:?}",
        planned.warnings
    );
}

#[tokio::test]
async fn a_template_that_refers_to_nothing_has_only_its_image_unknown() {
    let world = world().await;
    app("template-plain", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    for to in ["previous", "revision:1", "v1", "shop:v1"] {
        let (_, read) = world.run(&resolve("template-plain", to)).await.unwrap();
        assert_eq!(read.outputs["revision"], 1, "{to}");
        assert_eq!(read.outputs["missing"], json!([]), "{to}");
    }
    let told = failure(
        world
            .run(&resolve("template-plain", "v9"))
            .await
            .unwrap_err(),
    );
    assert_eq!(told.kind, "notFound");
}
