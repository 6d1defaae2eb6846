//! The wire: each handler converts, calls one service function, converts back.
//!
//! Who calls is in the request's extensions, put there by the authorization layer, and never taken
//! from a message.

mod agent;
mod fleet;
pub mod hop;
mod jobs;
mod peer;
mod runbooks;
pub(crate) mod status;

use tonic::{Request, Status};

use crate::identity::Identity;
use crate::services::Services;

pub use agent::AgentServer;
pub use fleet::FleetServer;
pub use jobs::JobServer;
pub use peer::PeerServer;
pub use runbooks::RunbookServer;

/// The services of a replica that can see the store. Nothing is answered from any other.
async fn fresh(services: &Services) -> Result<&Services, Status> {
    services.fresh().await.map_err(|error| status::of(&error))
}

/// Who calls.
fn caller<T>(request: &Request<T>) -> Result<Identity, Status> {
    request
        .extensions()
        .get::<Identity>()
        .cloned()
        .ok_or_else(|| Status::unauthenticated("the call came past the authorization table"))
}

/// The person or script that calls, as records name them.
fn user<T>(request: &Request<T>) -> Result<String, Status> {
    Ok(caller(request)?.to_string())
}
