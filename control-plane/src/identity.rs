//! Who is calling, by the certificate and nothing else.
//!
//! | form of the SPIFFE URI | who |
//! |---|---|
//! | `spiffe://DOMAIN/agent/REGION/CLUSTER/ENROLMENT` | the agent of one cluster |
//! | `spiffe://DOMAIN/user/NAME` | a person or a script |
//! | `spiffe://DOMAIN/control-plane/REPLICA` | another replica |

use aldis_core::ids::TargetName;
use x509_parser::prelude::{FromDer, GeneralName, X509Certificate};

/// Somebody with a certificate of ours.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// The agent of one cluster.
    Agent {
        /// Which cluster.
        target: TargetName,
        /// Which enrolment of it.
        enrolment: String,
    },
    /// A person or a script.
    User {
        /// Their name.
        name: String,
    },
    /// Another replica.
    Replica {
        /// Its name.
        name: String,
    },
}

impl std::fmt::Display for Identity {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Agent { target, enrolment } => write!(f, "agent/{target}/{enrolment}"),
            Self::User { name } => write!(f, "user/{name}"),
            Self::Replica { name } => write!(f, "control-plane/{name}"),
        }
    }
}

/// What a connection brought: an identity, or the reason why it has none.
#[derive(Clone, Debug)]
pub struct Peer(pub Result<Identity, String>);

/// Why a certificate names nobody.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    /// No certificate was shown.
    #[error("no client certificate was shown")]
    NoCertificate,
    /// It cannot be read.
    #[error("the client certificate cannot be read")]
    Unreadable,
    /// It has no URI, or several.
    #[error("the client certificate holds {found} URI names, and needs exactly one")]
    NotOneUri {
        /// How many.
        found: usize,
    },
    /// Its URI is none of the three forms.
    #[error("`{uri}` is no identity of trust domain `{domain}`")]
    Foreign {
        /// The URI.
        uri: String,
        /// What was expected.
        domain: String,
    },
}

/// Reads the identity of a certificate whose chain was verified already.
pub fn of_certificate(der: &[u8], domain: &str) -> Result<Identity, Error> {
    let (_, certificate) = X509Certificate::from_der(der).map_err(|_| Error::Unreadable)?;
    let names = certificate
        .subject_alternative_name()
        .map_err(|_| Error::Unreadable)?;
    let names = names.map_or(&[][..], |extension| &extension.value.general_names);
    let uris: Vec<&str> = names
        .iter()
        .filter_map(|name| match name {
            GeneralName::URI(uri) => Some(*uri),
            _ => None,
        })
        .collect();
    match uris.as_slice() {
        [uri] => parse(uri, domain),
        _ => Err(Error::NotOneUri { found: uris.len() }),
    }
}

fn parse(uri: &str, domain: &str) -> Result<Identity, Error> {
    let foreign = || Error::Foreign {
        uri: uri.to_owned(),
        domain: domain.to_owned(),
    };
    let path = uri
        .strip_prefix("spiffe://")
        .and_then(|rest| rest.strip_prefix(domain))
        .and_then(|rest| rest.strip_prefix('/'))
        .ok_or_else(foreign)?;
    let names: Vec<&str> = path.split('/').collect();
    match names.as_slice() {
        ["agent", region, cluster, enrolment] if is_name(enrolment) => {
            let target = TargetName::new(region, cluster).map_err(|_| foreign())?;
            Ok(Identity::Agent {
                target,
                enrolment: (*enrolment).to_owned(),
            })
        }
        ["user", name] if is_name(name) => Ok(Identity::User {
            name: (*name).to_owned(),
        }),
        ["control-plane", name] if is_name(name) => Ok(Identity::Replica {
            name: (*name).to_owned(),
        }),
        _ => Err(foreign()),
    }
}

fn is_name(text: &str) -> bool {
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.' | '@');
    (1..=128).contains(&text.len()) && text.chars().all(allowed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn three_forms_and_no_other() {
        let identity = |path: &str| parse(&format!("spiffe://d.test/{path}"), "d.test");
        assert_eq!(
            identity("agent/eu/prod-1/7").unwrap().to_string(),
            "agent/eu/prod-1/7"
        );
        assert_eq!(identity("user/mei").unwrap().to_string(), "user/mei");
        assert_eq!(
            identity("control-plane/cp-1").unwrap().to_string(),
            "control-plane/cp-1"
        );
        for path in [
            "",
            "user/",
            "user/a/b",
            "agent/eu/prod",
            "agent/eu/../7",
            "root/mei",
            "user/a b",
        ] {
            assert!(identity(path).is_err(), "{path}");
        }
    }

    #[test]
    fn another_trust_domain_is_foreign_also_where_it_begins_alike() {
        for uri in [
            "spiffe://d.testing/user/mei",
            "spiffe://e.test/user/mei",
            "https://d.test/user/mei",
        ] {
            assert!(parse(uri, "d.test").is_err(), "{uri}");
        }
    }
}
