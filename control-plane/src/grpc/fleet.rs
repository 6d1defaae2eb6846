//! Questions about agents.

use aldis_core::inventory::Presence;
use aldis_core::reconcile::Listed;
use aldis_proto::convert;
use aldis_proto::v1;
use aldis_proto::v1::fleet_service_server::FleetService;
use tonic::{Request, Response, Status};

use super::status::{self, unreadable};
use super::{fresh, user};
use crate::agents::AgentFacts;
use crate::leadership::Leader;
use crate::services::Services;
use crate::store::keys;
use crate::view::View;

/// Serves people who look after agents.
pub struct FleetServer {
    services: Services,
    view: View,
    replica: String,
}

impl FleetServer {
    /// Answers as this replica.
    pub fn new(services: Services, view: View, replica: String) -> Self {
        Self {
            services,
            view,
            replica,
        }
    }
}

#[tonic::async_trait]
impl FleetService for FleetServer {
    async fn list_agents(
        &self,
        request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let request = request.into_inner();
        let selector = request.selector.into_iter().collect();
        let services = fresh(&self.services).await?;
        let agents = services.list_agents(&selector, &request.region);
        let agents = agents.map_err(|e| status::of(&e))?;
        let agents = agents.iter().map(info).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }

    async fn get_agent(
        &self,
        request: Request<v1::GetAgentRequest>,
    ) -> Result<Response<v1::GetAgentResponse>, Status> {
        let target = request.into_inner().target;
        let target = convert::target(&target, "target").map_err(|e| unreadable(&e))?;
        let services = fresh(&self.services).await?;
        let facts = services.agent(&target).map_err(|e| status::of(&e))?;
        Ok(Response::new(v1::GetAgentResponse {
            agent: Some(info(&facts)),
        }))
    }

    async fn repin_agent(
        &self,
        request: Request<v1::RepinAgentRequest>,
    ) -> Result<Response<v1::RepinAgentResponse>, Status> {
        let by = user(&request)?;
        let request = request.into_inner();
        let target = convert::target(&request.target, "target").map_err(|e| unreadable(&e))?;
        let services = fresh(&self.services).await?;
        services
            .repin(&target, &request.cluster_uid, &request.reason, &by)
            .await
            .map_err(|e| status::of(&e))?;
        Ok(Response::new(v1::RepinAgentResponse {}))
    }

    async fn whoami(
        &self,
        request: Request<v1::WhoamiRequest>,
    ) -> Result<Response<v1::WhoamiResponse>, Status> {
        let leader = self.view.get(&keys::leader());
        let leader = leader.and_then(|record| serde_json::from_slice::<Leader>(&record.value).ok());
        Ok(Response::new(v1::WhoamiResponse {
            identity: user(&request)?,
            replica: self.replica.clone(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            leader: leader.map(|leader| leader.replica).unwrap_or_default(),
        }))
    }
}

fn info(facts: &AgentFacts) -> v1::AgentInfo {
    let fleet = &facts.fleet;
    let (state, detail) = match &facts.presence {
        Presence::Live { .. } => ("live", refusals(facts)),
        Presence::NotMerged => ("merging", "its attempts are being compared".to_owned()),
        Presence::Contested { why } => ("contested", why.clone()),
        Presence::Held { why } => ("held", why.clone()),
        Presence::Absent { .. } => ("lost", String::new()),
    };
    let session = facts.session.as_ref();
    let last_seen = facts
        .last_seen
        .map_or(0, |age| u64::try_from(age.as_millis()).unwrap_or(u64::MAX));
    v1::AgentInfo {
        target: fleet.target.to_string(),
        version: fleet.version.clone(),
        state: state.to_owned(),
        detail,
        last_seen_ms: last_seen,
        last_seen_unknown: facts.last_seen.is_none(),
        labels: fleet.labels.clone().into_iter().collect(),
        simulated: fleet.simulated,
        cluster_uid: fleet.identity.cluster_uid.clone(),
        ca_fingerprint: fleet.identity.ca_fingerprint.clone(),
        replica: session
            .map(|session| session.replica.clone())
            .unwrap_or_default(),
        generation: session.map_or(0, |session| session.generation),
        journal_id: fleet.journal.id.to_string(),
        open_attempts: u32::try_from(facts.open_attempts).unwrap_or(u32::MAX),
        orphans: fleet.orphans.iter().map(orphan).collect(),
        offered_cluster_uid: fleet
            .offered
            .as_ref()
            .map(|offered| offered.cluster_uid.clone())
            .unwrap_or_default(),
    }
}

/// Orders that it will not take.
fn refusals(facts: &AgentFacts) -> String {
    let refused = facts.session.iter().flat_map(|session| &session.refused);
    let refused: Vec<String> = refused
        .map(|order| {
            let job = order.job.short();
            format!(
                "refuses attempt {} of job {job}: {}",
                order.attempt, order.why
            )
        })
        .collect();
    refused.join("; ")
}

fn orphan(listed: &Listed) -> String {
    let steps: Vec<&str> = listed.steps.keys().map(|step| step.as_str()).collect();
    format!(
        "job {} attempt {} ({})",
        listed.job,
        listed.attempt,
        steps.join(", ")
    )
}
