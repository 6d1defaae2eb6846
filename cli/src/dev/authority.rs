//! A throw-away authority: dev mode walks the same paths as production, mutual TLS and identities
//! included, with certificates that nobody has to make and that last a month.

use std::io::Write;
use std::net::Ipv4Addr;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use aldis_core::ids::TargetName;
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, SanType,
};

use super::Error;

/// The trust domain of everything in dev mode.
pub const TRUST_DOMAIN: &str = "aldis.dev";

/// Longer than anybody leaves a trial running.
const LIFE: Duration = Duration::from_secs(30 * 24 * 60 * 60);

/// Before now, for clocks that are a little late.
const EARLIER: Duration = Duration::from_secs(60 * 60);

/// An authority that signs what dev mode needs. Its key stays in memory.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    pem: String,
}

/// Whom a certificate is for.
#[derive(Clone, Debug)]
pub enum Identity {
    /// A replica of the control plane: a server on this machine, and a client of other replicas.
    Replica(String),
    /// The agent of a cluster.
    Agent(TargetName),
    /// A person.
    User(String),
}

/// A certificate and its key in files.
#[derive(Clone, Debug)]
pub struct Files {
    /// The certificate.
    pub certificate: PathBuf,
    /// Its key, readable by its owner only.
    pub key: PathBuf,
}

impl Authority {
    /// Makes one.
    pub fn new() -> Result<Self, Error> {
        let mut params = dated("aldis dev");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self {
            issuer: Issuer::new(params, key),
            pem,
        })
    }

    /// Writes its certificate.
    pub fn write(&self, folder: &Path) -> Result<PathBuf, Error> {
        let path = folder.join("ca.pem");
        write(&path, &self.pem, 0o644)?;
        Ok(path)
    }

    /// Signs a certificate and writes it with its key under `name`.
    pub fn issue(&self, identity: &Identity, folder: &Path, name: &str) -> Result<Files, Error> {
        let key = KeyPair::generate()?;
        let certificate = identity.params()?.signed_by(&key, &self.issuer)?;
        let files = Files {
            certificate: folder.join(format!("{name}.pem")),
            key: folder.join(format!("{name}.key")),
        };
        write(&files.certificate, &certificate.pem(), 0o644)?;
        write(&files.key, &key.serialize_pem(), 0o600)?;
        Ok(files)
    }
}

impl Identity {
    fn params(&self) -> Result<CertificateParams, Error> {
        let (client, server) = (
            ExtendedKeyUsagePurpose::ClientAuth,
            ExtendedKeyUsagePurpose::ServerAuth,
        );
        let path = match self {
            Self::Replica(name) => format!("control-plane/{name}"),
            Self::Agent(target) => format!("agent/{target}/dev"),
            Self::User(name) => format!("user/{name}"),
        };
        let mut params = dated(&path);
        let uri = format!("spiffe://{TRUST_DOMAIN}/{path}");
        params.subject_alt_names = vec![SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.use_authority_key_identifier_extension = true;
        params.extended_key_usages = vec![client];
        if let Self::Replica(_) = self {
            params.extended_key_usages.push(server);
            let local = "localhost".to_owned().try_into()?;
            params.subject_alt_names.push(SanType::DnsName(local));
            let loopback = Ipv4Addr::LOCALHOST.into();
            params.subject_alt_names.push(SanType::IpAddress(loopback));
        }
        Ok(params)
    }
}

fn dated(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    let now = SystemTime::now();
    params.not_before = (now - EARLIER).into();
    params.not_after = (now + LIFE).into();
    params
}

fn write(path: &Path, text: &str, mode: u32) -> Result<(), Error> {
    // A file of an earlier run may have another mode; a new one has this from its first byte.
    let _ = std::fs::remove_file(path);
    let mut options = std::fs::OpenOptions::new();
    let written = options
        .write(true)
        .create_new(true)
        .mode(mode)
        .open(path)
        .and_then(|mut file| file.write_all(text.as_bytes()));
    written.map_err(|source| Error::File {
        path: path.to_owned(),
        source,
    })
}
