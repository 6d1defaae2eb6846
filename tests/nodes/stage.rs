//! The fleet of these tests, and the pods on it.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_tests::fleet::application::make_namespace;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::nodes::node::Node;
use aldis_tests::fleet::nodes::{Nodes, Wanted};
use aldis_tests::fleet::{Fleet, Options, ready};
use anyhow::Context;
use k8s_openapi::api::core::v1::{ContainerStatus, Pod};
use kube::Api;
use kube::api::PostParams;
use serde_json::json;
use tokio::sync::OnceCell;

use super::images::images;

static FLEET: OnceCell<Option<Fleet>> = OnceCell::const_new();

/// A pod runs within two seconds.
const LIMIT: Duration = Duration::from_secs(60);

/// A cluster with a real node, and a namespace of its own for a test.
pub(crate) struct Stage {
    pub(crate) cluster: &'static Cluster,
    pub(crate) pods: Api<Pod>,
}

/// `None`, and the reason on the terminal, where the machine has no real nodes.
pub(crate) async fn stage(namespace: &str) -> Option<Stage> {
    let fleet = FLEET.get_or_init(start).await.as_ref()?;
    let cluster = &fleet.clusters()[0];
    make_namespace(&cluster.client(), namespace).await.unwrap();
    Some(Stage {
        cluster,
        pods: Api::namespaced(cluster.client(), namespace),
    })
}

async fn start() -> Option<Fleet> {
    if !real() {
        return None;
    }
    let options = Options {
        clusters: 1,
        nodes: Wanted::Real,
        tell,
        ..Options::default()
    };
    let fleet = Fleet::start(&folder("nodes-fleet"), options)
        .await
        .unwrap_or_else(|error| panic!("start the fleet: {error:?}"));
    fleet.clusters()[0]
        .import(&images().unwrap())
        .await
        .unwrap();
    Some(fleet)
}

/// Whether there is something to test. Says so if not, and panics where there must be.
pub(crate) fn real() -> bool {
    let chosen = Wanted::from_environment()
        .and_then(|wanted| wanted.choose(&folder("nodes-fleet")))
        .unwrap_or_else(|error| panic!("{error:#}"));
    if chosen.nodes == Nodes::Simulated {
        tell(&format!("nothing is tested of real nodes: {chosen}"));
    }
    chosen.nodes == Nodes::Real
}

/// Past the capture of tests that pass: a run that tested nothing must not look like one that did.
pub(crate) fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "nodes: {text}");
}

pub(crate) fn folder(name: &str) -> PathBuf {
    Path::new(env!("CARGO_TARGET_TMPDIR")).join(name)
}

impl Stage {
    pub(crate) fn node(&self) -> &'static Node {
        self.cluster.node().expect("the fleet has real nodes")
    }

    /// Makes a pod of one container.
    pub(crate) async fn make(&self, name: &str, image: &str) {
        let pod = json!({
            "metadata": {"name": name},
            "spec": {
                "terminationGracePeriodSeconds": 0,
                "containers": [{"name": "it", "image": image}],
            },
        });
        let pod = serde_json::from_value(pod).unwrap();
        self.pods
            .create(&PostParams::default(), &pod)
            .await
            .unwrap();
    }

    /// Makes a pod that serves, and waits until it is ready. Its address.
    pub(crate) async fn serving(&self, name: &str) -> String {
        self.make(name, super::images::SERVES).await;
        self.until(name, "ready", |pod| {
            let status = pod.status.as_ref()?;
            container(pod).filter(|container| container.ready)?;
            status.pod_ip.clone()
        })
        .await
    }

    /// Waits until a pod shows something.
    pub(crate) async fn until<T>(
        &self,
        name: &str,
        what: &str,
        shows: impl Fn(&Pod) -> Option<T>,
    ) -> T {
        let look = || async {
            let pod = self.pods.get(name).await?;
            let seen = serde_json::to_string(&pod.status)?;
            shows(&pod).with_context(|| format!("it shows {seen}"))
        };
        ready::eventually(LIMIT, format!("pod {name} is {what}"), look)
            .await
            .unwrap_or_else(|error| panic!("{error:#}"))
    }
}

/// The state of a pod's only container.
pub(crate) fn container(pod: &Pod) -> Option<&ContainerStatus> {
    pod.status.as_ref()?.container_statuses.as_ref()?.first()
}
