//! What a caller is told when the question is wrong: code, exit code, a way forward; nothing written.

use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_proto::v1::plan_request::Runbook;
use aldis_proto::v1::runbook_service_client::RunbookServiceClient;
use aldis_proto::v1::{
    GetJobRequest, GetPlanRequest, GetRunbookRequest, ListAgentsRequest, ListRunbooksRequest,
    PlanRequest, PushRunbookRequest, RunbookSource, SubmitRequest,
};
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use tonic::transport::Channel;
use tonic::{Code, Status};

const RUNBOOK: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: look, version: 1}
spec:
  steps:
    - {id: see, use: kube.get@v1, with: {kind: Deployment, name: shop, namespace: shop}}
";

async fn mei(plane: &Plane) -> Channel {
    plane.connect(&Request::user("mei")).await.unwrap()
}

async fn plan(channel: Channel, runbook: Runbook, params: &str) -> Status {
    let request = PlanRequest {
        runbook: Some(runbook),
        params_json: params.to_owned(),
        ..PlanRequest::default()
    };
    let answers = JobServiceClient::new(channel).plan(request).await;
    answers.unwrap().into_inner().message().await.unwrap_err()
}

fn exit(status: &Status) -> &str {
    status
        .metadata()
        .get("aldis-exit")
        .unwrap()
        .to_str()
        .unwrap()
}

fn hint(status: &Status) -> &str {
    status
        .metadata()
        .get("aldis-hint")
        .unwrap()
        .to_str()
        .unwrap()
}

#[tokio::test]
async fn a_runbook_that_is_none_comes_back_with_its_lines() {
    let plane = Plane::start().await.unwrap();
    let text = RUNBOOK.replace("use:", "uses:");
    let source = RunbookSource {
        file: "look.yaml".into(),
        text,
    };
    let refused = plan(mei(&plane).await, Runbook::Source(source), "{}").await;
    assert_eq!(
        (refused.code(), exit(&refused)),
        (Code::InvalidArgument, "9")
    );
    assert!(
        refused.message().contains("look.yaml:6"),
        "{}",
        refused.message()
    );
    assert!(
        refused.message().contains("did you mean `use`?"),
        "{}",
        refused.message()
    );
}

#[tokio::test]
async fn every_wrong_parameter_is_named_at_once() {
    let plane = Plane::start().await.unwrap();
    let name = Runbook::Name("rollback-service".into());
    let refused = plan(
        mei(&plane).await,
        name,
        r#"{"servise": "shop", "port": "eighty"}"#,
    )
    .await;
    assert_eq!(
        (refused.code(), exit(&refused)),
        (Code::InvalidArgument, "2")
    );
    for part in [
        "`service` is missing",
        "`namespace` is missing",
        "`servise`",
        "did you mean `service`?",
        "`port`",
    ] {
        assert!(
            refused.message().contains(part),
            "{part}: {}",
            refused.message()
        );
    }
}

#[tokio::test]
async fn a_selection_of_nobody_is_refused_before_anything_is_planned() {
    let plane = Plane::start().await.unwrap();
    let name = Runbook::Name("rollback-service".into());
    let params = r#"{"service": "shop", "namespace": "shop", "from": "shop:v2"}"#;
    let refused = plan(mei(&plane).await, name, params).await;
    assert_eq!(
        (refused.code(), exit(&refused)),
        (Code::FailedPrecondition, "13")
    );
    assert!(hint(&refused).contains("aldis agents list"));
}

#[tokio::test]
async fn an_id_that_is_unknown_short_or_none_is_told_apart() {
    let plane = Plane::start().await.unwrap();
    let mut jobs = JobServiceClient::new(mei(&plane).await);
    for (typed, code) in [
        ("j-00ff00ff", Code::NotFound),
        ("j-00", Code::InvalidArgument),
        ("shop", Code::InvalidArgument),
    ] {
        let refused = jobs
            .get_job(GetJobRequest { job: typed.into() })
            .await
            .unwrap_err();
        assert_eq!(refused.code(), code, "{typed}");
    }
    let refused = jobs
        .get_plan(GetPlanRequest {
            plan: "p-00ff".into(),
        })
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
    let submit = SubmitRequest {
        plan: format!("p-{}", "0".repeat(32)),
        ..SubmitRequest::default()
    };
    let refused = jobs.submit(submit).await.unwrap_err();
    assert_eq!(refused.code(), Code::NotFound);
}

#[tokio::test]
async fn a_version_of_a_runbook_has_one_content_for_ever() {
    let plane = Plane::start().await.unwrap();
    let mut runbooks = RunbookServiceClient::new(mei(&plane).await);
    let push = |text: &str| PushRunbookRequest {
        source: Some(RunbookSource {
            file: "look.yaml".into(),
            text: text.to_owned(),
        }),
    };
    assert!(
        !runbooks
            .push_runbook(push(RUNBOOK))
            .await
            .unwrap()
            .into_inner()
            .existed
    );
    assert!(
        runbooks
            .push_runbook(push(RUNBOOK))
            .await
            .unwrap()
            .into_inner()
            .existed
    );
    let other = RUNBOOK.replace("name: shop,", "name: shop2,");
    let refused = runbooks.push_runbook(push(&other)).await.unwrap_err();
    assert_eq!(exit(&refused), "13");
    assert!(
        hint(&refused).contains("version` to 2"),
        "{}",
        hint(&refused)
    );
    let second = other.replace("version: 1", "version: 2");
    runbooks.push_runbook(push(&second)).await.unwrap();
    let newest = GetRunbookRequest {
        name: "look".into(),
    };
    let newest = runbooks.get_runbook(newest).await.unwrap().into_inner();
    assert_eq!(newest.text, second);
    let all = runbooks
        .list_runbooks(ListRunbooksRequest {})
        .await
        .unwrap()
        .into_inner()
        .runbooks;
    let names: Vec<String> = all
        .iter()
        .map(|r| format!("{}@{} {}", r.name, r.version, r.origin))
        .collect();
    assert_eq!(
        names,
        [
            "deploy-image@1 built in",
            "look@1 pushed",
            "look@2 pushed",
            "rollback-service@1 built in"
        ]
    );
}

#[tokio::test]
async fn a_replica_that_cannot_see_the_store_answers_nothing_of_what_it_remembers() {
    let etcd = aldis_tests::etcd::Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 1).await.unwrap();
    let mut fleet = FleetServiceClient::new(mei(&plane).await);
    fleet
        .list_agents(ListAgentsRequest::default())
        .await
        .unwrap();
    etcd.freeze().unwrap();
    // What it knows is proved for a while yet; this ends when that is over.
    let until_refused = async {
        loop {
            if let Err(refused) = fleet.list_agents(ListAgentsRequest::default()).await {
                return refused;
            }
        }
    };
    let refused = tokio::time::timeout(crate::by_hand::SOON, until_refused).await;
    etcd.thaw().unwrap();
    let refused = refused.expect("it answers nothing any more");
    assert_eq!((refused.code(), exit(&refused)), (Code::Unavailable, "12"));
}

#[tokio::test]
async fn a_control_plane_that_is_asked_to_end_says_so_and_ends() {
    let plane = Plane::start().await.unwrap();
    let ended = plane.stop().await.unwrap();
    assert_eq!(ended, aldis_control_plane::run::Ended::Asked);
}
