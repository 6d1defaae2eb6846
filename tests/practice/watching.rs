//! What people are shown while agents, or the store, are away.

use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::job_logs_response::Message;
use aldis_proto::v1::job_service_client::JobServiceClient;
use aldis_proto::v1::{ListAgentsRequest, ListJobsRequest, WatchJobRequest, WhoamiRequest};
use aldis_tests::etcd::Server;
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use aldis_tests::practice::{PATIENCE, Practice};
use tonic::transport::Channel;
use tonic::{Code, Status};

use crate::FOUR;
use crate::asked::{open_gates, waiting_at_the_gate, waits_at_the_gate};

#[tokio::test]
async fn a_followed_target_is_read_on_after_its_agent_was_away() {
    let (mut practice, job) = waiting_at_the_gate().await;
    let canary = FOUR[0];
    let mut lines = practice.follow_logs(&job).await.unwrap();
    practice.end(canary).await.unwrap();
    practice.until_states(&[canary], "lost").await.unwrap();
    let mut seen = Vec::new();
    let mut is_gap_shown = false;
    while !is_gap_shown {
        match lines.message().await.unwrap().unwrap().message.unwrap() {
            Message::Line(line) if line.target == canary => seen.push(line.sequence),
            Message::Gap(gap) if gap.target == canary => is_gap_shown = true,
            Message::Line(_) | Message::Gap(_) => {}
        }
    }
    practice.begin(canary).await.unwrap();
    practice.until_live(&[canary]).await.unwrap();
    open_gates(&practice);
    while let Some(message) = lines.message().await.unwrap() {
        match message.message.unwrap() {
            Message::Line(line) if line.target == canary => seen.push(line.sequence),
            Message::Line(_) | Message::Gap(_) => {}
        }
    }
    let all = practice.logs(&job).await.unwrap().into_iter();
    let all = all
        .filter(|line| line.target == canary)
        .map(|line| line.sequence);
    assert_eq!(seen, all.collect::<Vec<_>>(), "each line once, in order");
}

#[tokio::test]
async fn a_replica_that_lost_the_store_shows_nothing_as_if_it_were_current() {
    let etcd = Server::start().await.unwrap();
    let plane = Plane::start_on_etcd(&etcd.endpoint(), 2).await.unwrap();
    let practice = Practice::on(plane, &FOUR, PATIENCE).await.unwrap();
    let job = waits_at_the_gate(&practice).await;
    let standby = standby(&practice.plane).await;
    let mut jobs = JobServiceClient::new(standby.clone());
    let watch = WatchJobRequest { job: job.clone() };
    let mut views = jobs.watch_job(watch).await.unwrap().into_inner();
    etcd.freeze().unwrap();
    let ended = async {
        loop {
            match views.message().await {
                Ok(Some(_)) => {}
                Ok(None) => return None,
                Err(status) => return Some(status),
            }
        }
    };
    let ended = tokio::time::timeout(PATIENCE, ended).await.unwrap();
    assert_eq!(ended.map(|status| status.code()), Some(Code::Unavailable));
    let listed = jobs.list_jobs(ListJobsRequest::default()).await;
    let agents = ListAgentsRequest::default();
    let agents = FleetServiceClient::new(standby).list_agents(agents).await;
    let refusals: [Status; 2] = [listed.unwrap_err(), agents.unwrap_err()];
    for refused in refusals {
        assert_eq!(refused.code(), Code::Unavailable);
        assert!(
            refused.message().contains("has not seen the store"),
            "{refused}"
        );
    }
    etcd.thaw().unwrap();
}

/// A connection to the replica that does not lead.
async fn standby(plane: &Plane) -> Channel {
    let mei = plane.authority().issue(&Request::user("mei")).unwrap();
    for address in plane.addresses() {
        let channel = plane.connect_at(address, Some(&mei)).await.unwrap();
        let who = FleetServiceClient::new(channel.clone())
            .whoami(WhoamiRequest {})
            .await;
        let who = who.unwrap().into_inner();
        if who.leader != who.replica {
            return channel;
        }
    }
    panic!("both replicas lead");
}
