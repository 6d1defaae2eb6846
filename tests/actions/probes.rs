//! Probes of a service, through the API server and straight.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use aldis_core::action::Action;
use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::support::{app, call, failure, world};

fn probe(namespace: &str, more: Value) -> aldis_agent::actions::Call {
    let mut with = json!({
        "service": "shop", "namespace": namespace, "port": 8080, "path": "/healthz", "samples": 12,
    });
    let more = more.as_object().expect("fields").clone();
    with.as_object_mut().expect("fields").extend(more);
    call(Action::HttpProbe, with)
}

#[tokio::test]
async fn a_service_is_asked_through_the_api_server() {
    let world = world().await;
    app("probe-good", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let (_, read) = world.run(&probe("probe-good", json!({}))).await.unwrap();
    let outputs = &read.outputs;
    assert_eq!(
        (&outputs["samples"], &outputs["errors"]),
        (&json!(12), &json!(0))
    );
    assert_eq!(
        (&outputs["errorRate"], &outputs["ok"]),
        (&json!(0.0), &json!(true))
    );
    assert!(outputs["p95Ms"].is_u64());
}

#[tokio::test]
async fn a_failing_service_is_counted() {
    let world = world().await;
    app("probe-bad", &["shop:v1-failing"])
        .release(&world.admin)
        .await
        .unwrap();
    let (_, read) = world.run(&probe("probe-bad", json!({}))).await.unwrap();
    assert_eq!(
        (&read.outputs["errors"], &read.outputs["ok"]),
        (&json!(12), &json!(false))
    );
    let expected = probe("probe-bad", json!({"expectStatus": 500}));
    let (_, read) = world.run(&expected).await.unwrap();
    assert_eq!(read.outputs["errors"], 0);
}

#[tokio::test]
async fn a_slow_service_is_an_error_after_the_time_for_one_request() {
    let world = world().await;
    app("probe-slow", &["shop:v1-slow"])
        .release(&world.admin)
        .await
        .unwrap();
    let hasty = probe("probe-slow", json!({"timeout": "200ms", "samples": 4}));
    let (_, read) = world.run(&hasty).await.unwrap();
    assert_eq!(read.outputs["errors"], 4);
}

#[tokio::test]
async fn a_service_without_ready_pods_fails_every_sample() {
    let world = world().await;
    let mut none = app("probe-none", &["shop:v1-unready"]);
    none.wait_for_last = false;
    none.release(&world.admin).await.unwrap();
    let (_, read) = world.run(&probe("probe-none", json!({}))).await.unwrap();
    assert_eq!(read.outputs["errorRate"], 1.0);
}

#[tokio::test]
async fn a_service_or_port_that_does_not_exist_is_no_sample_at_all() {
    let world = world().await;
    app("probe-wrong", &["shop:v1"])
        .release(&world.admin)
        .await
        .unwrap();
    let wrong = probe("probe-wrong", json!({"service": "shpo"}));
    assert_eq!(
        failure(world.run(&wrong).await.unwrap_err()).kind,
        "notFound"
    );
    let wrong = probe("probe-wrong", json!({"port": 9}));
    let told = failure(world.run(&wrong).await.unwrap_err());
    assert_eq!(told.evidence, ["it has 8080"]);
}

#[tokio::test]
async fn each_direct_sample_has_a_connection_of_its_own() {
    let world = world().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let connections = Arc::new(AtomicU32::new(0));
    let counted = Arc::clone(&connections);
    let server = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let number = counted.fetch_add(1, Ordering::Relaxed);
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let status = if number == 0 { "503 Busy" } else { "200 OK" };
            let answer = format!("HTTP/1.1 {status}\r\ncontent-length: 2\r\n\r\nok");
            let _ = stream.write_all(answer.as_bytes()).await;
        }
    });
    let direct = probe("default", json!({"via": "direct", "address": address}));
    let (_, read) = world.run(&direct).await.unwrap();
    server.abort();
    assert_eq!(connections.load(Ordering::Relaxed), 12);
    assert_eq!(read.outputs["errors"], 1);

    // Nobody listens there any more.
    let (_, read) = world.run(&direct).await.unwrap();
    assert_eq!(read.outputs["errors"], 12);
}
