//! A client's way in: a connection to one replica, with a certificate made for the occasion.

use std::time::Duration;

use aldis_proto::v1::WhoamiRequest;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use anyhow::Context;
use tonic::transport::{Certificate, Channel, ClientTlsConfig, Endpoint, Identity};

use crate::pki::{Authority, Request};

/// A replica that is up answers in milliseconds; one that is frozen never does.
const PATIENCE: Duration = Duration::from_secs(3);

/// Connects to a port on loopback as somebody.
pub(super) async fn connect(
    authority: &Authority,
    port: u16,
    who: &Request,
) -> anyhow::Result<Channel> {
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
    let leaf = authority.issue(who)?;
    let tls = ClientTlsConfig::new()
        .ca_certificate(Certificate::from_pem(authority.pem()))
        .identity(Identity::from_pem(&leaf.certificate, &leaf.key))
        .domain_name("localhost");
    let endpoint = Endpoint::from_shared(format!("https://127.0.0.1:{port}"))?
        .connect_timeout(PATIENCE)
        .timeout(PATIENCE);
    // The endpoint's own limit covers the connection and not the handshake, which a frozen replica never ends.
    let endpoint = endpoint.tls_config(tls)?;
    let connecting = tokio::time::timeout(PATIENCE, endpoint.connect());
    Ok(connecting.await.context("no handshake in time")??)
}

/// Who leads, by this replica's word; empty when it knows of nobody.
pub(super) async fn leader(channel: Channel) -> anyhow::Result<String> {
    let who = FleetServiceClient::new(channel)
        .whoami(WhoamiRequest {})
        .await?;
    Ok(who.into_inner().leader)
}
