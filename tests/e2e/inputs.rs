//! What is mistyped on a real fleet: each says what, where and what next, and nothing is written.
//!
//! Malformed runbook files are not here: they need no cluster.

use aldis_tests::stage::{SERVICE, Stage};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";

#[tokio::test]
async fn what_does_not_exist_is_named_and_nothing_is_written() {
    let stage = Stage::shared(fleet().await, "mistyped").await;
    stage
        .release(&[OLD, "shop/checkout:v2-failing"])
        .await
        .unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let namespace = format!("namespace={}", stage.namespace);
    let jobs = stage.aldis(&["list", "-o", "name"]).await.unwrap().out;
    for (words, code, named) in [
        (
            vec!["rollback-servce", "-p", "service=checkout"],
            1,
            "rollback-service",
        ),
        (
            vec!["rollback-service", "-p", "service=checkout"],
            2,
            "namespace",
        ),
        (
            vec![
                "rollback-service",
                "-p",
                "service=checkout",
                "-p",
                &namespace,
                "-p",
                "prot=80",
            ],
            2,
            "prot",
        ),
        (
            vec![
                "rollback-service",
                "-p",
                "service=checkout",
                "-p",
                &namespace,
                "-p",
                "port=many",
            ],
            2,
            "port",
        ),
        (
            vec![
                "deploy-image",
                "-p",
                "service=chekout",
                "-p",
                &namespace,
                "-p",
                "image=a:1",
            ],
            13,
            "chekout",
        ),
        (
            vec![
                "deploy-image",
                "-p",
                "service=checkout",
                "-p",
                &namespace,
                "-p",
                "image=a:1",
                "--target",
                "eu-west/prod-9",
            ],
            1,
            "eu-west/prod-9",
        ),
        (
            vec![
                "rollback-service",
                "-p",
                "service=checkout",
                "-p",
                &namespace,
                "-p",
                "from=shop/checkout:v2-failing",
                "-p",
                "to=revision:9",
            ],
            13,
            "9",
        ),
    ] {
        let said = stage
            .aldis(&[&["submit", "--yes", "--detach"], &words[..]].concat())
            .await
            .unwrap();
        let all = format!("{}{}", said.out, said.err);
        assert_eq!(said.code, code, "{said}");
        assert!(all.contains(named), "`{named}` is named: {said}");
        assert!(said.err.contains("hint:"), "what next: {said}");
    }
    assert_eq!(
        stage
            .aldis(&["list", "-o", "name"])
            .await
            .unwrap()
            .out
            .matches(SERVICE)
            .count(),
        jobs.matches(SERVICE).count()
    );
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
}
