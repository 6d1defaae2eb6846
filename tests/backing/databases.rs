//! Postgres: one that writes, one that follows, and roles that may only so much.

use std::time::Duration;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::services::postgres::{Login, Role};
use aldis_tests::fleet::services::{Service, Services};
use anyhow::ensure;

use crate::{REGION, another_authority, folder, only, services};

const PATIENCE: Duration = Duration::from_secs(60);

#[tokio::test]
async fn what_the_primary_was_told_the_replica_knows() {
    let postgres = services().await.postgres(REGION).unwrap();
    let primary = postgres.primary(Role::Shop).connect().await.unwrap();
    primary
        .batch_execute("CREATE TABLE orders (id int); INSERT INTO orders VALUES (42)")
        .await
        .unwrap();

    let replica = postgres
        .replica(Role::Shop)
        .unwrap()
        .connect()
        .await
        .unwrap();
    let look = || async {
        let rows = replica.query("SELECT id FROM orders", &[]).await?;
        ensure!(rows.len() == 1, "{} rows", rows.len());
        Ok(rows[0].get::<_, i32>(0))
    };
    let followed = eventually(PATIENCE, "the replica has the order", look).await;
    assert_eq!(followed.unwrap(), 42);
}

#[tokio::test]
async fn a_replica_takes_no_writes() {
    let replica = services()
        .await
        .postgres(REGION)
        .unwrap()
        .replica(Role::Shop)
        .unwrap();
    let client = replica.connect().await.unwrap();
    let refused = client
        .batch_execute("CREATE TABLE never (id int)")
        .await
        .unwrap_err();
    let code = refused.code().unwrap();
    assert_eq!(
        code,
        &tokio_postgres::error::SqlState::READ_ONLY_SQL_TRANSACTION
    );
}

#[tokio::test]
async fn each_region_has_a_database_of_its_own_identity() {
    let services = services().await;
    let mut identities = Vec::new();
    for region in [REGION, "us-east"] {
        let login = services.postgres(region).unwrap().primary(Role::Aldis);
        let client = login.connect().await.unwrap();
        let query = "SELECT system_identifier::text FROM pg_control_system()";
        let row = client.query_one(query, &[]).await.unwrap();
        identities.push(row.get::<_, String>(0));
    }
    assert_ne!(identities[0], identities[1]);
}

#[tokio::test]
async fn a_server_of_another_authority_is_not_talked_to() {
    let other = tempfile::tempdir().unwrap();
    let other = another_authority(other.path()).unwrap();
    let login = services()
        .await
        .postgres(REGION)
        .unwrap()
        .primary(Role::Shop);
    let refused = login.trusting(&other).connect().await.unwrap_err();
    let said = format!("{refused:#}");
    assert!(said.contains("UnknownIssuer"), "{said}");
}

#[tokio::test]
async fn nobody_comes_in_without_tls() {
    let login = services()
        .await
        .postgres(REGION)
        .unwrap()
        .primary(Role::Shop);
    let said = refused_without_tls(&login).await;
    assert!(said.contains("no encryption"), "{said}");
}

/// What a server says to a login that is right, but in clear text.
pub(crate) async fn refused_without_tls(login: &Login) -> String {
    let url = login.url();
    let (url, _) = url.split_once('?').unwrap();
    let mut config: tokio_postgres::Config = url.parse().unwrap();
    config.ssl_mode(tokio_postgres::config::SslMode::Disable);
    let refused = config.connect(tokio_postgres::NoTls).await.err().unwrap();
    refused.as_db_error().unwrap().message().to_owned()
}

#[tokio::test]
async fn the_role_of_an_agent_reads_and_cannot_write_what_is_not_its_own() {
    let postgres = services().await.postgres(REGION).unwrap();
    let shop = postgres.primary(Role::Shop).connect().await.unwrap();
    shop.batch_execute("CREATE TABLE prices (cents int); INSERT INTO prices VALUES (995)")
        .await
        .unwrap();

    let aldis = postgres.primary(Role::Aldis).connect().await.unwrap();
    let row = aldis
        .query_one("SELECT cents FROM prices", &[])
        .await
        .unwrap();
    assert_eq!(row.get::<_, i32>(0), 995);
    aldis
        .batch_execute("CREATE TABLE aldis.guards (id int)")
        .await
        .unwrap();
    for statement in [
        "UPDATE prices SET cents = 0",
        "DROP TABLE prices",
        "CREATE TABLE public.mine (id int)",
        "CREATE ROLE another",
    ] {
        let refused = aldis.batch_execute(statement).await.unwrap_err();
        let code = refused.code().unwrap();
        let wanted = &tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE;
        assert_eq!(code, wanted, "{statement}");
    }
}

/// With a set of its own: others would meet the dead one.
#[tokio::test]
async fn a_primary_that_was_killed_comes_back_with_what_it_had_and_its_replica_follows_again() {
    let folder = Folder::make(&folder("backing-killed")).unwrap();
    let options = only([Service::Postgres]);
    let services = Services::start(&folder, options).await.unwrap();
    let postgres = services.postgres(REGION).unwrap();
    let shop = postgres.primary(Role::Shop);
    let client = shop.connect().await.unwrap();
    let make = "CREATE TABLE kept (id int); INSERT INTO kept VALUES (7)";
    client.batch_execute(make).await.unwrap();

    postgres.primary_process().kill();
    assert!(shop.connect().await.is_err());
    postgres.primary_process().start_again().unwrap();

    let look = || async { shop.connect().await };
    let client = eventually(PATIENCE, "it answers again", look)
        .await
        .unwrap();
    client
        .batch_execute("UPDATE kept SET id = id + 1")
        .await
        .unwrap();
    let replica = postgres.replica(Role::Shop).unwrap();
    let look = || async {
        let row = replica
            .connect()
            .await?
            .query_one("SELECT id FROM kept", &[])
            .await?;
        let id: i32 = row.get(0);
        ensure!(id == 8, "{id}");
        Ok(())
    };
    eventually(PATIENCE, "the replica follows", look)
        .await
        .unwrap();
}
