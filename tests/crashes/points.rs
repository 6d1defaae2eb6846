//! SIGKILL at every crash point, on the way forward and on the way back.

use aldis_core::job::JobState;
use aldis_tests::practice::{Practice, rests};
use serde_json::json;

use crate::agent::Agent;
use crate::{DEPLOY, TARGET};

const POINTS: [&str; 4] = [
    "agent-before-intent",
    "agent-after-intent",
    "agent-after-effect",
    "agent-after-outcome",
];

async fn submitted(armed: &[&str], image: &str) -> (Practice, Agent, String) {
    let practice = Practice::start(&[]).await.unwrap();
    let agent = Agent::start(&practice, armed);
    practice.until_live(&[TARGET]).await.unwrap();
    let plan = practice
        .plan(DEPLOY, json!({ "image": image }))
        .await
        .unwrap();
    let job = practice.submit(&plan).await.unwrap();
    (practice, agent, job)
}

#[tokio::test]
async fn killed_at_any_point_on_its_way_forward_an_agent_makes_the_change_once() {
    for point in POINTS {
        let (practice, mut agent, job) = submitted(&[point], "checkout:v3").await;
        agent.dies().await;
        agent.begin(&[]);
        let view = practice.until_ended(&job).await.unwrap();
        assert_eq!(view.header.state, JobState::Succeeded, "{point}");
        assert_eq!(rests(&view), ["changed"], "{point}");
        assert_eq!(agent.checkout(), ("checkout:v3".to_owned(), 1), "{point}");
    }
}

#[tokio::test]
async fn killed_at_any_point_on_its_way_back_an_agent_puts_it_back_once() {
    for point in POINTS {
        let (practice, mut agent, job) =
            submitted(&["agent-after-outcome"], "checkout:broken").await;
        agent.dies().await;
        // The change is there and its wait will fail; what is armed now is met on the way back.
        agent.begin(&[point]);
        agent.dies().await;
        agent.begin(&[]);
        let view = practice.until_ended(&job).await.unwrap();
        assert!(
            matches!(view.header.state, JobState::Undone { .. }),
            "{point}: {:?}",
            view.header.state
        );
        assert_eq!(rests(&view), ["restored"], "{point}");
        let expected = ("checkout:v2.18.0".to_owned(), 2);
        assert_eq!(agent.checkout(), expected, "{point}");
    }
}
