//! etcd comes back from an old snapshot: the store went back in time, and what agents know is ahead of it.

use aldis_tests::fleet::etcd::Restore;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::practice::rests;
use anyhow::ensure;

use aldis_tests::stage::{PATIENCE, Stage, joined};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";

#[tokio::test]
async fn after_a_restore_all_dispatch_stops_until_the_incarnation_is_raised_and_nothing_runs_twice()
{
    for (how, namespace) in [
        (Restore::AsItWas, "restored"),
        (Restore::WithRevisionsBumped, "restored-bumped"),
    ] {
        let stage = Stage::alone(fleet().await, namespace).await;
        stage.release(&[OLD]).await.unwrap();
        let etcd = stage.system().plane().store().unwrap();
        let snapshot = etcd.snapshot(&format!("{namespace}.db")).await.unwrap();
        let deploy = |image: &'static str| stage.words("deploy-image", &[image]);
        let (code, _) = stage.run(&deploy("image=shop/checkout:v2")).await.unwrap();
        assert_eq!(code, 0);
        let before = stage.seen_everywhere().await.unwrap();

        etcd.restore(&snapshot, how).await.unwrap();
        says_that_all_is_stopped(&stage).await;
        // Planned or not, nothing of it is begun.
        let plan = stage
            .aldis(&joined(
                &["submit", "--yes", "--detach", "-o", "name"],
                &deploy("image=shop/checkout:v3"),
            ))
            .await
            .unwrap();
        let replicas = stage.system().plane().replicas();
        for replica in replicas {
            replica.process().stop();
            replica.process().start_again().unwrap();
        }
        says_that_all_is_stopped(&stage).await;
        assert_eq!(
            stage.changes_since(&before).await.unwrap(),
            [0; 4],
            "{plan}"
        );

        let config = stage.system().plane().files().join("cp-1.yaml");
        let raised =
            tokio::process::Command::new(stage.system().programs().path("aldis-control-plane"))
                .args([
                    "raise-incarnation",
                    "--reason",
                    "restored from a snapshot",
                    "--config",
                ])
                .arg(config)
                .output()
                .await
                .unwrap();
        assert!(
            raised.status.success(),
            "{}",
            String::from_utf8_lossy(&raised.stderr)
        );
        stage.system().until_live().await.unwrap();
        let mut orphans = 0;
        for target in aldis_tests::stage::ALL {
            let shown: serde_json::Value = stage
                .aldis(&["agents", "show", target, "-o", "json"])
                .await
                .unwrap()
                .json()
                .unwrap();
            orphans += shown["orphans"].as_array().map_or(0, Vec::len);
        }
        assert!(
            orphans >= 4,
            "each agent's attempt of the lost job is listed: {orphans}"
        );
        assert_eq!(
            stage.changes_since(&before).await.unwrap(),
            [0; 4],
            "nothing ran twice"
        );
        // An agent that was heard before the replicas took the new incarnation in comes once more.
        let words = deploy("image=shop/checkout:v4");
        eventually(PATIENCE, "every cluster can be planned on", || async {
            stage.aldis(&joined(&["plan"], &words)).await?.ended(0)?;
            Ok(())
        })
        .await
        .unwrap();
        let (code, view) = stage.run(&words).await.unwrap();
        assert_eq!((code, rests(&view)), (0, vec!["changed"; 4]));
        assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    }
}

/// Also after every replica was started again: it is written down, and on the word of those who know.
async fn says_that_all_is_stopped(stage: &Stage) {
    eventually(PATIENCE, "dispatch stops and says why", || async {
        let said = stage.aldis(&["agents", "list"]).await?;
        let words = format!("{}{}", said.out, said.err);
        ensure!(
            words.contains("held") || words.contains("back in time"),
            "{said}"
        );
        Ok(())
    })
    .await
    .unwrap();
}
