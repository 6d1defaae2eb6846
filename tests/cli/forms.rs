//! What stands on standard output: one JSON document, names and nothing else, or JSON lines of progress.

use serde_json::Value;

use crate::harness::{Bench, Home, Said, ended};
use crate::{DEPLOY, SLOW};

const TWO: [&str; 2] = ["eu-west/prod-1", "us-east/prod-1"];

/// The one document on standard output.
fn document(said: &Said) -> Value {
    serde_json::from_str(&said.out).unwrap_or_else(|error| panic!("{error}: {said:?}"))
}

/// Names, one a line.
fn names(said: &Said) -> Vec<&str> {
    let lines: Vec<&str> = said.out.lines().collect();
    for line in &lines {
        let bare = !line.is_empty() && !line.contains(char::is_whitespace);
        assert!(bare, "`{line}` is no name: {said:?}");
    }
    lines
}

#[tokio::test]
async fn whatever_lists_or_shows_is_one_document_or_names_alone() {
    let bench = Bench::start(&TWO).await;
    let plan = [&["plan"], &DEPLOY[1..], &["-o", "name"]].concat();
    let plan = names(&bench.aldis(&plan).await)[0].to_owned();
    let submit = ["submit", "--plan", &plan, "-y", "-w", "-o", "name"];
    let job = names(&bench.aldis(&submit).await)[0].to_owned();
    let runbook = bench.runbook(SLOW);
    let shown: [(&[&str], usize); 12] = [
        (&["plan", "show", &plan], 1),
        (&["status", &job], 1),
        (&["wait", &job], 1),
        (&["watch", &job], 1),
        (&["list"], 1),
        (&["describe", &job], 1),
        (&["agents", "list"], 2),
        (&["agents", "show", TWO[0]], 1),
        (&["runbook", "list"], 2),
        (&["runbook", "show", "deploy-image"], 1),
        (&["context", "list"], 1),
        (&["context", "show"], 1),
    ];
    for (command, count) in shown {
        let said = bench.aldis(&[command, &["-o", "json"]].concat()).await;
        assert_eq!(said.code, Some(0), "{command:?}: {said:?}");
        document(&said);
        let said = bench.aldis(&[command, &["-o", "name"]].concat()).await;
        assert_eq!(names(&said).len(), count, "{command:?}: {said:?}");
    }
    for command in [
        &["version"][..],
        &["whoami"],
        &["runbook", "validate", &runbook],
        &["runbook", "schema"],
        &["undo", &job, "--plan"],
    ] {
        let said = bench.aldis(&[command, &["-o", "json"]].concat()).await;
        assert_eq!(said.code, Some(0), "{command:?}: {said:?}");
        document(&said);
    }
}

#[tokio::test]
async fn log_lines_are_documents_of_a_line_each() {
    let bench = Bench::start(&TWO).await;
    let submit = [&DEPLOY[..], &["-y", "-w", "-o", "name"]].concat();
    let said = bench.aldis(&submit).await;
    let job = names(&said)[0];
    let said = bench.aldis(&["logs", job, "-o", "json"]).await;
    assert!(!said.out.is_empty(), "{said:?}");
    for line in said.out.lines() {
        let line: Value = serde_json::from_str(line).unwrap();
        assert_eq!(line["simulated"], true, "{line}");
    }
}

#[tokio::test]
async fn an_error_is_a_document_on_standard_error() {
    let bench = Bench::start(&[]).await;
    let said = bench.aldis(&["status", "j-00000000", "-o", "json"]).await;
    assert_eq!(said.out, "");
    let error: Value = serde_json::from_str(&said.err).unwrap();
    assert_eq!(error["error"]["exit"], 1, "{error}");
    assert!(error["error"]["request"].is_string(), "{error}");
}

#[tokio::test]
async fn a_submission_is_one_document_followed_or_not() {
    let bench = Bench::start(&TWO).await;
    let detached = [&DEPLOY[..], &["-y", "-d", "-o", "json"]].concat();
    let said = document(&bench.aldis(&detached).await);
    let job = said["job"].as_str().unwrap().to_owned();
    assert_eq!(said["existed"], false);
    let waited = bench.aldis(&["wait", &job, "-o", "json"]).await;
    assert_eq!(document(&waited)["header"]["id"], job.as_str());
    let back = [
        &DEPLOY[..7],
        &["image=checkout:v2.20.0", "-y", "-w", "-o", "json"],
    ]
    .concat();
    let said = document(&bench.aldis(&back).await);
    assert_eq!(said["exitCode"], 0, "{said}");
}

#[tokio::test]
async fn a_submission_that_is_followed_names_its_job_once() {
    let bench = Bench::start(&TWO).await;
    let said = bench
        .aldis(&[&DEPLOY[..], &["-y", "-w", "-o", "name"]].concat())
        .await;
    assert_eq!(names(&said).len(), 1, "{said:?}");
}

#[tokio::test]
async fn a_cancel_that_is_followed_is_one_document() {
    let bench = Bench::start(&TWO).await;
    let runbook = bench.runbook(SLOW);
    let said = bench
        .aldis(&["submit", &runbook, "-y", "-d", "-o", "name"])
        .await;
    let job = names(&said)[0];
    let said = bench
        .aldis(&["cancel", job, "-y", "-w", "-o", "json"])
        .await;
    assert_eq!(said.code, Some(0), "{said:?}");
    assert_eq!(document(&said)["header"]["state"]["kind"], "cancelled");
}

#[tokio::test]
async fn with_progress_as_json_every_line_of_standard_output_is_json() {
    let bench = Bench::start(&TWO).await;
    let lines = async |arguments: &[&str]| {
        let said = bench
            .aldis(&[arguments, &["-y", "-w", "--progress", "json"]].concat())
            .await;
        let parse = |line: &str| {
            serde_json::from_str::<Value>(line).unwrap_or_else(|_| panic!("`{line}`: {said:?}"))
        };
        said.out.lines().map(parse).collect::<Vec<_>>()
    };
    let told = lines(&DEPLOY).await;
    let job = told.last().unwrap()["job"].as_str().unwrap().to_owned();
    assert_eq!(told.last().unwrap()["type"], "end");
    assert_eq!(lines(&["undo", &job]).await.last().unwrap()["exit"], 0);
    let broken = [&DEPLOY[..7], &["image=checkout:broken"]].concat();
    let told = lines(&broken).await;
    let job = told.last().unwrap()["job"].as_str().unwrap().to_owned();
    assert_eq!(lines(&["retry", &job]).await.last().unwrap()["exit"], 4);
    let runbook = bench.runbook(SLOW);
    let said = bench
        .aldis(&["submit", &runbook, "-y", "-d", "-o", "name"])
        .await;
    let told = lines(&["cancel", names(&said)[0]]).await;
    assert_eq!(told.last().unwrap()["type"], "end", "{told:?}");
}
#[tokio::test]
async fn on_request_it_says_where_calls_go_and_under_which_trace() {
    let bench = Bench::start(&[]).await;
    let said = bench.aldis(&["list", "-v", "-o", "json"]).await;
    document(&said);
    let expected = format!("context test: {}", bench.server());
    assert!(
        said.err.contains(&expected) && said.err.contains("\ntrace "),
        "{said:?}"
    );
}

#[tokio::test]
async fn an_empty_variable_chooses_nothing_and_the_nearest_pin_does() {
    let home = Home::new();
    let text = "currentContext: one\ncontexts:\n  - {name: one, server: 'https://a', ca: ca.pem}\n  - {name: two, server: 'https://b', ca: ca.pem}\n";
    std::fs::write(home.config(), text).unwrap();
    let used = async |variable: Option<&str>| {
        let mut command = home.command(&["context", "show", "-o", "name"]);
        command.envs(variable.map(|name| ("ALDIS_CONTEXT", name)));
        ended(command).await.out.trim().to_owned()
    };
    assert_eq!(used(None).await, "one");
    assert_eq!(used(Some("")).await, "one");
    std::fs::write(home.path().join(".aldis.yaml"), "context: two\n").unwrap();
    assert_eq!(used(None).await, "two");
    assert_eq!(used(Some("one")).await, "one");
}
