//! What stands beside the clusters, as real pods meet it: the database of their region, the Prometheus that scrapes
//! them, the metrics-server that measures them. Simulated pods ask nobody and use nothing, so this is not told of them.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::services::Services;
use aldis_tests::fleet::services::postgres::Role;
use aldis_tests::fleet::shop;
use aldis_tests::requests::get;
use aldis_tests::stage::{ALL, PATIENCE, Stage};
use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, ResourceExt};
use serde_json::{Value, json};

use crate::real_nodes;

const GOOD: &str = "shop/checkout:v1";

/// What a pod of the shop may hold of memory, in MiB, as its Deployment says. It needs some four.
const MOST_MEMORY: u64 = 64;

/// A pod of a story.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Place {
    cluster: String,
    pod: String,
}

async fn pods(stage: &Stage, cluster: &Cluster) -> anyhow::Result<Vec<Pod>> {
    let api = Api::<Pod>::namespaced(cluster.client(), &stage.namespace);
    let pods = api.list(&Default::default()).await;
    let pods = pods.context("list the pods of a story")?.items;
    ensure!(!pods.is_empty(), "{} has no pod", cluster.target());
    Ok(pods)
}

/// The pods of a story on a cluster, and where each is asked.
async fn places(stage: &Stage, target: &str) -> anyhow::Result<BTreeMap<Place, SocketAddr>> {
    let port = stage.application(&[GOOD]).port;
    let mut places = BTreeMap::new();
    for pod in pods(stage, stage.fleet.cluster(target)?).await? {
        let status = pod.status.as_ref().context("a status")?;
        let address: IpAddr = status.pod_ip.as_deref().context("an address")?.parse()?;
        let place = Place {
            cluster: target.to_owned(),
            pod: pod.name_any(),
        };
        places.insert(place, SocketAddr::new(address, port));
    }
    Ok(places)
}

/// The only pod of a story on a cluster.
async fn place(stage: &Stage, target: &str) -> (Place, SocketAddr) {
    let mut places = places(stage, target).await.unwrap();
    assert_eq!(places.len(), 1, "{places:?}");
    places.pop_first().expect("there is one")
}

/// The pods that wrote into a region's database, out of these.
async fn visitors(services: &Services, region: &str, pods: &[&str]) -> Vec<String> {
    let reader = services.postgres(region).unwrap().primary(Role::Aldis);
    let query = "SELECT pod FROM shop_visits WHERE pod = ANY($1) AND visits = 1";
    let rows = reader.connect().await.unwrap().query(query, &[&pods]).await;
    rows.unwrap().iter().map(|row| row.get("pod")).collect()
}

/// Whether every shop that is connected to a region's database speaks TLS with it. `None` where none is connected.
async fn shops_use_tls(services: &Services, region: &str) -> Option<bool> {
    let reader = services.postgres(region).unwrap().primary(Role::Aldis);
    let query = "SELECT bool_and(ssl) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'shop'";
    let row = reader.connect().await.unwrap().query_one(query, &[]).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn a_shop_writes_over_tls_into_the_database_of_its_region_and_into_no_other() {
    let Some(fleet) = real_nodes("pods that write into a database").await else {
        return;
    };
    let stage = Stage::shared(fleet, "database").await;
    let mut wrote = Vec::new();
    for target in ["eu-west/prod-1", "us-east/prod-1"] {
        let cluster = fleet.cluster(target).unwrap();
        let mut app = stage.application(&[GOOD]);
        let secret = shop::database_of(fleet.services(), cluster).unwrap();
        app.secrets.push(secret.expect("its region has a database"));
        stage.release_on(target, &app).await.unwrap();
        let (place, address) = place(&stage, target).await;
        let answer = get(address, "/db").await.unwrap();
        assert_eq!(answer.status, 200, "{target}: {}", answer.body);
        let said = json!({"pod": place.pod, "visits": 1});
        assert_eq!(answer.json().unwrap(), said);
        wrote.push(place.pod);
    }
    let all: Vec<&str> = wrote.iter().map(String::as_str).collect();
    for (region, pod) in ["eu-west", "us-east"].into_iter().zip(&all) {
        let found = visitors(fleet.services(), region, &all).await;
        assert_eq!(found, [*pod], "the database of {region}");
        let tls = shops_use_tls(fleet.services(), region).await;
        assert_eq!(tls, Some(true), "the database of {region}");
    }
}

#[tokio::test]
async fn a_shop_that_was_given_no_database_serves_on_and_says_what_is_missing() {
    const TARGET: &str = "us-east/prod-2";
    let Some(fleet) = real_nodes("a pod without its database").await else {
        return;
    };
    let stage = Stage::shared(fleet, "no-database").await;
    let app = stage.application(&[GOOD]);
    stage.release_on(TARGET, &app).await.unwrap();
    let (_, address) = place(&stage, TARGET).await;
    let answer = get(address, "/db").await.unwrap();
    assert_eq!(answer.status, 503, "{}", answer.body);
    assert!(answer.body.contains("SHOP_DATABASE_URL"), "{}", answer.body);
    for path in ["/", "/healthz", "/readyz"] {
        assert_eq!(get(address, path).await.unwrap().status, 200, "{path}");
    }
}

/// What Prometheus has of each pod by a query, at this moment.
async fn scraped(services: &Services, query: &str) -> anyhow::Result<BTreeMap<Place, String>> {
    let series = services.prometheus()?.query(query).await?;
    let text = |series: &Value, pointer: &str| {
        let text = series.pointer(pointer).and_then(Value::as_str);
        let text = text.with_context(|| format!("{pointer} of {series}"));
        text.map(str::to_owned)
    };
    let of_pod = |series: &Value| {
        let place = Place {
            cluster: text(series, "/metric/cluster")?,
            pod: text(series, "/metric/pod")?,
        };
        Ok((place, text(series, "/value/1")?))
    };
    series.iter().map(of_pod).collect()
}

#[tokio::test]
async fn prometheus_has_of_every_pod_of_every_cluster_what_that_pod_counted() {
    let Some(fleet) = real_nodes("pods that are scraped").await else {
        return;
    };
    let stage = Stage::shared(fleet, "scraped").await;
    let mut app = stage.application(&[GOOD]);
    app.replicas = 2;
    stage.release_as(&app).await.unwrap();
    // Each is asked another number of times, for what nobody else asks.
    let mut counted = BTreeMap::new();
    for target in ALL {
        for (place, address) in places(&stage, target).await.unwrap() {
            let times = counted.len() + 1;
            for _ in 0..times {
                assert_eq!(get(address, "/version").await.unwrap().status, 200);
            }
            counted.insert(place, times.to_string());
        }
    }
    assert_eq!(counted.len(), 2 * ALL.len());
    let query = r#"shop_requests_total{namespace="scraped",path="/version"}"#;
    eventually(PATIENCE, "each pod is scraped", || async {
        let found = scraped(fleet.services(), query).await?;
        ensure!(found == counted, "counted {counted:?}, found {found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// How often the containers of a pod ended and were started again.
fn restarts(pod: &Pod) -> i32 {
    let status = pod.status.iter();
    let containers = status.flat_map(|status| status.container_statuses.iter().flatten());
    containers.map(|container| container.restart_count).sum()
}

#[tokio::test]
async fn a_pod_that_served_and_crashed_is_seen_down_by_prometheus() {
    const TARGET: &str = "us-east/prod-1";
    let Some(fleet) = real_nodes("a crash that is scraped").await else {
        return;
    };
    let stage = Stage::shared(fleet, "crashed").await;
    let cluster = fleet.cluster(TARGET).unwrap();
    let mut app = stage.application(&["shop/checkout:v1-crash-after-5s"]);
    app.wait_for_last = false;
    stage.release_on(TARGET, &app).await.unwrap();
    let crashed = eventually(PATIENCE, "Kubernetes says that it crashed", || async {
        let pod = pods(&stage, cluster).await?.remove(0);
        ensure!(restarts(&pod) > 0, "it has not ended");
        Ok(pod.name_any())
    })
    .await
    .unwrap();
    // Started again at once after the first crash, and ten seconds after the second.
    let up = r#"up{namespace="crashed"}"#;
    let query = format!("{up} == 0 and max_over_time({up}[5m]) == 1");
    let place = Place {
        cluster: TARGET.to_owned(),
        pod: crashed,
    };
    eventually(PATIENCE, "Prometheus sees it down", || async {
        let found = scraped(fleet.services(), &query).await?;
        ensure!(found.contains_key(&place), "{found:?}");
        Ok(())
    })
    .await
    .unwrap();
}

/// What `kubectl top pods` says: the memory of each pod, in MiB.
async fn top(stage: &Stage, cluster: &Cluster) -> anyhow::Result<BTreeMap<String, u64>> {
    let kubectl = stage.system().programs().path("kubectl");
    let output = tokio::process::Command::new(kubectl)
        .args(["top", "pods", "--no-headers", "-n", &stage.namespace])
        .arg("--kubeconfig")
        .arg(cluster.admin_kubeconfig())
        .kill_on_drop(true)
        .output()
        .await
        .context("run kubectl")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "kubectl: {}", errors.trim());
    let lines = String::from_utf8(output.stdout)?;
    lines.lines().map(line_of_top).collect()
}

/// As in `checkout-5d8f-x2x8q  1m  4Mi`.
fn line_of_top(line: &str) -> anyhow::Result<(String, u64)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [pod, _processors, memory] = words[..] else {
        anyhow::bail!("a line of three words, not `{line}`");
    };
    let mib = memory.strip_suffix("Mi").context("memory in MiB")?;
    Ok((pod.to_owned(), mib.parse()?))
}

#[tokio::test]
async fn kubectl_top_tells_the_memory_of_the_pods_of_every_cluster() {
    let Some(fleet) = real_nodes("pods that are measured").await else {
        return;
    };
    let stage = Stage::shared(fleet, "measured").await;
    stage.release(&[GOOD]).await.unwrap();
    for cluster in fleet.clusters() {
        let listed = pods(&stage, cluster).await.unwrap();
        let names: BTreeSet<String> = listed.iter().map(Pod::name_any).collect();
        let look = || async {
            // Each look is a program on processors that other stories need too.
            tokio::time::sleep(Duration::from_secs(1)).await;
            let said = top(&stage, cluster).await?;
            ensure!(said.keys().eq(&names), "{said:?}, and there are {names:?}");
            // A container that was looked at as it began is said to have 0 until the next look.
            let real = |mib: &u64| (1..=MOST_MEMORY).contains(mib);
            ensure!(said.values().all(real), "{said:?}");
            Ok(())
        };
        let what = format!("the pods of {} are measured", cluster.target());
        eventually(PATIENCE, what, look).await.unwrap();
    }
}
