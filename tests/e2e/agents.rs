//! An agent is killed at every point of an effect, on a real API server; its journal is deleted, and cut.

use aldis_core::job::TargetState;
use aldis_core::view::JobView;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::practice::{rests, standing};
use anyhow::ensure;

use aldis_tests::runbooks;
use aldis_tests::stage::{PATIENCE, Stage, joined, name, state};

use crate::fleet;

const OLD: &str = "shop/checkout:v1";
const NEW: &str = "shop/checkout:v2";
const TARGET: &str = "eu-west/prod-1";
const AGENT: &str = "agent-eu-west-prod-1";

/// One unknown is within this budget, so that the job goes on once it is known what became of it.
fn patient_deploy(stage: &Stage) -> Vec<String> {
    let changes = [("maxFailures: 0", "maxFailures: 1")];
    let file = stage
        .file(
            "deploy.yaml",
            &runbooks::deploy("deploy-patiently", &changes),
        )
        .unwrap();
    let image = format!("image={NEW}");
    let words = stage.words(file.to_str().unwrap(), &[&image]);
    joined(&["--target", TARGET], &words)
}

/// Plans, lets the agent be killed at a point of the job, and keeps it down.
async fn killed_at(stage: &Stage, point: &str) -> String {
    let words = patient_deploy(stage);
    let plan = stage.plan(&words).await.unwrap().plan.id.to_string();
    let mark = stage.system().programs().arm(AGENT, point).unwrap();
    stage
        .fleet
        .folder()
        .write(format!("down/{AGENT}"), "")
        .unwrap();
    let job = stage.submit(&["--plan", &plan]).await.unwrap();
    eventually(
        PATIENCE,
        format!("the agent is killed at {point}"),
        || async {
            ensure!(mark.exists(), "it lives");
            ensure!(
                stage.system().agent(TARGET)?.process()?.pid().is_none(),
                "it is dying"
            );
            Ok(())
        },
    )
    .await
    .unwrap();
    stage.system().programs().disarm(AGENT);
    job
}

fn let_it_start(stage: &Stage) {
    std::fs::remove_file(stage.fleet.folder().path(format!("down/{AGENT}"))).unwrap();
}

#[tokio::test]
async fn killed_at_any_point_of_an_effect_it_makes_the_change_once() {
    for point in [
        "agent-before-intent",
        "agent-after-intent",
        "agent-after-effect",
        "agent-after-outcome",
    ] {
        let stage = Stage::alone(fleet().await, &format!("killed-{point}")).await;
        stage
            .release_on(TARGET, &stage.application(&[OLD]))
            .await
            .unwrap();
        let before = stage.seen(TARGET).await.unwrap();
        let job = killed_at(&stage, point).await;
        let_it_start(&stage);
        let (code, view) = stage.ended(&job).await.unwrap();
        assert_eq!(code, 0, "{point}");
        assert_eq!(rests(&view), ["changed"], "{point}");
        let after = stage.seen(TARGET).await.unwrap();
        assert_eq!(after.images, [NEW], "{point}");
        assert_eq!(
            after.generation - before.generation,
            1,
            "{point}: one change"
        );
        assert_eq!(after.history.len(), 2, "{point}: one new ReplicaSet");
    }
}

#[tokio::test]
async fn a_deleted_journal_is_made_up_for_by_looking() {
    for (point, made) in [("agent-after-intent", 0), ("agent-after-effect", 1)] {
        let stage = Stage::alone(fleet().await, &format!("deleted-{point}")).await;
        stage
            .release_on(TARGET, &stage.application(&[OLD]))
            .await
            .unwrap();
        let before = stage.seen(TARGET).await.unwrap();
        let job = killed_at(&stage, point).await;
        assert_eq!(
            stage.seen(TARGET).await.unwrap().generation - before.generation,
            made,
            "{point}"
        );
        std::fs::remove_file(stage.system().agent(TARGET).unwrap().journal()).unwrap();
        let_it_start(&stage);
        let (code, view) = stage.ended(&job).await.unwrap();
        assert_eq!(code, 0, "{point}");
        assert_eq!(rests(&view), ["changed"], "{point}");
        assert_eq!(
            stage.seen(TARGET).await.unwrap().generation - before.generation,
            1,
            "{point}"
        );
    }
}

#[tokio::test]
async fn a_journal_cut_after_it_was_reported_is_set_aside_and_its_work_looked_for() {
    let stage = Stage::alone(fleet().await, "cut-journal").await;
    stage
        .release_on(TARGET, &stage.application(&[OLD]))
        .await
        .unwrap();
    let before = stage.seen(TARGET).await.unwrap();
    let job = killed_at(&stage, "agent-after-outcome").await;
    let journal = stage.system().agent(TARGET).unwrap().journal();
    let whole = std::fs::read(&journal).unwrap();
    let accepted = accepted_by(&whole, &job);
    let mut cut = whole[..accepted].to_vec();
    cut.resize(whole.len(), 0);
    std::fs::write(&journal, cut).unwrap();
    let_it_start(&stage);
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_eq!(code, 0);
    assert_eq!(rests(&view), ["changed"]);
    assert_eq!(
        stage.seen(TARGET).await.unwrap().generation - before.generation,
        1
    );
}

/// Where the record of the acceptance of a job's attempt is, so that all from there on can be lost.
fn accepted_by(journal: &[u8], job: &str) -> usize {
    let of_job = find(journal, job.as_bytes()).expect("the journal names the job");
    let before = &journal[..of_job];
    before
        .windows(10)
        .rposition(|window| window == b"\"accepted\"")
        .expect("it was accepted")
}

fn find(bytes: &[u8], wanted: &[u8]) -> Option<usize> {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
}

#[tokio::test]
async fn without_a_journal_and_with_somebodys_change_on_top_nothing_is_run_blindly() {
    let stage = Stage::alone(fleet().await, "covered").await;
    let app = stage.application(&[OLD]);
    stage.release_on(TARGET, &app).await.unwrap();
    let job = killed_at(&stage, "agent-after-intent").await;
    std::fs::remove_file(stage.system().agent(TARGET).unwrap().journal()).unwrap();
    let client = stage.fleet.cluster(TARGET).unwrap().client();
    app.apply(&client, "shop/checkout:v9").await.unwrap();
    let covered = stage.seen(TARGET).await.unwrap();
    let_it_start(&stage);
    let (_, view) = stage.ended(&job).await.unwrap();
    assert_ne!(rests(&view), ["changed"], "{}", standing(&view));
    let why = view.targets[&name(TARGET)].failure.as_ref().unwrap();
    assert!(
        why.failure.cause.contains("someone"),
        "it names who changed it: {why:?}"
    );
    let seen = stage.seen(TARGET).await.unwrap();
    assert_eq!(
        (seen.generation, seen.images),
        (covered.generation, covered.images)
    );
}

#[tokio::test]
async fn what_nobody_can_look_at_any_more_is_unknown_until_an_operator_says() {
    let stage = Stage::alone(fleet().await, "deleted").await;
    stage
        .release_on(TARGET, &stage.application(&[OLD]))
        .await
        .unwrap();
    let job = killed_at(&stage, "agent-after-intent").await;
    stage.delete(TARGET).await.unwrap();
    let_it_start(&stage);
    let unknown = |view: &JobView| {
        let asked = view
            .waiting
            .iter()
            .filter_map(|waiting| waiting.next.as_ref());
        matches!(state(view, TARGET), TargetState::Unknown { .. })
            && asked.into_iter().any(|next| next.contains("aldis resolve"))
    };
    let view = stage
        .until(&job, "it is unknown, and an operator is asked", unknown)
        .await
        .unwrap();
    let TargetState::Unknown { evidence, .. } = state(&view, TARGET) else {
        unreachable!("it was waited for")
    };
    let evidence = evidence.join("\n");
    assert!(evidence.contains("does not exist"), "{evidence}");
    let watch = stage
        .aldis(&["watch", &job, "--progress", "plain"])
        .await
        .unwrap()
        .ended(14)
        .unwrap();
    assert!(
        watch.out.contains("aldis resolve"),
        "the verdict says what to type: {watch}"
    );
    let resolve = [
        "resolve",
        &job,
        "--target",
        TARGET,
        "--as",
        "abandon",
        "--yes",
        "--reason",
        "the service was retired",
    ];
    stage.aldis(&resolve).await.unwrap().ended(0).unwrap();
    let (code, view) = stage.ended(&job).await.unwrap();
    assert_ne!(code, 0);
    assert_eq!(rests(&view), ["needs-operator"]);
    assert_eq!(view.targets[&name(TARGET)].resolutions.len(), 1);
}
