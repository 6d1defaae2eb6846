//! What a shell needs to use a running fleet: one file to be sourced, one kubeconfig for all clusters.

use std::path::PathBuf;

use super::cluster::kubeconfig;
use super::folder::Folder;
use super::nodes::Chosen;
use super::system::System;
use super::system::command_line::CONTEXT;
use super::{Cluster, Fleet};

/// Name of the file.
pub const FILE: &str = "env";

/// Writes `env` and `kubeconfig` into the fleet's folder; where `env` is.
pub fn write(fleet: &Fleet) -> anyhow::Result<PathBuf> {
    let folder = fleet.folder();
    let entries: Vec<_> = fleet
        .clusters()
        .iter()
        .map(|c: &Cluster| c.entry("admin"))
        .collect();
    folder.write("kubeconfig", kubeconfig::render(&entries))?;
    let mut lines = of_clusters(folder, fleet.nodes());
    if let Ok(system) = fleet.system() {
        lines.extend(of_system(system));
    }
    let services = fleet.services().environment();
    lines.extend(services.iter().map(|(name, value)| export(name, value)));
    // Addresses of services hold passwords.
    folder.write(FILE, lines.join("\n") + "\n")
}

fn of_clusters(folder: &Folder, nodes: &Chosen) -> Vec<String> {
    let root = folder.root().display();
    vec![
        format!("# A fleet on this machine; {nodes}. In a shell: . {root}/{FILE}"),
        "# Each program's process id is in $ALDIS_FLEET/pids/NAME. Replicas of the control plane, agents and nodes"
            .to_owned(),
        "# are started again when they end, unless $ALDIS_FLEET/down/NAME exists.".to_owned(),
        export("ALDIS_FLEET", &root),
        export("KUBECONFIG", &folder.path("kubeconfig").display()),
    ]
}

fn of_system(system: &System) -> Vec<String> {
    let mut lines = vec![
        "# Proxies: curl $ALDIS_FLEET_PROXIES lists them; curl -X POST $ALDIS_FLEET_PROXIES/NAME/cut (or pass,".to_owned(),
        "# black-hole, delay/MILLISECONDS) switches one, NAME* several.".to_owned(),
        export("ALDIS_FLEET_PROXIES", &system.proxies()),
        export("ALDIS_CONFIG", &system.command_line().config().display()),
        export("ALDIS_CONTEXT", &CONTEXT),
    ];
    if let Some(etcd) = system.plane().store()
        && let Some(tls) = etcd.tls()
    {
        lines.extend([
            export("ETCDCTL_ENDPOINTS", &etcd.endpoint()),
            export("ETCDCTL_CACERT", &tls.ca.display()),
            export("ETCDCTL_CERT", &tls.certificate.display()),
            export("ETCDCTL_KEY", &tls.key.display()),
        ]);
    }
    for replica in system.plane().replicas() {
        let name = replica.name().replace('-', "_").to_uppercase();
        lines.push(export(
            &format!("ALDIS_{name}"),
            &format!("https://localhost:{}", replica.port()),
        ));
        lines.push(export(
            &format!("ALDIS_{name}_MONITORING"),
            &replica.monitoring(),
        ));
    }
    lines.push(format!(
        "export PATH={}:\"$PATH\"",
        quoted(&system.programs().folder().display().to_string())
    ));
    lines
}

fn export(name: &str, value: &dyn std::fmt::Display) -> String {
    format!("export {name}={}", quoted(&value.to_string()))
}

/// A word of a shell, whatever is in it.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', r"'\''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_any_name_stays_one_word() {
        assert_eq!(export("A", &"/a b/it's"), r"export A='/a b/it'\''s'");
    }
}
