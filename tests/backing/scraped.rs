//! Prometheus: what is in its file is scraped and can be asked for.

use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::time::Duration;

use aldis_tests::fleet::ready::eventually;
use anyhow::{Context, ensure};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::json;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use crate::services;

/// Serves one figure to whoever asks.
pub(crate) async fn server() -> (u16, AbortOnDropHandle<()>) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let port = listener.local_addr().unwrap().port();
    let serving = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let service = service_fn(|_: hyper::Request<Incoming>| async {
                let figures = "# TYPE shop_orders_total counter\nshop_orders_total 1234\n";
                Ok::<_, Infallible>(hyper::Response::new(Full::new(Bytes::from(figures))))
            });
            let connection = hyper::server::conn::http1::Builder::new();
            tokio::spawn(connection.serve_connection(TokioIo::new(stream), service));
        }
    });
    (port, AbortOnDropHandle::new(serving))
}

#[tokio::test]
async fn a_served_figure_is_scraped_with_its_labels_and_answers_a_query() {
    let prometheus = services().await.prometheus().unwrap();
    let (port, _serving) = server().await;
    let entry = json!({
        "targets": [format!("127.0.0.1:{port}")],
        "labels": {"region": "eu-west", "cluster": "eu-west/prod-1", "release": "v1.42.0"},
    });
    prometheus.targets().set("test", vec![entry]).unwrap();

    let query = r#"shop_orders_total{region="eu-west"}"#;
    let look = || async {
        let found = prometheus.query(query).await?;
        found.first().cloned().context("no series")
    };
    let series = eventually(Duration::from_secs(60), "it is scraped", look)
        .await
        .unwrap();
    assert_eq!(series["value"][1], "1234");
    assert_eq!(series["metric"]["release"], "v1.42.0");
    assert_eq!(series["metric"]["job"], "shop");

    prometheus.targets().set("test", vec![]).unwrap();
    let look = || async {
        let found = prometheus.query("up").await?;
        ensure!(found.is_empty(), "still scraped: {found:?}");
        Ok(())
    };
    let forgotten = eventually(Duration::from_secs(60), "it is forgotten", look).await;
    forgotten.unwrap();
}

#[tokio::test]
async fn a_query_that_makes_no_sense_is_refused_in_words() {
    let prometheus = services().await.prometheus().unwrap();
    let refused = prometheus.query("sum(").await.unwrap_err().to_string();
    assert!(refused.contains("parse error"), "{refused}");
}
