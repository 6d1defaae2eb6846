//! What the programs of a trial are configured with, in one folder.

use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use super::Error;
use super::authority::{Authority, Files, Identity, TRUST_DOMAIN};
use super::targets::{Cluster, Target};
use crate::context::{Auth, Context};

/// Everything that was written.
#[derive(Debug)]
pub struct Layout {
    /// The control plane's configuration.
    pub control_plane: PathBuf,
    /// Each agent's, in the order of the targets.
    pub agents: Vec<PathBuf>,
    /// Where output goes, a file for each program.
    pub logs: PathBuf,
    /// For the command line.
    pub context: Context,
}

/// What a trial is to be.
#[derive(Debug)]
pub struct Wanted<'a> {
    /// Where everything is kept.
    pub folder: &'a Path,
    /// The control plane's port on loopback.
    pub port: u16,
    /// The clusters.
    pub targets: &'a [Target],
    /// Labels of every agent.
    pub labels: &'a [(String, String)],
    /// Name of the context.
    pub context: &'a str,
    /// Name of the person.
    pub user: &'a str,
}

/// Writes certificates and configurations. Certificates are made anew each time; stores and journals
/// of an earlier run stay.
pub fn write(wanted: &Wanted<'_>) -> Result<Layout, Error> {
    let pki = folder(wanted.folder, "pki")?;
    let configs = folder(wanted.folder, "config")?;
    let state = folder(wanted.folder, "state")?;
    let logs = folder(wanted.folder, "logs")?;
    let authority = Authority::new()?;
    let ca = authority.write(&pki)?;
    let replica = authority.issue(&Identity::Replica("dev-1".into()), &pki, "control-plane")?;
    let user = authority.issue(&Identity::User(wanted.user.into()), &pki, "user")?;
    let control_plane = configs.join("control-plane.yaml");
    save(
        &control_plane,
        &control_plane_config(wanted, &replica, &ca, &state),
    )?;
    let mut agents = Vec::new();
    for target in wanted.targets {
        let name = file_name(target);
        let files = authority.issue(&Identity::Agent(target.name.clone()), &pki, &name)?;
        let data = folder(&state, &name)?;
        let path = configs.join(format!("{name}.yaml"));
        save(&path, &agent_config(wanted, target, &files, &ca, &data))?;
        agents.push(path);
    }
    Ok(Layout {
        control_plane,
        agents,
        logs,
        context: Context {
            name: wanted.context.to_owned(),
            server: Some(format!("https://localhost:{}", wanted.port)),
            servers: Vec::new(),
            ca,
            auth: Some(Auth {
                cert: user.certificate,
                key: user.key,
            }),
            protected: false,
        },
    })
}

/// A target's name as part of a file's name.
pub fn file_name(target: &Target) -> String {
    format!("agent-{}-{}", target.name.region(), target.name.cluster())
}

fn control_plane_config(wanted: &Wanted<'_>, files: &Files, ca: &Path, state: &Path) -> Value {
    json!({
        "replica": "dev-1",
        "listen": format!("127.0.0.1:{}", wanted.port),
        "advertise": format!("localhost:{}", wanted.port),
        "trustDomain": TRUST_DOMAIN,
        "tls": tls(files, ca),
        "store": {"embedded": {"path": state.join("store.redb")}},
        "log": {"format": "human", "level": "info"},
    })
}

fn agent_config(
    wanted: &Wanted<'_>,
    target: &Target,
    files: &Files,
    ca: &Path,
    data: &Path,
) -> Value {
    let labels: serde_json::Map<String, Value> = wanted
        .labels
        .iter()
        .map(|(key, value)| (key.clone(), value.as_str().into()))
        .collect();
    let cluster = match &target.cluster {
        Cluster::Kubeconfig { file, context } => {
            json!({"kubeconfig": {"file": file, "context": context}})
        }
        Cluster::Simulated => json!({"simulated": {"file": data.join("cluster.json")}}),
    };
    json!({
        "target": target.name,
        "labels": labels,
        "controlPlane": {"endpoints": [format!("localhost:{}", wanted.port)]},
        "trustDomain": TRUST_DOMAIN,
        "tls": tls(files, ca),
        "cluster": cluster,
        "data": data,
        "log": {"format": "human", "level": "info"},
    })
}

fn tls(files: &Files, ca: &Path) -> Value {
    json!({"certificate": files.certificate, "key": files.key, "ca": ca})
}

fn folder(parent: &Path, name: &str) -> Result<PathBuf, Error> {
    use std::os::unix::fs::DirBuilderExt;
    let path = parent.join(name);
    let mut builder = std::fs::DirBuilder::new();
    let made = builder.recursive(true).mode(0o700).create(&path);
    made.map_err(|source| Error::File {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

fn save(path: &Path, config: &Value) -> Result<(), Error> {
    let failed = |source: std::io::Error| Error::File {
        path: path.to_owned(),
        source,
    };
    let text = serde_saphyr::to_string(config)
        .map_err(|error| failed(std::io::Error::other(error.to_string())))?;
    std::fs::write(path, text).map_err(failed)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[tokio::test]
    async fn a_trial_is_files_in_one_folder() {
        let dir = tempfile::tempdir().unwrap();
        let targets = super::super::targets::all(&[], None, &[]).unwrap();
        let wanted = Wanted {
            folder: dir.path(),
            port: 7600,
            targets: &targets,
            labels: &[("env".into(), "prod".into())],
            context: "dev",
            user: "mei",
        };
        let layout = write(&wanted).unwrap();
        let text = std::fs::read_to_string(&layout.agents[0]).unwrap();
        let agent: Value = serde_saphyr::from_str(&text).unwrap();
        assert_eq!(agent["target"], "eu-west/dev-1");
        assert_eq!(agent["labels"]["env"], "prod");
        assert!(agent["cluster"]["simulated"].is_object());
        let auth = layout.context.auth.as_ref().unwrap();
        let mode = std::fs::metadata(&auth.key).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        // What was written is what the command line itself takes.
        crate::client::Client::new(&layout.context, &[], crate::client::Trace::draw()).unwrap();
    }
}
