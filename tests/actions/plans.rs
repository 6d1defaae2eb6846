//! What a plan shows, and what it refuses.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_agent::actions::{Actions, Planned};
use aldis_core::action::Action;
use aldis_core::plan::Disposition;
use aldis_core::plan::part::{Basis, Feasibility};
use aldis_tests::fleet::application::make_namespace;
use aldis_tests::fleet::ready::eventually;
use anyhow::Context;
use k8s_openapi::api::admissionregistration::v1::{
    ValidatingAdmissionPolicy, ValidatingAdmissionPolicyBinding,
};
use k8s_openapi::api::autoscaling::v2::HorizontalPodAutoscaler;
use k8s_openapi::api::core::v1::Namespace;
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;

use crate::support::{app, call, failure, rollback, set_image, wait, world};

#[tokio::test]
async fn the_identity_is_the_clusters_and_stays_the_same() {
    let world = world().await;
    let system = Api::<Namespace>::all(world.admin.clone())
        .get("kube-system")
        .await
        .unwrap();
    let first = world.actor.identity().await.unwrap();
    assert_eq!(Some(&first.cluster_uid), system.metadata.uid.as_ref());
    assert_eq!(first.ca_fingerprint.len(), 64);
    assert_eq!(world.actor.identity().await.unwrap(), first);
}

#[tokio::test]
async fn a_rollback_is_tried_by_the_server_and_changes_nothing() {
    let world = world().await;
    app("plan-rollback", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let before = world.object("plan-rollback").await;
    let planned = world
        .actor
        .plan(&rollback("plan-rollback", "v2", "previous"))
        .await
        .unwrap();
    let plan = &planned.plan;
    assert!(plan.changes);
    assert_eq!(
        (plan.basis, &plan.undo),
        (Basis::DryRun, &Feasibility::Possible)
    );
    let image = &plan.diff[0];
    assert_eq!(image.field, "containers[app].image");
    assert_eq!(image.to.as_deref(), Some("shop:v1"));
    assert_eq!(planned.outputs.unwrap()["previousImage"], "shop:v2");
    let after = world.object("plan-rollback").await;
    assert_eq!(before["spec"], after["spec"]);
    assert_eq!(
        before["metadata"]["generation"],
        after["metadata"]["generation"]
    );
    assert_eq!(
        before["metadata"]["annotations"],
        after["metadata"]["annotations"]
    );
}

#[tokio::test]
async fn a_cluster_without_the_bad_image_is_planned_unchanged() {
    let world = world().await;
    app("plan-clean", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let call = rollback("plan-clean", "v3", "previous");
    let planned = world.actor.plan(&call).await.unwrap();
    assert_eq!(
        planned.unchanged.as_deref(),
        Some("does not run v3 (runs v2)")
    );
    let (before, applied) = world.run(&call).await.unwrap();
    assert!(!applied.changed);
    let undone = world
        .undo(
            &call,
            &crate::support::effect(&call, &before, Some(&applied)),
        )
        .await;
    assert_eq!(undone, Ok(()));
    assert_eq!(world.seen("plan-clean").await.generation, 2);
}

#[tokio::test]
async fn what_does_not_exist_is_answered_with_what_does() {
    let world = world().await;
    app("plan-missing", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let mut wrong = rollback("plan-missing", "v2", "previous");
    wrong.with["deployment"] = json!("shpo");
    let told = failure(world.actor.plan(&wrong).await.unwrap_err());
    assert_eq!(told.cause, "Deployment plan-missing/shpo does not exist");
    assert_eq!(told.evidence, ["namespace plan-missing has shop"]);

    let told = failure(
        world
            .actor
            .plan(&rollback("plan-missing", "v2", "revision:9"))
            .await
            .unwrap_err(),
    );
    assert_eq!(told.kind, "notFound");
    assert_eq!(
        told.evidence,
        ["revision 2 runs shop:v2", "revision 1 runs shop:v1"]
    );
    wrong.with["deployment"] = json!("../../secrets/x");
    let told = failure(world.actor.plan(&wrong).await.unwrap_err());
    assert_eq!(told.kind, "invalid");
}

#[tokio::test]
async fn a_paused_deployment_is_refused_early() {
    let world = world().await;
    app("plan-paused", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    world
        .interfere("plan-paused", json!({"spec": {"paused": true}}))
        .await;
    let call = rollback("plan-paused", "v2", "previous");
    let told = failure(world.actor.plan(&call).await.unwrap_err());
    assert_eq!(told.kind, "paused");
    assert!(
        told.hint
            .unwrap()
            .contains("rollout resume deployment/shop")
    );
    assert_eq!(
        failure(world.actor.capture(&call).await.unwrap_err()).kind,
        "paused"
    );
}

#[tokio::test]
async fn argo_cd_owns_by_label_and_by_annotation() {
    let world = world().await;
    let id = "checkout:apps/Deployment:plan-argo-annotation/shop";
    let labelled = ("plan-argo-label", "app.kubernetes.io/instance", "checkout");
    let annotated = ("plan-argo-annotation", "argocd.argoproj.io/tracking-id", id);
    for (namespace, key, value) in [labelled, annotated] {
        let mut owned = app(namespace, &["shop:v1", "shop:v2"]);
        let marks = BTreeMap::from([(key.to_owned(), value.to_owned())]);
        if key.ends_with("tracking-id") {
            owned.annotations = marks;
        } else {
            owned.labels = marks;
        }
        owned.release(&world.admin).await.unwrap();
        let call = rollback(namespace, "v2", "previous");
        let owners = world.actor.plan(&call).await.unwrap().plan.owners;
        let argo = owners.iter().find(|owner| owner.system == "Argo CD");
        let argo = argo.unwrap_or_else(|| panic!("{namespace}: {owners:?}"));
        assert!(argo.would_revert, "its policy cannot be read");
        assert_eq!(argo.name, "checkout");
    }
}

#[tokio::test]
async fn what_argo_cd_owns_is_refused_in_the_plan_with_the_reason_and_the_way_out() {
    let world = world().await;
    let mut owned = app("plan-argo-refused", &["shop:v1", "shop:v2"]);
    let id = "checkout:apps/Deployment:plan-argo-refused/shop";
    owned.annotations =
        BTreeMap::from([("argocd.argoproj.io/tracking-id".to_owned(), id.to_owned())]);
    owned.release(&world.admin).await.unwrap();
    let params = json!({
        "service": "shop", "namespace": "plan-argo-refused", "from": "v2", "to": "previous", "port": 8080,
    });
    let part = world.part_of("rollback-service", params).await;
    let Disposition::Refused { why, hint } = part.disposition else {
        panic!("{part:#?}");
    };
    assert!(
        why.contains("is owned by Argo CD checkout, which would put the change back"),
        "{why}"
    );
    assert!(
        hint.as_deref()
            .unwrap_or_default()
            .starts_with("change it where Argo CD takes it from"),
        "{hint:?}"
    );
    assert_eq!(world.seen("plan-argo-refused").await.generation, 2);
}

#[tokio::test]
async fn without_a_bad_image_the_part_is_refused_and_lists_what_runs() {
    let world = world().await;
    app("plan-from", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let params = json!({
        "service": "shop", "namespace": "plan-from", "from": "", "to": "previous", "port": 8080,
    });
    let part = world.part_of("rollback-service", params).await;
    let Disposition::Refused { why, hint } = part.disposition else {
        panic!("{part:#?}");
    };
    assert!(why.contains("`from` is left out"), "{why}");
    assert!(why.ends_with("; runs shop:v2"), "{why}");
    assert!(hint.unwrap().contains("name the bad image"));
}

#[tokio::test]
async fn a_change_whose_way_back_needs_what_is_gone_says_so_before_it_is_made() {
    let world = world().await;
    app("plan-no-way-back", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    // What runs was started while the ConfigMap was there.
    let refers = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "app", "image": "shop:v2", "envFrom": [{"configMapRef": {"name": "pruned"}}]},
    ]}}}});
    world.interfere("plan-no-way-back", refers).await;
    world.settled("plan-no-way-back").await;
    let call = rollback("plan-no-way-back", "v2", "previous");
    let planned = world.actor.plan(&call).await.unwrap();
    let Feasibility::Impossible { why } = planned.plan.undo else {
        panic!("{:?}", planned.plan.undo);
    };
    assert!(
        why.ends_with("needs what is gone: ConfigMap pruned (env of container app)"),
        "{why}"
    );
}

#[tokio::test]
async fn a_probe_of_a_service_or_port_that_does_not_exist_is_refused_when_planned() {
    let world = world().await;
    app("plan-probe", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let probe = |service: &str, port: u16| {
        let with = json!({"service": service, "namespace": "plan-probe", "port": port, "path": "/healthz"});
        call(Action::HttpProbe, with)
    };
    world.actor.plan(&probe("shop", 8080)).await.unwrap();
    let told = failure(world.actor.plan(&probe("shpo", 8080)).await.unwrap_err());
    assert_eq!(told.kind, "notFound");
    let told = failure(world.actor.plan(&probe("shop", 81)).await.unwrap_err());
    assert_eq!(told.evidence, ["it has 8080"]);
}

#[tokio::test]
async fn an_autoscaler_keeps_its_replicas() {
    let world = world().await;
    app("plan-scaled", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let scaler: HorizontalPodAutoscaler = serde_json::from_value(json!({
        "metadata": {"name": "shop"},
        "spec": {
            "minReplicas": 2, "maxReplicas": 9,
            "scaleTargetRef": {"apiVersion": "apps/v1", "kind": "Deployment", "name": "shop"},
        },
    }))
    .unwrap();
    Api::<HorizontalPodAutoscaler>::namespaced(world.admin.clone(), "plan-scaled")
        .create(&PostParams::default(), &scaler)
        .await
        .unwrap();
    let call = rollback("plan-scaled", "v2", "previous");
    let planned = world.actor.plan(&call).await.unwrap();
    let owners = &planned.plan.owners;
    let scaler = owners
        .iter()
        .find(|owner| owner.system == "HorizontalPodAutoscaler")
        .unwrap_or_else(|| panic!("{owners:?}"));
    assert!(!scaler.would_revert);
    // Scaled between the release that is put back and the rollback.
    world
        .interfere("plan-scaled", json!({"spec": {"replicas": 5}}))
        .await;
    world.run(&call).await.unwrap();
    assert_eq!(world.object("plan-scaled").await["spec"]["replicas"], 5);
}

#[tokio::test]
async fn a_secret_in_a_template_never_leaves_the_agent() {
    let world = world().await;
    app("plan-secret", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let with_password = json!({"spec": {"template": {"spec": {"containers": [
        {"name": "app", "image": "shop:v2", "env": [{"name": "PASSWORD", "value": "hunter2"}]},
    ]}}}});
    world.interfere("plan-secret", with_password).await;
    world.settled("plan-secret").await;
    let call = rollback("plan-secret", "v2", "previous");
    let Planned { plan, warnings, .. } = world.actor.plan(&call).await.unwrap();
    let line = plan
        .diff
        .iter()
        .find(|line| line.field.contains("PASSWORD].value"));
    let line = line.unwrap_or_else(|| panic!("{:?}", plan.diff));
    assert!(line.from.as_ref().unwrap().starts_with("hash:"));
    let shown = format!("{} {warnings:?}", serde_json::to_string(&plan).unwrap());
    assert!(!shown.contains("hunter2"), "{shown}");
}

#[tokio::test]
async fn a_namespace_out_of_reach_is_refused_with_the_right_that_is_missing() {
    let world = world().await;
    let closed = json!({
        "apiVersion": "v1", "kind": "Namespace",
        "metadata": {"name": "plan-closed", "labels": {"aldis.dev/agent": "none"}},
    });
    Api::<Namespace>::all(world.admin.clone())
        .patch(
            "plan-closed",
            &PatchParams::apply("test"),
            &Patch::Apply(closed),
        )
        .await
        .unwrap();
    let told = failure(
        world
            .actor
            .plan(&set_image("plan-closed", "shop:v2"))
            .await
            .unwrap_err(),
    );
    assert_eq!(told.kind, "refused");
    assert!(told.cause.contains("cannot get resource"), "{told}");
    let warnings = world
        .actor
        .plan(&wait("plan-closed", "1m"))
        .await
        .unwrap()
        .warnings;
    assert!(
        warnings.iter().any(|w| w.contains("pods/log")),
        "{warnings:?}"
    );
}

#[tokio::test]
async fn what_admission_would_refuse_is_refused_when_planned_in_its_own_words() {
    let world = world().await;
    app("plan-denied", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let rule = json!({"apiGroups": ["apps"], "apiVersions": ["v1"], "operations": ["UPDATE"], "resources": ["deployments"]});
    let policy = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicy",
        "metadata": {"name": "pinned"},
        "spec": {
            "matchConstraints": {"resourceRules": [rule]},
            "validations": [{
                "expression": "object.spec.template.spec.containers.all(c, c.image != 'shop:v2')",
                "message": "images must be pinned",
            }],
        },
    });
    let only_here = json!({"matchLabels": {"kubernetes.io/metadata.name": "plan-denied"}});
    let binding = json!({
        "apiVersion": "admissionregistration.k8s.io/v1", "kind": "ValidatingAdmissionPolicyBinding",
        "metadata": {"name": "pinned"},
        "spec": {
            "policyName": "pinned", "validationActions": ["Deny"],
            "matchResources": {"namespaceSelector": only_here},
        },
    });
    let params = PatchParams::apply("test");
    Api::<ValidatingAdmissionPolicy>::all(world.admin.clone())
        .patch("pinned", &params, &Patch::Apply(policy))
        .await
        .unwrap();
    Api::<ValidatingAdmissionPolicyBinding>::all(world.admin.clone())
        .patch("pinned", &params, &Patch::Apply(binding))
        .await
        .unwrap();
    let told = eventually(Duration::from_secs(60), "the policy", || async {
        let planned = world.actor.plan(&set_image("plan-denied", "shop:v2")).await;
        planned.err().context("not in force yet")
    })
    .await
    .unwrap();
    let told = failure(told);
    assert_eq!(told.kind, "invalid");
    assert!(told.cause.contains("images must be pinned"), "{told}");
    assert_eq!(world.seen("plan-denied").await.generation, 1);
}

#[tokio::test]
async fn the_facts_of_a_deployment_are_read() {
    let world = world().await;
    app("plan-get", &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    make_namespace(&world.admin, "plan-get-empty")
        .await
        .unwrap();
    let get = |namespace: &str| {
        let with = json!({"kind": "Deployment", "name": "shop", "namespace": namespace});
        call(Action::KubeGet, with)
    };
    let (_, read) = world.run(&get("plan-get")).await.unwrap();
    assert_eq!(
        read.outputs,
        json!({"found": true, "images": ["shop:v2"], "replicas": 3, "ready": 3, "revision": 2, "paused": false})
    );
    let (_, read) = world.run(&get("plan-get-empty")).await.unwrap();
    assert_eq!(read.outputs["found"], false);
}
