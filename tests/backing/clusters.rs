//! What services do for a cluster. Its nodes are simulated, so the one pod that is scraped is ours: it is bound
//! to a node that nobody plays, and its address is this test's own server.

use std::time::Duration;

use aldis_core::ids::TargetName;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::etcd::Etcd;
use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::nodes::Nodes;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::services::{Member, Service, Services};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{DeleteParams, Patch, PatchParams, PostParams};
use serde_json::json;

use crate::{folder, only, scraped};

const PATIENCE: Duration = Duration::from_secs(90);

/// A cluster whose nodes are said to be these.
fn member(folder: &Folder, cluster: &Cluster, nodes: Nodes) -> Member {
    Member {
        nodes,
        ..Member::of(folder, cluster)
    }
}

async fn make_pod(pods: &Api<Pod>, port: u16) {
    let pod = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": "shop-1", "labels": {"app.kubernetes.io/part-of": "shop"}},
        "spec": {"nodeName": "elsewhere", "containers": [{
            "name": "shop", "image": "shop:v1.42.0", "ports": [{"containerPort": port}],
        }]},
    });
    let pod = serde_json::from_value(pod).unwrap();
    pods.create(&PostParams::default(), &pod).await.unwrap();
    let address = json!({"status": {"podIP": "127.0.0.1", "podIPs": [{"ip": "127.0.0.1"}]}});
    let how = PatchParams::apply("test");
    pods.patch_status("shop-1", &how, &Patch::Merge(address))
        .await
        .unwrap();
}

#[tokio::test]
async fn a_cluster_that_is_followed_is_scraped_and_serves_metrics_of_its_own() {
    let folder = Folder::make(&folder("backing-cluster")).unwrap();
    let store = Etcd::start(&folder, "objects").await.unwrap();
    let target = TargetName::new("eu-west", "prod-1").unwrap();
    let cluster = Cluster::start(&folder, target, &store.endpoint(), Nodes::Simulated)
        .await
        .unwrap();
    let options = only([Service::Prometheus, Service::Metrics]);
    let mut services = Services::start(&folder, options).await.unwrap();
    let (port, _serving) = scraped::server().await;
    let pods = Api::<Pod>::namespaced(cluster.client(), "default");
    make_pod(&pods, port).await;

    let simulated = member(&folder, &cluster, Nodes::Simulated);
    services.follow(&[simulated]).await.unwrap();
    let remark = services.remark().unwrap();
    assert!(remark.contains("eu-west/prod-1"), "{remark}");
    assert_eq!(services.programs().len(), 1, "no metrics-server");

    let real = member(&folder, &cluster, Nodes::Real);
    services.follow(&[real]).await.unwrap();

    let path = http::Request::get("/apis/metrics.k8s.io/v1beta1")
        .body(Vec::new())
        .unwrap();
    let served = cluster.client().request_text(path).await.unwrap();
    assert!(served.contains("PodMetrics"), "{served}");

    let prometheus = services.prometheus().unwrap();
    let query = r#"shop_orders_total{pod="shop-1"}"#;
    let look = || async {
        let found = prometheus.query(query).await?;
        found.first().cloned().context("no series")
    };
    let series = eventually(PATIENCE, "the pod is scraped", look)
        .await
        .unwrap();
    let labels = &series["metric"];
    assert_eq!(labels["cluster"], "eu-west/prod-1");
    assert_eq!(labels["release"], "v1.42.0");

    pods.delete("shop-1", &DeleteParams::default().grace_period(0))
        .await
        .unwrap();
    let look = || async {
        let found = prometheus.query("up").await?;
        ensure!(found.is_empty(), "still scraped: {found:?}");
        Ok(())
    };
    eventually(PATIENCE, "the pod is forgotten", look)
        .await
        .unwrap();
}
