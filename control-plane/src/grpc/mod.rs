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

pub use agent::AgentServer;
pub use fleet::FleetServer;
pub use jobs::JobServer;
pub use peer::PeerServer;
pub use runbooks::RunbookServer;

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

/// The trace that the command line began: the 32 digits of its `traceparent`.
fn trace<T>(request: &Request<T>) -> Option<String> {
    let header = request.metadata().get("traceparent")?.to_str().ok()?;
    let id = header.split('-').nth(1)?;
    let readable = id.len() == 32 && id.chars().all(|c| c.is_ascii_hexdigit());
    readable.then(|| id.to_ascii_lowercase())
}
