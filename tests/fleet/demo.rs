//! The story in two acts, on real API servers, with the commands that a person would type.
//!
//! 1. A bad release runs in every cluster: it is planned away, then rolled back in waves.
//! 2. A release that only one cluster can pull is deployed: it stops in the second wave and is put back everywhere.
//!
//! Each act ends with proof that is not ours: `kubectl` reads every cluster, and where nodes are real the shop's
//! callers say how they were served meanwhile. A proof that does not hold fails the demo.

use std::future::Future;
use std::path::Path;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::nodes::Nodes;
use aldis_tests::fleet::running::Running;
use aldis_tests::fleet::shop::Release;
use aldis_tests::fleet::system::System;
use aldis_tests::fleet::{Fleet, environment};
use anyhow::{Context, anyhow, ensure};
use tokio::process::Command;
use tokio::time::Instant;

use crate::callers::{self, Callers, Seen};
use crate::checkout::{self, BAD, GOOD, NAMESPACE, STRANDED};
use crate::down;
use crate::foreground::NAME;
use crate::size::Size;

/// Exit code of a job that failed and was put back.
const UNDONE: i32 = 4;

/// Tells it. An interrupted demo leaves nothing running.
pub(crate) async fn tell(folder: &Path, size: &Size) -> anyhow::Result<()> {
    ensure!(
        size.clusters() > 1,
        "the demo takes two clusters or more: its second act is of a release that only one can pull\n\nhint: `CLUSTERS=2 make demo`"
    );
    ensure!(
        down::runner(folder).is_none(),
        "a demo runs in {0} already\n\nhint: let it end, or stop it: `target/debug/aldis-fleet down --folder {0}`",
        folder.display()
    );
    down::sweep(folder)?;
    let nodes = size.check(folder)?;
    let made = Folder::make(folder)?;
    made.note_process(
        NAME,
        Running::me().context("read about this process")?.pid(),
    );
    let told = tokio::select! {
        told = tell_in(&made, size, nodes.nodes) => told,
        _ = tokio::signal::ctrl_c() => Err(anyhow!("interrupted; what was started is stopped")),
    };
    made.forget_process(NAME);
    told
}

async fn tell_in(folder: &Folder, size: &Size, nodes: Nodes) -> anyhow::Result<()> {
    let begun = Instant::now();
    heading(&format!(
        "Starting {}, and Aldis over them",
        size.about(nodes)
    ));
    checkout::build(nodes, |what| println!("  {what}")).await?;
    let started = Fleet::start_in(folder.clone(), size.options(|what| println!("  {what}")));
    let fleet = started.await?;
    environment::write(&fleet)?;
    let stage = Stage::set(&fleet).await?;
    stage.act_one().await?;
    stage.act_two().await?;
    drop(stage);
    drop(fleet);
    heading(&format!(
        "The end, after {:.0} s. Everything is stopped; logs are in {}",
        begun.elapsed().as_secs_f64(),
        folder.logs().display()
    ));
    Ok(())
}

struct Stage<'a> {
    fleet: &'a Fleet,
    system: &'a System,
    /// Where pods have addresses.
    callers: Option<Callers>,
}

impl<'a> Stage<'a> {
    async fn set(fleet: &'a Fleet) -> anyhow::Result<Self> {
        println!(
            "  releasing {} v2.17.4, then v2.18.0, in every cluster",
            checkout::NAME
        );
        let shop = checkout::application(&[GOOD, BAD]);
        checkout::release(fleet, &shop).await?;
        let callers = match fleet.nodes().nodes {
            Nodes::Real => {
                println!(
                    "  its callers begin: {} requests a second to each cluster",
                    callers::PER_SECOND
                );
                Some(Callers::start(fleet.clusters(), &shop))
            }
            Nodes::Simulated => {
                println!(
                    "  nobody calls the shop: simulated pods have no addresses, so no requests are counted below"
                );
                None
            }
        };
        Ok(Self {
            fleet,
            system: fleet.system()?,
            callers,
        })
    }

    async fn act_one(&self) -> anyhow::Result<()> {
        heading("Act 1: v2.18.0 answers every request with an error, in every cluster");
        self.proof(BAD).await?;
        let from = format!("from={BAD}");
        let service = format!("service={}", checkout::NAME);
        let namespace = format!("namespace={NAMESPACE}");
        let rollback = [
            "rollback-service",
            "-p",
            &service,
            "-p",
            &namespace,
            "-p",
            &from,
        ];
        println!("\nWhat would be done, asked of every cluster; nothing is touched:");
        let plan = self.plan(&[&["plan"], &rollback[..]].concat()).await?;
        println!("\nThat very plan, in waves; the canary soaks for half a minute:");
        let reason = "INC-2231 checkout answers 5xx";
        let submit = [
            "submit", "--plan", &plan, "--watch", "--yes", "--reason", reason,
        ];
        let seen = self.under_calls(self.aldis(&submit, 0)).await?;
        println!("\nProof, by kubectl:");
        self.proof(GOOD).await?;
        seen.map_or(Ok(()), |seen| seen.tell_of_a_cure())
    }

    async fn act_two(&self) -> anyhow::Result<()> {
        heading("Act 2: v2.19.0 is deployed, and only the canary can pull it");
        println!("Planned on every cluster, and begun without asking:");
        let image = format!("image={STRANDED}");
        let service = format!("service={}", checkout::NAME);
        let namespace = format!("namespace={NAMESPACE}");
        let deploy = [
            "deploy-image",
            "-p",
            &service,
            "-p",
            &namespace,
            "-p",
            &image,
        ];
        let submit = [&["submit"], &deploy[..], &["--watch", "--yes"]].concat();
        let seen = self.under_calls(self.aldis(&submit, UNDONE)).await?;
        println!("\nProof, by kubectl: every cluster runs what it ran before");
        self.proof(GOOD).await?;
        let release = Release::of_image(STRANDED);
        seen.map_or(Ok(()), |seen| seen.tell_of_no_harm(release.tag()))
    }

    /// Makes a change while callers call, where there are some.
    async fn under_calls(
        &self,
        change: impl Future<Output = anyhow::Result<()>>,
    ) -> anyhow::Result<Option<Seen>> {
        match &self.callers {
            Some(callers) => callers.see(change).await.map(Some),
            None => change.await.map(|()| None),
        }
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
                checkout::NAME,
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
