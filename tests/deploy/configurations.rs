//! Every configuration that `deploy/` shows or makes is one that its program takes: the examples, and what the charts put into
//! their ConfigMaps.

use std::path::Path;

use aldis_control_plane::config::Given;
use aldis_tests::pki::{Authority, Request, Usage};
use serde_json::json;

use crate::charts::{example, example_with};
use crate::{deploy, helm, objects};

/// Certificates as the examples name them, in a folder.
fn certificates(folder: &Path) -> anyhow::Result<()> {
    let authority = Authority::new("aldis.example")?;
    let agent = "spiffe://aldis.example/agent/eu-west/prod-1/e1";
    let replica = "spiffe://aldis.example/control-plane/control-plane-1";
    let leaves = [
        ("agent", Request::new("agent", Usage::Client).uri(agent)),
        (
            "control-plane",
            Request::new("control-plane", Usage::Both)
                .uri(replica)
                .on_loopback(),
        ),
        ("etcd-client", Request::new("etcd-client", Usage::Client)),
    ];
    for (name, request) in leaves {
        authority.issue(&request)?.write(folder, name)?;
    }
    for name in ["ca.crt", "etcd-ca.crt"] {
        std::fs::write(folder.join(name), authority.pem())?;
    }
    Ok(())
}

/// As a Secret of that certificate is mounted.
fn mounted(folder: &Path, name: &str) -> anyhow::Result<()> {
    certificates(folder)?;
    std::fs::rename(folder.join(format!("{name}.crt")), folder.join("tls.crt"))?;
    std::fs::rename(folder.join(format!("{name}.key")), folder.join("tls.key"))?;
    Ok(())
}

#[test]
fn the_examples_are_configurations() {
    let folder = tempfile::tempdir().unwrap();
    certificates(folder.path()).unwrap();
    std::fs::write(folder.path().join("kubeconfig.yaml"), "").unwrap();
    let names = [
        "agent.example.yaml",
        "control-plane.example.yaml",
        "agent-policy.example.yaml",
    ];
    for name in names {
        std::fs::copy(deploy().join(name), folder.path().join(name)).unwrap();
    }
    let config = |name: &str| folder.path().join(name);
    let agent = aldis_agent::config::load(&config("agent.example.yaml")).unwrap();
    assert_eq!(agent.policy.check("kube.set-image", Some("shop")), Ok(()));
    aldis_control_plane::config::load(&config("control-plane.example.yaml")).unwrap();
}

/// What a chart puts into `KEY` of its ConfigMap, with `mounts` in place of where a pod has its Secrets.
fn configured(chart: &str, key: &str, mounts: &[(&str, &Path)]) -> anyhow::Result<String> {
    let values = match chart {
        "aldis-agent" => example_with(
            chart,
            json!({"labels": {"tier": "a: b"}, "pin": {"uid": "u", "ca": "ab".repeat(32)}}),
        ),
        _ => example_with(
            chart,
            json!({"limits": {"permit": "45s", "runningJobs": 8}}),
        ),
    };
    let manifests = objects::read(&helm::template(chart, &values)?.manifests()?)?;
    let [map] = objects::of_kind(&manifests, "ConfigMap")[..] else {
        anyhow::bail!("one ConfigMap");
    };
    let mut text = map["data"][key].as_str().unwrap_or_default().to_owned();
    for (mount, folder) in mounts {
        text = text.replace(mount, &folder.display().to_string());
    }
    Ok(text)
}

#[test]
fn the_agent_takes_the_configuration_that_its_chart_makes() {
    let folder = tempfile::tempdir().unwrap();
    mounted(folder.path(), "agent").unwrap();
    for key in ["agent.yaml", "policy.yaml"] {
        let text = configured("aldis-agent", key, &[("/etc/aldis-tls", folder.path())]).unwrap();
        std::fs::write(folder.path().join(key), text).unwrap();
    }
    let config = aldis_agent::config::load(&folder.path().join("agent.yaml")).unwrap();
    assert_eq!(config.cluster, aldis_agent::config::Cluster::InCluster {});
    assert_eq!(config.labels["tier"], "a: b");
    assert_eq!(config.policy.check("kube.set-image", Some("shop")), Ok(()));
    assert!(
        config
            .policy
            .check("kube.set-image", Some("kube-system"))
            .is_err()
    );
}

#[test]
fn a_replica_takes_the_configuration_that_its_chart_makes() {
    let (own, etcd) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    mounted(own.path(), "control-plane").unwrap();
    mounted(etcd.path(), "etcd-client").unwrap();
    let mounts = [
        ("/etc/aldis-tls", own.path()),
        ("/etc/aldis-etcd", etcd.path()),
    ];
    let text = configured("aldis-control-plane", "control-plane.yaml", &mounts).unwrap();
    let file = own.path().join("control-plane.yaml");
    std::fs::write(&file, text).unwrap();
    let pod = Given {
        replica: Some("aldis-control-plane-0".to_owned()),
        advertise: Some(
            "aldis-control-plane-0.aldis-control-plane-replicas.aldis.svc:7600".to_owned(),
        ),
    };
    let config = aldis_control_plane::config::load_with(&file, pod).unwrap();
    assert_eq!(
        (config.replica.as_str(), config.limits.running_jobs),
        ("aldis-control-plane-0", 8)
    );
    assert!(config.monitoring.is_some(), "the kubelet probes it");
}

#[test]
fn the_pods_of_the_control_plane_are_told_name_and_address() {
    let chart = "aldis-control-plane";
    let manifests = helm::template(chart, &example(chart))
        .unwrap()
        .manifests()
        .unwrap();
    let objects = objects::read(&manifests).unwrap();
    let container =
        &objects::of_kind(&objects, "StatefulSet")[0]["spec"]["template"]["spec"]["containers"][0];
    let names: Vec<_> = container["env"]
        .as_array()
        .unwrap()
        .iter()
        .map(|env| env["name"].as_str().unwrap())
        .collect();
    assert_eq!(
        names,
        [
            "ALDIS_CONTROL_PLANE_REPLICA",
            "ALDIS_CONTROL_PLANE_ADVERTISE"
        ]
    );
    assert_eq!(
        container["env"][1]["value"],
        "$(ALDIS_CONTROL_PLANE_REPLICA).aldis-control-plane-replicas.aldis.svc:7600"
    );
}
