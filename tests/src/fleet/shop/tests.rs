//! What Kubernetes is told, read back as Kubernetes would read it.

use aldis_shop::arguments::Arguments;
use clap::Parser;
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Container as Built, PodSpec};

use super::*;

const IMAGE: &str = "shop/checkout:v2-slow-300ms";

fn shop() -> Application {
    application("shop", "checkout", [IMAGE], Reload::OnChange)
}

fn pod(application: &Application) -> PodSpec {
    let built: Deployment = serde_json::from_value(application.manifest(IMAGE)).unwrap();
    built.spec.unwrap().template.spec.unwrap()
}

fn built(application: &Application) -> Built {
    pod(application).containers.remove(0)
}

#[test]
fn an_image_runs_the_release_of_its_tag() {
    let command = command(IMAGE, "eu-west-prod-1").unwrap();
    let wanted = ["/shop", "--release", "v2-slow-300ms", "--delay", "300ms"];
    assert_eq!(command, wanted);
    assert_eq!(
        super::command("shop/checkout:v3-broken", "eu-west-prod-1"),
        None
    );
}

#[test]
fn the_program_understands_what_image_and_pod_say_together() {
    let mut command = command(IMAGE, "eu-west-prod-1").unwrap();
    command.extend(built(&shop()).args.unwrap());
    let understood = Arguments::try_parse_from(command).unwrap();
    assert!(understood.reload);
    assert_eq!(understood.listen.port(), 8080);
    let mounted = &built(&shop()).volume_mounts.unwrap()[0].mount_path;
    assert!(understood.session_secret.unwrap().starts_with(mounted));
    assert!(
        understood.grace * 2 < GRACE,
        "the kubelet must not kill what still drains"
    );
}

#[test]
fn probes_ask_the_port_that_is_served() {
    let container = built(&shop());
    let served = container.ports.unwrap()[0].container_port;
    for (probe, path) in [
        (container.readiness_probe, "/readyz"),
        (container.liveness_probe, "/livez"),
    ] {
        let asked = probe.unwrap().http_get.unwrap();
        assert_eq!(asked.path.as_deref(), Some(path));
        assert_eq!(serde_json::to_value(asked.port).unwrap(), served);
    }
}

#[test]
fn a_volume_leads_to_the_secret_that_is_made() {
    let shop = shop();
    let volume = &pod(&shop).volumes.unwrap()[0];
    let secret = volume.secret.as_ref().unwrap().secret_name.as_deref();
    assert_eq!(secret, Some(shop.secrets[0].name.as_str()));
    assert_eq!(built(&shop).volume_mounts.unwrap()[0].name, volume.name);
}

#[test]
fn the_authority_of_the_database_is_where_its_url_says() {
    let data = database("postgres://shop:pw@10.1.2.3/shop", "PEM").data;
    let file = data["url"].rsplit_once("sslrootcert=").unwrap().1;
    let (folder, key) = file.rsplit_once('/').unwrap();
    assert!(data.contains_key(key));
    let mounts = built(&shop()).volume_mounts.unwrap();
    let mount = mounts
        .iter()
        .find(|mount| mount.mount_path == folder)
        .unwrap();
    let volumes = pod(&shop()).volumes.unwrap();
    let volume = volumes
        .iter()
        .find(|volume| volume.name == mount.name)
        .unwrap();
    assert_eq!(volume.secret.as_ref().unwrap().optional, Some(true));
}

#[test]
fn an_application_without_probes_has_none_and_ends_at_once() {
    let plain = Application::new("ns", "web", ["web:v1"]);
    let container = built(&plain);
    assert!(container.readiness_probe.is_none() && container.liveness_probe.is_none());
    assert_eq!(pod(&plain).termination_grace_period_seconds, Some(1));
}
