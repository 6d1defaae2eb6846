//! Asks the API server, while planning, what the agent's account may do later: a right that is missing shall be found
//! before a wave moves, not when a failure is to be explained.
//!
//! Writes need no question here: their dry run proves the right.

use serde_json::{Value, json};

use super::Cluster;
use super::paths::{POD, REPLICA_SET, Resource};
use super::server::Deadline;

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// A right that an action uses, and what it is good for.
pub(super) struct Right {
    verb: &'static str,
    resource: Resource,
    subresource: &'static str,
    purpose: &'static str,
}

/// What `kube.wait` uses besides reading the Deployment.
pub(super) const WAIT: [Right; 3] = [
    Right {
        verb: "list",
        resource: REPLICA_SET,
        subresource: "",
        purpose: "to find the pods of a rollout",
    },
    Right {
        verb: "list",
        resource: POD,
        subresource: "",
        purpose: "to fail early with a pod's own reason",
    },
    Right {
        verb: "get",
        resource: POD,
        subresource: "log",
        purpose: "to show the last lines of a container that fails",
    },
];

/// What `http.probe` uses through the API server.
pub(super) const PORT_FORWARD: [Right; 1] = [Right {
    verb: "create",
    resource: POD,
    subresource: "portforward",
    purpose: "to reach the service through the API server",
}];

impl Cluster {
    /// A warning for each right that is missing. An answer that does not come is no warning: the step itself will tell.
    pub(super) async fn missing_rights(
        &self,
        rights: &[Right],
        namespace: &str,
        deadline: Deadline,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for right in rights {
            let question = right.question(namespace);
            let answer = self.server.ask(REVIEWS, &question, deadline).await;
            if answer.is_ok_and(|answer| refused(&answer)) {
                warnings.push(right.warning(namespace));
            }
        }
        warnings
    }
}

impl Right {
    fn question(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": namespace,
                "verb": self.verb,
                "group": self.resource.group(),
                "resource": self.resource.plural,
                "subresource": self.subresource,
            }},
        })
    }

    fn warning(&self, namespace: &str) -> String {
        let resource = match self.subresource {
            "" => self.resource.plural.to_owned(),
            sub => format!("{}/{sub}", self.resource.plural),
        };
        format!(
            "the agent may not {} {resource} in namespace {namespace}, which it needs {}",
            self.verb, self.purpose
        )
    }
}

fn refused(answer: &Value) -> bool {
    answer.pointer("/status/allowed") == Some(&Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_question_names_group_resource_and_subresource() {
        let log = WAIT[2].question("shop");
        let asked = &log["spec"]["resourceAttributes"];
        assert_eq!(
            (&asked["verb"], &asked["resource"], &asked["subresource"]),
            (&json!("get"), &json!("pods"), &json!("log"))
        );
        assert_eq!(
            WAIT[0].question("shop")["spec"]["resourceAttributes"]["group"],
            "apps"
        );
        assert_eq!(
            WAIT[2].warning("shop"),
            "the agent may not get pods/log in namespace shop, which it needs to show the last lines of a container that fails"
        );
    }

    #[test]
    fn only_a_clear_no_is_a_no() {
        assert!(refused(&json!({"status": {"allowed": false}})));
        assert!(!refused(&json!({"status": {"allowed": true}})));
        assert!(!refused(&json!({})));
    }
}
