//! Postgres as a region has it: a primary, and for one region a streaming replica.
//!
//! | role | may |
//! |---|---|
//! | `fleet` | everything (superuser): the harness, and the hand at the keyboard |
//! | `shop` | owns the database `shop` |
//! | `aldis` | read every table (`pg_read_all_data`, for dumps) and all statistics (`pg_monitor`), end others' sessions (`pg_signal_backend`), make databases of its own to restore into (`CREATEDB`), write in its own schema `aldis` of `shop`; nothing of the shop's can it write |
//! | `replica` | follow the primary |
//!
//! There is no way in without TLS and a password, and no socket. `fsync` is off: a fleet does not outlive the
//! machine. Each region is initialised by itself, so that each has a system identifier of its own, as it
//! would have; a copied data folder would not.

mod account;
mod login;
mod server;
mod settings;

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};

pub use self::login::Login;
use self::server::Server;
use self::settings::Tools;
use super::in_capitals;
use super::place::Place;
use super::secret::Secret;
use crate::fleet::process::Process;
use crate::fleet::ready;

/// A replica follows within a second of its start.
const STREAMING_LIMIT: Duration = Duration::from_secs(30);

/// The application's database.
pub const DATABASE: &str = "shop";

/// Whether a primary is given a replica.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Replica {
    /// It has none.
    None,
    /// It has one that streams.
    Streaming,
}

/// A role of the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Superuser.
    Fleet,
    /// Owner of the database.
    Shop,
    /// An agent.
    Aldis,
}

/// The database of one region. Stopped when dropped.
pub struct Postgres {
    region: String,
    // The replica ends first: it has nothing to say of a primary that is gone.
    replica: Option<Server>,
    primary: Server,
    passwords: Passwords,
    ca: PathBuf,
}

/// Passwords of one region's roles.
struct Passwords {
    fleet: Secret,
    shop: Secret,
    aldis: Secret,
    replica: Secret,
}

impl Role {
    /// Its name in Postgres.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Shop => "shop",
            Self::Aldis => "aldis",
        }
    }
}

impl Postgres {
    pub(super) async fn start(
        place: &Place,
        region: &str,
        replica: Replica,
    ) -> anyhow::Result<Self> {
        let starting = Self::start_all(place, region, replica);
        starting
            .await
            .with_context(|| format!("start Postgres of {region}"))
    }

    async fn start_all(place: &Place, region: &str, replica: Replica) -> anyhow::Result<Self> {
        let tools = Tools::find()?;
        let passwords = Passwords::draw(place, region)?;
        let name = format!("postgres-{region}");
        let primary = Server::initialise(place, &tools, &name, &passwords.fleet).await?;
        let mut postgres = Self {
            region: region.to_owned(),
            replica: None,
            primary,
            passwords,
            ca: place.ca().to_owned(),
        };
        postgres.answers(&postgres.primary).await?;
        postgres.make_roles().await?;
        if replica == Replica::Streaming {
            let password = &postgres.passwords.replica;
            let follower = postgres.primary.follower(place, &tools, password).await?;
            postgres.replica = Some(follower);
            postgres.streams().await?;
        }
        Ok(postgres)
    }

    /// Its region.
    pub fn region(&self) -> &str {
        &self.region
    }

    /// How a role reaches the primary.
    pub fn primary(&self, role: Role) -> Login {
        self.login(&self.primary, role)
    }

    /// How a role reaches the replica.
    pub fn replica(&self, role: Role) -> anyhow::Result<Login> {
        Ok(self.login(self.replica_server()?, role))
    }

    /// The primary's process, to kill or to freeze it.
    pub fn primary_process(&self) -> &Process {
        self.primary.process()
    }

    /// The replica's process.
    pub fn replica_process(&self) -> anyhow::Result<&Process> {
        Ok(self.replica_server()?.process())
    }

    pub(super) fn programs(&self) -> impl Iterator<Item = &Process> {
        self.servers().map(Server::process)
    }

    pub(super) fn ports(&self) -> impl Iterator<Item = u16> {
        self.servers().map(Server::port)
    }

    pub(super) fn environment(&self, address: IpAddr) -> Vec<(String, String)> {
        let region = in_capitals(&self.region);
        let url = |which: &str, login: Login| {
            let variable = format!("ALDIS_PG_{region}_{which}URL");
            (variable, login.at(address).url())
        };
        let mut found = vec![
            url("", self.primary(Role::Aldis)),
            url("SHOP_", self.primary(Role::Shop)),
            url("ADMIN_", self.primary(Role::Fleet)),
        ];
        found.extend(
            self.replica(Role::Aldis)
                .ok()
                .map(|login| url("REPLICA_", login)),
        );
        found
    }

    fn servers(&self) -> impl Iterator<Item = &Server> {
        self.replica.iter().chain([&self.primary])
    }

    fn replica_server(&self) -> anyhow::Result<&Server> {
        let replica = self.replica.as_ref();
        replica.with_context(|| format!("the database of {} has no replica", self.region))
    }

    fn login(&self, server: &Server, role: Role) -> Login {
        let password = match role {
            Role::Fleet => &self.passwords.fleet,
            Role::Shop => &self.passwords.shop,
            Role::Aldis => &self.passwords.aldis,
        };
        Login {
            address: Ipv4Addr::LOCALHOST.into(),
            port: server.port(),
            user: role.name(),
            password: password.clone(),
            database: DATABASE.to_owned(),
            ca: self.ca.clone(),
        }
    }

    /// The superuser where there is no database `shop` yet.
    fn superuser(&self, server: &Server) -> Login {
        self.login(server, Role::Fleet).database("postgres")
    }

    async fn answers(&self, server: &Server) -> anyhow::Result<()> {
        let login = self.superuser(server);
        server
            .until("answers", || async { login.connect().await.map(|_| ()) })
            .await
    }

    async fn make_roles(&self) -> anyhow::Result<()> {
        let superuser = self.superuser(&self.primary).connect().await?;
        let roles = self.passwords.roles();
        let roles = superuser.batch_execute(&roles).await;
        roles.context("make the roles")?;
        for statement in [
            "CREATE DATABASE shop OWNER shop",
            "REVOKE ALL ON DATABASE shop FROM PUBLIC",
            "GRANT CONNECT ON DATABASE shop TO aldis",
        ] {
            let done = superuser.batch_execute(statement).await;
            done.with_context(|| format!("make the database: {statement}"))?;
        }
        let shop = self.primary(Role::Fleet).connect().await?;
        let schema = shop.batch_execute("CREATE SCHEMA aldis AUTHORIZATION aldis");
        schema.await.context("make the schema of `aldis`")
    }

    /// Until the primary says that the replica has all that it has.
    async fn streams(&self) -> anyhow::Result<()> {
        let replica = self.replica_server()?;
        self.answers(replica).await?;
        let primary = self.superuser(&self.primary).connect().await?;
        let look = || async {
            let states = primary
                .query("SELECT state FROM pg_stat_replication", &[])
                .await?;
            let states: Vec<String> = states.iter().map(|row| row.get(0)).collect();
            ensure!(states == ["streaming"], "the primary says {states:?}");
            Ok(())
        };
        ready::eventually(STREAMING_LIMIT, "the replica streams", look)
            .await
            .with_context(|| replica.process().last_words())
    }
}

impl Passwords {
    fn draw(place: &Place, region: &str) -> anyhow::Result<Self> {
        let draw = |role: &str| place.password(&format!("postgres-{region}-{role}"));
        Ok(Self {
            fleet: draw("fleet")?,
            shop: draw("shop")?,
            aldis: draw("aldis")?,
            replica: draw("replica")?,
        })
    }

    /// A statement that fails is logged with all that is in it, so that is turned off for these.
    fn roles(&self) -> String {
        format!(
            "SET log_min_error_statement = panic;
             CREATE ROLE shop LOGIN PASSWORD '{}';
             CREATE ROLE aldis LOGIN CREATEDB PASSWORD '{}'
                 IN ROLE pg_monitor, pg_read_all_data, pg_signal_backend;
             CREATE ROLE replica LOGIN REPLICATION PASSWORD '{}';",
            self.shop.expose(),
            self.aldis.expose(),
            self.replica.expose()
        )
    }
}
