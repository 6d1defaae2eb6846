//! Who is let in, and whether the cluster behind an agent is the one that it was.

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use aldis_core::view::JobView;
use aldis_tests::fleet::cluster::{Cluster, kubeconfig};
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::system::command_line::{CommandLine, USER};
use aldis_tests::pki::{Authority, Request};
use aldis_tests::practice::rests;
use anyhow::ensure;

use aldis_tests::stage::{PATIENCE, Stage, joined};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";

/// A command line of somebody, under this authority.
fn somebody(
    stage: &Stage,
    name: &str,
    authority: Option<&Authority>,
    who: &Request,
) -> CommandLine {
    let (system, folder) = (stage.system(), stage.fleet.folder());
    let authority = authority.unwrap_or(system.plane().authority());
    let folder_name = format!("{}-{name}", stage.namespace);
    CommandLine::signed_by(
        folder,
        system.programs(),
        system.plane(),
        authority,
        &folder_name,
        who,
    )
    .unwrap()
}

/// What the replicas logged since they were started.
fn logged(stage: &Stage) -> String {
    let replicas = stage.system().plane().replicas().iter();
    replicas
        .map(|replica| std::fs::read_to_string(replica.process().log()).unwrap_or_default())
        .collect()
}

#[tokio::test]
async fn who_is_not_known_is_refused_with_a_reason_on_both_sides() {
    let stage = Stage::shared(fleet().await, "strangers").await;
    let user = Request::user(USER);
    let stranger = Authority::new("somebody else").unwrap();
    let agent = Request::agent("eu-west", "prod-1", "1");
    for (name, authority, who, code, said_here, said_there) in [
        (
            "another-ca",
            Some(&stranger),
            user.clone(),
            11,
            "certificate",
            "handshake",
        ),
        (
            "expired",
            None,
            user.clone().expired(),
            11,
            "expired",
            "expired",
        ),
        (
            "an-agent",
            None,
            agent,
            11,
            "may not call",
            "eu-west/prod-1",
        ),
    ] {
        let cli = somebody(&stage, name, authority, &who);
        let said = cli.run(&["list"]).await.unwrap().ended(code).unwrap();
        assert!(
            said.err.to_lowercase().contains(said_here),
            "{name}: {said}"
        );
        assert!(said.err.contains("hint:"), "{name}: {said}");
        // The command line does not even try with a certificate that it sees to be expired: others would.
        for replica in stage.system().plane().replicas() {
            let _ = stage.system().plane().connect(replica, &who).await;
        }
        let log = logged(&stage);
        assert!(
            log.to_lowercase().contains(said_there),
            "{name}: the server's log names the reason: {log}"
        );
    }
    let cli = somebody(&stage, "nobody", None, &user);
    let config = std::fs::read_to_string(cli.config()).unwrap();
    let (before, _) = config.split_once("auth:").unwrap();
    std::fs::write(cli.config(), before.trim_end()).unwrap();
    let said = cli.run(&["list"]).await.unwrap().ended(11).unwrap();
    assert!(said.err.contains("certificate"), "{said}");
}

#[tokio::test]
async fn one_key_is_one_job_and_another_body_under_it_is_refused() {
    let stage = Stage::shared(fleet().await, "one-key").await;
    stage.release(&[OLD]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let deploy = |image: &'static str| stage.words("deploy-image", &[image]);
    let plan = stage
        .plan(&deploy("image=shop/checkout:v2"))
        .await
        .unwrap()
        .plan
        .id
        .to_string();
    let other = stage
        .plan(&deploy("image=shop/checkout:v3"))
        .await
        .unwrap()
        .plan
        .id
        .to_string();
    let key = ["--idempotency-key", "release-2"];
    let first = stage
        .submit(&[&["--plan", &plan], &key[..]].concat())
        .await
        .unwrap();
    let again = stage
        .submit(&[&["--plan", &plan], &key[..]].concat())
        .await
        .unwrap();
    assert_eq!(first, again);
    let words = [&["submit", "--yes", "--detach", "--plan", &other], &key[..]].concat();
    let refused = stage.aldis(&words).await.unwrap();
    assert!(
        refused.code != 0 && refused.err.contains("idempotency key"),
        "{refused}"
    );
    let (code, view) = stage.ended(&first).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
    let late = stage
        .submit(&[&["--plan", &plan], &key[..]].concat())
        .await
        .unwrap();
    assert_eq!(late, first, "also after its end");
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
}

/// An entry of a kubeconfig that has one cluster's name and leads to another.
fn leads_elsewhere(named: &Cluster, to: &Cluster) -> String {
    let mut entry = to.entry("agent");
    entry.context = named.target().to_string();
    kubeconfig::render(&[entry])
}

#[tokio::test]
async fn two_kubeconfig_entries_that_were_swapped_are_refused_by_identity() {
    let stage = Stage::alone(fleet().await, "swapped").await;
    stage.release(&[OLD]).await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let pair =
        ["eu-west/prod-1", "us-east/prod-1"].map(|target| stage.fleet.cluster(target).unwrap());
    let files = pair.map(|cluster| {
        (
            cluster.agent_kubeconfig(),
            std::fs::read_to_string(cluster.agent_kubeconfig()).unwrap(),
        )
    });
    for ((file, _), (named, to)) in files.iter().zip([(pair[0], pair[1]), (pair[1], pair[0])]) {
        std::fs::write(file, leads_elsewhere(named, to)).unwrap();
    }
    let restart = || {
        for cluster in pair {
            let process = stage
                .system()
                .agent(&cluster.target().to_string())
                .unwrap()
                .process()
                .unwrap();
            process.stop();
            process.start_again().unwrap();
        }
    };
    restart();
    eventually(PATIENCE, "both are refused by name", || async {
        let said = stage.aldis(&["agents", "list"]).await?;
        for cluster in pair {
            let target = cluster.target().to_string();
            let shown = stage.aldis(&["agents", "show", &target]).await?;
            ensure!(
                shown.out.contains("another cluster") || shown.out.contains("repin"),
                "{shown}\n{said}"
            );
        }
        Ok(())
    })
    .await
    .unwrap();
    let words = stage.words("deploy-image", &["image=shop/checkout:v2"]);
    let submit = joined(&["submit", "--yes"], &words);
    let said = stage.aldis(&submit).await.unwrap().ended(13).unwrap();
    assert!(said.err.contains("eu-west/prod-1"), "{said}");
    assert_eq!(stage.changes_since(&before).await.unwrap(), [0; 4]);
    for (file, text) in &files {
        std::fs::write(file, text).unwrap();
    }
    restart();
    stage.system().until_live().await.unwrap();
}

#[tokio::test]
async fn of_two_agents_with_one_identity_neither_is_given_work_until_one_is_gone() {
    let stage = Stage::alone(fleet().await, "twins").await;
    stage.release(&[OLD]).await.unwrap();
    let target = "eu-west/prod-1";
    let agent = stage.system().agent(target).unwrap();
    let twin = agent
        .start_twin(stage.fleet.folder(), stage.system().programs())
        .unwrap();
    let contested = || async {
        let shown = stage
            .aldis(&["agents", "show", target, "-o", "json"])
            .await?;
        let shown: serde_json::Value = shown.json()?;
        ensure!(shown["state"] == "contested", "{shown}");
        Ok(())
    };
    eventually(PATIENCE, "it is contested", contested)
        .await
        .unwrap();
    // Planned on the others, deferred here: what is contested counts as away.
    let words = stage.words("deploy-image", &["image=shop/checkout:v2"]);
    let submit = joined(&["submit", "--yes"], &words);
    let said = stage.aldis(&submit).await.unwrap().ended(13).unwrap();
    assert!(said.err.contains(target), "{said}");
    drop(twin);
    stage.system().until_live().await.unwrap();
    let before = stage.seen_everywhere().await.unwrap();
    let (code, view): (i32, JobView) = stage.run(&words).await.unwrap();
    assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
}

/// Files below a folder that hold a key by their name.
fn keys(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in folder.read_dir().into_iter().flatten().flatten() {
        let path = entry.path();
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            found.extend(keys(&path));
        } else if path.extension().is_some_and(|end| end == "key") {
            found.push(path);
        }
    }
    found
}

#[tokio::test]
async fn keys_of_a_fleet_are_for_its_owner_only() {
    let fleet = fleet().await;
    let keys = keys(fleet.folder().root());
    assert!(keys.len() > 10, "{keys:?}");
    let open = |path: &&PathBuf| {
        let mode = path.metadata().unwrap().permissions().mode();
        mode & 0o077 != 0
    };
    let open: Vec<&PathBuf> = keys.iter().filter(open).collect();
    assert!(open.is_empty(), "others may read {open:?}");
}
