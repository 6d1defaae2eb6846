//! What a Postgres is told: its programs, its configuration, and who may come in. Pure, but for the search.

use std::path::{Path, PathBuf};

use super::account::Account;
use crate::fleet::services::programs::{Version, Wanted};

/// 15 checks addresses in certificates, which replicas and shells here rely on.
const SERVER: Wanted = Wanted {
    name: "postgres",
    least: Version(15, 0),
    package: "postgresql",
};

/// Majors that are looked for where Debian keeps them, oldest first.
const MAJORS: std::ops::RangeInclusive<u32> = 15..=19;

/// Nobody else, and nobody in clear text.
pub(super) const DOORS: &str = "\
hostssl all         all     127.0.0.1/32 scram-sha-256
hostssl replication replica 127.0.0.1/32 scram-sha-256
";

/// The programs of one installation, and as whom they run.
#[derive(Clone, Debug)]
pub(super) struct Tools {
    folder: PathBuf,
    pub(super) account: Account,
}

/// What the configuration of one server says.
pub(super) struct Settings<'a> {
    pub(super) name: &'a str,
    pub(super) port: u16,
    pub(super) doors: &'a Path,
    pub(super) certificate: &'a Path,
    pub(super) key: &'a Path,
    /// Whom a replica follows.
    pub(super) primary: Option<Primary<'a>>,
}

/// A primary as its replica knows it.
#[derive(Clone, Copy)]
pub(super) struct Primary<'a> {
    pub(super) port: u16,
    /// A file with the password, in libpq's form.
    pub(super) passwords: &'a Path,
    pub(super) ca: &'a Path,
}

impl Tools {
    pub(super) fn find() -> anyhow::Result<Self> {
        let folders: Vec<PathBuf> = MAJORS
            .map(|major| PathBuf::from(format!("/usr/lib/postgresql/{major}/bin")))
            .collect();
        let server = SERVER.find(&folders)?;
        let folder = server.parent().unwrap_or(Path::new("/")).to_owned();
        let account = Account::find()?;
        Ok(Self { folder, account })
    }

    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.folder.join(name)
    }
}

impl Settings<'_> {
    /// The whole file.
    pub(super) fn render(&self) -> String {
        let mut lines = vec![
            format!("cluster_name = {}", quoted(self.name)),
            "listen_addresses = '127.0.0.1'".to_owned(),
            format!("port = {}", self.port),
            "unix_socket_directories = ''".to_owned(),
            format!("hba_file = {}", path(self.doors)),
            "ssl = on".to_owned(),
            format!("ssl_cert_file = {}", path(self.certificate)),
            format!("ssl_key_file = {}", path(self.key)),
            "password_encryption = 'scram-sha-256'".to_owned(),
            "max_connections = 60".to_owned(),
            "shared_buffers = '16MB'".to_owned(),
            // In the data folder, which is emptied; in /dev/shm a killed server would leave it for ever.
            "dynamic_shared_memory_type = 'mmap'".to_owned(),
            "fsync = off".to_owned(),
            "wal_level = 'replica'".to_owned(),
            "max_wal_senders = 8".to_owned(),
            "wal_keep_size = '64MB'".to_owned(),
            "wal_log_hints = on".to_owned(),
            "hot_standby = on".to_owned(),
            "timezone = 'UTC'".to_owned(),
            "log_timezone = 'UTC'".to_owned(),
            "log_line_prefix = '%m [%p] %q%u@%d '".to_owned(),
        ];
        lines.extend(self.primary.map(|primary| primary.render(self.name)));
        lines.join("\n") + "\n"
    }
}

impl Primary<'_> {
    /// How a replica comes to it.
    pub(super) fn address(&self) -> String {
        format!(
            "host=127.0.0.1 port={} user=replica sslmode=verify-full sslrootcert={}",
            self.port,
            quoted(&self.ca.display().to_string())
        )
    }

    fn render(&self, name: &str) -> String {
        let passwords = quoted(&self.passwords.display().to_string());
        let address = format!(
            "{} passfile={passwords} application_name={name}",
            self.address()
        );
        format!("primary_conninfo = {}", doubled(&address))
    }
}

/// A value of libpq's, which escapes with a backslash.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', r"\'"))
}

/// A value of the configuration file, which doubles its quotes.
fn doubled(text: &str) -> String {
    format!("'{}'", text.replace('\\', r"\\").replace('\'', "''"))
}

fn path(path: &Path) -> String {
    doubled(&path.display().to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_of_any_name_stays_one_value() {
        let primary = Primary {
            port: 5,
            passwords: Path::new("/it's/pass"),
            ca: Path::new("/a b/ca.crt"),
        };
        assert_eq!(
            primary.render("r"),
            r"primary_conninfo = 'host=127.0.0.1 port=5 user=replica sslmode=verify-full sslrootcert=''/a b/ca.crt'' passfile=''/it\\''s/pass'' application_name=r'"
        );
    }
}
