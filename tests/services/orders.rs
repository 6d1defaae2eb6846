//! What becomes of an order that its agent will not take.

use aldis_core::assignments::Assignment;
use aldis_core::view::{JobView, PlanView};
use aldis_proto::convert::parse;
use aldis_proto::v1;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_proto::v1::session_request::Message as Out;
use aldis_proto::v1::session_response::Message as In;
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use tokio::sync::mpsc;
use tonic::transport::Channel;

use crate::by_hand::{ByHand, SOON, Who, shown};

const ONE: &str = "eu-west/prod-1";

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";

const LOOK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: look, version: 1}
spec:
  targets: {select: {matchLabels: {env: prod}}}
  steps:
    - {id: see, use: kube.get@v1, with: {kind: Deployment, name: shop, namespace: shop}}
";

/// Answers questions and refuses every order; each refusal is told.
async fn refuse_all(mut agent: ByHand, refused: mpsc::UnboundedSender<()>) {
    while let Ok(frame) = agent.frame().await {
        match frame {
            In::Ask(ask) => agent.answer(&ask).await,
            In::Order(order) => {
                let order: Assignment = parse(order.assignment.as_ref(), "assignment").unwrap();
                agent
                    .send(Out::OrderRefused(v1::OrderRefused {
                        job: order.order.job.to_string(),
                        attempt: order.order.attempt.0,
                        reason: "not today".to_owned(),
                    }))
                    .await;
                let _ = refused.send(());
            }
            _ => {}
        }
    }
}

fn traced<T>(message: T) -> tonic::Request<T> {
    let mut request = tonic::Request::new(message);
    let parent = format!("00-{TRACE}-00f067aa0ba902b7-01");
    let metadata = request.metadata_mut();
    metadata.insert("traceparent", parent.parse().unwrap());
    request
}

async fn submit(jobs: &mut JobServiceClient<Channel>) -> String {
    let source = v1::RunbookSource {
        file: "look.yaml".into(),
        text: LOOK.into(),
    };
    let request = v1::PlanRequest {
        runbook: Some(v1::plan_request::Runbook::Source(source)),
        ..v1::PlanRequest::default()
    };
    let mut answers = jobs.plan(traced(request)).await.unwrap().into_inner();
    let plan: PlanView = loop {
        let answer = answers.message().await.unwrap().unwrap();
        if let Some(v1::plan_response::Message::Plan(plan)) = answer.message {
            break parse(Some(&plan), "plan").unwrap();
        }
    };
    let request = v1::SubmitRequest {
        plan: plan.plan.id.to_string(),
        ..v1::SubmitRequest::default()
    };
    jobs.submit(traced(request)).await.unwrap().into_inner().job
}

async fn waits_for(jobs: &mut JobServiceClient<Channel>, job: &str, words: &str) {
    let request = v1::WatchJobRequest {
        job: job.to_owned(),
    };
    let mut views = jobs.watch_job(request).await.unwrap().into_inner();
    let reached = async {
        loop {
            let view = views.message().await.unwrap().unwrap();
            let view: JobView = parse(view.job.as_ref(), "job").unwrap();
            if view
                .waiting
                .iter()
                .any(|waiting| waiting.text.contains(words))
            {
                return;
            }
        }
    };
    tokio::time::timeout(SOON, reached)
        .await
        .expect("it is shown");
}

#[tokio::test]
async fn an_order_that_its_agent_refuses_is_shown_in_its_words_and_sent_again() {
    let plane = Plane::start().await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();
    let (refused, mut refusals) = mpsc::unbounded_channel();
    tokio::spawn(refuse_all(agent, refused));
    let channel = plane.connect(&Request::user("mei")).await.unwrap();
    let mut jobs = JobServiceClient::new(channel);
    let job = submit(&mut jobs).await;
    waits_for(&mut jobs, &job, "refuses its order: not today").await;
    assert!(shown(&plane, ONE).await.detail.contains("not today"));
    for _ in 0..2 {
        let again = tokio::time::timeout(SOON, refusals.recv()).await;
        again.expect("it is sent again").unwrap();
    }
}

#[tokio::test]
async fn the_trace_of_the_command_line_reaches_the_agent_with_every_question_and_order() {
    let plane = Plane::start().await.unwrap();
    let mut agent = Who::new(ONE).register_with(&plane).await;
    agent.is_granted().await.unwrap();
    let following = tokio::spawn(async move {
        let mut traces = Vec::new();
        loop {
            match agent.frame().await.unwrap() {
                In::Ask(ask) => {
                    agent.answer(&ask).await;
                    traces.push(ask.trace);
                }
                In::Order(order) => {
                    let order: Assignment = parse(order.assignment.as_ref(), "assignment").unwrap();
                    traces.push(order.trace.unwrap_or_default());
                    return traces;
                }
                _ => {}
            }
        }
    });
    let channel = plane.connect(&Request::user("mei")).await.unwrap();
    submit(&mut JobServiceClient::new(channel)).await;
    let traces = tokio::time::timeout(SOON, following)
        .await
        .unwrap()
        .unwrap();
    // Planned, asked for drift, ordered.
    assert_eq!(traces, [TRACE; 3]);
}
