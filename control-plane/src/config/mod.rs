//! One YAML file. Every mistake is reported at once, each with its key: `read.rs` takes the file apart key by
//! key, since a derived reader stops at the first.

mod read;

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use crate::tls::Files;

/// How long agents list what was acknowledged. What they list and no record knows proves that the store
/// lost it, so ended jobs are kept for longer.
const LISTED_FOR: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// How long ended jobs are kept: a day longer than they are listed, for clocks that differ.
pub const RETENTION: Duration = Duration::from_secs(8 * 24 * 60 * 60);

/// What an operator can set.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    pub limits: Limits,
    /// Plaintext health and metrics; none = not served.
    pub monitoring: Option<Monitoring>,
    /// How it logs.
    pub log: Log,
}

/// Where state is kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Store {
    /// etcd, for every use with more than one replica.
    Etcd {
        /// Such as `https://10.0.0.1:2379`.
        endpoints: Vec<String>,
        /// Client certificate, key and CA; needed unless every endpoint is `http://` on loopback.
        tls: Option<Files>,
    },
    /// One file, for one replica.
    Embedded {
        /// Where.
        path: PathBuf,
    },
}

/// Times and bounds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Length of a permit.
    pub permit: Duration,
    /// How long an agent may be away before `whenUnreachable` applies.
    pub unreachable_after: Duration,
    /// How long a deferred target is waited for.
    pub defer_for: Duration,
    /// Life of the leader's lease without renewal.
    pub leader_ttl: Duration,
    /// Jobs that run at once.
    pub running_jobs: usize,
    /// Jobs that have not ended, beyond which no more are taken: each costs every replica some
    /// kilobytes and the leader a look per change; beyond this something submits in a loop.
    pub open_jobs: usize,
    /// How long ended jobs are kept.
    pub retention: Duration,
    /// Accepts a shorter retention than agents list their attempts for, as tests need it: whatever was
    /// swept sooner then looks like a store that went back in time, and stops all dispatch.
    pub unsafe_retention: bool,
    /// How long a plan can be submitted.
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
            retention: RETENTION,
            unsafe_retention: false,
            plan_expiry: Duration::from_secs(30 * 60),
        }
    }
}

/// Plaintext health and metrics.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Monitoring {
    /// Loopback, unless `anyAddress` is set.
    pub listen: SocketAddr,
    /// Allows another address than loopback: metrics name clusters and jobs.
    pub any_address: bool,
}

/// How it logs.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
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
    /// It is no YAML mapping.
    #[error("configuration `{}`:\n{problem}", path.display())]
    Parse {
        /// Which.
        path: PathBuf,
        /// Where and what, with the line.
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

/// What differs from replica to replica, given beside a file that all of them share. It goes before the file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Given {
    /// In place of `replica`.
    pub replica: Option<String>,
    /// In place of `advertise`.
    pub advertise: Option<String>,
}

/// Reads and checks a file, and the files that it names.
pub fn load(path: &Path) -> Result<Config, Error> {
    load_with(path, Given::default())
}

/// The same, with what is given beside the file.
pub fn load_with(path: &Path, given: Given) -> Result<Config, Error> {
    let owned = || path.to_owned();
    let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
        path: owned(),
        source,
    })?;
    let tree: Value = serde_saphyr::from_str(&text).map_err(|error| Error::Parse {
        path: owned(),
        problem: error.to_string(),
    })?;
    let Value::Object(mut fields) = tree else {
        return Err(Error::Parse {
            path: owned(),
            problem: "it is not a mapping of keys to values".to_owned(),
        });
    };
    for (key, value) in [("replica", given.replica), ("advertise", given.advertise)] {
        if let Some(value) = value {
            fields.insert(key.to_owned(), Value::String(value));
        }
    }
    let folder = path.parent().unwrap_or(Path::new(""));
    read::config(fields, folder).map_err(|mistakes| Error::Mistakes {
        path: owned(),
        mistakes,
    })
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

    fn mistakes(text: &str) -> Vec<String> {
        mistakes_with(text, Given::default())
    }

    /// Beside the certificate's, which no file of a test holds.
    fn mistakes_with(text: &str, given: Given) -> Vec<String> {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cp.yaml");
        std::fs::write(&file, text).unwrap();
        match load_with(&file, given) {
            Err(Error::Mistakes { mistakes, .. }) => mistakes,
            other => panic!("{other:?}"),
        }
    }

    fn assert_named(mistakes: &[String], keys: &[&str]) {
        for key in keys {
            let named = |mistake: &&String| mistake.starts_with(&format!("{key}: "));
            assert_eq!(
                mistakes.iter().filter(named).count(),
                1,
                "{key}: {mistakes:#?}"
            );
        }
    }

    #[test]
    fn a_file_with_no_mistake_but_missing_certificates_has_no_other() {
        let mistakes = mistakes(MINIMAL);
        assert_eq!(mistakes.len(), 1, "{mistakes:#?}");
        assert_named(&mistakes, &["tls"]);
    }

    #[test]
    fn what_does_not_parse_what_is_unknown_and_what_is_unsafe_are_named_at_once() {
        let text = MINIMAL
            .replace("replica: cp-1", "replica: ''")
            .replace("127.0.0.1:7600", "everywhere")
            .replace("advertise", "advertize")
            .replace(
                "{embedded: {path: /tmp/x}}",
                "{etcd: {endpoints: ['http://10.0.0.1:2379']}}",
            )
            + "limits: {permit: 1s, leaderTtl: soon, runningJobs: 0, retention: 1d, planExpire: 5m}
monitoring: {listen: '0.0.0.0:9'}
log: {level: 'aldis=loud', form: json}
";
        let keys = [
            "replica",
            "listen",
            "advertise",
            "advertize",
            "store.etcd.tls",
            "limits.permit",
            "limits.leaderTtl",
            "limits.runningJobs",
            "limits.retention",
            "limits.planExpire",
            "monitoring.listen",
            "log.level",
            "log.form",
            "tls",
        ];
        assert_named(&mistakes(&text), &keys);
    }

    #[test]
    fn what_is_given_beside_the_file_goes_before_it_and_is_checked_alike() {
        let shared = MINIMAL
            .replace("replica: cp-1\n", "")
            .replace("localhost:7600", "7600");
        let given = Given {
            replica: Some("cp-0".to_owned()),
            advertise: Some("cp-0.replicas:7600".to_owned()),
        };
        assert_named(&mistakes(&shared), &["replica", "advertise"]);
        assert_eq!(mistakes_with(&shared, given).len(), 1, "the certificate's");
        let wrong = Given {
            advertise: Some("cp-0".to_owned()),
            ..Given::default()
        };
        assert_named(&mistakes_with(MINIMAL, wrong), &["advertise"]);
    }

    #[test]
    fn certificates_for_etcd_are_read_too() {
        let etcd = "{etcd: {endpoints: ['https://a:2379'], tls: {certificate: x, key: y, ca: z}}}";
        let text = MINIMAL.replace("{embedded: {path: /tmp/x}}", etcd);
        assert_named(&mistakes(&text), &["store.etcd.tls"]);
    }

    #[test]
    fn a_short_retention_is_for_whoever_says_that_it_is_unsafe() {
        let text = MINIMAL.to_owned() + "limits: {retention: 1m, unsafeRetention: true}\n";
        assert_eq!(mistakes(&text).len(), 1);
    }
}
