//! The story in two acts, on real API servers, with the commands that a person would type.
//!
//! 1. A bad release runs in every cluster: it is planned away, then rolled back in waves.
//! 2. A release that only one cluster can pull is deployed: it stops in the second wave and is put back everywhere.
//!
//! Each act ends with proof that is not ours: `kubectl` reads every cluster. A proof that does not hold fails the demo.

use std::path::Path;

use aldis_tests::fleet::Fleet;
use aldis_tests::fleet::application::Application;
use aldis_tests::fleet::environment;
use aldis_tests::fleet::system::System;
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::process::Command;
use tokio::time::Instant;

use crate::size::Size;

const NAMESPACE: &str = "shop";
const SERVICE: &str = "checkout";
const GOOD: &str = "shop/checkout:v2.17.4";

/// Answers every request with an error (see the fleet's `behaviour.rs`).
const BAD: &str = "shop/checkout:v2.18.0-failing";

/// Only the canary's registry has it.
const STRANDED: &str = "shop/checkout:v2.19.0-only-in-eu-west-prod-1";

/// Exit code of a job that failed and was put back.
const UNDONE: i32 = 4;

/// Tells it.
pub(crate) async fn tell(folder: &Path, size: &Size) -> anyhow::Result<()> {
    size.check(folder)?;
    let begun = Instant::now();
    heading(&format!("Starting {} with Aldis over them", size.about()));
    let fleet = Fleet::start(folder, size.options(|what| println!("  {what}"))).await?;
    environment::write(&fleet)?;
    let stage = Stage {
        fleet: &fleet,
        system: fleet.system()?,
    };
    stage.release_everywhere().await?;
    stage.act_one().await?;
    stage.act_two().await?;
    drop(fleet);
    heading(&format!(
        "The end, after {:.0} s. Everything is stopped; logs are in {}",
        begun.elapsed().as_secs_f64(),
        folder.display()
    ));
    Ok(())
}

struct Stage<'a> {
    fleet: &'a Fleet,
    system: &'a System,
}

impl Stage<'_> {
    async fn release_everywhere(&self) -> anyhow::Result<()> {
        println!("  releasing {SERVICE} v2.17.4, then v2.18.0, in every cluster");
        let app = Application::new(NAMESPACE, SERVICE, [GOOD, BAD]);
        let clients = self.fleet.clusters().iter().map(|cluster| cluster.client());
        try_join_all(clients.map(|client| {
            let app = app.clone();
            async move { app.release(&client).await }
        }))
        .await?;
        Ok(())
    }

    async fn act_one(&self) -> anyhow::Result<()> {
        heading("Act 1: v2.18.0 answers every request with an error, in every cluster");
        self.proof(BAD).await?;
        let from = format!("from={BAD}");
        let rollback = [
            "rollback-service",
            "-p",
            "service=checkout",
            "-p",
            "namespace=shop",
            "-p",
            &from,
        ];
        println!("\nWhat would be done, asked of every cluster; nothing is touched:");
        let plan = self.plan(&[&["plan"], &rollback[..]].concat()).await?;
        println!("\nThat very plan, in waves; the canary soaks for half a minute:");
        let reason = "INC-2231 checkout answers 5xx";
        self.aldis(
            &[
                "submit", "--plan", &plan, "--watch", "--yes", "--reason", reason,
            ],
            0,
        )
        .await?;
        println!("\nProof, by kubectl:");
        self.proof(GOOD).await
    }

    async fn act_two(&self) -> anyhow::Result<()> {
        heading("Act 2: v2.19.0 is deployed, and only the canary can pull it");
        let image = format!("image={STRANDED}");
        let deploy = [
            "deploy-image",
            "-p",
            "service=checkout",
            "-p",
            "namespace=shop",
            "-p",
            &image,
        ];
        self.aldis(
            &[&["submit"], &deploy[..], &["--watch", "--yes"]].concat(),
            UNDONE,
        )
        .await?;
        println!("\nProof, by kubectl: every cluster runs what it ran before");
        self.proof(GOOD).await
    }

    /// Types a command that plans; the id that its last lines name.
    async fn plan(&self, words: &[&str]) -> anyhow::Result<String> {
        typed(words);
        let said = self.system.command_line().run(words).await?.ended(0)?;
        print!("{}", said.out);
        let named = said
            .out
            .split_once("aldis submit --plan ")
            .context("a plan names itself")?
            .1;
        Ok(named
            .split_whitespace()
            .next()
            .context("a plan has an id")?
            .to_owned())
    }

    /// Types a command, and holds its exit code against what the story says.
    async fn aldis(&self, words: &[&str], expected: i32) -> anyhow::Result<()> {
        typed(words);
        let status = self
            .system
            .command_line()
            .command(words)
            .status()
            .await
            .context("run aldis")?;
        println!("(exit code {})", status.code().unwrap_or(-1));
        ensure!(
            status.code() == Some(expected),
            "the story says exit code {expected}, not {status}"
        );
        Ok(())
    }

    /// Reads the image of every cluster by kubectl.
    async fn proof(&self, expected: &str) -> anyhow::Result<()> {
        for cluster in self.fleet.clusters() {
            let context = cluster.target().to_string();
            let words = [
                "get",
                "deployment",
                SERVICE,
                "-o",
                "jsonpath={..image} ready {.status.readyReplicas}/{.spec.replicas}",
            ];
            let output = Command::new(self.system.programs().path("kubectl"))
                .args(["--context", &context, "--namespace", NAMESPACE])
                .args(words)
                .env("KUBECONFIG", self.fleet.folder().path("kubeconfig"))
                .output()
                .await
                .context("run kubectl")?;
            let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
            println!("  {context:<16} {said}");
            ensure!(
                said.starts_with(&format!("{expected} ready ")),
                "{context}: expected {expected}; kubectl said: {said}{}",
                String::from_utf8_lossy(&output.stderr)
            );
        }
        Ok(())
    }
}

fn typed(words: &[&str]) {
    let shown: Vec<String> = words.iter().map(|word| shown(word)).collect();
    println!("\n$ aldis {}\n", shown.join(" "));
}

fn heading(text: &str) {
    println!("\n━━ {text}\n");
}

/// A word as it would be typed.
fn shown(word: &str) -> String {
    if word.contains(' ') {
        format!("'{word}'")
    } else {
        word.to_owned()
    }
}
