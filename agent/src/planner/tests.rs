//! Questions about a practice cluster.

use std::time::Duration;

use aldis_core::assignments::Wanted;
use aldis_core::plan::part::Basis;
use aldis_core::plan::{Disposition, Left, TargetPart};
use aldis_core::question::{Answer, Planning, Question, Undoing};
use aldis_core::runbook::Runbook;
use serde_json::{Value, json};

use super::answer;
use crate::testing::{Rig, planning, set, wait, with};

const WITHIN: Duration = Duration::from_secs(5);

/// A runbook with more than steps.
fn runbook(spec: Value) -> Planning {
    let mut planning = planning(&json!([]));
    planning.body = serde_json::from_value::<Runbook>(json!({
        "apiVersion": "aldis.dev/v1alpha1", "kind": "Runbook", "metadata": {"name": "r"}, "spec": spec,
    }))
    .unwrap();
    planning
}

async fn plan(rig: &Rig, planning: Planning) -> TargetPart {
    match answer(rig.parts(), Question::Plan(Box::new(planning)), WITHIN).await {
        Some(Ok(Answer::Plan(part))) => *part,
        other => panic!("{other:?}"),
    }
}

async fn drift(rig: &Rig, part: &TargetPart) -> Option<String> {
    let part = Box::new(part.clone());
    match answer(rig.parts(), Question::Drift { part }, WITHIN).await {
        Some(Ok(Answer::Drift { found })) => found,
        other => panic!("{other:?}"),
    }
}

fn refused(part: &TargetPart) -> String {
    match &part.disposition {
        Disposition::Refused { why, .. } => why.clone(),
        other => panic!("{other:?}"),
    }
}

fn look(id: &str, name: &str) -> Value {
    json!({"id": id, "use": "kube.get", "with": {"kind": "Deployment", "name": name, "namespace": "shop"}})
}

fn probe() -> Value {
    json!({"id": "health", "use": "http.probe", "with": {"service": "checkout", "namespace": "shop", "port": 80, "path": "/"}})
}

#[tokio::test]
async fn a_part_shows_what_would_change_and_from_what() {
    let rig = Rig::new().await;
    let part = plan(
        &rig,
        runbook(json!({
            "preflight": [look("now", "checkout")],
            "steps": [set("set", "checkout:v3"), wait("rolled")],
            "verify": [probe()],
        })),
    )
    .await;
    assert_eq!(part.disposition, Disposition::Run);
    let steps: Vec<_> = part.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["now", "set", "rolled", "health"]);
    let set = part.step(&"set".into()).unwrap();
    assert!(set.changes && set.touched.is_some());
    assert_eq!(set.diff[0].to.as_deref(), Some("checkout:v3"));
    assert_eq!(part.writes().len(), 1);
    assert!(part.simulated);
    assert_eq!(rig.checkout().1, 0, "nothing was changed");
}

#[tokio::test]
async fn a_target_with_nothing_to_change_is_left_alone_whatever_else_it_lacks() {
    let rig = Rig::new().await;
    let lacking = with(
        look("old", "gone"),
        json!({"require": "steps.old.outputs.found"}),
    );
    let unchanged = json!({"preflight": [lacking], "steps": [set("set", "checkout:v2.18.0")]});
    let part = plan(&rig, runbook(unchanged)).await;
    assert!(
        matches!(part.disposition, Disposition::Unchanged { .. }),
        "{part:#?}"
    );
    let changed = json!({"preflight": [lacking_again()], "steps": [set("set", "checkout:v3")]});
    let why = refused(&plan(&rig, runbook(changed)).await);
    assert!(why.contains("nothing to go back to"), "{why}");
}

fn lacking_again() -> Value {
    let says =
        json!({"require": "steps.old.outputs.found", "message": "there is nothing to go back to"});
    with(look("old", "gone"), says)
}

#[tokio::test]
async fn a_later_step_may_use_what_an_earlier_one_read() {
    let rig = Rig::new().await;
    let image = "${steps.now.outputs.images[0]}-next";
    let planning =
        runbook(json!({"preflight": [look("now", "checkout")], "steps": [set("set", image)]}));
    let part = plan(&rig, planning).await;
    let set = part.step(&"set".into()).unwrap();
    assert_eq!(set.with.as_ref().unwrap()["image"], "checkout:v2.18.0-next");
}

#[tokio::test]
async fn what_is_read_behind_a_change_is_assumed_and_not_shown_as_read() {
    let rig = Rig::new().await;
    let steps = json!({"steps": [set("set", "checkout:v3"), look("then", "checkout")]});
    let part = plan(&rig, runbook(steps)).await;
    let then = part.step(&"then".into()).unwrap();
    assert_eq!((then.basis, &then.outputs), (Basis::Assumed, &None));
}

#[tokio::test]
async fn a_write_whose_input_nobody_knows_yet_is_refused() {
    let rig = Rig::new().await;
    let image = "checkout:${steps.rolled.outputs.ready}";
    let planning = runbook(json!({"steps": [wait("rolled"), set("set", image)]}));
    let why = refused(&plan(&rig, planning).await);
    assert!(why.contains("`with` of step `set`"), "{why}");
}

#[tokio::test]
async fn a_step_that_its_condition_leaves_out_changes_nothing() {
    let rig = Rig::new().await;
    let off = with(
        set("set", "checkout:v3"),
        json!({"if": "target.region == 'us-east'"}),
    );
    let part = plan(&rig, runbook(json!({"steps": [off, wait("rolled")]}))).await;
    assert_eq!(
        part.disposition,
        Disposition::Run,
        "the other step is for all"
    );
    assert!(part.writes().is_empty());
}

#[tokio::test]
async fn a_deployment_that_does_not_exist_is_refused_with_those_that_do() {
    let rig = Rig::new().await;
    let mut gone = set("set", "x");
    gone["with"]["deployment"] = json!("chekout");
    let why = refused(&plan(&rig, runbook(json!({"steps": [gone]}))).await);
    assert!(
        why.contains("chekout") && why.contains("shop/checkout"),
        "{why}"
    );
}

#[tokio::test]
async fn the_local_policy_limits_plans_too() {
    let rig = Rig::new()
        .await
        .under_policy("actions: [kube.get]\nnamespaces: ['*']\n")
        .await;
    let why = refused(&plan(&rig, runbook(json!({"steps": [set("set", "checkout:v3")]}))).await);
    assert!(why.contains("rule `actions`"), "{why}");
}

#[tokio::test]
async fn a_question_for_somebody_else_is_refused() {
    let rig = Rig::new().await;
    let mut planning = runbook(json!({"steps": [set("set", "checkout:v3")]}));
    planning.target = "eu-west/prod-2".parse().unwrap();
    let answered = answer(rig.parts(), Question::Plan(Box::new(planning)), WITHIN).await;
    let error = answered.unwrap().unwrap_err().to_string();
    assert!(
        error.contains("eu-west/prod-1") && error.contains("eu-west/prod-2"),
        "{error}"
    );
}

#[tokio::test]
async fn drift_is_found_and_who_did_it_is_named() {
    let rig = Rig::new().await;
    let part = plan(
        &rig,
        runbook(json!({"steps": [set("one", "checkout:v3"), set("two", "checkout:v4")]})),
    )
    .await;
    assert_eq!(drift(&rig, &part).await, None);
    rig.cluster
        .interfere("shop", "checkout", "checkout:v9", "somebody");
    let found = drift(&rig, &part).await.unwrap();
    assert!(found.contains("somebody"), "{found}");
}

#[tokio::test]
async fn another_cluster_is_drift() {
    let rig = Rig::new().await;
    let part = plan(&rig, runbook(json!({"steps": [set("set", "checkout:v3")]}))).await;
    rig.hooked.become_another();
    let found = drift(&rig, &part).await.unwrap();
    assert!(found.contains("not the one that was planned"), "{found}");
}

#[tokio::test]
async fn a_soak_reads_the_checks_and_says_what_it_could_not_read() {
    let rig = Rig::new().await;
    let mut planning = runbook(json!({"steps": [set("set", "checkout:v3")], "verify": [probe()]}));
    let read = async |planning: &Planning| match answer(
        rig.parts(),
        Question::Soak(Box::new(planning.clone())),
        WITHIN,
    )
    .await
    {
        Some(Ok(Answer::Soak(reading))) => reading.steps,
        other => panic!("{other:?}"),
    };
    let steps = read(&planning).await.unwrap();
    assert_eq!(steps[&"health".into()]["errors"], 0);
    planning.body.spec.verify[0].with["service"] = json!("gone");
    let why = read(&planning).await.unwrap_err();
    assert!(why.starts_with("step `health`: "), "{why}");
}

/// A job that made two changes, and the question whether it could be put back.
async fn changed_twice() -> (Rig, Undoing) {
    let mut rig = Rig::new().await;
    let steps = json!([set("one", "checkout:v3"), set("two", "checkout:v4")]);
    let assignment = rig.assignment(steps.clone(), 1).await;
    rig.order(&assignment, Wanted::Go).await;
    let (_, steps_left) = rig.ended(1).await;
    let undoing = Undoing {
        planning: planning(&steps),
        part: assignment.part,
        left: Left {
            job: "j-1".into(),
            steps: steps_left,
        },
    };
    (rig, undoing)
}

async fn plan_back(rig: &Rig, undoing: &Undoing) -> TargetPart {
    let question = Question::Undo(Box::new(undoing.clone()));
    match answer(rig.parts(), question, WITHIN).await {
        Some(Ok(Answer::Plan(part))) => *part,
        other => panic!("{other:?}"),
    }
}

#[tokio::test]
async fn what_a_job_left_is_planned_back_in_reverse() {
    let (rig, undoing) = changed_twice().await;
    let part = plan_back(&rig, &undoing).await;
    assert_eq!(part.disposition, Disposition::Run);
    let steps: Vec<_> = part.steps.iter().map(|step| step.step.as_str()).collect();
    assert_eq!(steps, ["two", "one"]);
    assert_eq!(
        part.steps[1].diff[0].to.as_deref(),
        Some("checkout:v2.18.0")
    );
    assert_eq!(drift(&rig, &part).await, None);
    rig.cluster
        .interfere("shop", "checkout", "checkout:v9", "somebody");
    let found = drift(&rig, &part).await.unwrap();
    assert!(found.contains("step `two`"), "{found}");
}

#[tokio::test]
async fn what_somebody_changed_since_is_not_planned_back() {
    let (rig, undoing) = changed_twice().await;
    rig.cluster
        .interfere("shop", "checkout", "checkout:v9", "somebody");
    let why = refused(&plan_back(&rig, &undoing).await);
    assert!(
        why.contains("step `two`") && why.contains("somebody"),
        "{why}"
    );
}

#[tokio::test]
async fn without_the_journal_nothing_is_planned_back() {
    let (mut rig, undoing) = changed_twice().await;
    rig.restart_without_journal().await;
    let why = refused(&plan_back(&rig, &undoing).await);
    assert!(why.contains("not in this agent's journal"), "{why}");
}
