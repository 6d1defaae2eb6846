//! Journals that are gone, or shorter than what was reported of them.

use aldis_core::job::JobState;
use aldis_tests::practice::{Practice, rests};
use serde_json::json;

use crate::agent::Agent;
use crate::{DEPLOY, TARGET};

async fn killed_at(point: &str, runbook: String) -> (Practice, Agent, String) {
    killed(&[point], runbook).await
}

async fn killed(points: &[&str], runbook: String) -> (Practice, Agent, String) {
    let practice = Practice::start(&[]).await.unwrap();
    let mut agent = Agent::start(&practice, points);
    practice.until_live(&[TARGET]).await.unwrap();
    let plan = practice
        .plan(&runbook, json!({"image": "checkout:v3"}))
        .await
        .unwrap();
    let job = practice.submit(&plan).await.unwrap();
    agent.dies().await;
    (practice, agent, job)
}

/// An unknown outcome spends of the budget: with one to spare the job goes on when it is known again.
fn patient() -> String {
    DEPLOY.replace("maxFailures: 0", "maxFailures: 1")
}

#[tokio::test]
async fn a_deleted_journal_is_made_up_for_by_looking_and_nothing_is_done_twice() {
    for (point, before) in [("agent-after-intent", 0), ("agent-after-effect", 1)] {
        let (practice, mut agent, job) = killed_at(point, patient()).await;
        assert_eq!(agent.checkout().1, before);
        std::fs::remove_file(agent.journal()).unwrap();
        agent.begin(&[]);
        let view = practice.until_ended(&job).await.unwrap();
        assert_eq!(view.header.state, JobState::Succeeded, "{point}");
        assert_eq!(rests(&view), ["changed"], "{point}");
        assert_eq!(agent.checkout(), ("checkout:v3".to_owned(), 1), "{point}");
    }
}

#[tokio::test]
async fn a_journal_cut_after_it_was_reported_is_set_aside_and_its_work_looked_for() {
    // An effect that takes its time, so that its intent is reported before the agent dies.
    let points = ["agent-after-effect=sleep:2000", "agent-after-outcome"];
    let (practice, mut agent, job) = killed(&points, patient()).await;
    let target = TARGET.parse().unwrap();
    practice
        .until(&job, |view| {
            view.targets[&target]
                .steps
                .iter()
                .any(|(_, state)| state.may_have_effect())
        })
        .await
        .unwrap();
    // What a copy of the directory from before the attempt would hold.
    let journal = std::fs::read(agent.journal()).unwrap();
    let accepted = find(&journal, b"\"accepted\"");
    let mut cut = journal[..accepted].to_vec();
    cut.resize(journal.len(), 0);
    std::fs::write(agent.journal(), cut).unwrap();
    agent.begin(&[]);
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(agent.checkout(), ("checkout:v3".to_owned(), 1));
    let folder = agent.journal();
    let aside = folder.with_file_name("journal.log.quarantined-1");
    assert!(aside.exists(), "it is kept for reading");
}

#[tokio::test]
async fn a_damaged_journal_is_quarantined_and_its_work_looked_for() {
    let (practice, mut agent, job) = killed_at("agent-after-effect", patient()).await;
    let mut journal = std::fs::read(agent.journal()).unwrap();
    let accepted = find(&journal, b"\"accepted\"");
    journal[accepted + 3] ^= 1;
    std::fs::write(agent.journal(), journal).unwrap();
    agent.begin(&[]);
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(view.header.state, JobState::Succeeded);
    assert_eq!(agent.checkout(), ("checkout:v3".to_owned(), 1));
}

#[tokio::test]
async fn a_change_without_budget_goes_back_and_says_what_it_cannot_put_back() {
    use aldis_core::job::TargetState;
    let (practice, mut agent, job) = killed_at("agent-after-effect", DEPLOY.to_owned()).await;
    std::fs::remove_file(agent.journal()).unwrap();
    agent.begin(&[]);
    let target = TARGET.parse().unwrap();
    let stuck = |view: &aldis_core::view::JobView| {
        matches!(view.targets[&target].state, TargetState::Stuck { .. })
    };
    let view = practice.until(&job, stuck).await.unwrap();
    let TargetState::Stuck { failure, .. } = &view.targets[&target].state else {
        unreachable!("it was waited for")
    };
    assert_eq!(failure.kind, "lost");
    assert_eq!(agent.checkout(), ("checkout:v3".to_owned(), 1));
}

#[tokio::test]
async fn what_somebody_covered_while_the_agent_was_away_is_unknown_until_an_operator_says() {
    use aldis_core::job::{TargetState, Verdict, Wish};
    let (practice, mut agent, job) = killed_at("agent-after-intent", patient()).await;
    let cluster = agent.journal().with_file_name("../../cluster.json");
    let text = std::fs::read_to_string(&cluster).unwrap();
    std::fs::write(&cluster, text.replace("checkout:v2.18.0", "checkout:v9")).unwrap();
    agent.begin(&[]);
    let target = TARGET.parse().unwrap();
    let unknown = |view: &aldis_core::view::JobView| {
        matches!(view.targets[&target].state, TargetState::Unknown { .. })
    };
    let view = practice.until(&job, unknown).await.unwrap();
    let TargetState::Unknown { evidence, .. } = &view.targets[&target].state else {
        unreachable!("it was waited for")
    };
    assert!(!evidence.is_empty());
    assert_eq!(agent.checkout(), ("checkout:v9".to_owned(), 0));
    agent.kill().await;
    agent.begin(&[]);
    practice.until_live(&[TARGET]).await.unwrap();
    assert_eq!(agent.checkout().1, 0, "never run again blindly");
    let resolve = Wish::Resolve {
        target,
        step: "set".into(),
        verdict: Verdict::Abandon,
    };
    practice.request(&job, &resolve).await.unwrap();
    let view = practice.until_ended(&job).await.unwrap();
    assert_eq!(rests(&view), ["needs-operator"]);
}

fn find(bytes: &[u8], wanted: &[u8]) -> usize {
    bytes
        .windows(wanted.len())
        .position(|window| window == wanted)
        .expect("the journal holds it")
}
