//! One YAML file. Every mistake is reported at once, each with its key.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_core::runbook::duration;
use serde::Deserialize;

use crate::tls::Files;

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Config {
    /// Name of this replica, unlike that of any other.
    pub replica: String,
    /// Where agents, people and other replicas connect.
    pub listen: SocketAddr,
    /// How other replicas reach it: `HOST:PORT`, a name that its certificate holds.
    pub advertise: String,
    /// Trust domain of every identity.
    pub trust_domain: String,
    /// Certificate, key, CA.
    pub tls: Files,
    /// Where state is kept.
    pub store: Store,
    /// Times and bounds.
    #[serde(default)]
    pub limits: Limits,
    /// Plaintext health and metrics; none = not served.
    #[serde(default)]
    pub monitoring: Option<Monitoring>,
    /// How it logs.
    #[serde(default)]
    pub log: Log,
}

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Store {
    /// etcd, for every use with more than one replica.
    Etcd {
        /// Such as `https://10.0.0.1:2379`.
        endpoints: Vec<String>,
        /// Client certificate, key and CA; needed unless every endpoint is `http://` on loopback.
        #[serde(default)]
        tls: Option<Files>,
    },
    /// One file, for one replica.
    Embedded {
        /// Where.
        path: PathBuf,
    },
}

/// Times and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// Length of a permit.
    #[serde(with = "duration")]
    pub permit: Duration,
    /// How long an agent may be away before `whenUnreachable` applies.
    #[serde(with = "duration")]
    pub unreachable_after: Duration,
    /// How long a deferred target is waited for.
    #[serde(with = "duration")]
    pub defer_for: Duration,
    /// Life of the leader's lease without renewal.
    #[serde(with = "duration")]
    pub leader_ttl: Duration,
    /// Jobs that run at once.
    pub running_jobs: usize,
    /// Jobs that have not ended, beyond which no more are taken: each costs every replica some
    /// kilobytes and the leader a look per change; beyond this something submits in a loop.
    pub open_jobs: usize,
    /// How long ended jobs are kept.
    #[serde(with = "duration")]
    pub retention: Duration,
    /// How long a plan can be submitted.
    #[serde(with = "duration")]
    pub plan_expiry: Duration,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            permit: Duration::from_secs(30),
            unreachable_after: Duration::from_secs(30),
            defer_for: Duration::from_secs(24 * 60 * 60),
            leader_ttl: Duration::from_secs(5),
            running_jobs: 32,
            open_jobs: 10_000,
            retention: Duration::from_secs(7 * 24 * 60 * 60),
            plan_expiry: Duration::from_secs(30 * 60),
        }
    }
}

/// Plaintext health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Monitoring {
    /// Loopback, unless `anyAddress` is set.
    pub listen: SocketAddr,
    /// Allows another address than loopback: metrics name clusters and jobs.
    #[serde(default)]
    pub any_address: bool,
}

/// How it logs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Log {
    /// For people or for collectors.
    pub format: LogFormat,
    /// Such as `info` or `aldis_control_plane=debug`.
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
    /// It does not parse.
    #[error("configuration `{}`:\n{problem}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and what, with the line.
        problem: String,
    },
    /// It parses, and cannot be used.
    #[error("configuration `{}` has {} mistakes:\n  {}", path.display(), mistakes.len(), mistakes.join("\n  "))]
    Mistakes {
        /// Which.
        path: PathBuf,
        /// Each with its key.
        mistakes: Vec<String>,
    },
}

/// Reads and checks a file.
pub fn load(path: &Path) -> Result<Config, Error> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: owned(),
        source,
    })?;
    let config = parse(&text).map_err(|problem| Error::Parse {
        path: owned(),
        problem,
    })?;
    let config = config.below(path.parent().unwrap_or(Path::new("")));
    let mistakes = config.mistakes();
    if mistakes.is_empty() {
        Ok(config)
    } else {
        Err(Error::Mistakes {
            path: owned(),
            mistakes,
        })
    }
}

fn parse(text: &str) -> Result<Config, String> {
    serde_saphyr::from_str(text).map_err(|error| error.to_string())
}

impl Config {
    /// The same, where relative paths count from the folder of the file.
    fn below(mut self, folder: &Path) -> Self {
        self.tls = self.tls.below(folder);
        match &mut self.store {
            Store::Etcd { tls, .. } => *tls = tls.as_ref().map(|tls| tls.below(folder)),
            Store::Embedded { path } => *path = folder.join(&path),
        }
        self
    }

    /// Everything that is wrong with it, each with its key.
    pub fn mistakes(&self) -> Vec<String> {
        let mut mistakes = Vec::new();
        let mut check = |key: &str, wrong: bool, why: &str| {
            if wrong {
                mistakes.push(format!("{key}: {why}"));
            }
        };
        let limits = self.limits;
        check("replica", self.replica.is_empty(), "must not be empty");
        check(
            "advertise",
            !self.advertise.contains(':'),
            "must be HOST:PORT",
        );
        check(
            "trustDomain",
            self.trust_domain.is_empty(),
            "must not be empty",
        );
        check(
            "limits.permit",
            limits.permit < Duration::from_secs(3),
            "must be at least 3s: a fresh view alone takes two",
        );
        check(
            "limits.leaderTtl",
            limits.leader_ttl < Duration::from_secs(2),
            "must be at least 2s",
        );
        check(
            "limits.runningJobs",
            limits.running_jobs == 0,
            "must be at least 1",
        );
        if let Some(monitoring) = &self.monitoring {
            let open = !monitoring.listen.ip().is_loopback() && !monitoring.any_address;
            check(
                "monitoring.listen",
                open,
                "is not loopback; set `monitoring.anyAddress: true` if that is meant",
            );
        }
        match &self.store {
            Store::Etcd { endpoints, tls } => {
                check(
                    "store.etcd.endpoints",
                    endpoints.is_empty(),
                    "must name at least one",
                );
                let plain = |e: &String| {
                    e.starts_with("http://127.0.0.1:") || e.starts_with("http://localhost:")
                };
                check(
                    "store.etcd.tls",
                    tls.is_none() && !endpoints.iter().all(plain),
                    "is needed for etcd beyond loopback",
                );
            }
            Store::Embedded { path } => {
                check(
                    "store.embedded.path",
                    path.as_os_str().is_empty(),
                    "must not be empty",
                );
            }
        }
        if let Err(error) = self.tls.server() {
            mistakes.push(format!("tls: {error}"));
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MINIMAL: &str = "
replica: cp-1
listen: 127.0.0.1:7600
advertise: localhost:7600
trustDomain: aldis.test
tls: {certificate: /none/c.pem, key: /none/k.pem, ca: /none/ca.pem}
store: {embedded: {path: /tmp/x}}
";

    #[test]
    fn a_misspelt_key_is_named_with_its_line() {
        let problem = parse(&MINIMAL.replace("advertise", "advertize")).unwrap_err();
        assert!(
            problem.contains("advertize") && problem.contains('4'),
            "{problem}"
        );
    }

    #[test]
    fn every_mistake_is_reported_at_once() {
        let text = MINIMAL.replace("cp-1", "''")
            + "limits: {permit: 1s, runningJobs: 0}\nmonitoring: {listen: '0.0.0.0:9'}\n";
        let mistakes = parse(&text).unwrap().mistakes();
        for key in [
            "replica",
            "limits.permit",
            "limits.runningJobs",
            "monitoring.listen",
            "tls",
        ] {
            assert!(
                mistakes.iter().any(|mistake| mistake.starts_with(key)),
                "{key}: {mistakes:?}"
            );
        }
    }
}
