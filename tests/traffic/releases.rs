//! Every release does what its tag says.

use aldis_tests::fleet::ready;
use aldis_tests::fleet::shop::program;
use aldis_tests::memory::Resident;
use anyhow::ensure;
use serde_json::Value;

use crate::support::{LIMIT, Shop, program};

#[tokio::test]
async fn the_program_needs_nothing_of_the_machine_it_runs_on() {
    program::ensure_static(program().await).unwrap();
}

#[tokio::test]
async fn a_good_release_answers_and_says_who_it_is() {
    let shop = Shop::start("v1", &[]).await;
    for path in ["/livez", "/readyz", "/healthz", "/metrics", "/", "/cart"] {
        let answer = shop.get(path).await;
        assert_eq!(answer.status, 200, "{path}");
        assert_eq!(answer.headers["x-shop-release"], "v1", "{path}");
    }
    assert_eq!(shop.get("/version").await.body, "v1\n");
}

#[tokio::test]
async fn its_log_is_json_and_a_quiet_shop_logs_every_request() {
    let shop = Shop::start("v1", &[]).await;
    shop.get("/cart").await;
    shop.terminate();
    shop.code().await;
    let lines: Vec<Value> = shop
        .log()
        .lines()
        .map(|line| serde_json::from_str(line).unwrap_or_else(|e| panic!("{line}: {e}")))
        .collect();
    let said = |what: &str| lines.iter().filter(|line| line["message"] == what).count();
    for what in ["starting v1", "listening", "GET /cart 200", "ended"] {
        assert_eq!(said(what), 1, "{what}: {lines:?}");
    }
}

#[tokio::test]
async fn a_busy_shop_logs_some_requests_and_how_many_it_left_out() {
    let shop = Shop::start("v1", &["--log-requests", "1"]).await;
    for _ in 0..200 {
        shop.get("/cart").await;
    }
    let logged = shop.log().matches("GET /cart 200").count();
    assert!((1..200).contains(&logged), "{logged} lines");
}

#[tokio::test]
async fn a_release_fails_the_share_of_requests_that_its_tag_says() {
    let shop = Shop::start("v2-failing-30pct", &[]).await;
    let mut failed = 0;
    for _ in 0..100 {
        failed += u32::from(shop.status("/cart").await == 500);
    }
    assert_eq!(failed, 30);
    assert_eq!(
        shop.status("/readyz").await,
        200,
        "a probe that would take it out of service"
    );
}

#[tokio::test]
async fn a_slow_release_takes_its_time_and_answers_well() {
    let shop = Shop::start("v2-slow-300ms", &[]).await;
    let started = tokio::time::Instant::now();
    assert_eq!(shop.status("/cart").await, 200);
    assert!(started.elapsed().as_millis() >= 300);
    assert!(shop.counted("shop_request_seconds_sum", &[]).await >= 0.3);
}

#[tokio::test]
async fn an_unready_release_fails_its_probes_and_lives() {
    let shop = Shop::start("v2-unready", &[]).await;
    assert_eq!(shop.status("/readyz").await, 503);
    assert_eq!(shop.status("/healthz").await, 500);
    assert_eq!(
        shop.status("/livez").await,
        200,
        "it would be restarted for ever"
    );
    assert_eq!(shop.counted("shop_ready", &[]).await, 0.0);
}

#[tokio::test]
async fn a_release_that_crashes_at_its_start_says_what_it_died_of() {
    let shop = Shop::begin("v2-crash", &[]).await;
    assert_eq!(shop.code().await, Some(1));
    assert!(
        shop.log().contains("panic: open /etc/app/config.json"),
        "{}",
        shop.log()
    );
}

#[tokio::test]
async fn a_release_that_crashes_later_serves_first() {
    let shop = Shop::begin("v2-crash-after-500ms", &[]).await;
    assert_eq!(shop.code().await, Some(1));
    let log = shop.log();
    let at = |words: &str| {
        log.find(words)
            .unwrap_or_else(|| panic!("no {words}: {log}"))
    };
    assert!(at("listening") < at("panic: out of luck after 500 ms"));
}

#[tokio::test]
async fn a_leaking_release_shows_it_in_its_own_figures_and_in_the_kernels() {
    let shop = Shop::start("v2-leaking-64mib", &[]).await;
    let memory = || async {
        let said = shop.counted("shop_resident_memory_bytes", &[]).await;
        let kernels = Resident::of(shop.process.pid().expect("it runs"))
            .unwrap()
            .now
            * 1024;
        (said as u64, kernels)
    };
    let (said, kernels) = memory().await;
    ready::eventually(LIMIT, "it has grown by 48 MiB", || async {
        let after = memory().await;
        let grown = after.0 >= said + (48 << 20) && after.1 >= kernels + (48 << 20);
        ensure!(grown, "from {said} and {kernels} to {after:?}");
        Ok(())
    })
    .await
    .unwrap();
}
