//! Prometheus, which scrapes every shop pod of every cluster.
//!
//! What it scrapes is in one file that is written anew whenever a pod comes or goes (see [`super::targets`]).
//! It speaks clear text, as a Prometheus inside a company does, and asks nobody who he is.

use std::net::IpAddr;
use std::path::Path;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use super::http;
use super::place::Place;
use super::programs::{Version, Wanted};
use super::targets::{Followers, Member, Targets};
use crate::fleet::process::{Process, Program};
use crate::fleet::{ports, ready};

const SERVER: Wanted = Wanted {
    name: "prometheus",
    least: Version(2, 42),
    package: "prometheus",
};

const NAME: &str = "prometheus";

/// A version that soaks for ten seconds should have some samples to look at.
const EVERY: &str = "2s";

/// It is up in half a second.
const LIMIT: Duration = Duration::from_secs(30);

/// A running Prometheus. Killed when dropped.
pub struct Prometheus {
    followers: Followers,
    process: Process,
    port: u16,
}

impl Prometheus {
    pub(super) async fn start(place: &Place) -> anyhow::Result<Self> {
        let program = SERVER.find(&[])?;
        let port = ports::free()?;
        let data = place.make_below("prometheus/data")?;
        let targets = Targets::open(place.folder(), super::below(NAME).join("targets.json"))?;
        let config = super::below(NAME).join("prometheus.yaml");
        let config = place.folder().write(config, config_text(&targets.file()))?;
        let arguments = [
            format!("--config.file={}", config.display()),
            format!("--storage.tsdb.path={}", data.display()),
            "--storage.tsdb.retention.time=1d".to_owned(),
            format!("--web.listen-address=127.0.0.1:{port}"),
            "--log.level=warn".to_owned(),
        ];
        let program = Program::new(NAME, program).arguments(arguments);
        let prometheus = Self {
            process: Process::start(place.folder(), program)?,
            followers: Followers::new(targets),
            port,
        };
        let look = || async {
            let status = http::get(port, "/-/ready").await?.status;
            ensure!(status.is_success(), "{status}");
            Ok(())
        };
        ready::until(&prometheus.process, LIMIT, "Prometheus is ready", look).await?;
        Ok(prometheus)
    }

    /// Scrapes the shop pods of a cluster from here on.
    pub(super) fn follow(&mut self, member: &Member) {
        self.followers.add(member);
    }

    /// What it scrapes, for a target that is no pod. The next change of a pod leaves it as it is.
    pub fn targets(&self) -> &Targets {
        self.followers.targets()
    }

    /// Asks a query of PromQL for what it is at this moment: `data.result` of the answer.
    pub async fn query(&self, query: &str) -> anyhow::Result<Vec<Value>> {
        let path = format!("/api/v1/query?query={}", escaped(query));
        let answer = http::get(self.port, &path).await?.json()?;
        let result = answer.pointer("/data/result").and_then(Value::as_array);
        match result {
            Some(result) => Ok(result.clone()),
            None => anyhow::bail!("Prometheus refused `{query}`: {answer}"),
        }
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Its process.
    pub fn process(&self) -> &Process {
        &self.process
    }

    pub(super) fn environment(&self, address: IpAddr) -> Vec<(String, String)> {
        let url = format!("http://{address}:{}", self.port);
        vec![("ALDIS_PROMETHEUS_URL".to_owned(), url)]
    }
}

fn config_text(targets: &Path) -> String {
    let shop = json!({
        "job_name": "shop",
        "file_sd_configs": [{"files": [targets], "refresh_interval": "5s"}],
    });
    let config = json!({
        "global": {"scrape_interval": EVERY, "scrape_timeout": EVERY, "evaluation_interval": EVERY},
        "scrape_configs": [shop],
    });
    // JSON is YAML.
    format!("{config:#}\n")
}

/// A text as part of a query string.
fn escaped(text: &str) -> String {
    let each = text.bytes().map(|byte| match byte {
        b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => {
            char::from(byte).to_string()
        }
        _ => format!("%{byte:02X}"),
    });
    each.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_query_travels_as_one_value() {
        assert_eq!(escaped(r#"up{a="b"} > 0"#), "up%7Ba%3D%22b%22%7D%20%3E%200");
    }
}
