//! One hop to another replica: the same mutual TLS, one connection kept per address.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use aldis_proto::v1;
use aldis_proto::v1::peer_service_client::PeerServiceClient;
use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::BoxStream;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tonic::Status;
use tonic::transport::{Channel, Endpoint, Uri};

use crate::identity::{self, Identity};
use crate::sessions::Hop;
use crate::tls::Files;

/// For connecting, handshake included: replicas stand near each other.
const CONNECT: Duration = Duration::from_secs(3);

/// A peer that does not answer a ping within this is gone.
const KEEPALIVE: Duration = Duration::from_secs(5);

/// An answer may hold one plan part; 1 MiB is the most the store would take of it.
const LARGEST_ANSWER: usize = 8 * 1024 * 1024;

/// Connections to other replicas.
pub struct Replicas {
    files: Files,
    domain: String,
    kept: Mutex<BTreeMap<String, Channel>>,
}

impl Replicas {
    /// Connects with this certificate to replicas of this trust domain.
    pub fn new(files: Files, domain: String) -> Self {
        Self {
            files,
            domain,
            kept: Mutex::default(),
        }
    }

    fn client(&self, address: &str) -> Result<PeerServiceClient<Channel>, Status> {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        let channel = match kept.get(address) {
            Some(channel) => channel.clone(),
            None => {
                let channel = self.channel(address)?;
                kept.insert(address.to_owned(), channel.clone());
                channel
            }
        };
        Ok(PeerServiceClient::new(channel).max_decoding_message_size(LARGEST_ANSWER))
    }

    fn channel(&self, address: &str) -> Result<Channel, Status> {
        // `http`, since TLS is made by the connector below, which also looks who answers.
        let uri = format!("http://{address}");
        let endpoint = Endpoint::from_shared(uri)
            .map_err(|_| Status::internal(format!("`{address}` is no address of a replica")))?
            .connect_timeout(CONNECT)
            .http2_keep_alive_interval(KEEPALIVE)
            .keep_alive_timeout(KEEPALIVE)
            .keep_alive_while_idle(true);
        let (files, domain) = (self.files.clone(), self.domain.clone());
        let connector = tower::service_fn(move |uri: Uri| {
            let (files, domain) = (files.clone(), domain.clone());
            async move { connect(&uri, &files, &domain).await.map(TokioIo::new) }
        });
        Ok(endpoint.connect_with_connector_lazy(connector))
    }
}

async fn connect(
    uri: &Uri,
    files: &Files,
    domain: &str,
) -> std::io::Result<tokio_rustls::client::TlsStream<TcpStream>> {
    let (host, port) = (
        uri.host().unwrap_or_default(),
        uri.port_u16().unwrap_or(443),
    );
    let config = files.client().map_err(std::io::Error::other)?;
    let name = ServerName::try_from(host.to_owned()).map_err(std::io::Error::other)?;
    let stream = TcpStream::connect((host, port)).await?;
    stream.set_nodelay(true)?;
    let stream = TlsConnector::from(Arc::new(config))
        .connect(name, stream)
        .await?;
    let leaf = stream
        .get_ref()
        .1
        .peer_certificates()
        .and_then(<[_]>::first);
    let identity = leaf
        .ok_or(identity::Error::NoCertificate)
        .and_then(|leaf| identity::of_certificate(leaf, domain))
        .map_err(std::io::Error::other)?;
    match identity {
        Identity::Replica { .. } => Ok(stream),
        Identity::Agent { .. } | Identity::User { .. } => Err(std::io::Error::other(format!(
            "{identity} answers where a replica should"
        ))),
    }
}

#[async_trait]
impl Hop for Replicas {
    async fn ask(
        &self,
        address: &str,
        request: v1::AskAgentRequest,
        within: Duration,
    ) -> Result<v1::AskAgentResponse, Status> {
        let mut client = self.client(address)?;
        let asked = tokio::time::timeout(within, client.ask_agent(request)).await;
        let answer =
            asked.map_err(|_| Status::deadline_exceeded("the other replica did not answer"))?;
        Ok(answer?.into_inner())
    }

    async fn logs(
        &self,
        address: &str,
        request: v1::AgentLogsRequest,
    ) -> Result<BoxStream<'static, Result<v1::LogLine, Status>>, Status> {
        let lines = self
            .client(address)?
            .agent_logs(request)
            .await?
            .into_inner();
        let lines = lines
            .filter_map(|line| std::future::ready(line.map(|response| response.line).transpose()));
        Ok(lines.boxed())
    }
}
