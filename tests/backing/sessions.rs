//! Redis: users with keys of their own.

use aldis_tests::fleet::services::redis::User;
use redis::cmd;

use crate::services;

#[tokio::test]
async fn the_shop_keeps_sessions_and_the_agent_cannot_read_them() {
    let redis = services().await.redis().unwrap();
    let mut shop = redis.connect(User::Shop).await.unwrap();
    cmd("SET")
        .arg("session:1")
        .arg("mei")
        .exec_async(&mut shop)
        .await
        .unwrap();
    let kept: String = cmd("GET")
        .arg("session:1")
        .query_async(&mut shop)
        .await
        .unwrap();
    assert_eq!(kept, "mei");

    let mut aldis = redis.connect(User::Aldis).await.unwrap();
    let about: String = cmd("INFO")
        .arg("server")
        .query_async(&mut aldis)
        .await
        .unwrap();
    assert!(about.contains("redis_version"), "{about}");
    let refused = cmd("GET")
        .arg("session:1")
        .exec_async(&mut aldis)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
}

#[tokio::test]
async fn the_shop_cannot_touch_other_keys_nor_the_server() {
    let redis = services().await.redis().unwrap();
    let mut shop = redis.connect(User::Shop).await.unwrap();
    let mut other_key = cmd("SET");
    other_key.arg("price:1").arg("0");
    let mut server = cmd("FLUSHALL");
    for refused in [&mut other_key, &mut server] {
        let refused = refused.exec_async(&mut shop).await.unwrap_err();
        assert_eq!(refused.code(), Some("NOPERM"), "{refused}");
    }
}

#[tokio::test]
async fn nobody_comes_in_without_tls_or_without_a_name() {
    let redis = services().await.redis().unwrap();
    let clear = redis::Client::open(format!("redis://127.0.0.1:{}/", redis.port())).unwrap();
    assert!(clear.get_multiplexed_async_connection().await.is_err());

    let nobody = redis.connect_as("default", "").await.unwrap_err();
    let refused = nobody.downcast_ref::<redis::RedisError>().unwrap();
    assert_eq!(
        refused.kind(),
        redis::ErrorKind::AuthenticationFailed,
        "{refused}"
    );
}
