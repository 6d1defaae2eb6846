//! One submission, one job: also where its answer was lost, and where it is made again.

use aldis_tests::fleet::ready::eventually;
use aldis_tests::plane::Plane;
use aldis_tests::practice::{PATIENCE, Practice};
use aldis_tests::proxy::{Fault, Proxy};
use anyhow::ensure;

use crate::harness::{Bench, Home, Said, Terminal};
use crate::{DEPLOY, SLOW};

const ONE: [&str; 1] = ["eu-west/prod-1"];

async fn jobs(bench: &Bench) -> Vec<String> {
    let said = bench.aldis(&["list", "-o", "name"]).await;
    said.out.lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn one_key_twice_is_one_job_and_another_body_under_it_is_refused() {
    let bench = Bench::start(&ONE).await;
    let keyed = [
        &DEPLOY[..],
        &["-y", "-d", "--idempotency-key", "k-1", "-o", "name"],
    ]
    .concat();
    let first = bench.aldis(&keyed).await;
    let again = bench.aldis(&keyed).await;
    assert_eq!((first.code, again.code), (Some(0), Some(0)), "{again:?}");
    assert_eq!(first.out, again.out);
    for other in [["--reason", "INC-7"], ["-p", "image=checkout:v2.20.0"]] {
        let said = bench.aldis(&[&keyed[..], &other].concat()).await;
        assert_eq!(said.code, Some(13), "{said:?}");
        assert!(said.err.contains("idempotency key"), "{said:?}");
    }
    assert_eq!(jobs(&bench).await.len(), 1);
}

#[tokio::test]
async fn an_expired_plan_is_refused_unless_it_became_a_job() {
    let home = Home::new();
    let plane = Plane::start_with("planExpiry: 20s").await.unwrap();
    let practice = Practice::on(plane, &ONE, PATIENCE).await.unwrap();
    let bench = Bench::before(home, practice);
    let plan = [&["plan"], &DEPLOY[1..], &["-o", "name"]].concat();
    let (ours, other) = (bench.aldis(&plan).await, bench.aldis(&plan).await);
    let submit = async |plan: &Said| {
        let submit = [
            "submit",
            "--plan",
            plan.out.trim(),
            "-y",
            "-d",
            "-o",
            "name",
        ];
        bench.aldis(&submit).await
    };
    let first = submit(&ours).await;
    assert_eq!(first.code, Some(0), "{first:?}");
    let expired = ["plan", "show", other.out.trim(), "-o", "json"];
    let is_expired = || async {
        let said = bench.aldis(&expired).await;
        ensure!(said.out.contains("\"expired\": true"), "{said:?}");
        Ok(())
    };
    eventually(PATIENCE, "the plan expires", is_expired)
        .await
        .unwrap();
    let refused = submit(&other).await;
    assert_eq!(refused.code, Some(13), "{refused:?}");
    assert!(refused.err.contains("expired"), "{refused:?}");
    let again = submit(&ours).await;
    assert_eq!((again.code, again.out), (Some(0), first.out));
}

/// The command that a message says to type, without its first word.
fn said_to_type(text: &str) -> Vec<String> {
    let at = text.find("aldis submit --plan").expect("a command to type");
    let command = text[at..].lines().next().unwrap();
    let command = command.split(['`', '(', '\r']).next().unwrap();
    let words = command.split_whitespace().skip(1);
    words
        .map(|word| word.trim_matches('\'').to_owned())
        .collect()
}

async fn type_it(home: &Home, words: &[String]) -> Said {
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    home.aldis(&[&words[..], &["-y", "-d", "-o", "name"]].concat())
        .await
}

/// A submission that is asked about over a link that can be broken meanwhile.
async fn asked(bench: &Bench, link: &Proxy, more: &[&str]) -> Terminal {
    let server = format!("https://localhost:{}", link.address().port());
    let arguments = [&DEPLOY[..], &["-d", "--server", &server], more].concat();
    let mut terminal = Terminal::start(&bench.home, &arguments);
    terminal.shows("[y/N]").await;
    terminal
}

#[tokio::test]
async fn a_lost_answer_is_not_called_a_failure_and_the_command_it_names_makes_no_second_job() {
    let bench = Bench::start(&ONE).await;
    let upstream = bench.practice.plane.addresses()[0];
    let link = Proxy::start("link", upstream).await.unwrap();
    let mut terminal = asked(&bench, &link, &["--reason", "INC-7"]).await;
    link.set(Fault::Cut);
    terminal.types("y").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(12), "{shown}");
    assert!(
        shown.contains("whether a job was made is not known"),
        "{shown}"
    );
    assert!(!shown.contains("nothing is lost"), "{shown}");
    link.set(Fault::Pass);
    let words = said_to_type(&shown);
    let (first, again) = (
        type_it(&bench.home, &words).await,
        type_it(&bench.home, &words).await,
    );
    assert_eq!((first.code, again.code), (Some(0), Some(0)), "{first:?}");
    assert_eq!(jobs(&bench).await, [first.out.trim()]);
}

#[tokio::test]
async fn leaving_while_a_plan_is_submitted_names_the_whole_command_that_finds_out() {
    let bench = Bench::start(&ONE).await;
    let upstream = bench.practice.plane.addresses()[0];
    let link = Proxy::start("link", upstream).await.unwrap();
    let more = [
        "--idempotency-key",
        "k-2",
        "--reason",
        "INC-7",
        "--priority",
        "3",
        "--timeout",
        "10s",
    ];
    let mut terminal = asked(&bench, &link, &more).await;
    link.set(Fault::BlackHole);
    terminal.types("y").await;
    let (code, shown) = terminal.ends().await;
    assert_eq!(code, Some(7), "{shown}");
    // What was under way arrives, though nobody waits for its answer any more.
    link.set(Fault::Pass);
    let words = said_to_type(&shown);
    let said = type_it(&bench.home, &words).await;
    assert_eq!(said.code, Some(0), "{said:?} of {words:?}");
    assert_eq!(jobs(&bench).await, [said.out.trim()]);
    for part in ["k-2", "INC-7", "3"] {
        assert!(words.iter().any(|word| word == part), "{words:?}");
    }
}

#[tokio::test]
async fn a_request_whose_answer_does_not_come_is_not_said_to_have_changed_nothing() {
    let bench = Bench::start(&ONE).await;
    let upstream = bench.practice.plane.addresses()[0];
    let link = Proxy::start("link", upstream).await.unwrap();
    let server = format!("https://localhost:{}", link.address().port());
    link.set(Fault::BlackHole);
    let runbook = bench.runbook(SLOW);
    let said = bench
        .aldis(&[
            "runbook",
            "push",
            &runbook,
            "-y",
            "--server",
            &server,
            "--timeout",
            "2s",
        ])
        .await;
    assert_eq!(said.code, Some(7), "{said:?}");
    assert!(!said.err.contains("nothing was changed"), "{said:?}");
    assert!(said.err.contains("aldis runbook list"), "{said:?}");
}
