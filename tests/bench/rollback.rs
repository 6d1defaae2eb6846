//! From the submission to the last of four real clusters rolled back, beside a shell that does the same with `kubectl`
//! on all of them at once.
//!
//! Plans are made before the clock starts: the shell has none. Pods are simulated and ready after 0.3 s, so what is
//! compared is what each adds to a rollout.

use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_tests::fleet::application::Application;
use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use aldis_tests::fleet::{Fleet, Options, environment};
use anyhow::{Context, ensure};
use futures::future::try_join_all;
use tokio::time::Instant;

use crate::figure::{Figure, percentile};

/// Rounds of each; the median is shown.
const ROUNDS: usize = 7;

const NAMESPACE: &str = "bench";
const IMAGES: [&str; 2] = ["shop/checkout:v1", "shop/checkout:v2"];

/// What the shell does, as a runbook: one wave, the undo, the wait.
const BARE: &str = r#"apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: rollback-bare}
spec:
  direction: remedy
  params: {type: object, required: [from], properties: {from: {type: string}}}
  targets: {select: {matchLabels: {env: prod}}}
  rollout: {waves: [{pick: {percent: 100}, maxParallel: 8}], maxFailures: 0}
  steps:
    - {id: rollback, use: kube.rollout-undo@v1, with: {deployment: checkout, namespace: bench, from: "${params.from}", to: previous}, undo: auto}
    - {id: wait_rollout, use: kube.wait@v1, with: {deployment: checkout, namespace: bench, for: rolledOut}, timeout: 2m}
"#;

/// Measures in a folder that is thrown away.
pub(crate) async fn measure() -> anyhow::Result<Vec<Figure>> {
    let folder = tempfile::tempdir()?;
    let options = Options {
        system: Some(system::Options {
            source: Source::BesideMe,
            store: Store::Etcd,
            times: Times::AsShipped,
        }),
        ..Options::default()
    };
    let fleet = Fleet::start(folder.path(), options).await?;
    environment::write(&fleet)?;
    let app = Application::new(NAMESPACE, "checkout", IMAGES);
    let clients = fleet.clusters().iter().map(|cluster| cluster.client());
    try_join_all(clients.map(|client| {
        let app = app.clone();
        async move { app.release(&client).await }
    }))
    .await?;
    let course = Course {
        fleet: &fleet,
        bare: fleet.folder().write("bare.yaml", BARE)?,
        full: full(&fleet)?,
    };
    let (mut bare, mut full, mut shell) = (Vec::new(), Vec::new(), Vec::new());
    // Each round goes back and forth between the two images, so all three start from the same two states.
    let mut runs = IMAGES.iter().rev().cycle();
    for _ in 0..ROUNDS {
        bare.push(
            course
                .ours(&course.bare, runs.next().context("endless")?, &[])
                .await?,
        );
        shell.push(course.shell().await?);
        runs.next();
        let params = ["-p", "service=checkout", "-p", "namespace=bench"];
        full.push(
            course
                .ours(&course.full, runs.next().context("endless")?, &params)
                .await?,
        );
    }
    let peer = (
        "kubectl rollout undo and status, in parallel".to_owned(),
        seconds(&mut shell),
    );
    let figure = |name: &str, times: &mut Vec<Duration>, aim| Figure {
        name: name.to_owned(),
        unit: "s",
        ours: seconds(times),
        beside: Some(peer.clone()),
        aim,
    };
    Ok(vec![
        figure("rollback of 4 clusters, undo and wait", &mut bare, "<= 1.3"),
        figure("rollback of 4 clusters, checked and probed", &mut full, ""),
    ])
}

fn seconds(times: &mut [Duration]) -> f64 {
    percentile(times, 0.5).as_secs_f64()
}

/// The built-in rollback in one wave without a soak: with its checks before and its probe after.
fn full(fleet: &Fleet) -> anyhow::Result<PathBuf> {
    let text = include_str!("../../runbooks/rollback-service.yaml");
    let (before, rest) = text.split_once("    waves:\n").context("it has waves")?;
    let (_, after) = rest
        .split_once("    maxFailures:")
        .context("it has a budget")?;
    let wave =
        "    waves:\n      - {name: all, pick: {percent: 100}, maxParallel: 8}\n    maxFailures:";
    let text = format!("{before}{wave}{after}")
        .replace("name: rollback-service", "name: rollback-in-one-wave");
    fleet.folder().write("full.yaml", text)
}

struct Course<'a> {
    fleet: &'a Fleet,
    bare: PathBuf,
    full: PathBuf,
}

impl Course<'_> {
    async fn ours(&self, file: &Path, from: &str, params: &[&str]) -> anyhow::Result<Duration> {
        let aldis = self.fleet.system()?.command_line();
        let from = format!("from={from}");
        let file = file.display().to_string();
        let plan = aldis
            .run(&[&["plan", &file, "-o", "name", "-p", &from], params].concat())
            .await?
            .ended(0)?;
        let begun = Instant::now();
        aldis
            .run(&[
                "submit",
                "--plan",
                plan.out.trim(),
                "--yes",
                "--watch",
                "--progress",
                "quiet",
            ])
            .await?
            .ended(0)?;
        Ok(begun.elapsed())
    }

    async fn shell(&self) -> anyhow::Result<Duration> {
        let kubectl = self.fleet.system()?.programs().path("kubectl");
        let contexts: Vec<String> = self
            .fleet
            .clusters()
            .iter()
            .map(|c| c.target().to_string())
            .collect();
        let script = format!(
            "for c in {}; do (k() {{ {} --context $c -n {NAMESPACE} rollout \"$@\" deployment/checkout; }}; k undo && k status) & done; wait",
            contexts.join(" "),
            kubectl.display()
        );
        let begun = Instant::now();
        let output = tokio::process::Command::new("sh")
            .args(["-c", &script])
            .env("KUBECONFIG", self.fleet.folder().path("kubeconfig"))
            .output()
            .await
            .context("run the shell loop")?;
        let took = begun.elapsed();
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        let done = String::from_utf8_lossy(&output.stdout)
            .matches("successfully rolled out")
            .count();
        ensure!(
            done == contexts.len(),
            "{done} of {} rolled out",
            contexts.len()
        );
        Ok(took)
    }
}
