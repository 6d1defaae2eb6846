//! A shop whose database is not there serves all the same, and says what is missing.

use crate::support::Shop;

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
