//! An agent whose every frame a test writes by hand, against a real control plane.

use std::time::Duration;

use aldis_core::ids::{Fence, TargetName};
use aldis_core::plan::{ClusterIdentity, Disposition, TargetPart};
use aldis_core::question::{Answer, Question};
use aldis_core::reconcile::{AttemptList, Listed};
use aldis_proto::convert::{document, fence, parse};
use aldis_proto::v1;
use aldis_proto::v1::agent_service_client::AgentServiceClient;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::session_request::Message as Out;
use aldis_proto::v1::session_response::Message as In;
use aldis_tests::pki::Request;
use aldis_tests::plane::Plane;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Status, Streaming};

/// For anything that should happen soon.
pub(crate) const SOON: Duration = Duration::from_secs(20);

/// What a process says of itself when it registers.
#[derive(Clone, Debug)]
pub(crate) struct Who {
    pub(crate) target: TargetName,
    pub(crate) process: String,
    pub(crate) machine: String,
    pub(crate) journal: String,
    pub(crate) sequence: u64,
    pub(crate) highest: Fence,
    pub(crate) revision: i64,
    pub(crate) attempts: Vec<Listed>,
}

impl Who {
    pub(crate) fn new(target: &str) -> Self {
        Self {
            target: target.parse().unwrap(),
            process: format!("process of {target}"),
            machine: format!("machine of {target}"),
            journal: format!("journal of {target}"),
            sequence: 0,
            highest: Fence::default(),
            revision: 0,
            attempts: vec![],
        }
    }

    fn identity(&self) -> ClusterIdentity {
        ClusterIdentity {
            cluster_uid: format!("cluster of {}", self.target),
            ca_fingerprint: "ca".to_owned(),
        }
    }

    fn list(&self) -> AttemptList {
        AttemptList {
            journal: self.journal.as_str().into(),
            sequence: self.sequence,
            damage: None,
            attempts: self.attempts.clone(),
        }
    }

    fn register(&self) -> v1::Register {
        v1::Register {
            identity: Some(document(&self.identity())),
            version: "by hand".to_owned(),
            labels: [("env".to_owned(), "prod".to_owned())].into(),
            simulated: true,
            process: self.process.clone(),
            machine: self.machine.clone(),
            journal_id: self.journal.clone(),
            journal_sequence: self.sequence,
            journal_damage: String::new(),
            highest_fence: Some(fence(self.highest)),
            highest_store_revision: self.revision,
            attempts: Some(document(&self.list())),
        }
    }

    /// As whoever holds this target's certificate.
    pub(crate) async fn connect(&self, plane: &Plane) -> anyhow::Result<tonic::transport::Channel> {
        let request = Request::agent(self.target.region(), self.target.cluster(), "1");
        plane.connect(&request).await
    }

    /// Registers; the first frame of the answer.
    pub(crate) async fn try_register(&self, plane: &Plane) -> Result<(ByHand, In), Status> {
        let channel = self.connect(plane).await;
        let channel = channel.map_err(|error| Status::unavailable(error.to_string()))?;
        self.try_register_over(channel).await
    }

    /// The same over a connection that is there.
    pub(crate) async fn try_register_over(
        &self,
        channel: tonic::transport::Channel,
    ) -> Result<(ByHand, In), Status> {
        let (outgoing, requests) = mpsc::channel(16);
        let first = v1::SessionRequest {
            message: Some(Out::Register(Box::new(self.register()))),
        };
        outgoing.send(first).await.unwrap();
        let incoming = AgentServiceClient::new(channel)
            .session(ReceiverStream::new(requests))
            .await?
            .into_inner();
        let mut by_hand = ByHand {
            who: self.clone(),
            outgoing,
            incoming,
            seen: Fence::default(),
        };
        let first = by_hand.frame().await?;
        Ok((by_hand, first))
    }

    /// Registers, however often the control plane is on its way to another leader.
    pub(crate) async fn register_with(&self, plane: &Plane) -> ByHand {
        let registers = async {
            loop {
                match self.try_register(plane).await {
                    Ok((by_hand, In::Registered(_))) => return by_hand,
                    Ok((_, other)) => panic!("{other:?}"),
                    // A connection that breaks while a replica starts again has no code of its own.
                    Err(status)
                        if matches!(
                            status.code(),
                            tonic::Code::Unavailable | tonic::Code::Unknown
                        ) => {}
                    Err(status) => panic!("{status:?}"),
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        tokio::time::timeout(SOON, registers)
            .await
            .expect("it registers")
    }
}

/// One stream.
pub(crate) struct ByHand {
    pub(crate) who: Who,
    outgoing: mpsc::Sender<v1::SessionRequest>,
    incoming: Streaming<v1::SessionResponse>,
    /// The fence of the last frame.
    pub(crate) seen: Fence,
}

impl ByHand {
    pub(crate) async fn send(&self, message: Out) {
        let request = v1::SessionRequest {
            message: Some(message),
        };
        // A stream that was ended shows at the next read.
        let _ = self.outgoing.send(request).await;
    }

    /// The next frame, whatever it is.
    pub(crate) async fn frame(&mut self) -> Result<In, Status> {
        let next = tokio::time::timeout(SOON, self.incoming.message()).await;
        let next = next.map_err(|_| Status::deadline_exceeded("no frame came"))??;
        let frame = next.ok_or_else(|| Status::cancelled("the stream ended"))?;
        self.seen = aldis_proto::convert::fence_from(frame.fence.as_ref());
        frame
            .message
            .ok_or_else(|| Status::internal("an empty frame"))
    }

    /// The next frame that is wanted. Questions are answered on the way, as an agent of few words would.
    pub(crate) async fn find<T>(&mut self, wanted: impl Fn(&In) -> Option<T>) -> Result<T, Status> {
        loop {
            let frame = self.frame().await?;
            if let Some(found) = wanted(&frame) {
                return Ok(found);
            }
            if let In::Ask(ask) = frame {
                self.answer(&ask).await;
            }
        }
    }

    pub(crate) async fn answer(&self, ask: &v1::Ask) {
        let answer = match parse::<Question>(ask.question.as_ref(), "question").unwrap() {
            Question::Attempts => Answer::Attempts(self.who.list()),
            Question::Plan(_) => Answer::Plan(Box::new(TargetPart {
                target: self.who.target.clone(),
                identity: self.who.identity(),
                simulated: true,
                disposition: Disposition::Run,
                steps: vec![],
                warnings: vec![],
                left: None,
            })),
            Question::Drift { .. } => Answer::Drift { found: None },
            Question::Undo(_) | Question::Soak(_) => panic!("not asked in these tests"),
        };
        self.send(Out::Answer(v1::Answer {
            id: ask.id,
            result: Some(v1::answer::Result::Answer(document(&answer))),
        }))
        .await;
    }

    /// Asks for permits until one is granted, or refused in words that hold a text.
    async fn asks(&mut self, enough: impl Fn(&v1::Permit) -> bool) -> Result<v1::Permit, Status> {
        let mut last = String::new();
        let asking = async {
            loop {
                self.send(Out::PermitRequest(v1::PermitRequest { sent_boot_ms: 1 }))
                    .await;
                let permit = self
                    .find(|frame| match frame {
                        In::Permit(permit) => Some(permit.clone()),
                        _ => None,
                    })
                    .await?;
                if enough(&permit) {
                    return Ok(permit);
                }
                last.clone_from(&permit.refusal);
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let asked = tokio::time::timeout(SOON, asking).await;
        asked.unwrap_or_else(|_| panic!("the last permit was refused: {last}"))
    }

    pub(crate) async fn is_granted(&mut self) -> Result<(), Status> {
        self.asks(|permit| permit.duration_ms > 0).await.map(drop)
    }

    /// Asks for permits until one is refused for this; those that are granted before do not count.
    pub(crate) async fn asks_until_refused(&mut self, because: &str) -> Result<(), Status> {
        let refused = |permit: &v1::Permit| permit.refusal.contains(because);
        self.asks(refused).await.map(drop)
    }

    pub(crate) async fn is_refused(&mut self, because: &str) -> Result<(), Status> {
        let refused = |permit: &v1::Permit| {
            assert_eq!(permit.duration_ms, 0, "a permit was granted");
            permit.refusal.contains(because)
        };
        self.asks(refused).await.map(drop)
    }

    /// Reads until the stream is ended; why.
    pub(crate) async fn is_ended(&mut self) -> Status {
        loop {
            match self.frame().await {
                Ok(In::Ask(ask)) => self.answer(&ask).await,
                Ok(_) => {}
                Err(status) => return status,
            }
        }
    }
}

/// How the control plane shows an agent.
pub(crate) async fn shown(plane: &Plane, target: &str) -> v1::AgentInfo {
    let channel = plane.connect(&Request::user("mei")).await.unwrap();
    let request = v1::GetAgentRequest {
        target: target.to_owned(),
    };
    let answer = FleetServiceClient::new(channel).get_agent(request).await;
    answer.unwrap().into_inner().agent.unwrap()
}
