//! From an endpoint to a registered stream.

use std::pin::Pin;
use std::sync::Mutex;
use std::time::Duration;

use aldis_core::plan::ClusterIdentity;
use aldis_proto::convert::{document, fence, fence_from};
use aldis_proto::v1;
use aldis_proto::v1::agent_service_client::AgentServiceClient;
use aldis_proto::v1::session_request::Message as Out;
use aldis_proto::v1::session_response::Message as In;
use async_trait::async_trait;
use futures::{Stream as Frames, TryStreamExt};
use hyper_util::rt::TokioIo;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;

use super::Settings;
use crate::config::Endpoint;
use crate::ledger::{self, Token};
use crate::parts::Parts;
use crate::tls;

/// From the first byte to the registration: a transaction in the store, and room.
const WITHIN: Duration = Duration::from_secs(15);

/// Pings on an idle connection, and how long one may be unanswered: a replica that is gone without a word is noticed
/// within ten seconds, a third of a permit.
const PING_EVERY: Duration = Duration::from_secs(5);
const PONG_WITHIN: Duration = Duration::from_secs(5);

/// Frames that may wait to be sent. The reports behind them wait in their own place.
const FRAMES: usize = 64;

/// An order with its plan part; plans of a thousand steps are below a tenth of it.
pub(super) const LONGEST_FRAME: usize = 16 << 20;

/// Why there is no stream.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No connection that proves who is at its other end.
    #[error(transparent)]
    Tls(#[from] tls::Error),
    /// A connection without a protocol.
    #[error("speak HTTP/2")]
    Http(#[source] tonic::transport::Error),
    /// The replica said no.
    #[error("registration refused: {}", .0.message())]
    Refused(tonic::Status),
    /// The replica said nothing.
    #[error("no registration within {} s", WITHIN.as_secs())]
    Slow,
    /// The replica went away.
    #[error("the stream ended before the registration")]
    Ended,
    /// The replica said something else.
    #[error("the first frame is no registration")]
    OutOfPlace,
    /// The replica follows a leader that is not the newest.
    #[error("a replica of an older leader wants the journal set aside")]
    OlderLeader,
    /// The list was older than what is known of it.
    #[error(
        "the list of attempts was overtaken by a report on the stream before; registering with a fresh one"
    )]
    Overtaken,
    /// The token could not be written down.
    #[error("note the leader's token")]
    Ledger(#[from] ledger::Error),
}

/// Frames of a replica.
pub type Incoming =
    Pin<Box<dyn Frames<Item = Result<v1::SessionResponse, tonic::Status>> + Send + Sync>>;

/// Frames to a replica, the registration first.
pub type Outgoing = ReceiverStream<v1::SessionRequest>;

/// How a replica is reached. A stream may break, or be silent for ever, at any frame in either direction.
#[async_trait]
pub trait Reach: Send + Sync {
    /// Opens a stream.
    async fn session(
        &self,
        settings: &Settings,
        endpoint: &Endpoint,
        outgoing: Outgoing,
    ) -> Result<Incoming, Error>;
}

/// Over a connection with mutual TLS: the only way outside simulations.
pub(super) struct OverTls;

#[async_trait]
impl Reach for OverTls {
    async fn session(
        &self,
        settings: &Settings,
        endpoint: &Endpoint,
        outgoing: Outgoing,
    ) -> Result<Incoming, Error> {
        let mut client = client(settings, endpoint).await?;
        let response = client.session(outgoing).await;
        Ok(Box::pin(response.map_err(Error::Refused)?.into_inner()))
    }
}

pub(super) enum Opened {
    /// The stream counts.
    Registered(Box<Stream>),
    /// The journal is to be set aside first.
    SetAside(String),
}

/// A registered stream.
pub(super) struct Stream {
    /// Of this process, from 1.
    pub(super) number: u64,
    pub(super) replica: String,
    pub(super) outgoing: mpsc::Sender<v1::SessionRequest>,
    pub(super) incoming: Incoming,
    pub(super) endpoint: Endpoint,
    pub(super) settings: Settings,
    pub(super) pace: super::stream::Pace,
}

/// The first frame.
pub(super) fn register(
    parts: &Parts,
    settings: &Settings,
    identity: &ClusterIdentity,
) -> v1::Register {
    let list = parts.ledger.list(parts.clock.wall_now_ms());
    let seen = parts.ledger.seen();
    v1::Register {
        identity: Some(document(identity)),
        version: env!("CARGO_PKG_VERSION").to_owned(),
        labels: settings.labels.clone().into_iter().collect(),
        simulated: parts.simulated,
        process: settings.process.clone(),
        machine: settings.machine.clone(),
        journal_id: list.journal.to_string(),
        journal_sequence: list.sequence,
        journal_damage: list.damage.clone().unwrap_or_default(),
        highest_fence: Some(fence(aldis_core::ids::Fence {
            incarnation: seen.incarnation,
            epoch: seen.epoch,
        })),
        highest_store_revision: i64::try_from(seen.store_revision).unwrap_or(i64::MAX),
        attempts: Some(document(&list)),
    }
}

/// Connects, registers, and hears that it counts.
pub(super) async fn open(
    reach: &dyn Reach,
    parts: &Parts,
    settings: &Settings,
    endpoint: &Endpoint,
    register: v1::Register,
    number: u64,
) -> Result<Opened, Error> {
    let opened = connect_and_register(reach, parts, settings, endpoint, register, number);
    tokio::time::timeout(WITHIN, opened)
        .await
        .unwrap_or(Err(Error::Slow))
}

async fn connect_and_register(
    reach: &dyn Reach,
    parts: &Parts,
    settings: &Settings,
    endpoint: &Endpoint,
    register: v1::Register,
    number: u64,
) -> Result<Opened, Error> {
    let (outgoing, frames) = mpsc::channel(FRAMES);
    let first = v1::SessionRequest {
        message: Some(Out::Register(Box::new(register))),
    };
    // The channel is empty and its receiver is here.
    let _ = outgoing.try_send(first);
    let frames = ReceiverStream::new(frames);
    let mut incoming = reach.session(settings, endpoint, frames).await?;
    let answer = incoming.try_next().await.map_err(Error::Refused)?;
    let answer = answer.ok_or(Error::Ended)?;
    let revision = u64::try_from(answer.store_revision).unwrap_or(0);
    let token = fence_from(answer.fence.as_ref());
    let noticed = parts.ledger.notice(token, revision).await?;
    match answer.message {
        Some(In::Registered(registered)) => {
            tracing::info!(
                %endpoint, replica = registered.replica, generation = registered.generation,
                "session registered"
            );
            Ok(Opened::Registered(Box::new(Stream {
                number,
                replica: registered.replica,
                outgoing,
                incoming,
                endpoint: endpoint.clone(),
                settings: settings.clone(),
                pace: super::stream::Pace::new(),
            })))
        }
        Some(In::SetAside(_)) if noticed == Token::Older => Err(Error::OlderLeader),
        Some(In::SetAside(v1::SetAside { reason })) => Ok(Opened::SetAside(reason)),
        _ => Err(Error::OutOfPlace),
    }
}

/// A client on a connection of its own.
pub(super) async fn client(
    settings: &Settings,
    endpoint: &Endpoint,
) -> Result<AgentServiceClient<Channel>, Error> {
    let stream = tls::connect(endpoint, &settings.tls, &settings.trust_domain).await?;
    // One connection, used once: what comes after it is dialled anew, with files that are read anew.
    let once = Mutex::new(Some(TokioIo::new(stream)));
    let connector = tower::service_fn(move |_: http::Uri| {
        let stream = once.lock().ok().and_then(|mut once| once.take());
        std::future::ready(stream.ok_or_else(|| std::io::Error::other("the connection is gone")))
    });
    let channel = tonic::transport::Endpoint::from_static("http://control-plane")
        .http2_keep_alive_interval(PING_EVERY)
        .keep_alive_timeout(PONG_WITHIN)
        .keep_alive_while_idle(true)
        .connect_with_connector(connector)
        .await
        .map_err(Error::Http)?;
    Ok(AgentServiceClient::new(channel).max_decoding_message_size(LONGEST_FRAME))
}
