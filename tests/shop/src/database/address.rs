//! Where the database is, and whom to believe that it is the one.
//!
//! The driver knows neither `verify-full` nor `sslrootcert`, so both are taken out of the URL before it reads it.

use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::sync::Arc;

use rustls::{ClientConfig, RootCertStore};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use tokio_postgres::Config;
use tokio_postgres::config::SslMode;

use super::Error;

/// Where it is.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) config: Config,
    pub(super) encryption: Encryption,
}

/// Whether the connection is a secret one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Encryption {
    /// It is not.
    None,
    /// TLS, with a server that the authority in this file vouches for by the name it is reached by.
    CheckedBy(PathBuf),
}

impl Address {
    pub(super) fn read(url: &str) -> Result<Self, Error> {
        let (place, query) = url.split_once('?').unwrap_or((url, ""));
        let options = || query.split('&').filter(|option| !option.is_empty());
        let said = |name: &str| options().find_map(|option| option.strip_prefix(name));
        let encryption = match said("sslmode=") {
            None | Some("disable" | "allow" | "prefer") => Encryption::None,
            Some("require" | "verify-ca" | "verify-full") => {
                let authority = said("sslrootcert=").ok_or(Error::NoAuthority)?;
                Encryption::CheckedBy(authority.into())
            }
            Some(_) => return Err(Error::NoAddress),
        };
        let others = options().filter(|option| !option.starts_with("ssl"));
        let url = format!("{place}?{}", others.collect::<Vec<_>>().join("&"));
        let mut config = Config::from_str(&url).map_err(|_| Error::NoAddress)?;
        config.ssl_mode(match encryption {
            Encryption::None => SslMode::Disable,
            Encryption::CheckedBy(_) => SslMode::Require,
        });
        Ok(Self { config, encryption })
    }
}

/// TLS that believes one authority. Read for each connection: it may be rotated, too.
pub(super) fn trusting(authority: &Path) -> Result<ClientConfig, Error> {
    let mut roots = RootCertStore::empty();
    let certificates = CertificateDer::pem_file_iter(authority).map_err(|_| Error::NoAuthority)?;
    for certificate in certificates {
        let certificate = certificate.map_err(|_| Error::NoAuthority)?;
        roots.add(certificate).map_err(|_| Error::NoAuthority)?;
    }
    if roots.is_empty() {
        return Err(Error::NoAuthority);
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let versions =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
    let builder = versions.map_err(|_| Error::NoAuthority)?;
    Ok(builder.with_root_certificates(roots).with_no_client_auth())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_of_psql_is_read() {
        let url = "postgres://shop:pw@10.1.2.3:5433/shop?sslmode=verify-full&sslrootcert=/ca.crt&connect_timeout=1";
        let address = Address::read(url).unwrap();
        assert_eq!(address.encryption, Encryption::CheckedBy("/ca.crt".into()));
        assert_eq!(address.config.get_ports(), [5433]);
        assert_eq!(address.config.get_ssl_mode(), SslMode::Require);
        assert!(address.config.get_connect_timeout().is_some());
    }

    #[test]
    fn tls_without_an_authority_is_refused_and_not_left_out() {
        let refused = |url: &str| Address::read(url).err();
        let url = "postgres://shop@10.1.2.3/shop?sslmode=verify-full";
        assert_eq!(refused(url), Some(Error::NoAuthority));
        assert_eq!(
            refused("postgres://shop@db/shop?sslmode=maybe"),
            Some(Error::NoAddress)
        );
        let plain = Address::read("postgres://shop@10.1.2.3/shop").unwrap();
        assert_eq!(plain.encryption, Encryption::None);
    }

    #[test]
    fn an_authority_that_is_none_is_said() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("ca.crt");
        assert_eq!(trusting(&file).err(), Some(Error::NoAuthority));
        std::fs::write(&file, "no certificate").unwrap();
        assert_eq!(trusting(&file).err(), Some(Error::NoAuthority));
    }
}
