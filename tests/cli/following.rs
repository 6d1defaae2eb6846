//! Leaving a job that is followed, stopping it, and ending what no agent can end.

use rustix::process::Signal;
use std::process::Stdio;

use crate::SLOW;
use crate::harness::{Bench, Terminal, ended};

const TWO: [&str; 2] = ["eu-west/prod-1", "us-east/prod-1"];

/// A job that waits for ten minutes after its first target.
pub(crate) async fn soaking(bench: &Bench) -> String {
    let runbook = bench.runbook(SLOW);
    let said = bench
        .aldis(&["submit", &runbook, "-y", "-d", "-o", "name"])
        .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    let job = said.out.trim().to_owned();
    let soaks = |view: &aldis_core::view::JobView| {
        view.waiting
            .iter()
            .any(|waiting| waiting.text.starts_with("soak"))
    };
    bench.practice.until(&job, soaks).await.unwrap();
    job
}

#[tokio::test]
async fn a_signal_detaches_and_the_job_goes_on_until_it_is_cancelled() {
    let bench = Bench::start(&TWO).await;
    let job = soaking(&bench).await;
    let mut watch = bench.home.start(&["watch", &job]);
    watch.hears("soak").await;
    watch.signal(Signal::INT);
    let (code, said) = watch.ends().await;
    assert_eq!(code, Some(130), "{said}");
    assert!(
        said.contains("goes on") && said.contains("aldis cancel"),
        "{said}"
    );
    let running = bench
        .aldis(&["list", "--state", "running", "-o", "name"])
        .await;
    assert_eq!(running.out.trim(), job);
    let said = bench.aldis(&["cancel", &job, "-y", "-w"]).await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(bench.aldis(&["wait", &job]).await.code, Some(6));
}

#[tokio::test]
async fn ctrl_c_on_a_terminal_detaches_too() {
    let bench = Bench::start(&TWO).await;
    let job = soaking(&bench).await;
    let mut terminal = Terminal::start(&bench.home, &["watch", &job]);
    terminal.shows("soak").await;
    terminal.interrupts().await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(130), "{shown}");
    assert!(shown.contains("goes on"), "{shown}");
}

#[tokio::test]
async fn what_cannot_be_put_back_ends_with_14_and_the_job_is_ended_by_closing_it() {
    let bench = Bench::start(&TWO).await;
    let job = soaking(&bench).await;
    let somebody = bench.practice.cluster(TWO[0]);
    assert!(somebody.interfere("shop", "checkout", "checkout:v9", "kubectl-edit"));
    let said = bench.aldis(&["cancel", &job, "--undo", "-y", "-w"]).await;
    assert_eq!(said.code, Some(14), "{said:?}");
    let question = format!("aldis resolve {} --target {}", &job[..14], TWO[0]);
    assert!(said.out.contains(&question), "{said:?}");
    let closed = bench.aldis(&["cancel", &job, "-y"]).await;
    assert_eq!(closed.code, Some(0), "{closed:?}");
    let view = bench.practice.until_ended(&job).await.unwrap();
    assert_eq!(aldis_tests::practice::rests(&view)[0], "needs-operator");
}

#[tokio::test]
async fn a_reader_that_left_is_no_error_and_a_full_disk_is_one() {
    let bench = Bench::start(&TWO).await;
    let mut list = bench.home.command(&["agents", "list"]);
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    list.stdout(Stdio::from(writer));
    let said = ended(list).await;
    assert_eq!((said.code, said.err.as_str()), (Some(0), ""));
    let mut list = bench.home.command(&["agents", "list"]);
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    list.stdout(Stdio::from(full.unwrap()));
    let said = ended(list).await;
    assert_eq!(said.code, Some(1), "{said:?}");
    assert!(said.err.contains("No space left"), "{said:?}");
}
