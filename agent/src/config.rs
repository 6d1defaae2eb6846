//! One YAML file. Every mistake is reported at once, each with its key.
//!
//! So the file is read as a tree first and each key is taken out of it by itself: a mistake in one does not hide those
//! in the others, and what nobody took is a key that does not exist. Paths are relative to the file.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use aldis_core::ids::TargetName;
use aldis_core::plan::ClusterIdentity;
use serde::Deserialize;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::policy::Policy;
use crate::tls::{self, Files};

/// What an operator can set.
#[derive(Clone, Debug)]
pub struct Config {
    /// The one cluster that this agent acts on.
    pub target: TargetName,
    /// What runbooks select it by.
    pub labels: BTreeMap<String, String>,
    /// Replicas of the control plane, tried in turn.
    pub endpoints: Vec<Endpoint>,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// The agent's own certificate and key, and the CA that replicas are verified by.
    pub tls: Files,
    /// How the cluster is reached.
    pub cluster: Cluster,
    /// The cluster that must be behind it; any where it is missing.
    pub pin: Option<ClusterIdentity>,
    /// Journal and logs.
    pub data: PathBuf,
    /// What the cluster's own operators allow.
    pub policy: Policy,
    /// How it logs.
    pub log: Log,
}

/// One replica of the control plane: `HOST:PORT`, always TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// A name or an address that its certificate holds.
    pub host: String,
    /// Its port.
    pub port: u16,
}

impl std::fmt::Display for Endpoint {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.host.contains(':') {
            write!(f, "[{}]:{}", self.host, self.port)
        } else {
            write!(f, "{}:{}", self.host, self.port)
        }
    }
}

impl std::str::FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let refused = || format!("`{text}` is not HOST:PORT");
        let (host, port) = text.rsplit_once(':').ok_or_else(refused)?;
        let bare = host
            .strip_prefix('[')
            .and_then(|inner| inner.strip_suffix(']'));
        let host = bare.unwrap_or(host);
        let is_host =
            !host.is_empty() && !host.contains('/') && (bare.is_some() || !host.contains(':'));
        match port.parse() {
            Ok(port) if is_host => Ok(Self {
                host: host.to_owned(),
                port,
            }),
            Ok(_) | Err(_) => Err(refused()),
        }
    }
}

/// How the cluster is reached. There is no default: an agent acts on the cluster it was told, or on none.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Cluster {
    /// A named context of a named file.
    Kubeconfig {
        /// Which file.
        file: PathBuf,
        /// Which context. The file's current one is never used.
        context: String,
    },
    /// The service account of the pod that the agent runs in.
    InCluster {},
    /// A practice cluster without Kubernetes.
    Simulated {
        /// Where its state is kept; without a file it forgets everything when the process ends.
        #[serde(default)]
        file: Option<PathBuf>,
    },
}

impl Cluster {
    /// Whether every output is to say that it is for practice.
    pub fn is_simulated(&self) -> bool {
        matches!(self, Self::Simulated { .. })
    }
}

/// How it logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// For people or for collectors.
    pub format: LogFormat,
    /// Such as `info` or `aldis_agent=debug`.
    pub level: Option<String>,
}

/// Form of log lines.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LogFormat {
    /// For people.
    #[default]
    Human,
    /// One JSON object a line.
    Json,
}

/// A file that is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("cannot read configuration `{}`: {source}", path.display())]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// It is no YAML mapping.
    #[error("configuration `{}`: {problem}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and what.
        problem: String,
    },
    /// It can be read, and cannot be used.
    #[error("configuration `{}` has {} mistake(s):\n  {}", path.display(), mistakes.len(), mistakes.join("\n  "))]
    Mistakes {
        /// Which.
        path: PathBuf,
        /// Each with its key.
        mistakes: Vec<String>,
    },
}

/// Reads and checks a file, and the files that it names.
pub fn load(path: &Path) -> Result<Config, Error> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: owned(),
        source,
    })?;
    let tree: Value = serde_saphyr::from_str(&text).map_err(|error| Error::Parse {
        path: owned(),
        problem: error.without_snippet().to_string(),
    })?;
    let Value::Object(fields) = tree else {
        return Err(Error::Parse {
            path: owned(),
            problem: "is not a mapping of keys to values".to_owned(),
        });
    };
    let folder = path.parent().unwrap_or(Path::new(".")).to_owned();
    read(fields, &folder).map_err(|mistakes| Error::Mistakes {
        path: owned(),
        mistakes,
    })
}

fn read(fields: Map<String, Value>, folder: &Path) -> Result<Config, Vec<String>> {
    let mut fields = Fields {
        left: fields,
        mistakes: Vec::new(),
    };
    let target = fields.needed::<TargetName>("target");
    let labels = fields.optional("labels").unwrap_or_default();
    let endpoints = endpoints(&mut fields);
    let trust_domain = fields
        .needed::<String>("trustDomain")
        .filter(|domain| fields.holds("trustDomain", !domain.is_empty(), "must not be empty"));
    let tls = fields
        .needed::<Files>("tls")
        .map(|files| files.below(folder));
    let cluster = fields
        .needed("cluster")
        .map(|cluster| below(cluster, folder));
    if let Some(Cluster::Kubeconfig { file, .. }) = &cluster
        && let Err(error) = std::fs::File::open(file)
    {
        let why = format!("cannot read `{}`: {error}", file.display());
        fields.mistake("cluster.kubeconfig.file", &why);
    }
    let pin = fields.optional::<Pin>("pin").map(ClusterIdentity::from);
    let data = fields
        .needed::<PathBuf>("data")
        .map(|data| folder.join(data));
    let policy = policy(&mut fields, folder);
    let log = fields.optional::<Log>("log").unwrap_or_default();
    if let Some(level) = &log.level
        && let Err(error) = level.parse::<tracing_subscriber::EnvFilter>()
    {
        fields.mistake("log.level", &error.to_string());
    }
    if let (Some(files), Some(domain), Some(target)) = (&tls, &trust_domain, &target) {
        check_certificate(&mut fields, files, domain, target);
    }
    fields.refuse_the_rest();
    match (target, endpoints, trust_domain, tls, cluster, data) {
        (
            Some(target),
            Some(endpoints),
            Some(trust_domain),
            Some(tls),
            Some(cluster),
            Some(data),
        ) if fields.mistakes.is_empty() => Ok(Config {
            target,
            labels,
            endpoints,
            trust_domain,
            tls,
            cluster,
            pin,
            data,
            policy,
            log,
        }),
        _ => Err(fields.mistakes),
    }
}

/// Keys that nobody has taken yet, and what was wrong with those that were.
struct Fields {
    left: Map<String, Value>,
    mistakes: Vec<String>,
}

impl Fields {
    fn needed<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        if !self.left.contains_key(key) {
            self.mistake(key, "is missing");
            return None;
        }
        self.optional(key)
    }

    fn optional<T: DeserializeOwned>(&mut self, key: &str) -> Option<T> {
        match serde_json::from_value(self.left.remove(key)?) {
            Ok(value) => Some(value),
            Err(error) => {
                self.mistake(key, &error.to_string());
                None
            }
        }
    }

    fn holds(&mut self, key: &str, held: bool, otherwise: &str) -> bool {
        if !held {
            self.mistake(key, otherwise);
        }
        held
    }

    fn mistake(&mut self, key: &str, why: &str) {
        self.mistakes.push(format!("{key}: {why}"));
    }

    fn refuse_the_rest(&mut self) {
        for key in std::mem::take(&mut self.left).keys() {
            self.mistake(key, "is no key of an agent's configuration");
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ControlPlane {
    endpoints: Vec<String>,
}

fn endpoints(fields: &mut Fields) -> Option<Vec<Endpoint>> {
    const KEY: &str = "controlPlane.endpoints";
    let written: ControlPlane = fields.needed("controlPlane")?;
    fields.holds(KEY, !written.endpoints.is_empty(), "must name at least one");
    let mut endpoints = Vec::new();
    for text in written.endpoints {
        match text.parse::<Endpoint>() {
            Ok(endpoint) => endpoints.push(endpoint),
            Err(problem) => fields.mistake(KEY, &problem),
        }
    }
    Some(endpoints)
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Pin {
    uid: String,
    ca: String,
}

impl From<Pin> for ClusterIdentity {
    fn from(pin: Pin) -> Self {
        Self {
            cluster_uid: pin.uid,
            ca_fingerprint: pin.ca,
        }
    }
}

fn below(cluster: Cluster, folder: &Path) -> Cluster {
    match cluster {
        Cluster::Kubeconfig { file, context } => Cluster::Kubeconfig {
            file: folder.join(file),
            context,
        },
        Cluster::InCluster {} => Cluster::InCluster {},
        Cluster::Simulated { file } => Cluster::Simulated {
            file: file.map(|file| folder.join(file)),
        },
    }
}

fn policy(fields: &mut Fields, folder: &Path) -> Policy {
    let Some(file) = fields.optional::<PathBuf>("policy") else {
        return Policy::without_file();
    };
    Policy::load(&folder.join(file)).unwrap_or_else(|error| {
        fields.mistake("policy", &with_source(&error));
        Policy::without_file()
    })
}

/// The certificate must be whole, and must be the one of this target.
fn check_certificate(fields: &mut Fields, files: &Files, domain: &str, target: &TargetName) {
    if let Err(error) = files.client() {
        return fields.mistake("tls", &with_source(&error));
    }
    let expected = format!("spiffe://{domain}/agent/{target}/");
    match tls::own_uri(files) {
        Ok(uri) if uri.starts_with(&expected) => {}
        Ok(uri) => fields.mistake(
            "tls.certificate",
            &format!("is for `{uri}`, and this agent is `{expected}…`"),
        ),
        Err(error) => fields.mistake("tls.certificate", &with_source(&error)),
    }
}

fn with_source(error: &dyn std::error::Error) -> String {
    match error.source() {
        Some(source) => format!("{error}: {source}"),
        None => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "
target: eu-west/prod-1
controlPlane: {endpoints: ['localhost:7600', '[::1]:7601']}
trustDomain: aldis.test
tls: {certificate: a.pem, key: a.key, ca: ca.pem}
cluster: {simulated: {}}
data: data
";

    fn mistakes(text: &str) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("agent.yaml");
        std::fs::write(&file, text).unwrap();
        match load(&file) {
            Err(Error::Mistakes { mistakes, .. }) => mistakes,
            other => panic!("{other:?}"),
        }
    }

    fn named(mistakes: &[String], key: &str) -> bool {
        mistakes
            .iter()
            .any(|mistake| mistake.starts_with(&format!("{key}: ")))
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = MINIMAL
            .replace("eu-west/prod-1", "prod-1")
            .replace("localhost:7600", "localhost")
            .replace("simulated: {}", "simulated: {fil: x}")
            .replace("aldis.test", "''")
            + "labls: {}\npin: {uid: 1}\npolicy: none.yaml\nlog: {level: 'a=b=c'}\n";
        let mistakes = mistakes(&text);
        for key in [
            "target",
            "controlPlane.endpoints",
            "cluster",
            "trustDomain",
            "labls",
            "pin",
            "policy",
            "log.level",
        ] {
            assert!(named(&mistakes, key), "{key}: {mistakes:#?}");
        }
    }

    #[test]
    fn what_is_missing_is_named() {
        let mistakes = mistakes("labels: {}\n");
        for key in [
            "target",
            "controlPlane",
            "trustDomain",
            "tls",
            "cluster",
            "data",
        ] {
            assert!(named(&mistakes, key), "{key}: {mistakes:#?}");
        }
    }

    #[test]
    fn a_kubeconfig_that_is_not_there_is_named_before_anything_starts() {
        let cluster = "kubeconfig: {file: none.yaml, context: eu}";
        let mistakes = mistakes(&MINIMAL.replace("simulated: {}", cluster));
        assert!(named(&mistakes, "cluster.kubeconfig.file"), "{mistakes:?}");
    }

    #[test]
    fn a_certificate_that_is_not_there_is_named_with_its_file() {
        let mistakes = mistakes(MINIMAL);
        assert!(named(&mistakes, "tls"), "{mistakes:?}");
        assert!(mistakes[0].contains("ca.pem"), "{mistakes:?}");
    }

    #[test]
    fn an_endpoint_is_a_host_and_a_port() {
        let parse = |text: &str| text.parse::<Endpoint>();
        assert_eq!(parse("[::1]:76").unwrap().to_string(), "[::1]:76");
        assert_eq!(parse("cp.test:76").unwrap().host, "cp.test");
        for text in [
            "https://cp.test:76",
            "cp.test",
            ":76",
            "cp.test:x",
            "::1:76",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
