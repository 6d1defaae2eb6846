//! The shop and its database: the fleet's own Postgres, reached as a pod reaches it, with the files of the Secret that
//! the fleet makes. And a shop whose database is not there, which serves all the same and says what is missing.

use std::path::Path;
use std::sync::LazyLock;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::ready;
use aldis_tests::fleet::services::postgres::{Login, Postgres, Role};
use aldis_tests::fleet::services::{Options, Service, Services, Wanted};
use aldis_tests::fleet::shop::{self, DATABASE_FOLDER, DATABASE_KEY};
use aldis_tests::pki::Authority;
use aldis_tests::requests::Answer;
use anyhow::ensure;
use serde_json::json;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use tokio::sync::OnceCell;

use crate::support::{LIMIT, Shop};

/// The region of the database; as the first, it has a replica.
const REGION: &str = "eu-west";

/// The databases of all tests here live on a runtime of their own: each test's ends with it.
static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

static SERVICES: OnceCell<Services> = OnceCell::const_new();

/// A shop that was given a database, and which password it was given.
struct Visited {
    shop: Shop,
    password: String,
    _secret: TempDir,
}

impl Visited {
    /// The shop of one pod, with a way into a database and the authority it shall believe.
    async fn start(pod: &str, login: &Login, authority: &str) -> Self {
        let (url, _options) = login.url().split_once('?').map(owned).unwrap();
        Self::start_at(pod, &url, authority).await
    }

    async fn start_at(pod: &str, url: &str, authority: &str) -> Self {
        let secret = mounted(url, authority);
        let at = std::fs::read_to_string(secret.path().join(DATABASE_KEY)).unwrap();
        let shop = Shop::begin_with("v1", &[], |program| {
            program
                .environment("SHOP_DATABASE_URL", at)
                .environment("POD_NAME", pod)
        });
        Self {
            shop: shop.await.serving().await,
            password: password(url),
            _secret: secret,
        }
    }

    /// Asks for a visit. Whatever comes of it, the password is neither answered nor logged.
    async fn visit(&self) -> Answer {
        let answer = self.shop.get("/db").await;
        let said = format!("{}{:?}{}", answer.body, answer.headers, self.shop.log());
        assert!(!said.contains(&self.password), "{said}");
        answer
    }

    /// Why a visit is not written down, as it is answered. It is logged as well.
    async fn trouble(&self) -> String {
        let answer = self.visit().await;
        assert_eq!(answer.status, 503, "{}", answer.body);
        let answer = answer.json().unwrap();
        let error = answer["error"].as_str().unwrap().to_owned();
        assert!(self.shop.log().contains(&error), "{error} is not logged");
        error
    }

    /// How many visits it says there were.
    async fn count(&self) -> anyhow::Result<i64> {
        let answer = self.visit().await;
        ensure!(answer.status == 200, "{}", answer.body);
        let answer = answer.json()?;
        Ok(answer["visits"].as_i64().unwrap())
    }
}

/// The files of the Secret that a fleet makes, as a node mounts them, but in a folder of this test.
fn mounted(url: &str, authority: &str) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path().to_str().unwrap();
    for (key, text) in shop::database(url, authority).data {
        let text = text.replace(DATABASE_FOLDER, here);
        std::fs::write(folder.path().join(key), text).unwrap();
    }
    folder
}

/// The password in a URL.
fn password(url: &str) -> String {
    let (user, _place) = url.split_once('@').unwrap();
    user.rsplit_once(':').unwrap().1.to_owned()
}

fn owned((one, other): (&str, &str)) -> (String, String) {
    (one.to_owned(), other.to_owned())
}

async fn start_databases(folder: &str) -> anyhow::Result<Services> {
    let folder = Folder::make(&Path::new(env!("CARGO_TARGET_TMPDIR")).join(folder))?;
    let options = Options {
        wanted: Wanted::from_iter([Service::Postgres]),
        regions: vec![REGION.to_owned()],
        ..Options::default()
    };
    Services::start(&folder, options).await
}

/// The database of all tests here, and the authority behind it.
async fn database() -> (&'static Postgres, String) {
    let services = SERVICES.get_or_try_init(|| async {
        let starting = RUNTIME.spawn(start_databases("traffic-databases"));
        starting.await?
    });
    let services = services.await.unwrap_or_else(|error| panic!("{error:?}"));
    (services.postgres(REGION).unwrap(), authority(services))
}

fn authority(services: &Services) -> String {
    std::fs::read_to_string(services.ca()).unwrap()
}

#[tokio::test]
async fn each_visit_is_written_down_where_others_can_read_it() {
    let (postgres, authority) = database().await;
    let login = postgres.primary(Role::Shop);
    let shop = Visited::start("pod-written", &login, &authority).await;
    let first = shop.visit().await;
    assert_eq!(first.status, 200, "{}", first.body);
    assert_eq!(
        first.json().unwrap(),
        json!({"pod": "pod-written", "visits": 1})
    );
    assert_eq!(shop.count().await.unwrap(), 2);

    // By the role that may only read.
    let reader = postgres.primary(Role::Aldis).connect().await.unwrap();
    let query = "SELECT release, visits FROM shop_visits WHERE pod = 'pod-written'";
    let row = reader.query_one(query, &[]).await.unwrap();
    assert_eq!(row.get::<_, String>("release"), "v1");
    assert_eq!(row.get::<_, i64>("visits"), 2);
}

#[tokio::test]
async fn pods_do_not_count_the_visits_of_each_other() {
    let (postgres, authority) = database().await;
    let login = postgres.primary(Role::Shop);
    let one = Visited::start("pod-one", &login, &authority).await;
    let other = Visited::start("pod-other", &login, &authority).await;
    assert_eq!(one.count().await.unwrap(), 1);
    assert_eq!(one.count().await.unwrap(), 2);
    assert_eq!(other.count().await.unwrap(), 1);
}

#[tokio::test]
async fn a_replica_takes_no_visit_and_that_is_said() {
    let (postgres, authority) = database().await;
    let login = postgres.replica(Role::Shop).unwrap();
    let shop = Visited::start("pod-replica", &login, &authority).await;
    let said = shop.trouble().await;
    assert!(said.contains("takes no writes"), "{said}");
    assert!(said.contains("25006"), "{said}");
}

#[tokio::test]
async fn a_server_of_another_authority_is_refused_and_is_not_called_away() {
    let (postgres, _authority) = database().await;
    let other = Authority::new("another").unwrap();
    let login = postgres.primary(Role::Shop);
    let shop = Visited::start("pod-authority", &login, other.pem()).await;
    let said = shop.trouble().await;
    assert!(said.contains("TLS with the database failed"), "{said}");
    assert!(said.contains("UnknownIssuer"), "{said}");
}

#[tokio::test]
async fn a_wrong_password_is_said_and_not_shown() {
    let (postgres, authority) = database().await;
    let url = postgres.primary(Role::Shop).url();
    let (url, _options) = url.split_once('?').unwrap();
    let url = url.replace(&password(url), "hunter2");
    let shop = Visited::start_at("pod-password", &url, &authority).await;
    assert_eq!(shop.password, "hunter2");
    let said = shop.trouble().await;
    assert!(said.contains("the password"), "{said}");
    assert!(said.contains("28P01"), "{said}");
}

/// With a database of its own: others would meet the dead one.
#[tokio::test]
async fn a_database_that_was_down_is_visited_again_by_the_same_shop() {
    let services = start_databases("traffic-down").await.unwrap();
    let postgres = services.postgres(REGION).unwrap();
    let login = postgres.primary(Role::Shop);
    let shop = Visited::start("pod-down", &login, &authority(&services)).await;
    assert_eq!(shop.count().await.unwrap(), 1);
    let process = shop.shop.process.pid();

    postgres.primary_process().kill();
    assert_eq!(shop.trouble().await, "the database is away");
    assert_eq!(shop.shop.status("/readyz").await, 200);

    postgres.primary_process().start_again().unwrap();
    let back = ready::eventually(LIMIT, "it is visited again", || shop.count()).await;
    assert_eq!(back.unwrap(), 2);
    assert_eq!(shop.shop.process.pid(), process);
}

#[tokio::test]
async fn without_a_database_one_path_says_so_and_the_others_serve() {
    let shop = Shop::start("v1", &[]).await;
    let answer = shop.get("/db").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("set SHOP_DATABASE_URL"),
        "{}",
        answer.body
    );
    assert_eq!(shop.status("/healthz").await, 200);
}

#[tokio::test]
async fn a_database_that_is_away_is_said_without_its_password() {
    // Nobody listens on port 1 of this machine.
    let url = "postgres://shop:hunter2@127.0.0.1:1/shop";
    let with_url = |program: aldis_tests::fleet::process::Program| {
        program.environment("SHOP_DATABASE_URL", url)
    };
    let shop = Shop::begin_with("v1", &[], with_url).await.serving().await;
    let answer = shop.get("/db").await;
    assert_eq!(answer.status, 503);
    assert!(
        answer.body.contains("the database is away"),
        "{}",
        answer.body
    );
    assert!(!format!("{}{}", answer.body, shop.log()).contains("hunter2"));
}
