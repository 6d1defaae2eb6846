//! Who may call what: one table over all methods. What has no row is refused.
//!
//! A row grants a method to one kind of identity. That an agent speaks for its own cluster only is not
//! in the table: its target is taken from its certificate and never from a message.

use std::task::{Context, Poll};

use tokio::task::futures::TaskLocalFuture;
use tonic::{Code, Status};
use tower::{Layer, Service};
use tracing::instrument::Instrumented;
use tracing::{Instrument, Span, info_span};

use crate::grpc::status::not_allowed;
use crate::identity::{Identity, Peer};
use crate::trace;

/// A kind of identity.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// The agent of a cluster.
    Agent,
    /// A person or a script.
    User,
    /// Another replica.
    Replica,
}

/// Service, method, who may call it.
pub const TABLE: [(&str, &str, Kind); 22] = [
    ("aldis.v1.AgentService", "Session", Kind::Agent),
    ("aldis.v1.AgentService", "Logs", Kind::Agent),
    ("aldis.v1.JobService", "Plan", Kind::User),
    ("aldis.v1.JobService", "GetPlan", Kind::User),
    ("aldis.v1.JobService", "Submit", Kind::User),
    ("aldis.v1.JobService", "GetJob", Kind::User),
    ("aldis.v1.JobService", "ListJobs", Kind::User),
    ("aldis.v1.JobService", "WatchJob", Kind::User),
    ("aldis.v1.JobService", "RequestJob", Kind::User),
    ("aldis.v1.JobService", "PlanLinked", Kind::User),
    ("aldis.v1.JobService", "JobLogs", Kind::User),
    ("aldis.v1.FleetService", "ListAgents", Kind::User),
    ("aldis.v1.FleetService", "GetAgent", Kind::User),
    ("aldis.v1.FleetService", "RepinAgent", Kind::User),
    ("aldis.v1.FleetService", "Whoami", Kind::User),
    ("aldis.v1.RunbookService", "PushRunbook", Kind::User),
    ("aldis.v1.RunbookService", "ListRunbooks", Kind::User),
    ("aldis.v1.RunbookService", "GetRunbook", Kind::User),
    ("aldis.v1.PeerService", "AskAgent", Kind::Replica),
    ("aldis.v1.PeerService", "AgentLogs", Kind::Replica),
    ("grpc.health.v1.Health", "Check", Kind::User),
    ("grpc.health.v1.Health", "Watch", Kind::User),
];

/// Whether somebody may call a method, by its path `/SERVICE/METHOD`.
pub fn allows(identity: &Identity, path: &str) -> bool {
    let kind = match identity {
        Identity::Agent { .. } => Kind::Agent,
        Identity::User { .. } => Kind::User,
        Identity::Replica { .. } => Kind::Replica,
    };
    let Some((service, method)) = path.strip_prefix('/').and_then(|path| path.split_once('/'))
    else {
        return false;
    };
    TABLE.contains(&(service, method, kind))
}

/// Puts the table before every service.
#[derive(Clone, Copy, Debug, Default)]
pub struct Authorize;

impl<S> Layer<S> for Authorize {
    type Service = Authorized<S>;

    fn layer(&self, inner: S) -> Authorized<S> {
        Authorized { inner }
    }
}

/// A service behind the table.
#[derive(Clone, Debug)]
pub struct Authorized<S> {
    inner: S,
}

impl<S, B, R> Service<http::Request<B>> for Authorized<S>
where
    S: Service<http::Request<B>, Response = http::Response<R>>,
    R: Default,
    S::Future: Send + 'static,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = futures::future::Either<
        std::future::Ready<Result<S::Response, S::Error>>,
        TaskLocalFuture<Option<String>, Instrumented<S::Future>>,
    >;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: http::Request<B>) -> Self::Future {
        match admit(request.extensions().get::<Peer>(), request.uri().path()) {
            Ok(identity) => {
                let trace = trace::of(request.headers());
                let call = span(&request, &identity, trace.as_deref());
                request.extensions_mut().insert(identity);
                let called = self.inner.call(request).instrument(call);
                futures::future::Either::Right(trace::under(trace, called))
            }
            Err(status) => {
                futures::future::Either::Left(std::future::ready(Ok(status.into_http())))
            }
        }
    }
}

/// Stands before whatever is logged of a call: who called what, and under which trace of the command line.
fn span<B>(request: &http::Request<B>, identity: &Identity, trace: Option<&str>) -> Span {
    let method = request.uri().path();
    info_span!("call", method, %identity, trace)
}

fn admit(peer: Option<&Peer>, path: &str) -> Result<Identity, Status> {
    let identity = match peer {
        Some(Peer(Ok(identity))) => identity,
        Some(Peer(Err(why))) => {
            return Err(not_allowed(Code::Unauthenticated, why, &path));
        }
        // It came by no connection of ours.
        None => {
            let why = "no client certificate was shown";
            return Err(not_allowed(Code::Unauthenticated, why, &path));
        }
    };
    if allows(identity, path) {
        return Ok(identity.clone());
    }
    let why = format!("{identity} may not call {path}");
    Err(not_allowed(Code::PermissionDenied, &why, &path))
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use prost::Message;
    use prost_types::FileDescriptorSet;

    use super::*;

    fn methods() -> BTreeSet<(String, String)> {
        let files = FileDescriptorSet::decode(aldis_proto::DESCRIPTORS)
            .unwrap()
            .file;
        let mut methods = BTreeSet::new();
        for file in files {
            for service in &file.service {
                let name = format!("{}.{}", file.package(), service.name());
                for method in &service.method {
                    methods.insert((name.clone(), method.name().to_owned()));
                }
            }
        }
        methods
    }

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let rows: BTreeSet<(String, String)> = TABLE
            .iter()
            .filter(|(service, ..)| service.starts_with("aldis."))
            .map(|(service, method, _)| ((*service).to_owned(), (*method).to_owned()))
            .collect();
        assert!(!rows.is_empty());
        assert_eq!(rows, methods());
    }

    #[test]
    fn each_kind_may_call_its_own_methods_and_no_other() {
        let everybody = [
            (
                Kind::Agent,
                Identity::Agent {
                    target: "eu/prod".parse().unwrap(),
                    enrolment: "1".into(),
                },
            ),
            (Kind::User, Identity::User { name: "mei".into() }),
            (
                Kind::Replica,
                Identity::Replica {
                    name: "cp-1".into(),
                },
            ),
        ];
        for (service, method, kind) in TABLE {
            for (of, identity) in &everybody {
                let path = format!("/{service}/{method}");
                assert_eq!(allows(identity, &path), *of == kind, "{identity} {path}");
            }
        }
        for path in [
            "",
            "/",
            "/aldis.v1.JobService/Drop",
            "aldis.v1.JobService/Plan",
        ] {
            assert!(!allows(&everybody[1].1, path), "{path}");
        }
    }
}
