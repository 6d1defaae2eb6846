//! Links that fail: between an agent and the control plane, between a replica and etcd.

use aldis_core::ids::StepId;
use aldis_core::job::{JobState, TargetState};
use aldis_core::outcome::StepState;
use aldis_core::view::JobView;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::practice::rests;
use aldis_tests::proxy::Fault;
use anyhow::ensure;

use aldis_tests::runbooks;
use aldis_tests::stage::{PATIENCE, Stage, name, state};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";
const NEW: &str = "shop/checkout:v2";
const FAR: &str = "us-east/prod-2";

/// Two segments over all clusters at once: after the change each waits at a barrier for the others.
fn in_two_segments(stage: &Stage) -> Vec<String> {
    let (waves_begin, rest) = runbooks::DEPLOY.split_once("    waves:\n").unwrap();
    let (_, budget) = rest.split_once("    maxFailures: 0").unwrap();
    let text = format!("{waves_begin}    waves:\n      - {{name: all, pick: {{percent: 100}}, maxParallel: 8}}\n    maxFailures: 1{budget}")
        .replace("name: deploy-image", "name: deploy-in-step")
        .replace("failAfterNoProgress: 2m}\n      timeout: 10m\n", "failAfterNoProgress: 2m}\n      timeout: 10m\n      barrier: true\n");
    let after = "    - id: second_look\n      use: kube.get@v1\n      with: {kind: Deployment, name: \"${params.service}\", namespace: \"${params.namespace}\"}\n  verify:\n";
    let text = text.replace("  verify:\n", after);
    let file = stage.file("deploy.yaml", &text).unwrap();
    let image = format!("image={NEW}");
    stage.words(file.to_str().unwrap(), &[&image])
}

/// Whether the far cluster is in the middle of its change: what it begins after that waits for the others.
fn is_changing(view: &JobView) -> bool {
    let steps = &view.targets[&name(FAR)].steps;
    let begun =
        |(id, step): &(StepId, StepState)| id.as_str() == "set_image" && step.may_have_effect();
    matches!(state(view, FAR), TargetState::Running { .. }) && steps.iter().any(begun)
}

fn links(stage: &Stage, target: &str, fault: Fault) {
    stage
        .system()
        .agent(target)
        .unwrap()
        .links()
        .iter()
        .for_each(|link| link.set(fault));
}

async fn slow_release(stage: &Stage) {
    let mut app = stage.application(&[OLD]);
    app.pod_annotations
        .insert("fleet.aldis.dev/ready-after".to_owned(), "2s".to_owned());
    stage.release_as(&app).await.unwrap();
}

#[tokio::test]
async fn an_agent_cut_off_beyond_its_permit_ends_its_segment_begins_no_other_and_is_heard_after_healing()
 {
    for fault in [Fault::Cut, Fault::BlackHole] {
        let stage = Stage::alone(
            fleet().await,
            &format!("cut-off-{}", fault.to_string().replace('/', "-")),
        )
        .await;
        slow_release(&stage).await;
        let before = stage.seen_everywhere().await.unwrap();
        let job = stage.submit(&in_two_segments(&stage)).await.unwrap();
        stage
            .until(&job, "all are at work", is_changing)
            .await
            .unwrap();
        links(&stage, FAR, fault);
        // Longer than a permit and the patience with absent agents, both 6 s or less here.
        let named = |view: &JobView| {
            let absent = view.waiting.iter().any(|waiting| {
                waiting.text.contains(FAR)
                    && waiting.text.contains("absent")
                    && waiting.next.is_some()
            });
            let others = ["eu-west/prod-1", "eu-west/prod-2", "us-east/prod-1"];
            absent
                && others
                    .iter()
                    .all(|target| matches!(state(view, target), TargetState::AtBarrier { .. }))
        };
        stage
            .until(
                &job,
                "the others are at the barrier, it is absent by name",
                named,
            )
            .await
            .unwrap();
        // Cut off, it went on to its safe point: what it had begun is done.
        eventually(PATIENCE, "its segment reaches its end", || async {
            let seen = stage.seen(FAR).await?;
            ensure!(seen.images == [NEW] && seen.available == 3, "{seen:?}");
            Ok(())
        })
        .await
        .unwrap();
        let view = stage.view(&job).await.unwrap();
        assert!(!view.header.state.is_ended(), "{:?}", view.header.state);
        let begun = |step: &str| {
            view.targets
                .values()
                .filter(|t| {
                    t.steps
                        .iter()
                        .any(|(id, s)| id.as_str() == step && *s != StepState::NotStarted)
                })
                .count()
        };
        assert_eq!(begun("second_look"), 0, "nobody went past the barrier");
        links(&stage, FAR, Fault::Pass);
        let (code, view) = stage.ended(&job).await.unwrap();
        assert_eq!(code, 0, "{:?}", view.header.state);
        assert_eq!(rests(&view), ["changed"; 4]);
        assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    }
}

#[tokio::test]
async fn a_leader_cut_off_from_etcd_is_replaced_and_every_cluster_changes_once() {
    let stage = Stage::alone(fleet().await, "leader-without-etcd").await;
    slow_release(&stage).await;
    let before = stage.seen_everywhere().await.unwrap();
    let plane = stage.system().plane();
    let leader = plane.leader().await.unwrap();
    let job = stage.submit(&in_two_segments(&stage)).await.unwrap();
    stage
        .until(&job, "all are at work", is_changing)
        .await
        .unwrap();
    let to_store = plane.replica(&leader).unwrap().to_store().unwrap();
    to_store.set(Fault::BlackHole);
    let (code, view) = stage.ended(&job).await.unwrap();
    to_store.set(Fault::Pass);
    assert_eq!(code, 0, "{:?}", view.header.state);
    assert_eq!(rests(&view), ["changed"; 4]);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    stage.system().until_live().await.unwrap();
}

#[tokio::test]
async fn a_replica_cut_off_from_etcd_closes_its_streams_and_its_agents_go_elsewhere() {
    let stage = Stage::alone(fleet().await, "standby-without-etcd").await;
    stage.release(&[OLD]).await.unwrap();
    let plane = stage.system().plane();
    let leader = plane.leader().await.unwrap();
    let standby = plane
        .replicas()
        .iter()
        .find(|replica| replica.name() != leader)
        .unwrap();
    // All agents hang on the standby: the way to the leader is closed for as long as it takes.
    let to_leader: Vec<_> = stage
        .system()
        .agents()
        .iter()
        .flat_map(|agent| agent.links().iter().zip(plane.replicas()))
        .filter(|(_, replica)| replica.name() == leader)
        .map(|(link, _)| link)
        .collect();
    to_leader.iter().for_each(|link| link.set(Fault::Cut));
    let hang_on = async |wanted: &str| {
        eventually(PATIENCE, format!("all agents hang on {wanted}"), || async {
            for agent in stage.system().agents() {
                let target = agent.target().to_string();
                let said = stage
                    .aldis(&["agents", "show", &target, "-o", "json"])
                    .await?;
                let shown: serde_json::Value = said.json()?;
                ensure!(
                    shown["replica"] == wanted && shown["state"] == "live",
                    "{target}: {shown}"
                );
            }
            Ok(())
        })
        .await
        .unwrap();
    };
    hang_on(standby.name()).await;
    standby.to_store().unwrap().set(Fault::BlackHole);
    to_leader.iter().for_each(|link| link.set(Fault::Pass));
    hang_on(&leader).await;
    let before = stage.seen_everywhere().await.unwrap();
    let (code, view) = stage.run(&in_two_segments(&stage)).await.unwrap();
    standby.to_store().unwrap().set(Fault::Pass);
    assert_eq!(code, 0, "{:?}", view.header.state);
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(stage.changes_since(&before).await.unwrap(), [1; 4]);
    stage.system().until_live().await.unwrap();
}
