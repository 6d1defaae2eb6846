//! What the shop's customers notice while releases are changed under them.

use std::time::Duration;

use aldis_tests::fleet::shop::{self, Reload};
use aldis_tests::load::{self, Load};
use aldis_tests::practice::rests;
use aldis_tests::stage::{ALL, SERVICE, Stage};

use crate::{fleet, real_nodes};

const OLD: &str = "shop/checkout:v1";

/// Few and patient: with four clusters on two processors, a request that is slow is not one that fails.
fn customers() -> load::Options {
    load::Options {
        per_second: 3,
        limit: Duration::from_secs(15),
        ..load::Options::default()
    }
}

/// Long enough for requests to every cluster before a change begins.
const BEFORE: u64 = 20;

/// Until every cluster has served that many.
async fn served(load: &Load, each: u64) {
    let busy = || async {
        let report = load.report();
        for (cluster, counts) in &report.clusters {
            anyhow::ensure!(counts.served() >= each, "{cluster}: {counts:?}");
        }
        Ok(())
    };
    aldis_tests::fleet::ready::eventually(Duration::from_secs(60), "requests are served", busy)
        .await
        .unwrap();
}

#[tokio::test]
async fn no_request_fails_while_a_good_release_goes_through_every_cluster() {
    const NEW: &str = "shop/checkout:v2";
    let Some(fleet) = real_nodes("no request fails through a change").await else {
        return;
    };
    let stage = Stage::alone(fleet, "under-load").await;
    let mut app = shop::application(&stage.namespace, SERVICE, [OLD], Reload::OnChange);
    app.replicas = 2;
    stage.release_as(&app).await.unwrap();
    stage.publish(&[NEW]).await.unwrap();
    let load = Load::start(customers(), shop::sources(stage.fleet.clusters(), &app));
    served(&load, BEFORE).await;
    let before = load.report();
    let words = stage.words("deploy-image", &[&format!("image={NEW}")]);
    let (code, view) = stage.run(&words).await.unwrap();
    let report = load.stop().await.unwrap().since(&before);
    assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
    assert_eq!(report.clusters.len(), ALL.len());
    for (cluster, counts) in &report.clusters {
        assert_eq!(counts.failed(), 0, "{cluster}:\n{report}");
        let releases: Vec<&str> = counts.releases.keys().map(String::as_str).collect();
        assert_eq!(releases, ["v1", "v2"], "{cluster} served both:\n{report}");
    }
}

#[tokio::test]
async fn what_a_failing_release_cost_is_counted_by_cluster_and_ends_with_the_rollback() {
    const BAD: &str = "shop/checkout:v2-failing";
    let Some(_) = real_nodes("what a failing release costs").await else {
        return;
    };
    let stage = Stage::alone(fleet().await, "cost-of-a-bad-one").await;
    let mut app = shop::application(&stage.namespace, SERVICE, [OLD, BAD], Reload::OnChange);
    app.replicas = 2;
    stage.release_as(&app).await.unwrap();
    let load = Load::start(customers(), shop::sources(stage.fleet.clusters(), &app));
    let file = stage
        .file("rollback.yaml", &aldis_tests::runbooks::rollback_at_once())
        .unwrap();
    let words = stage.words(file.to_str().unwrap(), &[&format!("from={BAD}")]);
    let (code, view) = stage.run(&words).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
    let helped = load.report();
    served_since(&load, &helped).await;
    let after = load.report().since(&helped);
    let report = load.stop().await.unwrap();
    for (cluster, counts) in &report.clusters {
        assert!(counts.failed() > 0, "{cluster} was ill before:\n{report}");
    }
    for (cluster, counts) in &after.clusters {
        assert_eq!(counts.failed(), 0, "{cluster} is well since:\n{after}");
    }
}

/// Until every cluster has served more.
async fn served_since(load: &Load, before: &load::report::Report) {
    let more = || async {
        for (cluster, counts) in &load.report().since(before).clusters {
            anyhow::ensure!(counts.served() >= BEFORE, "{cluster}: {counts:?}");
        }
        Ok(())
    };
    aldis_tests::fleet::ready::eventually(Duration::from_secs(60), "more is served", more)
        .await
        .unwrap();
}
