//! The exit codes that scripts rely on, each from the process itself. 8 (an approval is waited for) is
//! of a later time; 14 and 6 of a job are in `following.rs`.

use aldis_tests::pki::{Authority, Request, Usage};

use crate::following::soaking;
use crate::harness::{Bench, Home, Terminal};
use crate::{DEPLOY, SLOW};

/// Stops and leaves everything where it is.
fn halting() -> String {
    SLOW.replace("maxFailures: 0", "maxFailures: 0\n    onFailure: halt")
}

/// A remedy that one cluster in four may do without.
const REMEDY: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: back, version: 1}
spec:
  direction: remedy
  targets: {select: {matchLabels: {env: prod}}}
  rollout: {waves: [{name: all, pick: {percent: 100}}], maxFailures: 25%}
  steps:
    - {id: back, use: kube.rollout-undo@v1, with: {deployment: checkout, namespace: shop, from: 'checkout:v2.18.0', to: previous}}
    - {id: wait, use: kube.wait@v1, with: {deployment: checkout, namespace: shop, for: rolledOut}}
";

const FOUR: [&str; 4] = [
    "eu-west/prod-1",
    "eu-west/prod-2",
    "us-east/prod-1",
    "us-east/prod-2",
];

#[tokio::test]
async fn a_job_that_succeeds_ends_with_0_and_a_plan_that_would_change_something_with_10() {
    let bench = Bench::start(&FOUR[..2]).await;
    let plan = [&["plan"], &DEPLOY[1..]].concat();
    assert_eq!(bench.aldis(&plan).await.code, Some(0));
    let detailed = [&plan[..], &["--detailed-exitcode"]].concat();
    assert_eq!(bench.aldis(&detailed).await.code, Some(10));
    let said = bench.aldis(&[&DEPLOY[..], &["-y", "-w"]].concat()).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.out.contains("SUCCEEDED"), "{said:?}");
}

#[tokio::test]
async fn what_does_not_exist_ends_with_1_and_what_cannot_be_understood_with_2() {
    let bench = Bench::start(&[]).await;
    let said = bench.aldis(&["status", "j-00000000"]).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert_eq!(bench.aldis(&["statsu"]).await.code, Some(2));
    let said = bench.aldis(&["submit", "deploy-image", "-y"]).await;
    assert_eq!(said.code, Some(2), "{said:?}");
}

#[tokio::test]
async fn a_job_that_failed_where_it_is_to_halt_ends_with_3() {
    let bench = Bench::start(&FOUR[..2]).await;
    let runbook = bench.runbook(&halting());
    let said = bench
        .aldis(&[
            "submit",
            &runbook,
            "-p",
            "image=checkout:broken",
            "-y",
            "-w",
        ])
        .await;
    assert_eq!(said.code, Some(3), "{said:?}");
    assert!(said.out.contains("FAILED"), "{said:?}");
}

#[tokio::test]
async fn a_job_that_failed_and_was_put_back_ends_with_4() {
    let bench = Bench::start(&FOUR[..2]).await;
    let broken = [&DEPLOY[..7], &["image=checkout:broken", "-y", "-w"]].concat();
    let said = bench.aldis(&broken).await;
    assert_eq!(said.code, Some(4), "{said:?}");
    assert!(said.out.contains("FAILED AND UNDONE"), "{said:?}");
}

#[tokio::test]
async fn a_remedy_that_did_not_help_everywhere_ends_with_5() {
    let bench = Bench::start(&FOUR).await;
    let images = ["checkout:broken", "checkout:v2.18.0"];
    bench
        .practice
        .cluster(FOUR[2])
        .create("shop", "checkout", &images);
    let runbook = bench.runbook(REMEDY);
    let said = bench.aldis(&["submit", &runbook, "-y", "-w"]).await;
    assert_eq!(said.code, Some(5), "{said:?}");
    assert!(
        said.out.contains("1 not helped (us-east/prod-1"),
        "{said:?}"
    );
}

#[tokio::test]
async fn a_no_ends_with_6_and_nothing_is_submitted() {
    let bench = Bench::start(&FOUR[..1]).await;
    let mut terminal = Terminal::start(&bench.home, &DEPLOY);
    terminal.shows("[y/N]").await;
    terminal.types("n").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(6), "{shown}");
    assert_eq!(bench.aldis(&["list", "-o", "name"]).await.out, "");
}

#[tokio::test]
async fn time_that_passed_ends_with_7_and_the_job_goes_on() {
    let bench = Bench::start(&FOUR[..2]).await;
    let job = soaking(&bench).await;
    let said = bench.aldis(&["watch", &job, "--timeout", "5s"]).await;
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(said.err.contains("goes on"), "{said:?}");
    let running = ["list", "--state", "running", "-o", "name"];
    assert_eq!(bench.aldis(&running).await.out.trim(), job);
}

#[tokio::test]
async fn a_runbook_that_is_none_ends_with_9_before_anybody_is_asked() {
    let home = Home::new();
    let path = home.path().join("none.yaml");
    std::fs::write(&path, SLOW.replace("kind: Runbook", "kind: Book")).unwrap();
    let said = home.aldis(&["runbook", "validate", "none.yaml"]).await;
    assert_eq!(said.code, Some(9), "{said:?}");
}

#[tokio::test]
async fn a_certificate_of_another_authority_ends_with_11_and_a_server_that_is_not_there_with_12() {
    let bench = Bench::start(&[]).await;
    let other = Authority::new("another").unwrap();
    let foreign = other.issue(&Request::user("mei")).unwrap();
    bench.context("foreign", &foreign, "");
    let said = bench.aldis(&["list"]).await;
    assert_eq!(said.code, Some(11), "{said:?}");
    bench.context("test", &bench.issue(&Request::user("mei")), "");
    let said = bench
        .aldis(&["list", "--server", "https://localhost:1"])
        .await;
    assert_eq!(said.code, Some(12), "{said:?}");
    assert!(said.err.contains("\n\nhint: "), "{said:?}");
}

#[tokio::test]
async fn whoever_is_not_let_in_is_told_what_to_look_at_and_ends_with_11() {
    let bench = Bench::start(&[]).await;
    let nobody = Request::new("mei", Usage::Client);
    let agent = Request::agent("eu-west", "prod-1", "1");
    let strangers = [
        (Request::user("mei").expired(), "expired on"),
        (nobody, "needs exactly one"),
        (agent, "may not call"),
    ];
    for (who, why) in strangers {
        bench.context("stranger", &bench.issue(&who), "");
        let said = bench.aldis(&["list"]).await;
        assert_eq!(said.code, Some(11), "{said:?}");
        assert!(
            said.err.contains(why) && said.err.contains("\n\nhint: "),
            "{said:?}"
        );
    }
}

#[tokio::test]
async fn a_plan_that_is_refused_ends_with_13_and_nothing_is_touched() {
    let bench = Bench::start(&FOUR[..1]).await;
    let absent = [
        &DEPLOY[..2],
        &["-p", "service=nobody"],
        &DEPLOY[4..],
        &["-y"],
    ]
    .concat();
    let said = bench.aldis(&absent).await;
    assert_eq!(said.code, Some(13), "{said:?}");
    assert_eq!(
        bench.practice.images(),
        [("checkout:v2.18.0".to_owned(), 0)]
    );
    assert_eq!(bench.aldis(&["list", "-o", "name"]).await.out, "");
}
