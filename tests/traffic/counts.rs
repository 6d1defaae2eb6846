//! The load generator counts what the servers count, and what they cannot.

use std::time::Duration;

use aldis_tests::fleet::ready;
use aldis_tests::load::count::{Cause, Counts};
use aldis_tests::load::{Load, Options};
use anyhow::ensure;

use crate::support::{LIMIT, Shop, load};

fn fast() -> Options {
    Options {
        per_second: 200,
        limit: LIMIT,
        ..Options::default()
    }
}

/// Waits until the counts are so; every reading on the way adds up.
async fn until(load: &Load, what: &str, so: impl Fn(&Counts) -> bool) -> Counts {
    ready::eventually(LIMIT, what, || async {
        let counts = load.report().total();
        let ended = counts.served() + counts.failed();
        assert_eq!(counts.sent, ended + counts.under_way, "{counts:?}");
        ensure!(so(&counts), "{counts:?}");
        Ok(counts)
    })
    .await
    .unwrap()
}

#[tokio::test]
async fn the_load_counts_what_the_servers_count() {
    let good = Shop::start("v1", &[]).await;
    let failing = Shop::start("v2-failing-30pct", &[]).await;
    let (load, _addresses) = load(fast(), &[&good, &failing]);
    until(&load, "some hundred requests", |counts| counts.sent >= 400).await;
    let counts = load.stop().await.unwrap().total();
    assert_eq!(counts.under_way, 0);
    for shop in [(&good, "v1"), (&failing, "v2-failing-30pct")] {
        let (shop, release) = shop;
        let (served, failed) = (
            shop.counted("shop_requests_total", &[r#"path="/""#, r#"code="200""#])
                .await,
            shop.counted("shop_requests_total", &[r#"path="/""#, r#"code="500""#])
                .await,
        );
        let tally = &counts.releases[release];
        assert_eq!(tally.served, served as u64, "{release}");
        assert_eq!(tally.failures(), failed as u64, "{release}");
        assert_eq!(tally.latency.count(), tally.served, "{release}");
    }
    assert!(counts.failed_by(Cause::Status(500)) > 0);
}

#[tokio::test]
async fn a_killed_server_is_counted_as_failures_and_the_other_goes_on_serving() {
    let (one, two) = (Shop::start("v1", &[]).await, Shop::start("v1", &[]).await);
    let (load, addresses) = load(fast(), &[&one, &two]);
    until(&load, "both are served", |counts| counts.served() >= 40).await;
    one.process.kill();
    let counts = until(&load, "refused requests", |c| {
        c.failed_by(Cause::Refused) >= 20
    })
    .await;
    let failure = counts.failures.back().unwrap();
    assert_eq!(failure.address, Some(one.address), "{failure:?}");
    // The Service learns of it, and all is well again.
    addresses.send_replace(vec![two.address]);
    until(&load, "nothing is under way to it", |c| {
        c.sent >= counts.sent + 40
    })
    .await;
    let before = load.report();
    until(&load, "more is served", |c| {
        c.served() >= before.total().served() + 40
    })
    .await;
    let report = load.stop().await.unwrap();
    assert_eq!(report.since(&before).total().failed(), 0, "{report}");
}

#[tokio::test]
async fn a_service_without_addresses_fails_its_callers() {
    let (load, _addresses) = load(fast(), &[]);
    let counts = until(&load, "some fail", |counts| counts.failed() >= 10).await;
    assert_eq!(counts.failed_by(Cause::NoAddress), counts.sent);
}

#[tokio::test]
async fn requests_beyond_the_bound_are_held_back_and_counted_apart() {
    let slow = Shop::start("v1-slow-600s", &[]).await;
    let options = Options {
        under_way: 3,
        ..fast()
    };
    let (load, _addresses) = load(options, &[&slow]);
    let counts = until(&load, "some are held back", |counts| counts.held_back >= 20).await;
    assert_eq!((counts.sent, counts.under_way), (3, 3));
}

#[tokio::test]
async fn what_takes_too_long_is_a_timeout() {
    let slow = Shop::start("v1-slow-600s", &[]).await;
    let options = Options {
        limit: Duration::from_millis(100),
        ..fast()
    };
    let (load, _addresses) = load(options, &[&slow]);
    let counts = until(&load, "some time out", |counts| counts.failed() >= 10).await;
    assert_eq!(counts.failed_by(Cause::Timeout), counts.failed());
    assert_eq!(counts.served(), 0);
}
