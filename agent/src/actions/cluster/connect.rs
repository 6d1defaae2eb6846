//! How the agent gets to its one cluster: a named context of a named file, or the service account it runs under.
//!
//! Nothing is taken from the environment: no `KUBECONFIG`, no current context, no proxy variables. An agent that finds
//! a cluster by itself finds, one day, the wrong one. For the same reason the server's CA must be named, since its
//! fingerprint is half of the cluster's identity, and a server that is not checked is refused.

use std::path::{Path, PathBuf};
use std::time::Duration;

use kube::Config;
use kube::config::{KubeConfigOptions, Kubeconfig};
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject;
use sha2::{Digest, Sha256};

use super::error::chain;

/// A way to the API server takes milliseconds; a longer one would only delay that it is tried again.
const LONGEST_CONNECT: Duration = Duration::from_secs(5);

/// Where a kubelet puts the account of a pod.
const ACCOUNT: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Why there is no way to the cluster.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file is missing or no kubeconfig.
    #[error("read the kubeconfig {}: {reason}", file.display())]
    File {
        /// The file.
        file: PathBuf,
        /// What is wrong with it.
        reason: String,
    },
    /// It has no such context.
    #[error("{} has no context `{context}`; it has {present}", file.display())]
    NoContext {
        /// The file.
        file: PathBuf,
        /// What was asked for.
        context: String,
        /// What there is.
        present: String,
    },
    /// The context leads nowhere safe.
    #[error("context `{context}` of {} {reason}", file.display())]
    Unsafe {
        /// The file.
        file: PathBuf,
        /// The context.
        context: String,
        /// Why it is not used, and what to write instead.
        reason: String,
    },
    /// There is no service account here.
    #[error("use the service account of this pod: {0}")]
    InCluster(String),
    /// The client cannot be made, for example from a key that is none.
    #[error("prepare the connection to the API server: {0}")]
    Client(String),
}

/// A client and the fingerprint of the CA that it trusts.
pub(super) struct Connection {
    pub(super) client: kube::Client,
    pub(super) ca_fingerprint: String,
}

/// By a named context of a named file. Relative paths in it are relative to it.
pub(super) async fn by_kubeconfig(file: &Path, context: &str) -> Result<Connection, Error> {
    let kubeconfig = Kubeconfig::read_from(file).map_err(|error| Error::File {
        file: file.to_owned(),
        reason: chain(&error),
    })?;
    present(file, &kubeconfig, context)?;
    let proxy = proxy(&kubeconfig, context);
    let options = KubeConfigOptions {
        context: Some(context.to_owned()),
        ..KubeConfigOptions::default()
    };
    let mut config = Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .map_err(|error| Error::File {
            file: file.to_owned(),
            reason: format!("context `{context}`: {}", chain(&error)),
        })?;
    // The library takes one from the environment where the file names none.
    config.proxy_url = match proxy {
        Some(url) => Some(url.parse().map_err(|_| Error::Unsafe {
            file: file.to_owned(),
            context: context.to_owned(),
            reason: "names a `proxy-url` that is not a URL".to_owned(),
        })?),
        None => None,
    };
    if let Some(reason) = unsafe_way(&config) {
        return Err(Error::Unsafe {
            file: file.to_owned(),
            context: context.to_owned(),
            reason: reason.to_owned(),
        });
    }
    connection(config)
}

/// By the service account of the pod that this process runs in, as its kubelet has put it there.
pub(super) fn in_cluster() -> Result<Connection, Error> {
    let variable = |name: &str| {
        let why = |_| Error::InCluster(format!("{name} is not set, so this is no pod"));
        std::env::var(name).map_err(why)
    };
    let host = variable("KUBERNETES_SERVICE_HOST")?;
    let port = variable("KUBERNETES_SERVICE_PORT")?;
    by_account(Path::new(ACCOUNT), &host, &port)
}

/// By the service account in `folder`: its token, which is read again as it is renewed, and the CA. The CA is read
/// once: the library would go on with whatever the file holds later, and the cluster's identity would not.
pub(super) fn by_account(folder: &Path, host: &str, port: &str) -> Result<Connection, Error> {
    let token = folder.join("token");
    if let Err(error) = std::fs::metadata(&token) {
        return Err(Error::InCluster(format!("{}: {error}", token.display())));
    }
    let host = if host.contains(':') {
        format!("[{host}]")
    } else {
        host.to_owned()
    };
    let url = format!("https://{host}:{port}").parse();
    let url = url.map_err(|error| Error::InCluster(format!("{host}:{port}: {error}")))?;
    let mut config = Config::new(url);
    config.root_cert = Some(certificates(&folder.join("ca.crt"))?);
    config.auth_info.token_file = Some(token.display().to_string());
    connection(config)
}

fn certificates(file: &Path) -> Result<Vec<Vec<u8>>, Error> {
    let failed = |why: String| Error::InCluster(format!("{}: {why}", file.display()));
    let text = std::fs::read(file).map_err(|error| failed(error.to_string()))?;
    let found: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&text).collect();
    let found = found.map_err(|error| failed(error.to_string()))?;
    if found.is_empty() {
        return Err(failed("it holds no certificate".to_owned()));
    }
    Ok(found.iter().map(|found| found.to_vec()).collect())
}

fn connection(mut config: Config) -> Result<Connection, Error> {
    let ca_fingerprint = fingerprint(config.root_cert.as_deref().unwrap_or_default());
    config.connect_timeout = Some(LONGEST_CONNECT);
    config.default_retry = false;
    let client = kube::Client::try_from(config).map_err(|error| Error::Client(chain(&error)))?;
    Ok(Connection {
        client,
        ca_fingerprint,
    })
}

fn present(file: &Path, kubeconfig: &Kubeconfig, context: &str) -> Result<(), Error> {
    let names: Vec<_> = kubeconfig
        .contexts
        .iter()
        .map(|c| c.name.as_str())
        .collect();
    if names.contains(&context) {
        return Ok(());
    }
    Err(Error::NoContext {
        file: file.to_owned(),
        context: context.to_owned(),
        present: if names.is_empty() {
            "none".to_owned()
        } else {
            names.join(", ")
        },
    })
}

/// The proxy that the file itself names for the cluster of `context`.
fn proxy(kubeconfig: &Kubeconfig, context: &str) -> Option<String> {
    let context = kubeconfig.contexts.iter().find(|c| c.name == context)?;
    let cluster = &context.context.as_ref()?.cluster;
    let cluster = kubeconfig.clusters.iter().find(|c| c.name == *cluster)?;
    let url = cluster.cluster.as_ref()?.proxy_url.clone()?;
    (!url.is_empty()).then_some(url)
}

fn unsafe_way(config: &Config) -> Option<&'static str> {
    if config.accept_invalid_certs {
        return Some("skips the check of the server's certificate; name its CA instead");
    }
    if config.cluster_url.scheme_str() != Some("https") {
        return Some("names a server without TLS; only https is used");
    }
    if config.root_cert.as_ref().is_none_or(Vec::is_empty) {
        return Some("names no CA; write `certificate-authority` or `certificate-authority-data`");
    }
    None
}

/// SHA-256 of the CA certificate in hex, as `openssl x509 -fingerprint -sha256` has it without colons. Of a bundle: of
/// the fingerprints of its certificates in order, so that their order in the file does not matter.
fn fingerprint(certificates: &[Vec<u8>]) -> String {
    let mut each: Vec<_> = certificates.iter().map(Sha256::digest).collect();
    each.sort();
    each.dedup();
    match each.as_slice() {
        [one] => hex::encode(one),
        several => hex::encode(Sha256::digest(several.concat())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CA: &str = "-----BEGIN CERTIFICATE-----\nYWJj\n-----END CERTIFICATE-----\n";

    fn write(folder: &Path, cluster: &str) -> PathBuf {
        let file = folder.join("kc.yaml");
        std::fs::write(folder.join("ca.crt"), CA).unwrap();
        let text = format!(
            "apiVersion: v1\nkind: Config\ncurrent-context: other\n\
             clusters:\n- name: c\n  cluster: {cluster}\n\
             contexts:\n- name: eu-west/prod-1\n  context: {{cluster: c, user: u}}\n\
             users:\n- name: u\n  user: {{token: t}}\n"
        );
        std::fs::write(&file, text).unwrap();
        file
    }

    async fn connect(cluster: &str, context: &str) -> Result<Connection, Error> {
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), cluster);
        by_kubeconfig(&file, context).await
    }

    fn message(result: Result<Connection, Error>) -> String {
        match result {
            Ok(_) => panic!("refused"),
            Err(error) => error.to_string(),
        }
    }

    #[tokio::test]
    async fn a_named_context_is_used_with_paths_relative_to_the_file() {
        let cluster = "{server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}";
        let folder = tempfile::tempdir().unwrap();
        let file = write(folder.path(), cluster);
        let kubeconfig = Kubeconfig::read_from(&file).unwrap();
        assert_eq!(proxy(&kubeconfig, "eu-west/prod-1"), None);
        // The certificate is none, which is found when the client is made: the file beside was read.
        let error = message(by_kubeconfig(&file, "eu-west/prod-1").await);
        assert!(error.starts_with("prepare the connection"), "{error}");
    }

    #[tokio::test]
    async fn another_context_is_answered_with_those_there_are() {
        let cluster = "{server: 'https://127.0.0.1:6443', certificate-authority: ca.crt}";
        let error = message(connect(cluster, "eu-west/prod-2").await);
        assert!(
            error.ends_with("has no context `eu-west/prod-2`; it has eu-west/prod-1"),
            "{error}"
        );
    }

    #[tokio::test]
    async fn a_server_that_is_not_checked_is_refused() {
        for (cluster, reason) in [
            ("{server: 'https://127.0.0.1:1'}", "names no CA"),
            (
                "{server: 'http://127.0.0.1:1', certificate-authority: ca.crt}",
                "without TLS",
            ),
            (
                "{server: 'https://127.0.0.1:1', insecure-skip-tls-verify: true}",
                "skips the check",
            ),
        ] {
            let error = message(connect(cluster, "eu-west/prod-1").await);
            assert!(error.contains(reason), "{error}");
        }
    }

    #[test]
    fn an_account_that_is_not_whole_is_refused_with_what_it_lacks() {
        let folder = tempfile::tempdir().unwrap();
        let message = || message(by_account(folder.path(), "10.0.0.1", "443"));
        assert!(message().contains("token: "), "{}", message());
        std::fs::write(folder.path().join("token"), "t").unwrap();
        assert!(message().contains("ca.crt: "), "{}", message());
        std::fs::write(folder.path().join("ca.crt"), "none").unwrap();
        assert!(
            message().ends_with("it holds no certificate"),
            "{}",
            message()
        );
    }

    #[test]
    fn a_fingerprint_is_that_of_the_certificate_and_of_a_bundle_in_any_order() {
        let (a, b) = (b"abc".to_vec(), b"def".to_vec());
        assert_eq!(
            fingerprint(std::slice::from_ref(&a)),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
        assert_eq!(
            fingerprint(&[a.clone(), a.clone()]),
            fingerprint(std::slice::from_ref(&a))
        );
        assert_eq!(fingerprint(&[a.clone(), b.clone()]), fingerprint(&[b, a]));
    }
}
