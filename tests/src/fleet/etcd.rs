//! etcd as a program of a fleet: one in clear text behind the API servers, one with mutual TLS for the
//! control plane.
//!
//! Elections are short and nothing is fsynced: a fleet does not outlive the machine.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_control_plane::store::{Store, etcd};
use anyhow::{Context, bail};

use super::folder::Folder;
use super::process::{Process, Program};
use super::{ports, ready};
use crate::binaries;
use crate::pki::{Authority, Request, Usage};

/// etcd is up in 0.2 s on a quiet machine.
const LIMIT: Duration = Duration::from_secs(30);

/// A running etcd. Killed when dropped.
pub struct Etcd {
    process: Process,
    folder: Folder,
    name: String,
    client_port: u16,
    peer_port: u16,
    tls: Option<Tls>,
}

/// Files with which a server and its clients know each other.
#[derive(Clone, Debug)]
pub struct Tls {
    /// The authority of both.
    pub ca: PathBuf,
    /// A client's certificate.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    server_certificate: PathBuf,
    server_key: PathBuf,
}

/// Whether a restored store counts on from far ahead of what anyone has seen (`--bump-revision`).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Restore {
    /// Revisions go back.
    AsItWas,
    /// Revisions jump ahead, and every watcher is told that what it saw is compacted.
    WithRevisionsBumped,
}

impl Etcd {
    /// Starts one in clear text.
    pub async fn start(folder: &Folder, name: &str) -> anyhow::Result<Self> {
        Self::start_with(folder, name, None).await
    }

    /// Starts one that lets nobody in without a certificate.
    pub async fn start_tls(folder: &Folder, name: &str) -> anyhow::Result<Self> {
        let tls = Tls::make(&folder.make_below(Path::new(name).join("certificates"))?)?;
        Self::start_with(folder, name, Some(tls)).await
    }

    async fn start_with(folder: &Folder, name: &str, tls: Option<Tls>) -> anyhow::Result<Self> {
        let (client_port, peer_port) = (ports::free()?, ports::free()?);
        let data = folder.path(name).join("data");
        let program = program(name, &data, client_port, peer_port, tls.as_ref())?;
        let etcd = Self {
            process: Process::start(folder, program)?,
            folder: folder.clone(),
            name: name.to_owned(),
            client_port,
            peer_port,
            tls,
        };
        etcd.answers().await?;
        Ok(etcd)
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        endpoint(self.client_port, self.tls.as_ref())
    }

    /// The port of that endpoint.
    pub fn port(&self) -> u16 {
        self.client_port
    }

    /// Files of a client, if it wants any.
    pub fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Its process, to freeze, kill or start it.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// A store of its own connection and memory.
    pub async fn store(&self) -> anyhow::Result<etcd::Etcd> {
        let tls = self.tls.as_ref().map(Tls::read).transpose()?;
        let endpoints = vec![self.endpoint()];
        Ok(etcd::Etcd::connect(&etcd::Config { endpoints, tls }).await?)
    }

    /// Starts it after it was killed, and waits until it answers.
    pub async fn start_again(&self) -> anyhow::Result<()> {
        self.process.start_again()?;
        self.answers().await
    }

    /// Saves a snapshot under a name.
    pub async fn snapshot(&self, name: &str) -> anyhow::Result<PathBuf> {
        let file = self.folder.path(&self.name).join(name);
        let mut command = tokio::process::Command::new(binaries::etcdctl()?);
        command.arg(format!("--endpoints={}", self.endpoint()));
        if let Some(tls) = &self.tls {
            command
                .arg(format!("--cacert={}", tls.ca.display()))
                .arg(format!("--cert={}", tls.certificate.display()))
                .arg(format!("--key={}", tls.key.display()));
        }
        succeed(command.args(["snapshot", "save"]).arg(&file)).await?;
        Ok(file)
    }

    /// Kills it and runs a snapshot in its place, on the same address.
    pub async fn restore(&self, snapshot: &Path, how: Restore) -> anyhow::Result<()> {
        self.process.kill();
        let data = self
            .folder
            .path(&self.name)
            .join(format!("data-{}", self.process.starts()));
        let peer = format!("http://127.0.0.1:{}", self.peer_port);
        let mut command = tokio::process::Command::new(binaries::etcdutl()?);
        command
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg(format!("--data-dir={}", data.display()))
            .arg(format!("--name={}", self.name))
            .arg(format!("--initial-cluster={}={peer}", self.name))
            .arg(format!("--initial-advertise-peer-urls={peer}"));
        if how == Restore::WithRevisionsBumped {
            command.args(["--bump-revision=1000000000", "--mark-compacted"]);
        }
        succeed(&mut command).await?;
        let tls = self.tls.as_ref();
        let restored = program(&self.name, &data, self.client_port, self.peer_port, tls)?;
        self.process.change(|program| *program = restored);
        self.start_again().await
    }

    async fn answers(&self) -> anyhow::Result<()> {
        let store = self.store().await?;
        let what = format!("{} answers", self.name);
        let look = || async { store.read_revision().await.map(|_| ()) };
        ready::until(&self.process, LIMIT, what, look).await
    }
}

impl Tls {
    fn make(folder: &Path) -> anyhow::Result<Self> {
        let authority = Authority::new("etcd")?;
        let ca = folder.join("ca.crt");
        std::fs::write(&ca, authority.pem()).context("write etcd's authority")?;
        let server = Request::new("etcd", Usage::Both).on_loopback();
        let (server_certificate, server_key) = authority.issue(&server)?.write(folder, "server")?;
        let client = Request::new("aldis", Usage::Client);
        let (certificate, key) = authority.issue(&client)?.write(folder, "client")?;
        Ok(Self {
            ca,
            certificate,
            key,
            server_certificate,
            server_key,
        })
    }

    fn read(&self) -> anyhow::Result<etcd::Tls> {
        let read =
            |path: &Path| std::fs::read(path).with_context(|| format!("read {}", path.display()));
        Ok(etcd::Tls {
            ca: read(&self.ca)?,
            certificate: read(&self.certificate)?,
            key: read(&self.key)?,
        })
    }
}

fn endpoint(port: u16, tls: Option<&Tls>) -> String {
    let scheme = if tls.is_some() { "https" } else { "http" };
    format!("{scheme}://127.0.0.1:{port}")
}

fn program(
    name: &str,
    data: &Path,
    client_port: u16,
    peer_port: u16,
    tls: Option<&Tls>,
) -> anyhow::Result<Program> {
    let client = endpoint(client_port, tls);
    let peer = format!("http://127.0.0.1:{peer_port}");
    let mut arguments = vec![
        format!("--name={name}"),
        format!("--data-dir={}", data.display()),
        format!("--listen-client-urls={client}"),
        format!("--advertise-client-urls={client}"),
        format!("--listen-peer-urls={peer}"),
        format!("--initial-advertise-peer-urls={peer}"),
        format!("--initial-cluster={name}={peer}"),
        "--heartbeat-interval=20".to_owned(),
        "--election-timeout=200".to_owned(),
        "--unsafe-no-fsync".to_owned(),
        "--log-level=warn".to_owned(),
    ];
    if let Some(tls) = tls {
        arguments.extend([
            "--client-cert-auth".to_owned(),
            format!("--trusted-ca-file={}", tls.ca.display()),
            format!("--cert-file={}", tls.server_certificate.display()),
            format!("--key-file={}", tls.server_key.display()),
        ]);
    }
    Ok(Program::new(name, binaries::etcd()?).arguments(arguments))
}

async fn succeed(command: &mut tokio::process::Command) -> anyhow::Result<()> {
    let output = command.output().await.context("run a tool of etcd")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
