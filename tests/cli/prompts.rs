//! Questions on a terminal: what can be answered can also be left.

use aldis_tests::pki::Request;

use crate::following::soaking;
use crate::harness::{Bench, Terminal};
use crate::{DEPLOY, SLOW};

#[tokio::test]
async fn ctrl_c_at_a_question_leaves_at_once_and_nothing_is_changed() {
    let bench = Bench::start(&["eu-west/prod-1"]).await;
    let mut terminal = Terminal::start(&bench.home, &DEPLOY);
    terminal.shows("[y/N]").await;
    terminal.interrupts().await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(130), "{shown}");
    assert!(shown.contains("nothing was changed"), "{shown}");
    assert_eq!(bench.aldis(&["list", "-o", "name"]).await.out, "");
}

#[tokio::test]
async fn a_question_that_nobody_answers_ends_with_the_time_that_was_given() {
    let bench = Bench::start(&["eu-west/prod-1"]).await;
    let arguments = [&DEPLOY[..], &["--timeout", "10s"]].concat();
    let mut terminal = Terminal::start(&bench.home, &arguments);
    terminal.shows("[y/N]").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(7), "{shown}");
}

#[tokio::test]
async fn what_is_answered_with_yes_is_done() {
    let bench = Bench::start(&["eu-west/prod-1"]).await;
    let mut terminal = Terminal::start(&bench.home, &DEPLOY);
    terminal.shows("[y/N]").await;
    terminal.types("y").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(0), "{shown}");
    assert!(shown.contains("SUCCEEDED"), "{shown}");
}

#[tokio::test]
async fn in_a_protected_context_nothing_is_changed_without_its_name() {
    let bench = Bench::start(&["eu-west/prod-1", "us-east/prod-1"]).await;
    let job = soaking(&bench).await;
    let runbook = bench.runbook(SLOW);
    bench.context(
        "prod",
        &bench.issue(&Request::user("mei")),
        ", protected: true",
    );
    let asking: [&[&str]; 6] = [
        &["pause", &job],
        &["resume", &job],
        &["cancel", &job],
        &["cancel", &job, "--undo"],
        &["runbook", "push", &runbook],
        &DEPLOY,
    ];
    for command in asking {
        let said = bench.aldis(&[command, &["-y"]].concat()).await;
        assert_eq!(said.code, Some(2), "{command:?}: {said:?}");
        assert!(said.err.contains("context prod is protected"), "{said:?}");
    }
    let view = bench.practice.job(&job).await.unwrap();
    assert!(view.header.folded.is_empty(), "{:?}", view.header);
    let said = bench
        .aldis(&["cancel", &job, "-y", "-w", "--context", "prod"])
        .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert!(said.err.contains("context prod is protected"), "{said:?}");
}

#[tokio::test]
async fn a_protected_contexts_name_is_typed_to_go_on() {
    let bench = Bench::start(&["eu-west/prod-1"]).await;
    bench.context(
        "prod",
        &bench.issue(&Request::user("mei")),
        ", protected: true",
    );
    for (answer, code) in [("y", 6), ("prod", 0)] {
        let mut terminal = Terminal::start(&bench.home, &DEPLOY);
        terminal.shows("Type the name of the context").await;
        terminal.types(answer).await;
        let (ended, shown) = terminal.ends().await;
        assert_eq!(ended, Some(code), "{shown}");
    }
}
