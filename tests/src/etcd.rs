//! One real etcd on loopback, for one test.
//!
//! Free ports, a folder of its own, short elections, no fsync (the machine does not lose power in a
//! test; figures of durable work ask for one that syncs). It is killed when dropped. It can be frozen, killed,
//! started again on the same address, and put back to a snapshot, which is how the tests make a store go back in time.

use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use aldis_control_plane::store::{Store, etcd};
use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::binaries;

/// Certificates for a server that asks its clients for theirs.
#[derive(Clone)]
pub struct Certificates {
    /// The CA of both sides, PEM.
    pub ca: String,
    /// The server's certificate and key, PEM.
    pub server: (String, String),
    /// A client's certificate and key, PEM.
    pub client: (String, String),
}

/// A running etcd.
pub struct Server {
    folder: TempDir,
    data: PathBuf,
    client_port: u16,
    peer_port: u16,
    tls: Option<Certificates>,
    syncs: bool,
    child: Option<Child>,
}

impl Server {
    /// Starts one, in clear text.
    pub async fn start() -> anyhow::Result<Self> {
        Self::start_with(None, false).await
    }

    /// Starts one, in clear text, that waits for the disk as it does in production.
    pub async fn start_synced() -> anyhow::Result<Self> {
        Self::start_with(None, true).await
    }

    /// Starts one that talks to clients by mutual TLS.
    pub async fn start_tls(certificates: Certificates) -> anyhow::Result<Self> {
        Self::start_with(Some(certificates), false).await
    }

    async fn start_with(tls: Option<Certificates>, syncs: bool) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder for etcd")?;
        let mut server = Self {
            data: folder.path().join("data"),
            folder,
            client_port: free_port()?,
            peer_port: free_port()?,
            tls,
            syncs,
            child: None,
        };
        server.write_certificates()?;
        server.run_again().await?;
        Ok(server)
    }

    /// Where clients reach it.
    pub fn endpoint(&self) -> String {
        let scheme = if self.tls.is_some() { "https" } else { "http" };
        format!("{scheme}://127.0.0.1:{}", self.client_port)
    }

    /// How our store reaches it.
    pub fn config(&self) -> etcd::Config {
        etcd::Config {
            endpoints: vec![self.endpoint()],
            tls: self.tls.as_ref().map(|tls| etcd::Tls {
                ca: tls.ca.clone().into(),
                certificate: tls.client.0.clone().into(),
                key: tls.client.1.clone().into(),
            }),
        }
    }

    /// A store of its own connection and memory.
    pub async fn store(&self) -> anyhow::Result<etcd::Etcd> {
        Ok(etcd::Etcd::connect(&self.config()).await?)
    }

    /// Freezes it: connections stay open and nothing answers.
    pub fn freeze(&self) -> anyhow::Result<()> {
        self.signal(Signal::STOP)
    }

    /// Lets it go on.
    pub fn thaw(&self) -> anyhow::Result<()> {
        self.signal(Signal::CONT)
    }

    /// Kills it: connections are refused.
    pub fn kill(&mut self) -> anyhow::Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill().context("kill etcd")?;
            child.wait().context("wait for etcd")?;
        }
        Ok(())
    }

    /// Starts it on the same address and data, and waits until it answers.
    pub async fn run_again(&mut self) -> anyhow::Result<()> {
        let log = std::fs::File::create(self.log()).context("create etcd's log")?;
        let mut command = Command::new(binaries::etcd()?);
        command
            .args(self.arguments())
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share etcd's log")?)
            .stderr(log);
        self.child = Some(command.spawn().context("start etcd")?);
        self.answers().await
    }

    /// Saves a snapshot.
    pub async fn snapshot(&self) -> anyhow::Result<PathBuf> {
        let file = self.folder.path().join("snapshot");
        let mut command = Command::new(binaries::etcdctl()?);
        command
            .arg(format!("--endpoints={}", self.endpoint()))
            .args(["snapshot", "save"])
            .arg(&file);
        succeed(command).await?;
        Ok(file)
    }

    /// Kills it and runs a snapshot in its place, on the same address.
    pub async fn restore(&mut self, snapshot: &Path) -> anyhow::Result<()> {
        self.restore_with(snapshot, &[]).await
    }

    /// The same, with revisions above all that anybody has seen, as etcd's own handbook advises.
    pub async fn restore_bumped(&mut self, snapshot: &Path) -> anyhow::Result<()> {
        let bump = ["--bump-revision=1000000000", "--mark-compacted"];
        self.restore_with(snapshot, &bump).await
    }

    async fn restore_with(&mut self, snapshot: &Path, options: &[&str]) -> anyhow::Result<()> {
        self.kill()?;
        self.data = self.folder.path().join("restored");
        let mut command = Command::new(binaries::etcdutl()?);
        command
            .args(["snapshot", "restore"])
            .arg(snapshot)
            .arg(format!("--data-dir={}", self.data.display()))
            .arg(format!("--initial-cluster=default={}", self.peer_url()))
            .arg(format!("--initial-advertise-peer-urls={}", self.peer_url()))
            .args(options);
        succeed(command).await?;
        self.run_again().await
    }

    fn arguments(&self) -> Vec<String> {
        let client = self.endpoint();
        let peer = self.peer_url();
        let mut arguments = vec![
            format!("--data-dir={}", self.data.display()),
            format!("--listen-client-urls={client}"),
            format!("--advertise-client-urls={client}"),
            format!("--listen-peer-urls={peer}"),
            format!("--initial-advertise-peer-urls={peer}"),
            format!("--initial-cluster=default={peer}"),
            "--heartbeat-interval=50".to_owned(),
            "--election-timeout=500".to_owned(),
            "--log-level=warn".to_owned(),
        ];
        if !self.syncs {
            arguments.push("--unsafe-no-fsync".to_owned());
        }
        if self.tls.is_some() {
            arguments.extend([
                "--client-cert-auth".to_owned(),
                format!("--trusted-ca-file={}", self.file("ca.pem").display()),
                format!("--cert-file={}", self.file("server.pem").display()),
                format!("--key-file={}", self.file("server.key").display()),
            ]);
        }
        arguments
    }

    async fn answers(&mut self) -> anyhow::Result<()> {
        let store = self.store().await?;
        // etcd is up in 0.2 s on a quiet machine.
        for _ in 0..200 {
            if store.read_revision().await.is_ok() {
                return Ok(());
            }
            if let Some(child) = &mut self.child
                && let Some(status) = child.try_wait().context("look at etcd")?
            {
                bail!("etcd ended with {status}: {}", self.last_words());
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        bail!("etcd does not answer: {}", self.last_words())
    }

    fn last_words(&self) -> String {
        std::fs::read_to_string(self.log()).unwrap_or_default()
    }

    fn log(&self) -> PathBuf {
        self.file("log")
    }

    fn file(&self, name: &str) -> PathBuf {
        self.folder.path().join(name)
    }

    fn peer_url(&self) -> String {
        format!("http://127.0.0.1:{}", self.peer_port)
    }

    fn write_certificates(&self) -> anyhow::Result<()> {
        let Some(tls) = &self.tls else { return Ok(()) };
        for (name, pem) in [
            ("ca.pem", &tls.ca),
            ("server.pem", &tls.server.0),
            ("server.key", &tls.server.1),
        ] {
            std::fs::write(self.file(name), pem).with_context(|| format!("write {name}"))?;
        }
        Ok(())
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let child = self.child.as_ref().context("etcd is not running")?;
        kill_process(Pid::from_child(child), signal).context("send etcd a signal")
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // One that ended already needs no killing.
        let _ = self.kill();
    }
}

/// A port that was free a moment ago.
pub fn free_port() -> anyhow::Result<u16> {
    let listener = TcpListener::bind("127.0.0.1:0").context("find a free port")?;
    Ok(listener.local_addr().context("find a free port")?.port())
}

async fn succeed(mut command: Command) -> anyhow::Result<()> {
    let output = tokio::task::spawn_blocking(move || command.output())
        .await?
        .context("run a tool of etcd")?;
    if !output.status.success() {
        bail!("{}", String::from_utf8_lossy(&output.stderr));
    }
    Ok(())
}
