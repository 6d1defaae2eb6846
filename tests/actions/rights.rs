//! Each action on a real API server with exactly the rights that `aldis-agent rights` prints for a policy that allows this
//! one action in this one namespace, bound to a service account as in a pod.

use std::time::Duration;

use aldis_agent::actions::cluster::Cluster as Actor;
use aldis_agent::actions::{Actions, Call, Progress};
use aldis_agent::policy::Policy;
use aldis_agent::rights::{Subject, Wish, render};
use aldis_core::action::Action;
use aldis_core::plan::part::Feasibility;
use aldis_tests::fleet::ready::eventually;
use k8s_openapi::api::rbac::v1::{ClusterRole, ClusterRoleBinding, Role, RoleBinding};
use kube::api::{Patch, PatchParams};
use kube::{Api, Client};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use crate::accounts::{ACCOUNT, account};
use crate::support::{World, app, back, call, effect, failure, rollback, set_image, wait, world};

/// Gives the account of `namespace` what a policy for one action there leads to.
async fn give(admin: &Client, namespace: &str, action: Action) {
    let text = json!({"actions": [action.name()], "namespaces": [namespace]}).to_string();
    let policy = Policy::parse(std::path::Path::new("policy.yaml"), &text).unwrap();
    let wish = Wish {
        name: Some(format!("only-{namespace}")),
        subject: Some(Subject::account(&format!("{namespace}/{ACCOUNT}")).unwrap()),
        ..Wish::default()
    };
    let printed: Vec<Value> = serde_saphyr::from_multiple(&render(&policy, &wish)).unwrap();
    let in_namespace = || Some(namespace.to_owned());
    for object in printed {
        match object["kind"].as_str().unwrap() {
            "ClusterRole" => put(Api::<ClusterRole>::all(admin.clone()), &object).await,
            "ClusterRoleBinding" => {
                put(Api::<ClusterRoleBinding>::all(admin.clone()), &object).await
            }
            "Role" => {
                put(
                    Api::<Role>::namespaced(admin.clone(), &in_namespace().unwrap()),
                    &object,
                )
                .await
            }
            "RoleBinding" => {
                put(
                    Api::<RoleBinding>::namespaced(admin.clone(), &in_namespace().unwrap()),
                    &object,
                )
                .await
            }
            other => panic!("{other}"),
        }
    }
}

async fn put<K>(api: Api<K>, object: &Value)
where
    K: Clone + DeserializeOwned + std::fmt::Debug,
{
    let name = object["metadata"]["name"].as_str().unwrap();
    let params = PatchParams::apply("test");
    api.patch(name, &params, &Patch::Apply(object))
        .await
        .unwrap();
}

/// An application in a namespace of the action's own, and the account that may do nothing but this action there.
async fn limited(world: &World, namespace: &str, action: Action) -> Actor {
    app(namespace, &["shop:v1", "shop:v2"])
        .release(&world.admin)
        .await
        .unwrap();
    let actor = account(world, namespace).await;
    give(&world.admin, namespace, action).await;
    actor
}

/// A plan that misses nothing. Rights take a moment to be known to the API server.
async fn planned(actor: &Actor, call: &Call) -> aldis_agent::actions::Planned {
    let limit = Duration::from_secs(30);
    eventually(limit, "a plan that misses no right", || async {
        let planned = actor.plan(call).await?;
        let missing = planned
            .warnings
            .iter()
            .find(|said| said.contains("may not"));
        anyhow::ensure!(missing.is_none(), "{missing:?}");
        Ok(planned)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn each_reading_works_with_the_rights_of_its_own() {
    let world = world().await;
    let readings = [
        call(
            Action::KubeGet,
            json!({"name": "shop", "namespace": "only-get", "kind": "Deployment"}),
        ),
        call(
            Action::KubeResolveTemplate,
            json!({"deployment": "shop", "namespace": "only-resolve", "to": "previous"}),
        ),
        wait("only-wait", "30s"),
        call(
            Action::HttpProbe,
            json!({"service": "shop", "namespace": "only-probe", "port": 8080, "path": "/healthz", "samples": 2}),
        ),
    ];
    for reading in readings {
        let namespace = reading.with["namespace"].as_str().unwrap();
        let actor = limited(&world, namespace, reading.action).await;
        planned(&actor, &reading).await;
        let applied = actor.apply(&reading, &Value::Null, &Progress::none()).await;
        let name = reading.action.name();
        let outputs = applied
            .unwrap_or_else(|error| panic!("{name}: {error}"))
            .outputs;
        assert_ne!(outputs, Value::Null, "{name}");
        assert_eq!(
            actor.identity().await.unwrap(),
            world.actor.identity().await.unwrap()
        );
    }
}

#[tokio::test]
async fn each_write_works_there_and_back_with_the_rights_of_its_own() {
    let world = world().await;
    for write in [
        rollback("only-undo", "v2", "previous"),
        set_image("only-image", "shop:v1"),
    ] {
        let namespace = write.with["namespace"].as_str().unwrap().to_owned();
        let actor = limited(&world, &namespace, write.action).await;
        let plan = planned(&actor, &write).await.plan;
        assert_eq!(plan.undo, Feasibility::Possible);
        let before = actor.capture(&write).await.unwrap();
        let applied = actor
            .apply(&write, &before, &Progress::none())
            .await
            .unwrap();
        world.settled(&namespace).await;
        actor.observe(&write, Some(&before)).await.unwrap();
        actor.fence(&write, Some(&before)).await.unwrap();
        let done = effect(&write, &before, Some(&applied));
        actor
            .undo(&back(&write), &done, &Progress::none())
            .await
            .unwrap();
    }
}

#[tokio::test]
async fn the_rights_of_one_action_in_one_namespace_are_none_for_another() {
    let world = world().await;
    let actor = limited(&world, "only-here", Action::KubeGet).await;
    let read = |namespace: &str| {
        call(
            Action::KubeGet,
            json!({"name": "shop", "namespace": namespace, "kind": "Deployment"}),
        )
    };
    planned(&actor, &read("only-here")).await;
    for call in [read("default"), rollback("only-here", "v2", "previous")] {
        let refused = failure(actor.plan(&call).await.unwrap_err());
        assert_eq!(refused.kind, "refused", "{}", call.action.name());
    }
}
