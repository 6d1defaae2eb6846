//! Who gets in. Each refusal says why, and the same certificate with one thing mended is let in.

use aldis_proto::v1::agent_service_client::AgentServiceClient;
use aldis_proto::v1::fleet_service_client::FleetServiceClient;
use aldis_proto::v1::peer_service_client::PeerServiceClient;
use aldis_proto::v1::{AskAgentRequest, SessionRequest, WhoamiRequest};
use aldis_tests::pki::{Authority, Leaf, Request, Usage};
use aldis_tests::plane::Plane;
use tonic::Code;

/// What came of asking who one is. A refused handshake may show at the connection or at the first
/// call: TLS 1.3 tells late.
async fn knock(plane: &Plane, leaf: Option<&Leaf>) -> Result<String, (Code, String)> {
    let channel = match plane.connect_with(leaf).await {
        Ok(channel) => channel,
        Err(error) => return Err((Code::Unknown, format!("{error:#}"))),
    };
    let who = FleetServiceClient::new(channel)
        .whoami(WhoamiRequest {})
        .await;
    who.map(|who| who.into_inner().identity)
        .map_err(|status| (status.code(), format!("{:#}", anyhow::Error::new(status))))
}

#[tokio::test]
async fn a_person_with_a_certificate_of_ours_is_known_by_name() {
    let plane = Plane::start().await.unwrap();
    let leaf = plane.authority().issue(&Request::user("mei")).unwrap();
    assert_eq!(knock(&plane, Some(&leaf)).await.unwrap(), "user/mei");
}

#[tokio::test]
async fn no_certificate_another_authority_or_one_that_expired_does_not_pass_the_handshake() {
    let plane = Plane::start().await.unwrap();
    let (code, why) = knock(&plane, None).await.unwrap_err();
    assert_eq!(code, Code::Unknown);
    assert!(why.contains("CertificateRequired"), "{why}");
    let other = Authority::new("another").unwrap();
    let foreign = other.issue(&Request::user("mei")).unwrap();
    let (_, why) = knock(&plane, Some(&foreign)).await.unwrap_err();
    assert!(why.contains("UnknownCA"), "{why}");
    let expired = Request::user("mei").expired();
    let expired = plane.authority().issue(&expired).unwrap();
    let (_, why) = knock(&plane, Some(&expired)).await.unwrap_err();
    assert!(why.contains("CertificateExpired"), "{why}");
}

#[tokio::test]
async fn a_certificate_that_names_nobody_of_this_domain_is_told_so() {
    let plane = Plane::start().await.unwrap();
    let nameless = plane
        .authority()
        .issue(&Request::new("mei", Usage::Client))
        .unwrap();
    let (code, why) = knock(&plane, Some(&nameless)).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(why.contains("needs exactly one"), "{why}");
    let foreign = Request::new("mei", Usage::Client).uri("spiffe://other.test/user/mei");
    let foreign = plane.authority().issue(&foreign).unwrap();
    let (code, why) = knock(&plane, Some(&foreign)).await.unwrap_err();
    assert_eq!(code, Code::Unauthenticated);
    assert!(
        why.contains("other.test") && why.contains("aldis.test"),
        "{why}"
    );
}

#[tokio::test]
async fn nobody_may_call_what_another_kind_of_caller_may() {
    let plane = Plane::start().await.unwrap();
    let agent = plane
        .authority()
        .issue(&Request::agent("eu", "prod", "1"))
        .unwrap();
    let (code, why) = knock(&plane, Some(&agent)).await.unwrap_err();
    assert_eq!(code, Code::PermissionDenied);
    assert!(
        why.contains("agent/eu/prod/1") && why.contains("Whoami"),
        "{why}"
    );

    let person = plane.connect(&Request::user("mei")).await.unwrap();
    let session = futures::stream::pending::<SessionRequest>();
    let refused = AgentServiceClient::new(person.clone())
        .session(session)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
    let hop = AskAgentRequest::default();
    let refused = PeerServiceClient::new(person)
        .ask_agent(hop)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::PermissionDenied);
}
