//! One Postgres server: its data, its files, its process.
//!
//! ```text
//! services/NAME/data       made by initdb, or copied from the primary
//! services/NAME/*.conf     what it is told
//! ```
//!
//! All of it belongs to the user that Postgres runs as. Where that user cannot come to the fleet's folder
//! (a checkout in root's home), the same is kept in a folder of the system's for temporary files, whose name
//! says of which fleet it is; the next start of that fleet empties it.

use std::ffi::OsString;
use std::fmt::Display;
use std::future::Future;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use rustix::process::Signal;

use super::settings::{DOORS, Primary, Settings, Tools};
use crate::fleet::folder::{ELSEWHERE, Folder};
use crate::fleet::process::Process;
use crate::fleet::services::place::Place;
use crate::fleet::services::secret::Secret;
use crate::fleet::{ports, ready};

/// A server is up in 0.3 s.
const LIMIT: Duration = Duration::from_secs(60);

/// A running server. Stopped when dropped.
pub(super) struct Server {
    process: Process,
    name: String,
    port: u16,
    /// What is removed with it, where its files are not in the fleet's folder.
    elsewhere: Option<PathBuf>,
}

/// A server on its way up.
struct Starting<'a> {
    place: &'a Place,
    tools: &'a Tools,
    name: &'a str,
    port: u16,
    home: PathBuf,
    elsewhere: Option<PathBuf>,
}

impl Server {
    /// A primary with data of its own, and a superuser `fleet`.
    pub(super) async fn initialise(
        place: &Place,
        tools: &Tools,
        name: &str,
        superuser: &Secret,
    ) -> anyhow::Result<Self> {
        let starting = Starting::prepare(place, tools, name)?;
        let password = starting.write("superuser", superuser.expose())?;
        let arguments = vec![
            flag("--pgdata=", &starting.data()),
            "--username=fleet".into(),
            flag("--pwfile=", &password),
            "--auth=scram-sha-256".into(),
            "--encoding=UTF8".into(),
            "--locale=C.UTF-8".into(),
            "--no-sync".into(),
            "--no-instructions".into(),
        ];
        starting.run("initdb", arguments, &[]).await?;
        // It is known to the harness alone from here on.
        std::fs::remove_file(&password).context("remove the superuser's password")?;
        starting.start(None)
    }

    /// A server with a copy of the data, which follows this one.
    pub(super) async fn follower(
        &self,
        place: &Place,
        tools: &Tools,
        password: &Secret,
    ) -> anyhow::Result<Self> {
        let name = format!("{}-replica", self.name);
        let starting = Starting::prepare(place, tools, &name)?;
        let passwords = format!("127.0.0.1:{}:*:replica:{}\n", self.port, password.expose());
        let passwords = starting.write("passwords", &passwords)?;
        let primary = Primary {
            port: self.port,
            passwords: &passwords,
            ca: &starting.copy("ca.crt", place.ca())?,
        };
        let arguments = vec![
            flag("--pgdata=", &starting.data()),
            format!("--dbname={}", primary.address()).into(),
            "--checkpoint=fast".into(),
            "--wal-method=stream".into(),
            "--no-sync".into(),
        ];
        let environment = [("PGPASSFILE", passwords.as_path())];
        starting
            .run("pg_basebackup", arguments, &environment)
            .await?;
        starting.write("data/standby.signal", "")?;
        starting.start(Some(primary))
    }

    pub(super) fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn port(&self) -> u16 {
        self.port
    }

    /// Waits for something of this server.
    pub(super) async fn until<F, E>(
        &self,
        what: &str,
        look: impl FnMut() -> F,
    ) -> anyhow::Result<()>
    where
        F: Future<Output = Result<(), E>>,
        E: Display,
    {
        let what = format!("{} {what}", self.name);
        ready::until(&self.process, LIMIT, what, look).await
    }
}

impl Drop for Server {
    /// At once, but not by force: a killed server leaves a segment of shared memory to the machine.
    fn drop(&mut self) {
        self.process.stop_by(Signal::QUIT);
        if let Some(folder) = &self.elsewhere {
            let _ = std::fs::remove_dir_all(folder);
        }
    }
}

impl<'a> Starting<'a> {
    fn prepare(place: &'a Place, tools: &'a Tools, name: &'a str) -> anyhow::Result<Self> {
        let below = place.make_below(name)?;
        let elsewhere = match tools.account.reaches(&below) {
            true => None,
            false => Some(elsewhere(place.folder(), name)?),
        };
        let home = elsewhere.clone().unwrap_or(below);
        tools.account.give(&home)?;
        Ok(Self {
            place,
            tools,
            name,
            port: ports::free()?,
            home,
            elsewhere,
        })
    }

    fn data(&self) -> PathBuf {
        self.home.join("data")
    }

    async fn run(
        &self,
        tool: &str,
        arguments: Vec<OsString>,
        environment: &[(&str, &Path)],
    ) -> anyhow::Result<()> {
        let tool = self.tools.program(tool);
        let account = self.tools.account;
        account.run(&tool, arguments, &self.home, environment).await
    }

    fn start(self, primary: Option<Primary<'_>>) -> anyhow::Result<Server> {
        let identity = self.place.identity(self.name)?;
        let certificate = self.copy("server.crt", &identity.certificate)?;
        let key = self.copy("server.key", &identity.key)?;
        let doors = self.write("doors.conf", DOORS)?;
        let settings = Settings {
            name: self.name,
            port: self.port,
            doors: &doors,
            certificate: &certificate,
            key: &key,
            primary,
        };
        let config = self.write("server.conf", &settings.render())?;
        let arguments: [OsString; 3] = [
            "-D".into(),
            self.data().into(),
            flag("--config_file=", &config),
        ];
        let server = self.tools.program("postgres");
        let program = self.tools.account.program(self.name, &server, &self.home);
        let program = program.arguments(arguments);
        Ok(Server {
            process: Process::start(self.place.folder(), program)?,
            name: self.name.to_owned(),
            port: self.port,
            elsewhere: self.elsewhere,
        })
    }

    fn copy(&self, name: &str, from: &Path) -> anyhow::Result<PathBuf> {
        let text = std::fs::read_to_string(from);
        self.write(
            name,
            &text.with_context(|| format!("read {}", from.display()))?,
        )
    }

    /// Writes a file for the user that Postgres runs as, and for nobody else.
    fn write(&self, name: &str, text: &str) -> anyhow::Result<PathBuf> {
        let path = Folder::open(&self.home)?.write(name, text)?;
        self.tools.account.give(&path)?;
        Ok(path)
    }
}

/// A folder for one server among the temporary files, emptied of what a killed fleet of this folder left.
fn elsewhere(folder: &Folder, name: &str) -> anyhow::Result<PathBuf> {
    let mut hasher = DefaultHasher::new();
    folder.root().hash(&mut hasher);
    let path = std::env::temp_dir().join(format!("{ELSEWHERE}{name}-{:016x}", hasher.finish()));
    if path.symlink_metadata().is_ok() {
        std::fs::remove_dir_all(&path).with_context(|| format!("empty {}", path.display()))?;
    }
    folder.note_elsewhere(name, &path)?;
    // Fails where somebody else was quicker.
    std::fs::DirBuilder::new()
        .mode(0o700)
        .create(&path)
        .with_context(|| format!("create {}", path.display()))?;
    Ok(path)
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(name);
    text.push(path);
    text
}
