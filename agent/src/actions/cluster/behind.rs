//! What ails the pods behind a Service: asked when `http.probe` found it unwell for good.
//!
//! Where a container has no readiness probe, one that crashes counts as ready until it does, and only the samples
//! notice. A number of failed requests does not say that; the pods do. Where they cannot be read, the number must do.

use aldis_core::action::inputs::{HttpProbe, Via};
use kube::api::ListParams;
use serde_json::Value;

use super::Cluster;
use super::paths::POD;
use super::probe::SERVICE;
use super::rollout::{self, Pod};
use super::server::{Deadline, Shape};

impl Cluster {
    /// What ails the pods behind the service, also those that no sample reached.
    pub(super) async fn ailing(&self, with: &HttpProbe, deadline: Deadline) -> Vec<String> {
        let pods = match with.via {
            Via::PortForward => self.pods_behind(with, deadline).await,
            Via::Direct => None,
        };
        rollout::ailing(&pods.unwrap_or_default())
    }

    async fn pods_behind(&self, with: &HttpProbe, deadline: Deadline) -> Option<Vec<Pod>> {
        let namespace = Some(with.namespace.as_str());
        let path = SERVICE.one(namespace, &with.service).ok()?;
        let found = self
            .server
            .find(&path, Shape::Whole, deadline)
            .await
            .ok()??;
        let params = ListParams::default().labels(&selector(&found)?);
        let path = POD.all(namespace).ok()?;
        let pods = self.server.list(&path, &params, Shape::Whole, deadline);
        let pods = pods.await.ok()?;
        Some(pods.iter().filter_map(Pod::read).collect())
    }
}

/// Which pods are the Service's. One without a selector has pods that nobody can name.
fn selector(found: &Value) -> Option<String> {
    let labels = found.pointer("/spec/selector")?.as_object()?;
    let each = labels
        .iter()
        .map(|(key, value)| Some(format!("{key}={}", value.as_str()?)));
    let each = each.collect::<Option<Vec<_>>>()?;
    (!each.is_empty()).then(|| each.join(","))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_pods_of_a_service_are_those_of_its_selector_and_never_all_of_the_namespace() {
        let of = |labels: Value| selector(&json!({"spec": {"selector": labels}}));
        let both = of(json!({"app": "checkout", "tier": "web"}));
        assert_eq!(both.as_deref(), Some("app=checkout,tier=web"));
        assert_eq!(of(json!({})), None);
        assert_eq!(selector(&json!({"spec": {}})), None);
    }
}
