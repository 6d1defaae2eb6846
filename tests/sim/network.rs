//! The network between agents and replicas: streams in order, with delays, that break or fall silent; and
//! orders that are told twice, the second time late.
//!
//! What stands in for is mutual TLS, HTTP/2 and the gRPC servers. What is real is at both ends of it.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use aldis_agent::config::Endpoint;
use aldis_agent::session::{Incoming, NoStream, Outgoing, Reach, Settings};
use aldis_control_plane::grpc::PeerServer;
use aldis_control_plane::sessions::{Hop, Sessions};
use aldis_core::assignments::Assignment;
use aldis_core::ids::TargetName;
use aldis_proto::convert::parse;
use aldis_proto::v1::peer_service_server::PeerService;
use aldis_proto::v1::session_response::Message as In;
use aldis_proto::v1::{self, SessionRequest, SessionResponse};
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::sync::{mpsc, watch};
use tokio_stream::wrappers::ReceiverStream;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::chance::Chance;
use crate::history::History;
use crate::witness::Witness;

/// Frames on the way, in each direction.
const FRAMES: usize = 64;

/// Both ends ping; a stream that is silent for so long is given up.
const SILENT: Duration = Duration::from_secs(10);

/// The network. Clones are the same.
#[derive(Clone)]
pub(crate) struct Network(Arc<Shared>);

struct Shared {
    chance: Chance,
    history: History,
    witness: Arc<Witness>,
    storm: watch::Receiver<bool>,
    doors: Mutex<BTreeMap<String, Door>>,
    /// Pairs of replica and target between which nothing passes.
    cuts: watch::Sender<BTreeSet<(String, TargetName)>>,
}

/// A replica that listens.
#[derive(Clone)]
struct Door {
    sessions: Sessions,
    life: CancellationToken,
}

impl Network {
    pub(crate) fn new(
        chance: Chance,
        history: History,
        witness: Arc<Witness>,
        storm: watch::Receiver<bool>,
    ) -> Self {
        Self(Arc::new(Shared {
            chance,
            history,
            witness,
            storm,
            doors: Mutex::default(),
            cuts: watch::Sender::default(),
        }))
    }

    pub(crate) fn listen(&self, replica: &str, sessions: Sessions, life: CancellationToken) {
        let door = Door { sessions, life };
        self.doors().insert(replica.to_owned(), door);
    }

    pub(crate) fn cut(&self, replica: &str, target: &TargetName) {
        let pair = (replica.to_owned(), target.clone());
        self.0.cuts.send_modify(|cuts| {
            cuts.insert(pair);
        });
    }

    pub(crate) fn heal(&self) {
        self.0.cuts.send_replace(BTreeSet::new());
    }

    fn doors(&self) -> MutexGuard<'_, BTreeMap<String, Door>> {
        self.0.doors.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn door(&self, replica: &str) -> Result<Door, Status> {
        let door = self.doors().get(replica).cloned();
        door.filter(|door| !door.life.is_cancelled())
            .ok_or_else(|| Status::unavailable("connection refused"))
    }

    async fn delay(&self) {
        let storm = *self.0.storm.borrow();
        let longest = if storm && self.0.chance.one_in(15) {
            900
        } else {
            5
        };
        tokio::time::sleep(self.0.chance.between(0, longest)).await;
    }
}

/// One agent process's way to replicas.
pub(crate) struct Road {
    pub(crate) network: Network,
    pub(crate) target: TargetName,
    pub(crate) life: CancellationToken,
}

#[async_trait]
impl Reach for Road {
    async fn session(
        &self,
        _settings: &Settings,
        endpoint: &Endpoint,
        outgoing: Outgoing,
    ) -> Result<Incoming, NoStream> {
        self.network.delay().await;
        let replica = endpoint.host.clone();
        let door = self.network.door(&replica).map_err(NoStream::Refused)?;
        let pair = (replica, self.target.clone());
        if self.network.0.cuts.borrow().contains(&pair) {
            tokio::time::sleep(Duration::from_secs(3)).await;
            return Err(NoStream::Slow);
        }
        Ok(self.connect(door, pair, outgoing))
    }
}

impl Road {
    fn connect(&self, door: Door, pair: (String, TargetName), outgoing: Outgoing) -> Incoming {
        let wire = Wire {
            network: self.network.clone(),
            pair,
            generation: Arc::default(),
            ends: [door.life.clone(), self.life.clone()],
        };
        let (up, requests) = mpsc::channel(FRAMES);
        let frames = door
            .sessions
            .serve(self.target.clone(), ReceiverStream::new(requests));
        let (down, responses) = mpsc::channel(FRAMES);
        tokio::spawn(wire.clone().carry_up(outgoing, up));
        tokio::spawn(wire.carry_down(frames, down));
        Box::pin(ReceiverStream::new(responses))
    }
}

/// One stream.
#[derive(Clone)]
struct Wire {
    network: Network,
    pair: (String, TargetName),
    /// Of the session, once it is registered.
    generation: Arc<Mutex<u64>>,
    ends: [CancellationToken; 2],
}

impl Wire {
    /// Returns when the stream is of no use any more.
    async fn breaks(&self) {
        let silent = async {
            let mut cuts = self.network.0.cuts.subscribe();
            loop {
                let _ = cuts.wait_for(|cuts| cuts.contains(&self.pair)).await;
                let healed = cuts.wait_for(|cuts| !cuts.contains(&self.pair));
                if tokio::time::timeout(SILENT, healed).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.ends[0].cancelled() => {}
            () = self.ends[1].cancelled() => {}
            () = silent => {}
        }
    }

    async fn passes(&self) {
        self.network.delay().await;
        let mut cuts = self.network.0.cuts.subscribe();
        // The network lives as long as the story.
        let _ = cuts.wait_for(|cuts| !cuts.contains(&self.pair)).await;
    }

    async fn carry_up(
        self,
        mut frames: Outgoing,
        to: mpsc::Sender<Result<SessionRequest, Status>>,
    ) {
        let carry = async {
            while let Some(frame) = frames.next().await {
                self.passes().await;
                if to.send(Ok(frame)).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.breaks() => {}
            () = carry => {}
        }
    }

    async fn carry_down(
        self,
        mut frames: ReceiverStream<Result<SessionResponse, Status>>,
        to: mpsc::Sender<Result<SessionResponse, Status>>,
    ) {
        let carry = async {
            while let Some(frame) = frames.next().await {
                if let Ok(frame) = &frame {
                    self.look(frame, &to);
                }
                self.passes().await;
                if to.send(frame).await.is_err() {
                    return;
                }
            }
        };
        tokio::select! {
            biased;
            () = self.breaks() => {}
            () = carry => {}
        }
    }

    /// What a replica sends is held against what was committed when it leaves.
    fn look(&self, frame: &SessionResponse, to: &mpsc::Sender<Result<SessionResponse, Status>>) {
        let (shared, target) = (&self.network.0, &self.pair.1);
        let mut generation = self
            .generation
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        match &frame.message {
            Some(In::Registered(registered)) => {
                *generation = registered.generation;
                let (replica, number) = (&self.pair.0, *generation);
                shared
                    .history
                    .say(format!("{target}: session {number} on {replica}"));
            }
            Some(In::Permit(permit)) if permit.duration_ms > 0 => {
                shared.witness.permitted(target, *generation);
            }
            Some(In::Order(order)) => {
                let assignment: Assignment =
                    parse(order.assignment.as_ref(), "order").expect("an assignment");
                let order = &assignment.order;
                shared.history.say(format!(
                    "{}: order to {target} #{} {:?} {:?} by {}",
                    self.pair.0, order.attempt, order.direction, order.wanted, order.fence
                ));
                shared.witness.ordered(order, *generation);
                self.perhaps_again(frame, to);
            }
            Some(In::SetAside(aside)) => {
                shared
                    .history
                    .say(format!("{target}: set aside, {}", aside.reason));
            }
            _ => {}
        }
    }

    /// The same order once more, much later.
    fn perhaps_again(
        &self,
        frame: &SessionResponse,
        to: &mpsc::Sender<Result<SessionResponse, Status>>,
    ) {
        let shared = &self.network.0;
        if !*shared.storm.borrow() || !shared.chance.one_in(5) {
            return;
        }
        let (frame, to, by) = (frame.clone(), to.clone(), shared.chance.between(0, 20_000));
        tokio::spawn(async move {
            tokio::time::sleep(by).await;
            // The stream may be gone.
            let _ = to.try_send(Ok(frame));
        });
    }
}

/// From one replica to another.
pub(crate) struct Bridge(pub(crate) Network);

#[async_trait]
impl Hop for Bridge {
    async fn ask(
        &self,
        address: &str,
        request: v1::AskAgentRequest,
        within: Duration,
    ) -> Result<v1::AskAgentResponse, Status> {
        self.0.delay().await;
        let door = self.0.door(address)?;
        let server = PeerServer::new(door.sessions);
        let asked = server.ask_agent(tonic::Request::new(request));
        let answer = tokio::time::timeout(within, asked).await;
        answer
            .unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer")))
            .map(tonic::Response::into_inner)
    }

    async fn logs(
        &self,
        _address: &str,
        _request: v1::AgentLogsRequest,
    ) -> Result<BoxStream<'static, Result<v1::LogLine, Status>>, Status> {
        Err(Status::unimplemented("nobody reads logs in a story"))
    }
}
