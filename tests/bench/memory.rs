//! Resident memory: an idle control plane, what each connected agent adds to it, an idle agent.
//!
//! Counted by the kernel on processes of the release build. The agents that are connected are real ones of this
//! process; the idle agent is a process of its own on a practice cluster.

use std::time::Duration;

use aldis_tests::etcd;
use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::process::{Process, Program};
use aldis_tests::memory::Resident;
use aldis_tests::pki::{Request, TRUST_DOMAIN};
use aldis_tests::plane::{Apart, Plane};
use aldis_tests::practice::Practice;
use anyhow::Context;

use crate::figure::Figure;
use crate::programs;

/// Agents that connect.
const AGENTS: usize = 500;

/// Agents that connect at once.
const AT_ONCE: usize = 50;

/// For anything that must happen.
const PATIENCE: Duration = Duration::from_secs(60);

/// For buffers of the beginning to be given back, and a first sweep and permit to have passed.
const SETTLED: Duration = Duration::from_secs(15);

pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let etcd = etcd::Server::start().await?;
    let apart = Apart {
        etcd: &etcd.endpoint(),
        replicas: 1,
        limits: "",
    };
    let plane = Plane::start_apart(&apart, programs::control_plane()?).await?;
    let folder = plane.folder();
    let mut practice = Practice::over(plane, folder, PATIENCE).await?;
    let alone = Alone::start(&practice)?;
    practice.until_live(&[Alone::TARGET]).await?;
    tokio::time::sleep(SETTLED).await;
    let empty = control_plane(&practice)?;
    let agent = alone.resident()?;
    let names: Vec<String> = (0..AGENTS)
        .map(|number| format!("region-{}/cluster-{number}", number % 10))
        .collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for some in names.chunks(AT_ONCE) {
        practice.join(some).await?;
    }
    tokio::time::sleep(SETTLED).await;
    let full = control_plane(&practice)?;
    let each = full.saturating_sub(empty) as f64 / AGENTS as f64;
    Ok(vec![
        resident(
            "idle control plane".to_owned(),
            "MiB",
            empty as f64 / 1024.0,
        ),
        resident("idle agent".to_owned(), "MiB", agent as f64 / 1024.0),
        resident(format!("each of {AGENTS} agents, connected"), "KiB", each),
    ])
}

fn control_plane(practice: &Practice) -> anyhow::Result<u64> {
    let process = practice.plane.process("cp-1")?;
    let pid = process.pid().context("the control plane runs")?;
    Ok(Resident::of(pid)?.now)
}

fn resident(what: String, unit: &'static str, ours: f64) -> Figure {
    Figure {
        name: format!("resident memory, {what}"),
        unit,
        ours,
        beside: None,
        aim: "stated",
    }
}

/// An agent as a process of its own.
struct Alone {
    process: Process,
}

impl Alone {
    const TARGET: &str = "alone/prod-1";

    fn start(practice: &Practice) -> anyhow::Result<Self> {
        let folder = Folder::make(&practice.plane.folder().join("alone"))?;
        let leaf = Request::agent("alone", "prod-1", "1");
        let authority = practice.plane.authority();
        authority.issue(&leaf)?.write(folder.root(), "agent")?;
        folder.write("ca.pem", authority.pem())?;
        let port = practice.plane.addresses()[0].port();
        let config = folder.write(
            "agent.yaml",
            format!(
                "target: {}
controlPlane: {{endpoints: ['localhost:{port}']}}
trustDomain: {TRUST_DOMAIN}
tls: {{certificate: agent.crt, key: agent.key, ca: ca.pem}}
cluster: {{simulated: {{}}}}
data: data
",
                Self::TARGET
            ),
        )?;
        let program = Program::new("agent", programs::path("aldis-agent")?)
            .arguments(["--config"])
            .arguments([config]);
        let process = Process::start(&folder, program)?;
        Ok(Self { process })
    }

    fn resident(&self) -> anyhow::Result<u64> {
        let pid = self.process.pid().context("the agent runs")?;
        Ok(Resident::of(pid)?.now)
    }
}
