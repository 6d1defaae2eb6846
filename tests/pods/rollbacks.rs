//! A bad release is taken out of every cluster that runs it.

use aldis_core::job::{Rest, TargetState};
use aldis_core::outcome::StepState;
use aldis_tests::fleet::application::make_namespace;
use aldis_tests::practice::rests;
use aldis_tests::runbooks;
use aldis_tests::stage::{ALL, Stage, joined, name};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::Api;
use serde_json::json;

use crate::fleet;

const GOOD: &str = "shop/checkout:v2.17.4";
const BAD: &str = "shop/checkout:v2.18.0-failing";

/// The rollback by a runbook that is built in, or in a file.
fn rollback(stage: &Stage, runbook: &str) -> Vec<String> {
    let from = format!("from={BAD}");
    stage.words(runbook, &[&from])
}

#[tokio::test]
async fn the_built_in_rollback_goes_in_waves_soaks_and_changes_every_cluster_once() {
    let stage = Stage::shared(fleet().await, "healthy-rollback").await;
    stage.release(&[GOOD, BAD]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let words = rollback(&stage, "rollback-service");
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(rests(&view), ["changed"; 4]);
    let waves: Vec<_> = view.waves.iter().map(|wave| wave.targets.len()).collect();
    assert_eq!(waves, [1, 1, 2]);
    assert_eq!(view.waves[0].soak_ms, 30_000);
    for target in view.targets.values() {
        let done = |(_, step): &(_, StepState)| matches!(step, StepState::Succeeded { .. });
        assert!(target.steps.iter().all(done), "{:?}", target.steps);
    }
    assert_eq!(stage.images().await.unwrap(), [GOOD; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    for (target, seen) in stage.seen_everywhere().await.unwrap() {
        assert_eq!(
            seen.revision, 3,
            "{target}: the old template under a new number"
        );
        assert_eq!(seen.history.len(), 2, "{target}: no new ReplicaSet");
        assert_eq!(
            seen.marks["aldis.dev/job"],
            view.header.id.as_str(),
            "{target}"
        );
        assert!(
            seen.managers.iter().any(|manager| manager == "aldis"),
            "{target}"
        );
    }
}

#[tokio::test]
async fn a_cluster_that_does_not_run_the_bad_image_is_left_alone_and_named() {
    let stage = Stage::shared(fleet().await, "one-is-well").await;
    for target in ALL {
        let releases = if target == "us-east/prod-1" {
            [GOOD, "shop/checkout:v2.19.0"]
        } else {
            [GOOD, BAD]
        };
        stage
            .release_on(target, &stage.application(&releases))
            .await
            .unwrap();
    }
    let before = stage.seen_everywhere().await.unwrap();
    let file = stage
        .file("rollback.yaml", &runbooks::rollback_at_once())
        .unwrap();
    let words = rollback(&stage, file.to_str().unwrap());
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(rests(&view), ["changed", "changed", "untouched", "changed"]);
    let left_out = view.targets[&name("us-east/prod-1")]
        .left_out
        .clone()
        .unwrap();
    assert!(left_out.contains("v2.19.0"), "{left_out}");
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1, 1, 0, 1]);
}

#[tokio::test]
async fn a_cluster_that_cannot_be_helped_is_named_and_the_others_stay_changed() {
    let stage = Stage::shared(fleet().await, "one-is-beyond-help").await;
    for target in ALL {
        let mut app = stage.application(&[GOOD, BAD]);
        if target == "us-east/prod-2" {
            // What it would go back to cannot be pulled any more: its registry has lost it.
            app.releases = vec!["shop/checkout:v2.17.4-broken".to_owned(), BAD.to_owned()];
            app.wait_for_each = false;
        }
        stage.release_on(target, &app).await.unwrap();
    }
    let file = stage.file("rollback.yaml", &runbooks::rollback()).unwrap();
    let words = rollback(&stage, file.to_str().unwrap());
    let job = stage.submit(&words).await.unwrap();
    let said = stage
        .aldis(&["watch", &job, "--progress", "plain"])
        .await
        .unwrap()
        .ended(5)
        .unwrap();
    assert!(
        said.out.contains("us-east/prod-2") && said.out.contains("ImagePullBackOff"),
        "{said}"
    );
    let view = stage.view(&job).await.unwrap();
    assert_eq!(
        rests(&view),
        ["changed", "changed", "changed", "needs-operator"]
    );
    let images = stage.images().await.unwrap();
    assert_eq!(images[..3], [GOOD; 3]);
}

#[tokio::test]
async fn no_target_moves_before_all_of_its_wave_have_passed_their_checks() {
    const LACKING: &str = "us-east/prod-2";
    let stage = Stage::shared(fleet().await, "one-fails-its-check").await;
    // It is there while the release that names it starts, and somebody deletes it later.
    let client = stage.fleet.cluster(LACKING).unwrap().client();
    make_namespace(&client, &stage.namespace).await.unwrap();
    let flags = Api::<ConfigMap>::namespaced(client, &stage.namespace);
    let made = json!({"metadata": {"name": "flags-of-v1"}});
    let made = serde_json::from_value(made).unwrap();
    flags.create(&Default::default(), &made).await.unwrap();
    for target in ALL {
        let mut app = stage.application(&[GOOD, BAD]);
        if target == LACKING {
            app.config_map_of_first = Some("flags-of-v1".to_owned());
            app.wait_for_each = false;
        }
        stage.release_on(target, &app).await.unwrap();
    }
    flags
        .delete("flags-of-v1", &Default::default())
        .await
        .unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let file = stage
        .file("rollback.yaml", &runbooks::rollback_at_once())
        .unwrap();
    let words = rollback(&stage, file.to_str().unwrap());
    let plan = stage
        .aldis(&joined(&["plan"], &words))
        .await
        .unwrap()
        .ended(13)
        .unwrap();
    assert!(
        plan.out.contains("flags-of-v1"),
        "the missing ConfigMap is named: {plan}"
    );
    let refused = stage
        .aldis(&joined(&["submit", "--yes"], &words))
        .await
        .unwrap();
    let refused = refused.ended(13).unwrap();
    assert!(refused.err.contains("nothing was touched"), "{refused}");
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
}

#[tokio::test]
async fn a_deployment_that_argo_cd_owns_is_refused_with_the_reason() {
    let stage = Stage::shared(fleet().await, "argo-owns").await;
    let mut app = stage.application(&[GOOD, BAD]);
    app.labels.insert(
        "app.kubernetes.io/instance".to_owned(),
        "checkout".to_owned(),
    );
    let tracking = format!("checkout:apps/Deployment:{}/checkout", stage.namespace);
    app.annotations
        .insert("argocd.argoproj.io/tracking-id".to_owned(), tracking);
    stage.release_as(&app).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let words = rollback(&stage, "rollback-service");
    let said = stage
        .aldis(&joined(&["submit", "--yes"], &words))
        .await
        .unwrap()
        .ended(13)
        .unwrap();
    assert!(
        said.out.contains("Argo CD") || said.err.contains("Argo CD"),
        "{said}"
    );
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
}

#[tokio::test]
async fn what_a_job_changed_is_put_back_by_a_job_of_its_own() {
    let stage = Stage::shared(fleet().await, "undone-later").await;
    stage.release(&[GOOD, BAD]).await.unwrap();
    let file = stage
        .file("rollback.yaml", &runbooks::rollback_at_once())
        .unwrap();
    let words = rollback(&stage, file.to_str().unwrap());
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!(code, 0);
    let job = view.header.id.to_string();
    let undo = stage
        .aldis(&["undo", &job, "--yes", "--detach", "-o", "name"])
        .await
        .unwrap()
        .ended(0)
        .unwrap();
    let (code, view) = stage.ended(undo.out.trim()).await.unwrap();
    assert!([0, 4].contains(&code), "{code}: {:?}", view.header.state);
    let restored =
        |target: &aldis_core::view::TargetView| target.state == TargetState::Rest(Rest::Restored);
    assert!(view.targets.values().all(restored), "{:?}", rests(&view));
    assert_eq!(stage.images().await.unwrap(), [BAD; 4]);
}
