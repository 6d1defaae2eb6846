//! Questions about runbooks.

use aldis_proto::v1;
use aldis_proto::v1::runbook_service_server::RunbookService;
use tonic::{Request, Response, Status};

use super::{fresh, status, user};
use crate::services::{Entry, Origin, Services};

/// Serves people who keep runbooks.
pub struct RunbookServer {
    services: Services,
}

impl RunbookServer {
    /// Answers from these services.
    pub fn new(services: Services) -> Self {
        Self { services }
    }
}

#[tonic::async_trait]
impl RunbookService for RunbookServer {
    async fn push_runbook(
        &self,
        request: Request<v1::PushRunbookRequest>,
    ) -> Result<Response<v1::PushRunbookResponse>, Status> {
        let by = user(&request)?;
        let source = request
            .into_inner()
            .source
            .ok_or_else(|| Status::invalid_argument("invalid message: `source` is missing"))?;
        let services = fresh(&self.services).await?;
        let pushed = services.push(&source.file, &source.text, &by).await;
        let (loaded, existed) = pushed.map_err(|e| status::of(&e))?;
        let info = info(Entry::of(&loaded, Origin::Pushed));
        Ok(Response::new(v1::PushRunbookResponse {
            name: info.name,
            version: info.version,
            digest: info.digest,
            existed,
        }))
    }

    async fn list_runbooks(
        &self,
        _request: Request<v1::ListRunbooksRequest>,
    ) -> Result<Response<v1::ListRunbooksResponse>, Status> {
        let services = fresh(&self.services).await?;
        let all = services.runbooks().await.map_err(|e| status::of(&e))?;
        let runbooks = all.into_iter().map(info).collect();
        Ok(Response::new(v1::ListRunbooksResponse { runbooks }))
    }

    async fn get_runbook(
        &self,
        request: Request<v1::GetRunbookRequest>,
    ) -> Result<Response<v1::GetRunbookResponse>, Status> {
        let services = fresh(&self.services).await?;
        let found = services.runbook(&request.into_inner().name).await;
        let (loaded, origin) = found.map_err(|e| status::of(&e))?;
        let info = Some(info(Entry::of(&loaded, origin)));
        Ok(Response::new(v1::GetRunbookResponse {
            info,
            text: loaded.text,
        }))
    }
}

fn info(entry: Entry) -> v1::RunbookInfo {
    v1::RunbookInfo {
        name: entry.name,
        version: entry.version,
        digest: entry.digest.to_string(),
        title: entry.title,
        origin: entry.origin.words().to_owned(),
    }
}
