//! Questions on a terminal: what can be answered can also be left.

use crate::DEPLOY;
use crate::harness::{Bench, Terminal};

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
    let arguments = [&DEPLOY[..], &["--timeout", "3s"]].concat();
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
