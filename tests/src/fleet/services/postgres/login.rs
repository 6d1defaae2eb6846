//! How one role reaches one server.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Context;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config};
use tokio_postgres_rustls::MakeRustlsConnect;

use crate::fleet::services::http;
use crate::fleet::services::secret::Secret;

/// A server that is up lets in within milliseconds; a frozen one never does.
const PATIENCE: Duration = Duration::from_secs(5);

/// A role's way into a database.
#[derive(Clone, Debug)]
pub struct Login {
    pub(super) address: IpAddr,
    pub(super) port: u16,
    pub(super) user: &'static str,
    pub(super) password: Secret,
    pub(super) database: String,
    pub(super) ca: PathBuf,
}

impl Login {
    /// The same role in another database.
    pub fn database(mut self, name: &str) -> Self {
        self.database = name.to_owned();
        self
    }

    /// The same, trusting another authority.
    pub fn trusting(mut self, ca: &Path) -> Self {
        self.ca = ca.to_owned();
        self
    }

    /// The same by another address of this machine.
    pub fn at(mut self, address: IpAddr) -> Self {
        self.address = address;
        self
    }

    /// As libpq reads it.
    pub fn url(&self) -> String {
        format!(
            "postgres://{}:{}@{}:{}/{}?sslmode=verify-full&sslrootcert={}",
            self.user,
            self.password.expose(),
            self.address,
            self.port,
            self.database,
            self.ca.display()
        )
    }

    /// Connects over TLS. The connection ends with the client.
    pub async fn connect(&self) -> anyhow::Result<Client> {
        let mut config = Config::new();
        config
            .host(self.address.to_string())
            .port(self.port)
            .user(self.user)
            .password(self.password.expose())
            .dbname(&self.database)
            .application_name("aldis-tests")
            .ssl_mode(SslMode::Require);
        let tls = MakeRustlsConnect::new(http::trusting(&self.ca)?);
        let connecting = tokio::time::timeout(PATIENCE, config.connect(tls));
        let about = || format!("connect to `{}` as `{}`", self.database, self.user);
        let (client, connection) = connecting.await.with_context(about)?.with_context(about)?;
        tokio::spawn(connection);
        Ok(client)
    }
}
