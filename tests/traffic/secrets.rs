//! A rotated secret reaches a shop that reads it again, and another only by a restart.

use aldis_tests::fleet::ready;
use anyhow::ensure;

use crate::support::{LIMIT, Shop};

const OLD: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"; // of "abc"

#[tokio::test]
async fn a_shop_that_reloads_follows_its_secret_and_another_keeps_it() {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("session");
    std::fs::write(&file, "abc").unwrap();
    let secret = format!("--session-secret={}", file.display());
    let reloading = Shop::start("v1", &[&secret, "--reload"]).await;
    let keeping = Shop::start("v1", &[&secret]).await;
    for shop in [&reloading, &keeping] {
        assert_eq!(shop.json("/session").await["sha256"], OLD);
    }
    std::fs::write(&file, "rotated").unwrap();
    let followed = ready::eventually(LIMIT, "it has read it again", || async {
        let hash = reloading.json("/session").await["sha256"].clone();
        ensure!(hash != OLD, "the old one");
        Ok(hash)
    })
    .await
    .unwrap();
    assert_eq!(keeping.json("/session").await["sha256"], OLD);
    assert_eq!(
        reloading.counted("shop_session_reloads_total", &[]).await,
        1.0
    );
    keeping.process.stop();
    keeping.process.start_again().unwrap();
    let keeping = keeping.serving().await;
    assert_eq!(keeping.json("/session").await["sha256"], followed);
    for shop in [&reloading, &keeping] {
        assert!(!shop.log().contains("rotated"), "{}", shop.log());
    }
}

#[tokio::test]
async fn a_shop_without_its_secret_does_not_start() {
    let shop = Shop::begin("v1", &["--session-secret=/does/not/exist"]).await;
    assert_eq!(shop.code().await, Some(1));
    assert!(
        shop.log()
            .contains("read the session secret from /does/not/exist")
    );
}
