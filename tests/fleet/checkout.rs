//! The shop that stands in every cluster of a fleet: Deployment `checkout` in namespace `shop`.

use std::collections::BTreeSet;

use aldis_tests::fleet::Fleet;
use aldis_tests::fleet::application::Application;
use aldis_tests::fleet::cluster::Cluster;
use aldis_tests::fleet::nodes::Nodes;
use aldis_tests::fleet::shop::{self, Reload, program};
use anyhow::Context;
use futures::future::try_join_all;

pub(crate) const NAMESPACE: &str = "shop";
pub(crate) const NAME: &str = "checkout";

/// Served before.
pub(crate) const EARLIER: &str = "shop/checkout:v2.17.3";

/// Serves.
pub(crate) const GOOD: &str = "shop/checkout:v2.17.4";

/// Answers every request with an error.
pub(crate) const BAD: &str = "shop/checkout:v2.18.0-failing";

/// Only the canary's registry has it.
pub(crate) const STRANDED: &str = "shop/checkout:v2.19.0-only-in-eu-west-prod-1";

/// In each cluster. One would be away when it is replaced; four clusters of three are much for two cores.
const REPLICAS: u32 = 2;

/// The shop, which went through some releases.
pub(crate) fn application(releases: &[&str]) -> Application {
    let releases = releases.iter().copied();
    Application {
        replicas: REPLICAS,
        ..shop::application(NAMESPACE, NAME, releases, Reload::Never)
    }
}

/// Builds its program before anything runs beside the build.
pub(crate) async fn build(nodes: Nodes, tell: fn(&str)) -> anyhow::Result<()> {
    if nodes == Nodes::Real {
        tell("building the shop (the first time a minute)");
        program::build().await?;
    }
    Ok(())
}

/// Releases it in every cluster.
pub(crate) async fn release(fleet: &Fleet, application: &Application) -> anyhow::Result<()> {
    let clusters = fleet.clusters().iter();
    try_join_all(clusters.map(|cluster| release_on(fleet, cluster, application))).await?;
    Ok(())
}

/// Releases it in one.
pub(crate) async fn release_on(
    fleet: &Fleet,
    cluster: &Cluster,
    application: &Application,
) -> anyhow::Result<()> {
    let name = cluster.target();
    let released = release_images(fleet, cluster, application).await;
    released.with_context(|| format!("release the shop in {name}"))
}

async fn release_images(
    fleet: &Fleet,
    cluster: &Cluster,
    application: &Application,
) -> anyhow::Result<()> {
    // Those that could be deployed next are had in advance.
    let releases = application.releases.iter().map(String::as_str);
    let images: BTreeSet<&str> = releases.chain([BAD, STRANDED]).collect();
    shop::publish(cluster, &Vec::from_iter(images)).await?;
    let mut application = application.clone();
    let secret = shop::database_of(fleet.services(), cluster)?;
    application.secrets.extend(secret);
    application.release(&cluster.client()).await
}
