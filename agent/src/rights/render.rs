//! Roles and bindings as YAML, for `kubectl apply` and for reading: each rule says why it is there. Written as text,
//! since no serializer writes comments; what comes from outside is quoted as JSON, which YAML reads alike.

use std::fmt::Write;

use super::{Needed, Rule, Subject, Wish};
use crate::policy::Policy;

/// What roles and bindings are called unless it is wished otherwise.
const NAME: &str = "aldis-agent";

const RBAC: &str = "rbac.authorization.k8s.io";

/// The manifests for `policy`.
pub fn render(policy: &Policy, wish: &Wish) -> String {
    let rendering = Rendering {
        needed: Needed::by(policy, wish),
        wish,
        name: wish.name.as_deref().unwrap_or(NAME),
    };
    let mut text = String::new();
    for line in rendering.opening(policy) {
        let _ = writeln!(text, "{}", format!("# {line}").trim_end());
    }
    text + &rendering.documents().join("---\n")
}

struct Rendering<'a> {
    needed: Needed,
    wish: &'a Wish,
    name: &'a str,
}

/// A role to bind.
struct To<'a> {
    kind: &'static str,
    name: &'a str,
}

impl Rendering<'_> {
    fn documents(&self) -> Vec<String> {
        let mut documents = self.of_the_cluster();
        if self.needed.namespace.is_empty() {
            return documents;
        }
        if self.needed.patterns.is_empty() {
            documents.extend(self.of_named_namespaces());
        } else {
            documents.extend(self.of_patterns());
        }
        documents
    }

    fn of_the_cluster(&self) -> Vec<String> {
        let kind = "ClusterRole";
        let mut documents = vec![role(kind, self.name, None, &self.needed.cluster)];
        let to = To {
            kind,
            name: self.name,
        };
        documents.extend(self.binding("ClusterRoleBinding", &to, None));
        documents
    }

    fn of_named_namespaces(&self) -> Vec<String> {
        let kind = "Role";
        let mut documents = Vec::new();
        for namespace in &self.needed.named {
            let namespace = Some(namespace.as_str());
            documents.push(role(kind, self.name, namespace, &self.needed.namespace));
            let to = To {
                kind,
                name: self.name,
            };
            documents.extend(self.binding("RoleBinding", &to, namespace));
        }
        documents
    }

    fn of_patterns(&self) -> Vec<String> {
        let kind = "ClusterRole";
        let name = self.name_in_namespaces();
        let mut documents = vec![role(kind, &name, None, &self.needed.namespace)];
        let to = To { kind, name: &name };
        if self.wish.every_namespace {
            documents.extend(self.binding("ClusterRoleBinding", &to, None));
        } else {
            for namespace in &self.needed.named {
                documents.extend(self.binding("RoleBinding", &to, Some(namespace)));
            }
        }
        documents
    }

    fn name_in_namespaces(&self) -> String {
        format!("{}-namespace", self.name)
    }

    fn binding(&self, kind: &str, to: &To<'_>, namespace: Option<&str>) -> Option<String> {
        let subject = match self.wish.subject.as_ref()? {
            Subject::ServiceAccount { namespace, name } => format!(
                "{{kind: ServiceAccount, namespace: {}, name: {}}}",
                quoted(namespace),
                quoted(name)
            ),
            Subject::User(name) => {
                format!("{{apiGroup: {RBAC}, kind: User, name: {}}}", quoted(name))
            }
        };
        let head = head(kind, to.name, namespace);
        let To { kind, name } = to;
        Some(format!(
            "{head}roleRef: {{apiGroup: {RBAC}, kind: {kind}, name: {name}}}\nsubjects:\n  - {subject}\n"
        ))
    }

    /// What a reader must know that the rules cannot say.
    fn opening(&self, policy: &Policy) -> Vec<String> {
        let mut lines: Vec<_> = WHAT.map(str::to_owned).into();
        lines.extend(self.reach());
        for idle in policy.actions_of_nothing() {
            lines.push(format!(
                "No action is called {}: nothing is granted for it.",
                shown(&idle)
            ));
        }
        let Needed {
            cluster, namespace, ..
        } = &self.needed;
        if namespace.iter().any(|rule| rule.resource == "secrets") {
            lines.extend(SECRETS.map(str::to_owned));
        }
        let owner = |rule: &Rule| rule.group == "argoproj.io" || rule.group.contains("fluxcd");
        let writes = namespace.iter().any(|rule| rule.verbs.contains("patch"));
        if writes && !cluster.iter().any(owner) {
            lines.extend(OWNERS.map(str::to_owned));
        }
        lines
    }

    fn reach(&self) -> Vec<String> {
        let Needed {
            namespace,
            named,
            patterns,
            ..
        } = &self.needed;
        let line = if namespace.is_empty() {
            "The policy allows no action, so no right in a namespace is needed."
        } else if !patterns.is_empty() {
            return self.reach_of_patterns();
        } else if named.is_empty() {
            "The policy allows no namespace, so no action can do anything."
        } else {
            "What it may do in a namespace is a Role in each namespace that the policy names."
        };
        vec![line.to_owned()]
    }

    fn reach_of_patterns(&self) -> Vec<String> {
        let patterns: Vec<_> = self
            .needed
            .patterns
            .iter()
            .map(|glob| shown(glob))
            .collect();
        let mut lines = vec![format!(
            "The policy allows {}, and RBAC knows no patterns: `{}`",
            patterns.join(", "),
            self.name_in_namespaces()
        )];
        let rest: &[&str] = match (&self.wish.subject, self.wish.every_namespace) {
            (Some(_), true) => &[
                "is bound in EVERY namespace, as was wished. The agent's own policy is all that keeps it out of the others.",
            ],
            (Some(_), false) => &[
                "is bound where the policy names a namespace. In each further one bind it by a RoleBinding, or print this with",
                "`--every-namespace`.",
            ],
            (None, _) => &[
                "is a ClusterRole. Bind it by a RoleBinding in each namespace that the agent may change: a namespace without the",
                "binding is out of its reach, whatever a job asks for. `aldis-agent rights` with `--service-account` or `--user`",
                "prints the bindings too.",
            ],
        };
        lines.extend(rest.iter().map(|line| (*line).to_owned()));
        lines
    }
}

const WHAT: [&str; 3] = [
    "What an agent may do in its cluster: what those actions need that its policy allows, and nothing else. Printed by",
    "`aldis-agent rights`; print it again when the policy or the agent's version changes.",
    "",
];

const SECRETS: [&str; 5] = [
    "",
    "Secrets: a release can start only if each Secret it names is still there, and Kubernetes has no right to know that",
    "without the right to read. The agent asks for metadata alone. Only where a release names a key of a Secret, and the",
    "metadata (managedFields) does not show that the key is there, it reads the Secret; it keeps the names of its keys and",
    "lets the rest go. `--without secrets` leaves the rule out, and plans say that it is not known.",
];

const OWNERS: [&str; 4] = [
    "",
    "Argo CD and Flux mark what they own, and the agent sees the marks without a right. Whether they sync by themselves it",
    "does not see, and takes them to. `--with argo-cd` and `--with flux` add the rights to read it, in every namespace:",
    "Applications and HelmReleases may hold values that are secret.",
];

/// As one line of a comment, whatever is in it.
fn shown(text: &str) -> String {
    format!("`{}`", text.escape_default())
}

fn role(kind: &str, name: &str, namespace: Option<&str>, rules: &[Rule]) -> String {
    let mut text = head(kind, name, namespace);
    text.push_str("rules:\n");
    for rule in rules {
        let _ = writeln!(text, "  # {}.", sentence(&rule.purposes));
        let _ = writeln!(text, "  - {}", written(rule));
    }
    text
}

fn written(rule: &Rule) -> String {
    let group = if rule.group.is_empty() {
        "\"\""
    } else {
        rule.group
    };
    let object = rule
        .object
        .map_or_else(String::new, |object| format!(", resourceNames: [{object}]"));
    let verbs: Vec<_> = rule.verbs.iter().copied().collect();
    format!(
        "{{apiGroups: [{group}], resources: [{}]{object}, verbs: [{}]}}",
        rule.resource,
        verbs.join(", ")
    )
}

fn sentence(purposes: &[&str]) -> String {
    let mut text = purposes.join("; ");
    if let Some(first) = text.get_mut(0..1) {
        first.make_ascii_uppercase();
    }
    text
}

fn head(kind: &str, name: &str, namespace: Option<&str>) -> String {
    let namespace = namespace.map_or_else(String::new, |namespace| {
        format!(", namespace: {}", quoted(namespace))
    });
    format!("apiVersion: {RBAC}/v1\nkind: {kind}\nmetadata: {{name: {name}{namespace}}}\n")
}

fn quoted(text: &str) -> String {
    serde_json::Value::from(text).to_string()
}
