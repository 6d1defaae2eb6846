//! Postgres, as the shop uses it: a row a pod, which each visit reads and writes.
//!
//! The URL is one that `psql` reads, too: `sslmode=verify-full&sslrootcert=FILE` for TLS, checked by that authority.
//!
//! One connection, made when it is first needed and again after it broke. What went wrong is said in words of our
//! own: an error of the driver may quote what it was given, and that holds a password.

mod address;

use std::error::Error as _;
use std::time::Duration;

use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, NoTls};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::task::AbortOnDropHandle;

use self::address::{Address, Encryption};

/// For a whole visit, also one that waits for another: a customer is not kept longer.
const LIMIT: Duration = Duration::from_secs(2);

const TABLE: &str = "CREATE TABLE IF NOT EXISTS shop_visits (
    pod text PRIMARY KEY, release text NOT NULL, visits bigint NOT NULL, last timestamptz NOT NULL)";

const VISIT: &str =
    "INSERT INTO shop_visits AS kept (pod, release, visits, last) VALUES ($1, $2, 1, now())
    ON CONFLICT (pod) DO UPDATE SET release = $2, visits = kept.visits + 1, last = now()
    RETURNING visits";

/// Why a visit is not written down.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
pub(crate) enum Error {
    /// Nobody gave an address.
    #[error("no database is configured: set SHOP_DATABASE_URL")]
    NotConfigured,
    /// What was given is no address.
    #[error("SHOP_DATABASE_URL is no address of a Postgres database")]
    NoAddress,
    /// TLS is asked for, and the authority cannot be read.
    #[error("SHOP_DATABASE_URL asks for TLS, and its `sslrootcert` is no file of certificates")]
    NoAuthority,
    /// There is nobody, or the connection broke.
    #[error("the database is away")]
    Away,
    /// Somebody answers, and cannot be believed to be the database. TLS is agreed on before the password is needed,
    /// so what it says holds none.
    #[error("TLS with the database failed: {0}")]
    Untrusted(rustls::Error),
    /// Somebody answers, and the driver cannot go on.
    #[error("the database serves no TLS, or asks for a login that the shop cannot give")]
    Foreign,
    /// It answers too late.
    #[error("the database does not answer within {} s", LIMIT.as_secs())]
    Slow,
    /// It does not let this user in, or not with this password.
    #[error("the database refused the user or the password: SQLSTATE {0}")]
    NotLetIn(String),
    /// It only reads, and a visit writes.
    #[error("the database takes no writes, as a replica does not: SQLSTATE {0}")]
    ReadOnly(String),
    /// It says no, for another reason.
    #[error("the database refused: SQLSTATE {0}")]
    Refused(String),
}

/// The database of one pod.
pub(crate) struct Database {
    address: Result<Address, Error>,
    pod: String,
    release: String,
    connection: Mutex<Option<Connection>>,
}

struct Connection {
    client: Client,
    _carried: AbortOnDropHandle<()>,
}

impl Database {
    /// By its URL.
    pub(crate) fn new(url: Option<&str>, pod: &str, release: &str) -> Self {
        Self {
            address: url.ok_or(Error::NotConfigured).and_then(Address::read),
            pod: pod.to_owned(),
            release: release.to_owned(),
            connection: Mutex::default(),
        }
    }

    /// Whether someone gave it an address.
    pub(crate) fn is_configured(&self) -> bool {
        self.address.is_ok()
    }

    /// Writes a visit down; how many there were.
    pub(crate) async fn visit(&self) -> Result<i64, Error> {
        let address = self.address.as_ref().map_err(Clone::clone)?;
        let visiting = async {
            let mut connection = self.connection.lock().await;
            // Taken out while it is used: one that was left in the middle of a visit is not used again.
            let used = match connection.take().filter(Connection::is_open) {
                Some(open) => open,
                None => Connection::open(address).await?,
            };
            let asked = used
                .client
                .query_one(VISIT, &[&self.pod, &self.release])
                .await;
            let visits = asked.map_err(|error| told(&error))?.get(0);
            *connection = Some(used);
            Ok(visits)
        };
        let visited = tokio::time::timeout(LIMIT, visiting).await;
        visited.unwrap_or(Err(Error::Slow))
    }
}

impl Connection {
    async fn open(address: &Address) -> Result<Self, Error> {
        let config = &address.config;
        // Two kinds of connections have two types; whoever asks next is told how either ended.
        let (client, carried) = match &address.encryption {
            Encryption::None => {
                let (client, carries) = config.connect(NoTls).await.map_err(|e| told(&e))?;
                (client, tokio::spawn(async { drop(carries.await) }))
            }
            Encryption::CheckedBy(authority) => {
                let tls = MakeRustlsConnect::new(address::trusting(authority)?);
                let (client, carries) = config.connect(tls).await.map_err(|e| told(&e))?;
                (client, tokio::spawn(async { drop(carries.await) }))
            }
        };
        let carried = AbortOnDropHandle::new(carried);
        client.batch_execute(TABLE).await.map_err(|e| told(&e))?;
        Ok(Self {
            client,
            _carried: carried,
        })
    }

    fn is_open(&self) -> bool {
        !self.client.is_closed()
    }
}

fn told(error: &tokio_postgres::Error) -> Error {
    if let Some(code) = error.code() {
        return refused(code);
    }
    match error.source().map(<dyn std::error::Error>::downcast_ref) {
        Some(Some(broken)) => broken_off(broken),
        Some(None) => Error::Foreign,
        None => Error::Away,
    }
}

fn refused(code: &SqlState) -> Error {
    let said = code.code().to_owned();
    match *code {
        SqlState::INVALID_PASSWORD | SqlState::INVALID_AUTHORIZATION_SPECIFICATION => {
            Error::NotLetIn(said)
        }
        SqlState::READ_ONLY_SQL_TRANSACTION => Error::ReadOnly(said),
        _ => Error::Refused(said),
    }
}

/// What TLS has against somebody travels inside an error of the connection.
fn broken_off(error: &std::io::Error) -> Error {
    let inside = error.get_ref().and_then(|inside| inside.downcast_ref());
    inside.cloned().map_or(Error::Away, Error::Untrusted)
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    async fn trouble(url: Option<&str>) -> Error {
        Database::new(url, "pod", "v1").visit().await.unwrap_err()
    }

    #[tokio::test]
    async fn without_a_database_it_says_what_to_set() {
        assert_eq!(trouble(None).await, Error::NotConfigured);
        assert!(
            Error::NotConfigured
                .to_string()
                .contains("SHOP_DATABASE_URL")
        );
    }

    #[tokio::test]
    async fn no_secret_is_in_what_it_says() {
        // Nobody listens on port 1 of this machine.
        let away = trouble(Some("postgres://shop:hunter2@127.0.0.1:1/shop")).await;
        assert_eq!(away, Error::Away);
        let mistyped = trouble(Some("postgres://shop:hunter2@[::1/shop")).await;
        assert_eq!(mistyped, Error::NoAddress);
        for error in [away, mistyped] {
            assert!(!format!("{error} {error:?}").contains("hunter2"));
        }
    }

    #[tokio::test]
    async fn a_server_without_tls_is_not_taken_for_one_that_is_away() {
        let server = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = server.local_addr().unwrap();
        let without_tls = tokio::spawn(async move {
            let (mut stream, _) = server.accept().await.unwrap();
            let mut asked_for_tls = [0; 8];
            stream.read_exact(&mut asked_for_tls).await.unwrap();
            stream.write_all(b"N").await.unwrap();
        });
        let authority = tempfile::NamedTempFile::new().unwrap();
        let pem = rcgen::generate_simple_self_signed([]).unwrap().cert.pem();
        std::fs::write(authority.path(), pem).unwrap();
        let url = format!(
            "postgres://shop:hunter2@{address}/shop?sslmode=verify-full&sslrootcert={}",
            authority.path().display()
        );
        assert_eq!(trouble(Some(&url)).await, Error::Foreign);
        without_tls.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_database_that_never_answers_keeps_nobody_waiting() {
        let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("postgres://shop@{}/shop", silent.local_addr().unwrap());
        assert_eq!(trouble(Some(&url)).await, Error::Slow);
    }
}
