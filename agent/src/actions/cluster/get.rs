//! `kube.get`: the main facts of a Deployment. It reads one object and nothing else.

use aldis_core::action::inputs::KubeGet;
use serde_json::{Value, json};

use super::super::{Trouble, images, inputs};
use super::Cluster;
use super::deployment::Live;
use super::paths::DEPLOYMENT;
use super::rights::{Right, Use, right};
use super::server::Deadline;

/// What the action needs.
pub(super) const RIGHTS: [Right; 1] = [right(
    "get",
    DEPLOYMENT,
    &[Use::Plan, Use::Apply],
    "to read the Deployment",
)];

impl Cluster {
    pub(super) async fn get(&self, with: &KubeGet, deadline: Deadline) -> Result<Value, Trouble> {
        let found = self.find(&with.namespace, &with.name, deadline).await?;
        Ok(found.as_ref().map_or_else(inputs::absent, facts))
    }
}

fn facts(live: &Live) -> Value {
    json!({
        "found": true,
        "images": images::of_template(&live.template),
        "replicas": live.counts.wanted,
        "ready": live.counts.ready,
        "revision": live.revision.unwrap_or(0),
        "paused": live.paused,
    })
}

#[cfg(test)]
mod tests {
    use super::super::deployment::samples;
    use super::*;
    use aldis_core::action::Action;

    #[test]
    fn the_facts_are_the_declared_outputs() {
        let facts = facts(&samples::live("checkout:v2"));
        for output in Action::KubeGet.outputs() {
            assert!(facts.get(output.name).is_some(), "{}", output.name);
        }
        assert_eq!(facts["images"], json!(["checkout:v2"]));
        assert_eq!(
            (&facts["replicas"], &facts["revision"]),
            (&json!(3), &json!(2))
        );
    }
}
