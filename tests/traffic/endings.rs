//! A shop that is told to end fails nobody: what makes "no request failed in a rolling update" possible.

use aldis_tests::fleet::ready;
use aldis_tests::load::{Load, Options};
use aldis_tests::requests::{Connection, get};
use anyhow::ensure;

use crate::support::{LIMIT, Shop, load};

/// Waits until a release has served so many more.
async fn until_served(load: &Load, release: &str, more: u64) {
    let served = || {
        let counts = load.report().total();
        counts.releases.get(release).map_or(0, |tally| tally.served)
    };
    let before = served();
    ready::eventually(LIMIT, "requests are served", || async {
        ensure!(served() >= before + more, "{} of {release}", served());
        Ok(())
    })
    .await
    .unwrap();
}

#[tokio::test]
async fn a_shop_told_to_end_under_load_fails_no_request() {
    let (old, new) = (Shop::start("v1", &[]).await, Shop::start("v2", &[]).await);
    let options = Options {
        per_second: 200,
        limit: LIMIT,
        ..Options::default()
    };
    let (load, addresses) = load(options, &[&old, &new]);
    until_served(&load, "v1", 50).await;
    old.terminate();
    // As Kubernetes does it: the address goes when somebody has seen that the pod ends.
    ready::eventually(LIMIT, "it is not ready", || async {
        ensure!(old.status("/readyz").await == 503, "ready");
        Ok(())
    })
    .await
    .unwrap();
    until_served(&load, "v1", 20).await;
    addresses.send_replace(vec![new.address]);
    assert_eq!(old.code().await, Some(0), "{}", old.log());
    until_served(&load, "v2", 100).await;
    let report = load.stop().await.unwrap();
    assert_eq!(
        report.total().failed(),
        0,
        "{report}{:#?}",
        report.total().failures
    );
    assert_eq!(report.total().served(), report.total().sent);
}

#[tokio::test]
async fn a_request_that_outlasts_the_linger_is_answered() {
    let shop = Shop::start("v1-slow-2s", &["--linger", "0s"]).await;
    let mut connection = Connection::open(shop.address).await.unwrap();
    let (answer, ()) = tokio::join!(connection.get("/cart"), async { shop.terminate() });
    assert_eq!(answer.unwrap().status, 200, "{}", shop.log());
    assert_eq!(shop.code().await, Some(0));
    assert!(
        get(shop.address, "/cart").await.is_err(),
        "it takes nobody any more"
    );
}

#[tokio::test]
async fn a_connection_that_was_not_used_yet_may_still_be() {
    let shop = Shop::start("v1", &["--linger", "0s"]).await;
    let mut connection = Connection::open(shop.address).await.unwrap();
    shop.terminate();
    ready::eventually(LIMIT, "it takes nobody any more", || async {
        ensure!(get(shop.address, "/livez").await.is_err(), "it listens");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(connection.get("/cart").await.unwrap().status, 200);
    assert_eq!(shop.code().await, Some(0));
}

#[tokio::test]
async fn while_it_drains_each_answer_sends_its_caller_elsewhere() {
    let shop = Shop::start("v1", &["--linger", "60s", "--grace", "60s"]).await;
    let mut kept = Connection::open(shop.address).await.unwrap();
    assert!(
        !kept
            .get("/")
            .await
            .unwrap()
            .headers
            .contains_key("connection")
    );
    shop.terminate();
    ready::eventually(LIMIT, "it drains", || async {
        ensure!(shop.status("/readyz").await == 503, "ready");
        Ok(())
    })
    .await
    .unwrap();
    assert_eq!(kept.get("/").await.unwrap().headers["connection"], "close");
}

#[tokio::test]
async fn requests_beyond_the_grace_are_cut_off_and_it_says_so() {
    let shop = Shop::start("v1-slow-600s", &["--linger", "0s", "--grace", "200ms"]).await;
    let mut connection = Connection::open(shop.address).await.unwrap();
    let (answer, ()) = tokio::join!(connection.get("/cart"), async { shop.terminate() });
    assert!(answer.is_err());
    assert_eq!(shop.code().await, Some(1));
    assert!(
        shop.log().contains("1 connections were cut off"),
        "{}",
        shop.log()
    );
}
