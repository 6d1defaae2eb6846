//! The shop in a fleet: what its images are, and what it is to Kubernetes.
//!
//! | where | what a release does comes from |
//! |---|---|
//! | simulated nodes | the tag, read by `fleet/stages.yaml` and by our kubelet |
//! | real nodes | the tag, turned into the arguments of the one static program when its image is made |
//!
//! Both read the tag as [`Release`] says, so that a story told on one is told on the other.

pub mod program;

use std::path::PathBuf;
use std::time::Duration;

use aldis_shop::arguments::DATABASE_URL;
pub use aldis_shop::release::{Behaviour, Crash, Probes, Release, Share};

use anyhow::Context;
use tokio::sync::OnceCell;

use super::application::Application;
use super::application::manifest::{self, Container, FromSecret, Resources, Secret};
use super::cluster::{self, Cluster};
use super::nodes::Nodes;
use super::nodes::images::Image;
use super::services::Services;
use super::services::postgres::Role;
use crate::load::source::Source;

/// Where the program stands in an image.
pub const ENTRYPOINT: &str = "/shop";

/// The Secret that holds what sessions are signed with, under [`SESSION_KEY`].
pub const SESSION_SECRET: &str = "shop-session";

/// The key, and so the file, of the session secret.
pub const SESSION_KEY: &str = "session";

/// The Secret that says where the database is (see [`database`]). Made by whoever has a database; without it the shop
/// serves, and answers 503 where it would ask it.
pub const DATABASE_SECRET: &str = "shop-database";

/// The label of every pod of a shop, whatever the application is called.
pub const LABEL: (&str, &str) = ("app.kubernetes.io/part-of", "shop");

/// Where the files of [`DATABASE_SECRET`] are in a pod.
pub const DATABASE_FOLDER: &str = "/etc/shop-database";

/// The key of the URL in it.
pub const DATABASE_KEY: &str = "url";

const SESSION_FOLDER: &str = "/etc/shop";
const AUTHORITY_KEY: &str = "ca.crt";

/// After SIGTERM the shop serves on for at most eight seconds, and lets requests end for as long; this is more.
const GRACE: Duration = Duration::from_secs(20);

/// Whether a shop reads its session secret again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reload {
    /// When it changes.
    OnChange,
    /// Never: it must be restarted.
    Never,
}

/// What an image runs, for whoever makes images. `None` where that image cannot be had in a cluster, named
/// `REGION-CLUSTER`.
pub fn command(image: &str, cluster: &str) -> Option<Vec<String>> {
    let release = Release::of_image(image);
    let pulled = release.can_be_pulled_in(cluster);
    pulled.then(|| {
        let mut command = vec![ENTRYPOINT.to_owned()];
        command.extend(release.arguments());
        command
    })
}

/// Makes images of the shop for a cluster: those that may be had there. Simulated nodes need none.
pub async fn publish<S: AsRef<str>>(cluster: &Cluster, images: &[S]) -> anyhow::Result<()> {
    if cluster.nodes() == Nodes::Simulated {
        return Ok(());
    }
    static PROGRAM: OnceCell<PathBuf> = OnceCell::const_new();
    let program = PROGRAM.get_or_try_init(program::build).await?;
    let here = cluster::file_name(cluster.target());
    let image = |name: &S| {
        let name = name.as_ref();
        let arguments = command(name, &here)?.split_off(1);
        Some(Image::program(name, program).arguments(arguments))
    };
    let images: Vec<Image> = images.iter().filter_map(image).collect();
    cluster.import(&images).await
}

/// The shop as an application, with these releases.
pub fn application<I>(namespace: &str, name: &str, releases: I, reload: Reload) -> Application
where
    I: IntoIterator,
    I::Item: Into<String>,
{
    let mut shop = Application::new(namespace, name, releases);
    shop.container = container(shop.port, reload);
    shop.secrets = vec![session("a secret that nobody rotated yet")];
    // With a pod missing in a rollout, the others would be given its requests.
    shop.max_unavailable = Some(0);
    shop.pod_labels = [(LABEL.0.to_owned(), LABEL.1.to_owned())].into();
    shop.pod_annotations = scraped(shop.port);
    shop
}

/// The Secret of sessions.
pub fn session(secret: &str) -> Secret {
    Secret {
        name: SESSION_SECRET.to_owned(),
        data: [(SESSION_KEY.to_owned(), secret.to_owned())].into(),
        mounted_at: Some(SESSION_FOLDER.to_owned()),
    }
}

/// The Secret of a database: its URL without options, as in `postgres://shop:PASSWORD@10.250.1.1:5432/shop`, and the
/// authority, as PEM, that vouches for its TLS certificate.
pub fn database(url: &str, authority: &str) -> Secret {
    let url = format!("{url}?sslmode=verify-full&sslrootcert={DATABASE_FOLDER}/{AUTHORITY_KEY}");
    Secret {
        name: DATABASE_SECRET.to_owned(),
        data: [
            (DATABASE_KEY.to_owned(), url),
            (AUTHORITY_KEY.to_owned(), authority.to_owned()),
        ]
        .into(),
        // Mounted where the shop looks for it, also before it exists.
        mounted_at: None,
    }
}

/// The Secret of the database of a cluster's region, as its pods reach it. `None` where there is no such database, and
/// on simulated nodes, whose pods reach nothing.
pub fn database_of(services: &Services, cluster: &Cluster) -> anyhow::Result<Option<Secret>> {
    let Some(node) = cluster.node() else {
        return Ok(None);
    };
    let Ok(postgres) = services.postgres(cluster.target().region()) else {
        return Ok(None);
    };
    let login = postgres
        .primary(Role::Shop)
        .at(node.plan().outside().into());
    let url = login.url();
    let (address, _options) = url.split_once('?').context("a URL has options")?;
    let authority = std::fs::read_to_string(services.ca());
    let authority = authority.context("read the authority of the services")?;
    Ok(Some(database(address, &authority)))
}

/// Where requests to a shop on some clusters go, for [`crate::load::Load::start`].
pub fn sources<'a>(
    clusters: impl IntoIterator<Item = &'a Cluster>,
    application: &Application,
) -> Vec<(String, Source)> {
    let source = |cluster: &Cluster| Source::Service {
        client: cluster.client(),
        namespace: application.namespace.clone(),
        name: application.name.clone(),
    };
    let clusters = clusters.into_iter();
    clusters
        .map(|cluster| (cluster.target().to_string(), source(cluster)))
        .collect()
}

fn container(port: u16, reload: Reload) -> Container {
    let mut arguments = vec![
        format!("--listen=0.0.0.0:{port}"),
        format!("--session-secret={SESSION_FOLDER}/{SESSION_KEY}"),
    ];
    if reload == Reload::OnChange {
        arguments.push("--reload".to_owned());
    }
    Container {
        arguments,
        environment: vec![FromSecret {
            variable: DATABASE_URL.to_owned(),
            secret: DATABASE_SECRET.to_owned(),
            key: DATABASE_KEY.to_owned(),
        }],
        optional_secrets: [(DATABASE_FOLDER.to_owned(), DATABASE_SECRET.to_owned())].into(),
        probes: Some(manifest::Probes {
            ready: "/readyz".to_owned(),
            alive: "/livez".to_owned(),
            every: Duration::from_secs(1),
        }),
        // Measured: 4 MiB at rest. The limit is soon met by a release that leaks.
        resources: Some(Resources {
            cpu: "10m".to_owned(),
            memory: "16Mi".to_owned(),
            memory_limit: "64Mi".to_owned(),
        }),
        grace: GRACE,
    }
}

/// The annotations by which a Prometheus commonly finds what to scrape.
fn scraped(port: u16) -> std::collections::BTreeMap<String, String> {
    [
        ("scrape", "true".to_owned()),
        ("port", port.to_string()),
        ("path", "/metrics".to_owned()),
    ]
    .map(|(name, value)| (format!("prometheus.io/{name}"), value))
    .into()
}

#[cfg(test)]
mod tests;
