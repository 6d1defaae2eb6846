//! One agent as a process of its own, started again whenever it is killed.
//!
//! The process is this test binary, which runs [`child`] and nothing else: it is built with failpoints.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use aldis_tests::pki::{Request, TRUST_DOMAIN};
use aldis_tests::practice::Practice;

use crate::TARGET;

const CONFIG: &str = "ALDIS_TEST_AGENT";

/// The agent's process; as a test of its own it does nothing.
#[test]
fn child() {
    let Ok(config) = std::env::var(CONFIG) else {
        return;
    };
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let config = aldis_agent::config::load(Path::new(&config)).unwrap();
    aldis_agent::telemetry::start(&config.log);
    let runtime = tokio::runtime::Runtime::new().unwrap();
    let ending = tokio_util::sync::CancellationToken::new();
    runtime
        .block_on(aldis_agent::run::run(config, ending))
        .unwrap();
}

pub(crate) struct Agent {
    folder: PathBuf,
    child: Option<Child>,
}

impl Agent {
    /// Starts it; `armed` are its crash points, each of which kills once.
    pub(crate) fn start(practice: &Practice, armed: &[&str]) -> Self {
        let folder = practice.plane.folder();
        let leaf = Request::agent("eu-west", "prod-1", "1");
        let authority = practice.plane.authority();
        authority
            .issue(&leaf)
            .unwrap()
            .write(&folder, "agent")
            .unwrap();
        let port = practice.plane.addresses()[0].port();
        let text = format!(
            "target: {TARGET}
labels: {{env: prod}}
controlPlane: {{endpoints: ['localhost:{port}']}}
trustDomain: {TRUST_DOMAIN}
tls: {{certificate: agent.crt, key: agent.key, ca: ca.pem}}
cluster: {{simulated: {{file: cluster.json}}}}
data: data
log: {{level: warn}}
"
        );
        std::fs::write(folder.join("agent.yaml"), text).unwrap();
        let mut agent = Self {
            folder,
            child: None,
        };
        agent.begin(armed);
        agent
    }

    /// Starts it again. A point kills once, unless it says itself what it does (`NAME=sleep:MS`).
    pub(crate) fn begin(&mut self, armed: &[&str]) {
        let points: Vec<String> = armed
            .iter()
            .map(|point| {
                if point.contains('=') {
                    return (*point).to_owned();
                }
                let marker = self.folder.join(format!("killed-{point}"));
                // One file for one killing: a second arming kills again.
                let _ = std::fs::remove_file(&marker);
                format!("{point}=kill-once:{}", marker.display())
            })
            .collect();
        let child = Command::new(std::env::current_exe().unwrap())
            .args(["agent::child", "--exact", "--nocapture", "--quiet"])
            .env(CONFIG, self.folder.join("agent.yaml"))
            .env("ALDIS_FAILPOINTS", points.join(";"))
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        self.child = Some(child);
    }

    /// Waits until it was killed by a crash point.
    pub(crate) async fn dies(&mut self) {
        use std::os::unix::process::ExitStatusExt;
        let status = self.exit().await;
        assert_eq!(status.signal(), Some(9), "{status:?}");
    }

    /// Kills it now.
    pub(crate) async fn kill(&mut self) {
        self.child.as_mut().unwrap().kill().unwrap();
        self.exit().await;
    }

    async fn exit(&mut self) -> ExitStatus {
        let mut child = self.child.take().unwrap();
        let waiting = tokio::task::spawn_blocking(move || child.wait().unwrap());
        let status = tokio::time::timeout(Duration::from_secs(30), waiting).await;
        status.expect("it is killed in time").unwrap()
    }

    pub(crate) fn journal(&self) -> PathBuf {
        self.folder.join("data/journal/journal.log")
    }

    /// Image and number of changes of `shop/checkout`, as the cluster has them.
    pub(crate) fn checkout(&self) -> (String, u64) {
        let text = std::fs::read(self.folder.join("cluster.json")).unwrap();
        let cluster: serde_json::Value = serde_json::from_slice(&text).unwrap();
        let deployment = &cluster["deployments"][0]["deployment"];
        let image = deployment["template"]["spec"]["containers"][0]["image"].clone();
        let writes = deployment["writes"].as_u64().unwrap();
        (image.as_str().unwrap().to_owned(), writes)
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
