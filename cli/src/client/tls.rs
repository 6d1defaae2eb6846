//! Mutual TLS as a client: our certificate, the server's chain and name, and that the server is a
//! control plane by its URI. Every refusal is put in words that name the file or the server to look at.

use std::path::Path;
use std::sync::Arc;

use rustls::client::WebPkiServerVerifier;
use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore,
    SignatureScheme,
};
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

use crate::context::Context;
use crate::error::Error;
use crate::exit::Exit;
use crate::render::time;

/// The TLS side of a context.
#[derive(Clone, Debug)]
pub(super) struct Tls {
    /// For handshakes.
    pub(super) config: Arc<ClientConfig>,
    /// For messages.
    pub(super) about: About,
}

/// What messages name.
#[derive(Clone, Debug)]
pub(super) struct About {
    context: String,
    ca: String,
    certificate: Option<String>,
}

/// A server with a good chain and name, which is no control plane.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("it is no control plane: its certificate names {}", names(.uris))]
struct NotAControlPlane {
    uris: Vec<String>,
}

fn names(uris: &[String]) -> String {
    match uris {
        [] => "no URI".to_owned(),
        uris => uris.join(", "),
    }
}

/// Reads the files of a context, and says at once when they cannot work.
pub(super) fn load(context: &Context) -> Result<Tls, Error> {
    let about = About {
        context: context.name.clone(),
        ca: context.ca.display().to_string(),
        certificate: context
            .auth
            .as_ref()
            .map(|auth| auth.cert.display().to_string()),
    };
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let verifier = Verifier::new(&context.ca, &provider)?;
    let builder = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|error| Error::new(Exit::Other, format!("prepare TLS: {error}")))?
        .dangerous()
        .with_custom_certificate_verifier(Arc::new(verifier));
    let mut config = match &context.auth {
        // The server will refuse, and say so; it is the server's to decide.
        None => builder.with_no_client_auth(),
        Some(auth) => {
            let chain = certificates("client certificate", &auth.cert)?;
            check_validity(&chain, &auth.cert)?;
            let key = PrivateKeyDer::from_pem_file(&auth.key)
                .map_err(|error| file_error("client key", &auth.key, &error))?;
            builder.with_client_auth_cert(chain, key).map_err(|error| {
                let (cert, key) = (auth.cert.display(), auth.key.display());
                let message = format!("certificate `{cert}` and key `{key}` do not go together");
                Error::new(Exit::NotAllowed, message)
                    .details(vec![error.to_string()])
                    .hint("`aldis context show` prints the files in use")
            })?
        }
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    Ok(Tls {
        config: Arc::new(config),
        about,
    })
}

fn certificates(what: &str, path: &Path) -> Result<Vec<CertificateDer<'static>>, Error> {
    let found = CertificateDer::pem_file_iter(path)
        .and_then(Iterator::collect::<Result<Vec<_>, _>>)
        .map_err(|error| file_error(what, path, &error))?;
    if found.is_empty() {
        let message = format!("{what} `{}` holds no certificate", path.display());
        return Err(Error::new(Exit::NotAllowed, message));
    }
    Ok(found)
}

fn file_error(what: &str, path: &Path, error: &rustls_pki_types::pem::Error) -> Error {
    use rustls_pki_types::pem::Error as Pem;
    let problem = match error {
        Pem::Io(error) => error.to_string(),
        Pem::NoItemsFound => "holds nothing of that kind in PEM form".to_owned(),
        other => other.to_string(),
    };
    let message = format!("{what} `{}`: {problem}", path.display());
    Error::new(Exit::NotAllowed, message).hint("`aldis context show` prints the files in use")
}

/// An expired certificate is known before the server says so.
fn check_validity(chain: &[CertificateDer<'static>], path: &Path) -> Result<(), Error> {
    let refused = |what: String| {
        let message = format!("your certificate `{}` {what}", path.display());
        Error::new(Exit::NotAllowed, message).hint("ask whoever runs the CA for another one")
    };
    let leaf = chain.first().map(|leaf| X509Certificate::from_der(leaf));
    let Some(Ok((_, leaf))) = leaf else {
        return Err(refused("cannot be read".to_owned()));
    };
    let now = i64::try_from(time::now().0 / 1000).unwrap_or(i64::MAX);
    let validity = leaf.validity();
    if validity.not_after.timestamp() < now {
        return Err(refused(format!("expired on {}", validity.not_after)));
    }
    if validity.not_before.timestamp() > now {
        return Err(refused(format!(
            "is not valid before {}",
            validity.not_before
        )));
    }
    Ok(())
}

/// The usual checks of chain, name and dates, and the URI.
#[derive(Debug)]
struct Verifier {
    usual: Arc<WebPkiServerVerifier>,
}

impl Verifier {
    fn new(ca: &Path, provider: &Arc<CryptoProvider>) -> Result<Self, Error> {
        let unusable = |problem: String| {
            Error::new(
                Exit::NotAllowed,
                format!("CA `{}`: {problem}", ca.display()),
            )
        };
        let mut roots = RootCertStore::empty();
        for certificate in certificates("CA", ca)? {
            roots
                .add(certificate)
                .map_err(|error| unusable(error.to_string()))?;
        }
        let usual = WebPkiServerVerifier::builder_with_provider(Arc::new(roots), provider.clone())
            .build()
            .map_err(|error| unusable(error.to_string()))?;
        Ok(Self { usual })
    }
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        ocsp_response: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.usual.verify_server_cert(
            end_entity,
            intermediates,
            server_name,
            ocsp_response,
            now,
        )?;
        let uris = uris(end_entity);
        if matches!(uris.as_slice(), [uri] if is_control_plane(uri)) {
            return Ok(verified);
        }
        let why = rustls::OtherError(Arc::new(NotAControlPlane { uris }));
        Err(CertificateError::Other(why).into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.usual
            .verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.usual.supported_verify_schemes()
    }
}

/// The URIs that a certificate names; none where it cannot be read.
fn uris(der: &[u8]) -> Vec<String> {
    let Ok((_, certificate)) = X509Certificate::from_der(der) else {
        return Vec::new();
    };
    let Ok(Some(names)) = certificate.subject_alternative_name() else {
        return Vec::new();
    };
    let names = names.value.general_names.iter();
    let uri = |name: &GeneralName<'_>| match name {
        GeneralName::URI(uri) => Some((*uri).to_owned()),
        _ => None,
    };
    names.filter_map(uri).collect()
}

/// `spiffe://DOMAIN/control-plane/REPLICA`.
fn is_control_plane(uri: &str) -> bool {
    let parts: Vec<&str> = uri
        .strip_prefix("spiffe://")
        .map(|rest| rest.split('/').collect())
        .unwrap_or_default();
    matches!(parts.as_slice(), [domain, "control-plane", replica] if !domain.is_empty() && !replica.is_empty())
}

/// A failed handshake, or an alert of the server after it, in words. `server` is where we called.
pub(super) fn explain(error: &rustls::Error, server: &str, about: &About) -> Error {
    match error {
        rustls::Error::InvalidCertificate(problem) => bad_server(problem, server, about),
        rustls::Error::AlertReceived(alert) => refused(*alert, server, about),
        rustls::Error::InvalidMessage(_) => {
            let message = format!("{server} does not speak TLS");
            Error::new(Exit::Unreachable, message).hint(
                "is that the port of a control plane? it listens on 7600 unless told otherwise",
            )
        }
        other => Error::new(Exit::Unreachable, format!("TLS with {server}: {other}")),
    }
}

fn bad_server(problem: &CertificateError, server: &str, about: &About) -> Error {
    let About { context, ca, .. } = about;
    let unverified = |why: String, hint: String| {
        Error::new(Exit::Unreachable, format!("{server} is not trusted: {why}")).hint(hint)
    };
    let look = format!("`aldis context show {context}` prints what is expected");
    match problem {
        CertificateError::UnknownIssuer | CertificateError::BadSignature => unverified(
            format!("its certificate is not signed by the CA of context `{context}` (`{ca}`)"),
            "either this is another control plane, or the CA file is not the one it uses"
                .to_owned(),
        ),
        CertificateError::Expired | CertificateError::ExpiredContext { .. } => unverified(
            "its certificate has expired".to_owned(),
            "whoever runs the control plane must renew it; is this machine's clock right?"
                .to_owned(),
        ),
        CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => unverified(
            "its certificate is not valid yet".to_owned(),
            "is this machine's clock right?".to_owned(),
        ),
        CertificateError::NotValidForNameContext { presented, .. } => unverified(
            format!("its certificate is for {}", presented.join(", ")),
            "use one of these names in the context's `server`".to_owned(),
        ),
        CertificateError::NotValidForName => {
            unverified("its certificate is for another name".to_owned(), look)
        }
        CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
            unverified("its certificate is not for servers".to_owned(), look)
        }
        CertificateError::Other(why) => unverified(why.to_string(), look),
        other => unverified(other.to_string(), look),
    }
}

/// What the server says of us.
fn refused(alert: AlertDescription, server: &str, about: &About) -> Error {
    let About { context, .. } = about;
    let certificate = about.certificate.as_deref().unwrap_or("none");
    let not_allowed =
        |message: String, hint: String| Error::new(Exit::NotAllowed, message).hint(hint);
    let another = "ask whoever runs the CA for another one".to_owned();
    match alert {
        AlertDescription::CertificateRequired => not_allowed(
            format!("{server} wants a client certificate, and context `{context}` has none"),
            "add `auth: {cert: FILE, key: FILE}` to it, or `aldis context add` it again with --cert and --key".to_owned(),
        ),
        AlertDescription::UnknownCA => not_allowed(
            format!("{server} does not know the CA that signed your certificate `{certificate}`"),
            "is this certificate for that control plane?".to_owned(),
        ),
        AlertDescription::CertificateExpired => not_allowed(
            format!("{server} says that your certificate `{certificate}` has expired"),
            another,
        ),
        AlertDescription::CertificateRevoked => not_allowed(
            format!("{server} says that your certificate `{certificate}` is revoked"),
            another,
        ),
        AlertDescription::HandshakeFailure if about.certificate.is_none() => not_allowed(
            format!("{server} refused the handshake, and context `{context}` has no client certificate"),
            "add `auth: {cert: FILE, key: FILE}` to it".to_owned(),
        ),
        AlertDescription::BadCertificate
        | AlertDescription::UnsupportedCertificate
        | AlertDescription::CertificateUnknown
        | AlertDescription::AccessDenied
        | AlertDescription::DecryptError => not_allowed(
            format!("{server} refused your certificate `{certificate}` ({alert:?})"),
            "the server's log names the reason".to_owned(),
        ),
        other => Error::new(Exit::Unreachable, format!("{server} ended the TLS handshake ({other:?})"))
            .hint("the server's log names the reason"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_control_plane_is_known_by_its_uri() {
        assert!(is_control_plane("spiffe://aldis.test/control-plane/cp-1"));
        for uri in [
            "spiffe://aldis.test/agent/eu/prod/1",
            "spiffe://aldis.test/control-plane/",
            "spiffe:///control-plane/cp-1",
            "https://aldis.test/control-plane/cp-1",
            "spiffe://aldis.test/x/control-plane/cp-1",
        ] {
            assert!(!is_control_plane(uri), "{uri}");
        }
    }
}
