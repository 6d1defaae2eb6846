//! What Prometheus reads. Each sample carries the release, so that two releases in one Deployment can be told apart.

use std::borrow::Cow;
use std::time::Duration;

use http::StatusCode;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::encoding::text::encode;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

/// The form of [`Metrics::text`].
pub(crate) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// All of them.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<Request, Counter>,
    seconds: Histogram,
    resident: Gauge,
    ready: Gauge,
    reloads: Counter,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Request {
    path: &'static str,
    code: u16,
}

impl Metrics {
    /// Those of a release.
    pub(crate) fn new(release: &str) -> Self {
        let label = (Cow::Borrowed("release"), Cow::Owned(release.to_owned()));
        let mut registry = Registry::with_prefix_and_labels("shop", std::iter::once(label));
        let requests = Family::default();
        registry.register("requests", "Answered requests", requests.clone());
        // 1 ms to 4 s.
        let seconds = Histogram::new(exponential_buckets(0.001, 2.0, 13));
        let what = "Time to an answer, without probes and scrapes";
        registry.register_with_unit("request", what, Unit::Seconds, seconds.clone());
        let resident = Gauge::default();
        let what = "Resident memory";
        registry.register_with_unit("resident_memory", what, Unit::Bytes, resident.clone());
        let ready = Gauge::default();
        registry.register(
            "ready",
            "1 while its readiness probe succeeds",
            ready.clone(),
        );
        let reloads = Counter::default();
        let what = "Times that the session secret was read again and had changed";
        registry.register("session_reloads", what, reloads.clone());
        Self {
            registry,
            requests,
            seconds,
            resident,
            ready,
            reloads,
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, path: &'static str, status: StatusCode) {
        let code = status.as_u16();
        self.requests.get_or_create(&Request { path, code }).inc();
    }

    /// Counts how long a customer waited.
    pub(crate) fn took(&self, time: Duration) {
        self.seconds.observe(time.as_secs_f64());
    }

    /// Counts a secret that was read again and had changed.
    pub(crate) fn reloaded(&self) {
        self.reloads.inc();
    }

    /// All, as Prometheus reads them.
    pub(crate) fn text(&self, ready: bool) -> Result<String, std::fmt::Error> {
        self.ready.set(i64::from(ready));
        self.resident.set(resident_bytes().unwrap_or(0));
        let mut text = String::new();
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

/// As the kernel counts it. `None` where it does not tell.
fn resident_bytes() -> Option<i64> {
    let pages = std::fs::read_to_string("/proc/self/statm").ok()?;
    let pages: i64 = pages.split_whitespace().nth(1)?.parse().ok()?;
    pages.checked_mul(i64::try_from(rustix::param::page_size()).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_sample_names_the_release() {
        let metrics = Metrics::new("v2-slow");
        metrics.answered("/", StatusCode::OK);
        metrics.answered("/", StatusCode::OK);
        metrics.answered("/db", StatusCode::SERVICE_UNAVAILABLE);
        metrics.took(Duration::from_millis(3));
        let text = metrics.text(true).unwrap();
        let samples: Vec<&str> = text.lines().filter(|line| !line.starts_with('#')).collect();
        assert!(
            samples
                .iter()
                .all(|line| line.contains(r#"release="v2-slow""#)),
            "{text}"
        );
        let count = |sample: &str| {
            samples
                .iter()
                .filter(|line| line.starts_with(sample))
                .count()
        };
        assert_eq!(count("shop_request_seconds_bucket"), 14, "{text}");
        let served = samples
            .iter()
            .find(|line| line.contains(r#"path="/""#))
            .unwrap();
        assert!(
            served.starts_with("shop_requests_total{") && served.ends_with("} 2"),
            "{served}"
        );
        assert!(served.contains(r#"code="200""#), "{served}");
    }

    #[test]
    fn memory_is_read_of_the_kernel() {
        assert!(resident_bytes().unwrap() > 1 << 20);
    }
}
