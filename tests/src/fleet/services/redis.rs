//! Redis over TLS, with users of its own: nobody is let in by default.
//!
//! | user | may |
//! |---|---|
//! | `fleet` | everything: the harness, and the hand at the keyboard |
//! | `shop` | read and write keys `session:*`, `cart:*`, `cache:*` |
//! | `aldis` | look at the server (INFO, PING, DBSIZE, MEMORY STATS, SLOWLOG GET, CLIENT LIST), and at no key |

use std::net::{IpAddr, Ipv4Addr};
use std::path::PathBuf;
use std::time::Duration;

use ::redis::aio::MultiplexedConnection;
use ::redis::{ConnectionAddr, IntoConnectionInfo, RedisConnectionInfo, TlsCertificates};
use anyhow::Context;

use super::place::{Identity, Place};
use super::programs::{Version, Wanted};
use super::secret::Secret;
use crate::fleet::process::{Process, Program};
use crate::fleet::{ports, ready};

/// Users and their ACLs came with 6, and selectors of subcommands as used here with 7.
const SERVER: Wanted = Wanted {
    name: "redis-server",
    least: Version(7, 0),
    package: "redis-server",
};

const NAME: &str = "redis";

/// It is up in 0.1 s.
const LIMIT: Duration = Duration::from_secs(30);

/// Who may come in, and what each may do.
const USERS: [(User, &str); 3] = [
    (User::Fleet, "~* &* +@all"),
    (
        User::Shop,
        "~session:* ~cart:* ~cache:* +@read +@write +@connection +@transaction -@dangerous",
    ),
    (
        User::Aldis,
        "+ping +info +dbsize +hello +client|list +memory|stats +slowlog|get",
    ),
];

/// A user of Redis.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User {
    /// Who may do everything.
    Fleet,
    /// The application.
    Shop,
    /// An agent.
    Aldis,
}

/// A running Redis. Killed when dropped.
pub struct Redis {
    process: Process,
    port: u16,
    ca: PathBuf,
    passwords: [(User, Secret); 3],
}

impl User {
    /// Its name in Redis.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fleet => "fleet",
            Self::Shop => "shop",
            Self::Aldis => "aldis",
        }
    }
}

impl Redis {
    pub(super) async fn start(place: &Place) -> anyhow::Result<Self> {
        let program = SERVER.find(&[])?;
        let port = ports::free()?;
        let mut passwords = Vec::new();
        for (user, _) in USERS {
            passwords.push((user, place.password(&format!("redis-{}", user.name()))?));
        }
        let config = write_config(place, port, &passwords)?;
        let passwords = passwords.try_into().ok().context("three users")?;
        let redis = Self {
            process: Process::start(
                place.folder(),
                Program::new(NAME, program).arguments([config]),
            )?,
            port,
            ca: place.ca().to_owned(),
            passwords,
        };
        let look = || async { redis.ping().await };
        ready::until(&redis.process, LIMIT, "Redis answers", look).await?;
        Ok(redis)
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    /// Connects as one of its users.
    pub async fn connect(&self, user: User) -> anyhow::Result<MultiplexedConnection> {
        self.connect_as(user.name(), self.password(user).expose())
            .await
    }

    /// Connects as anybody.
    pub async fn connect_as(
        &self,
        user: &str,
        password: &str,
    ) -> anyhow::Result<MultiplexedConnection> {
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let address = ConnectionAddr::TcpTls {
            host: Ipv4Addr::LOCALHOST.to_string(),
            port: self.port,
            insecure: false,
            tls_params: None,
        };
        let login = RedisConnectionInfo::default()
            .set_username(user)
            .set_password(password)
            .set_skip_set_lib_name();
        let info = address.into_connection_info()?.set_redis_settings(login);
        let authority = std::fs::read(&self.ca).context("read the services' authority")?;
        let tls = TlsCertificates {
            client_tls: None,
            root_cert: Some(authority),
        };
        let client = ::redis::Client::build_with_tls(info, tls)?;
        let connection = client.get_multiplexed_async_connection().await;
        connection.with_context(|| format!("connect to Redis as `{user}`"))
    }

    pub(super) fn environment(&self, address: IpAddr) -> Vec<(String, String)> {
        let url = |variable: &str, user: User| {
            let password = self.password(user).expose();
            let url = format!(
                "rediss://{}:{password}@{address}:{}/0",
                user.name(),
                self.port
            );
            (variable.to_owned(), url)
        };
        vec![
            url("ALDIS_REDIS_URL", User::Aldis),
            url("ALDIS_REDIS_SHOP_URL", User::Shop),
            url("ALDIS_REDIS_ADMIN_URL", User::Fleet),
        ]
    }

    async fn ping(&self) -> anyhow::Result<()> {
        let mut connection = self.connect(User::Fleet).await?;
        ::redis::cmd("PING").exec_async(&mut connection).await?;
        Ok(())
    }

    fn password(&self, user: User) -> &Secret {
        let found = self.passwords.iter().find(|(who, _)| *who == user);
        &found.expect("made for every user").1
    }
}

/// Writes the users and the configuration, which names them; where it is.
fn write_config(place: &Place, port: u16, passwords: &[(User, Secret)]) -> anyhow::Result<PathBuf> {
    let data = place.make_below(NAME)?;
    let identity = place.identity(NAME)?;
    let users = place
        .folder()
        .write(super::below(NAME).join("users.acl"), users(passwords))?;
    let text = config(port, &identity, place, &data, &users);
    place
        .folder()
        .write(super::below(NAME).join("redis.conf"), text)
}

fn users(passwords: &[(User, Secret)]) -> String {
    let mut text = "user default off\n".to_owned();
    for ((user, rules), (_, password)) in USERS.iter().zip(passwords) {
        let (name, password) = (user.name(), password.expose());
        text.push_str(&format!("user {name} on >{password} {rules}\n"));
    }
    text
}

fn config(
    port: u16,
    identity: &Identity,
    place: &Place,
    data: &std::path::Path,
    users: &std::path::Path,
) -> String {
    [
        "bind 127.0.0.1".to_owned(),
        "port 0".to_owned(),
        format!("tls-port {port}"),
        format!("tls-cert-file \"{}\"", identity.certificate.display()),
        format!("tls-key-file \"{}\"", identity.key.display()),
        format!("tls-ca-cert-file \"{}\"", place.ca().display()),
        "tls-auth-clients no".to_owned(),
        format!("aclfile \"{}\"", users.display()),
        format!("dir \"{}\"", data.display()),
        // A fleet does not outlive the machine, but its Redis may be killed and started again.
        "appendonly yes".to_owned(),
        "appendfsync no".to_owned(),
        "save \"\"".to_owned(),
        "maxmemory 64mb".to_owned(),
        "maxmemory-policy noeviction".to_owned(),
    ]
    .join("\n")
        + "\n"
}
