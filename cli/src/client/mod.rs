//! The way to a control plane: one channel over any of its replicas, calls that may be repeated, and
//! errors an operator can act on.
//!
//! Every call we make may be made twice: a submission has its key, a request its id, a runbook its
//! digest. So a call whose server goes away is made again on the next one.

mod calls;
mod connect;
#[cfg(test)]
mod server_tests;
mod status;
mod tls;

use std::future::Future;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tonic::codegen::http::Uri;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

pub use calls::{
    Agent, Broken, JobFilter, Listed, LogEvent, LogStream, Me, PlanRequest, PlanStep, RunbookEntry,
    Source, Submission, WatchStream,
};
use connect::{Connector, Witness};

use crate::context::{Context, Server};
use crate::error::Error;
use crate::exit::Exit;

/// For one call that answers once. The slowest does a linearizable read and one transaction.
const UNARY: Duration = Duration::from_secs(20);

/// Waits before a call is made again: together long enough for a replica that hands over.
const RETRIES: [Duration; 3] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_millis(1_000),
];

/// A dead connection is noticed within this time twice over, also while a stream is silent.
const KEEPALIVE: Duration = Duration::from_secs(10);

/// Largest answer that is taken: a plan over some thousands of targets.
const LARGEST: usize = 64 * 1024 * 1024;

type Service = InterceptedService<Channel, Trace>;

/// Names one run of a command in the logs of every program that takes part.
#[derive(Clone, Debug)]
pub struct Trace {
    id: String,
}

impl Trace {
    /// A name that nobody else draws.
    pub fn draw() -> Self {
        Self {
            id: format!("{:032x}", rand::random::<u128>().max(1)),
        }
    }

    /// The trace id, 32 hex digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    fn header(&self) -> Option<MetadataValue<Ascii>> {
        let span = rand::random::<u64>().max(1);
        format!("00-{}-{span:016x}-01", self.id).parse().ok()
    }
}

impl Interceptor for Trace {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        if let Some(header) = self.header() {
            request.metadata_mut().insert("traceparent", header);
        }
        Ok(request)
    }
}

/// A control plane, as one identity.
pub struct Client {
    connector: Connector,
    witness: Witness,
    channel: Mutex<Channel>,
    trace: Trace,
}

impl Client {
    /// Gets ready; connects with the first call. `servers` stand in place of the context's, if given.
    pub fn new(context: &Context, servers: &[Server], trace: Trace) -> Result<Self, Error> {
        let servers = match servers {
            [] => context.addresses()?,
            given => given.to_vec(),
        };
        let witness = Witness::default();
        let connector = Connector::new(servers, tls::load(context)?, witness.clone());
        let channel = Mutex::new(channel(&connector));
        Ok(Self {
            connector,
            witness,
            channel,
            trace,
        })
    }

    fn service(&self) -> Service {
        let channel = self.channel.lock().unwrap_or_else(PoisonError::into_inner);
        InterceptedService::new(channel.clone(), self.trace.clone())
    }

    /// Lets go of the connection: the next call goes to another server, where there is one.
    pub fn move_on(&self) {
        self.connector.move_on();
        *self.channel.lock().unwrap_or_else(PoisonError::into_inner) = channel(&self.connector);
    }

    /// Makes a call, again on another server while its server is not there.
    async fn unary<T, F>(&self, call: impl Fn(Service) -> F) -> Result<T, Error>
    where
        F: Future<Output = Result<Response<T>, Status>>,
    {
        self.again(
            async |service| match tokio::time::timeout(UNARY, call(service)).await {
                Ok(answer) => answer.map(Response::into_inner),
                Err(_) => Err(Status::unavailable(format!(
                    "the server did not answer within {} s",
                    UNARY.as_secs()
                ))),
            },
        )
        .await
    }

    async fn again<T>(&self, call: impl AsyncFn(Service) -> Result<T, Status>) -> Result<T, Error> {
        let mut waits = RETRIES.iter();
        loop {
            let status = match call(self.service()).await {
                Ok(answer) => return Ok(answer),
                Err(status) => status,
            };
            let error = self.error(&status);
            let passing = status::is_passing(&status) && error.exit == Exit::Unreachable;
            match waits.next() {
                Some(wait) if passing => tokio::time::sleep(*wait).await,
                _ => return Err(error),
            }
            self.move_on();
        }
    }

    /// A status as an error, with what the connection itself saw.
    fn error(&self, status: &Status) -> Error {
        if !status::is_transport(status) {
            return status::error(status);
        }
        self.witness.newest().unwrap_or_else(|| {
            let hint = "nothing is lost meanwhile; try again";
            match status.code() {
                Code::Cancelled => Error::new(Exit::Unreachable, "the call was cut short"),
                _ => Error::new(Exit::Unreachable, "the connection to the server broke"),
            }
            .hint(hint)
        })
    }

    /// A stream that broke, and whether opening it again can help.
    fn broken(&self, status: &Status) -> Broken {
        let error = self.error(status);
        Broken {
            passing: status::is_passing(status) && error.exit != Exit::NotAllowed,
            error,
        }
    }
}

fn channel(connector: &Connector) -> Channel {
    let connector = connector.clone();
    // TLS is the connector's; the address here is only what HTTP/2 calls the server.
    Endpoint::from(Uri::from_static("http://aldis-control-plane"))
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE)
        .keep_alive_while_idle(true)
        .connect_with_connector_lazy(tower::service_fn(move |_: Uri| {
            let connector = connector.clone();
            async move { connector.connect().await }
        }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_of_a_command_carries_one_trace_id() {
        let mut trace = Trace::draw();
        let parents: Vec<String> = (0..2)
            .map(|_| {
                let request = trace.call(Request::new(())).unwrap();
                let parent = request.metadata().get("traceparent").unwrap();
                parent.to_str().unwrap().to_owned()
            })
            .collect();
        for parent in &parents {
            let parts: Vec<&str> = parent.split('-').collect();
            assert_eq!((parts[0], parts[1], parts[3]), ("00", trace.id(), "01"));
            assert_eq!((parts[1].len(), parts[2].len()), (32, 16));
        }
        assert_ne!(parents[0], parents[1]);
    }
}
