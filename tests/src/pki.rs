//! Throw-away certificates: an authority, and leaves as our programs and Kubernetes want them.
//!
//! Identities are SPIFFE URIs as the control plane reads them: `spiffe://aldis.test/agent/REGION/CLUSTER/ENROLMENT`,
//! `…/user/NAME`, `…/control-plane/REPLICA`. What must be refused can be made as well: a leaf that expired, and
//! a leaf of another authority (make a second [`Authority`]). Keys are EC P-256: a test waits for no RSA.

use std::fs::OpenOptions;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa,
    Issuer, KeyPair, KeyUsagePurpose, SanType, date_time_ymd,
};

/// The trust domain of all identities here.
pub const TRUST_DOMAIN: &str = "aldis.test";

/// An authority that signs leaves.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// A certificate and its key, PEM.
#[derive(Clone, Debug)]
pub struct Leaf {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

/// What a leaf should say.
#[derive(Clone, Debug)]
pub struct Request {
    common_name: String,
    organization: Option<String>,
    uri: Option<String>,
    names: Vec<String>,
    addresses: Vec<IpAddr>,
    usage: Usage,
    expired: bool,
}

/// Which end of a connection a leaf is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Usage {
    /// A server.
    Server,
    /// A client.
    Client,
    /// Either, as replicas are to each other.
    Both,
}

impl Authority {
    /// Makes one.
    pub fn new(name: &str) -> anyhow::Result<Self> {
        let mut params = params(name, None);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate().context("make a key")?;
        let certificate = params.self_signed(&key).context("sign an authority")?;
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem: certificate.pem(),
        })
    }

    /// Its certificate, PEM.
    pub fn pem(&self) -> &str {
        &self.pem
    }

    /// Signs a leaf with a key of its own.
    pub fn issue(&self, request: &Request) -> anyhow::Result<Leaf> {
        let key = KeyPair::generate().context("make a key")?;
        let certificate = request
            .params()?
            .signed_by(&key, &self.issuer)
            .with_context(|| format!("sign `{}`", request.common_name))?;
        Ok(Leaf {
            certificate: certificate.pem(),
            key: key.serialize_pem(),
        })
    }
}

impl Leaf {
    /// Writes `NAME.crt`, and `NAME.key` for its owner only, into a folder, and says where.
    pub fn write(&self, folder: &Path, name: &str) -> anyhow::Result<(PathBuf, PathBuf)> {
        let certificate = folder.join(format!("{name}.crt"));
        let key = folder.join(format!("{name}.key"));
        for (path, pem, mode) in [
            (&certificate, &self.certificate, 0o644),
            (&key, &self.key, 0o600),
        ] {
            write(path, pem, mode).with_context(|| format!("write {}", path.display()))?;
        }
        Ok((certificate, key))
    }
}

fn write(path: &Path, text: &str, mode: u32) -> std::io::Result<()> {
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(mode);
    options.open(path)?.write_all(text.as_bytes())
}

impl Request {
    /// A leaf with a name and nothing else.
    pub fn new(common_name: &str, usage: Usage) -> Self {
        Self {
            common_name: common_name.to_owned(),
            organization: None,
            uri: None,
            names: Vec::new(),
            addresses: Vec::new(),
            usage,
            expired: false,
        }
    }

    /// The agent of one cluster.
    pub fn agent(region: &str, cluster: &str, enrolment: &str) -> Self {
        let path = format!("agent/{region}/{cluster}/{enrolment}");
        Self::new("aldis-agent", Usage::Client).identity(&path)
    }

    /// A person at the command line.
    pub fn user(name: &str) -> Self {
        Self::new(name, Usage::Client).identity(&format!("user/{name}"))
    }

    /// A replica of the control plane: a server to agents and people, a client to other replicas.
    pub fn control_plane(replica: &str) -> Self {
        Self::new("aldis-control-plane", Usage::Both)
            .identity(&format!("control-plane/{replica}"))
            .on_loopback()
    }

    /// An identity in our trust domain.
    pub fn identity(mut self, path: &str) -> Self {
        self.uri = Some(format!("spiffe://{TRUST_DOMAIN}/{path}"));
        self
    }

    /// Any URI in place of an identity, for what must be refused.
    pub fn uri(mut self, uri: &str) -> Self {
        self.uri = Some(uri.to_owned());
        self
    }

    /// An organization, which Kubernetes takes for a group.
    pub fn organization(mut self, name: &str) -> Self {
        self.organization = Some(name.to_owned());
        self
    }

    /// A name of the server.
    pub fn name(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    /// An address of the server.
    pub fn address(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(address.into());
        self
    }

    /// A server on this machine.
    pub fn on_loopback(self) -> Self {
        self.name("localhost").address(Ipv4Addr::LOCALHOST)
    }

    /// A leaf that was good once.
    pub fn expired(mut self) -> Self {
        self.expired = true;
        self
    }

    fn params(&self) -> anyhow::Result<CertificateParams> {
        let mut params = params(&self.common_name, self.organization.as_deref());
        if self.expired {
            params.not_after = date_time_ymd(2021, 1, 1);
        }
        params.use_authority_key_identifier_extension = true;
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages = self.usage.purposes();
        params.subject_alt_names = self.alternatives()?;
        Ok(params)
    }

    fn alternatives(&self) -> anyhow::Result<Vec<SanType>> {
        let mut found = Vec::new();
        if let Some(uri) = &self.uri {
            let uri = uri.as_str().try_into();
            found.push(SanType::URI(uri.context("write a URI into a certificate")?));
        }
        for name in &self.names {
            let name = name.as_str().try_into();
            found.push(SanType::DnsName(
                name.context("write a name into a certificate")?,
            ));
        }
        found.extend(self.addresses.iter().copied().map(SanType::IpAddress));
        Ok(found)
    }
}

impl Usage {
    fn purposes(self) -> Vec<ExtendedKeyUsagePurpose> {
        let server = ExtendedKeyUsagePurpose::ServerAuth;
        let client = ExtendedKeyUsagePurpose::ClientAuth;
        match self {
            Self::Server => vec![server],
            Self::Client => vec![client],
            Self::Both => vec![server, client],
        }
    }
}

/// Valid from long ago until long from now: a test reads no clock.
fn params(common_name: &str, organization: Option<&str>) -> CertificateParams {
    let mut params = CertificateParams::default();
    let mut name = DistinguishedName::new();
    if let Some(organization) = organization {
        name.push(DnType::OrganizationName, organization);
    }
    name.push(DnType::CommonName, common_name);
    params.distinguished_name = name;
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2090, 1, 1);
    params
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    use rustls::RootCertStore;
    use rustls::server::WebPkiClientVerifier;
    use rustls_pki_types::pem::PemObject;
    use rustls_pki_types::{CertificateDer, UnixTime};
    use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

    fn der(pem: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
    }

    fn uris(leaf: &Leaf) -> Vec<String> {
        let der = der(&leaf.certificate);
        let certificate = X509Certificate::from_der(&der).unwrap().1;
        let names = certificate.subject_alternative_name().unwrap().unwrap();
        let uri = |name: &GeneralName<'_>| match name {
            GeneralName::URI(uri) => Some((*uri).to_owned()),
            _ => None,
        };
        names.value.general_names.iter().filter_map(uri).collect()
    }

    /// Whether a server that trusts an authority lets the client in.
    fn accepts(authority: &Authority, leaf: &Leaf) -> bool {
        let mut roots = RootCertStore::empty();
        roots.add(der(authority.pem())).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), provider)
            .build()
            .unwrap()
            .verify_client_cert(&der(&leaf.certificate), &[], UnixTime::now())
            .is_ok()
    }

    #[test]
    fn identities_are_in_the_uri() {
        let authority = Authority::new("test").unwrap();
        for (request, wanted) in [
            (
                Request::agent("eu-west", "prod-1", "e1"),
                "spiffe://aldis.test/agent/eu-west/prod-1/e1",
            ),
            (Request::user("mei"), "spiffe://aldis.test/user/mei"),
            (
                Request::control_plane("r1"),
                "spiffe://aldis.test/control-plane/r1",
            ),
        ] {
            assert_eq!(uris(&authority.issue(&request).unwrap()), [wanted]);
        }
    }

    #[test]
    fn only_a_good_leaf_of_the_right_authority_is_let_in() {
        let ours = Authority::new("ours").unwrap();
        let theirs = Authority::new("ours").unwrap();
        let mei = Request::user("mei");
        let good = ours.issue(&mei).unwrap();
        let expired = ours.issue(&mei.expired()).unwrap();
        let server = ours.issue(&Request::new("x", Usage::Server)).unwrap();
        assert!(accepts(&ours, &good));
        assert!(!accepts(&theirs, &good));
        assert!(!accepts(&ours, &expired));
        assert!(!accepts(&ours, &server));
    }
}
