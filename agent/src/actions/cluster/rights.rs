//! What an action needs in its cluster, declared beside the code that uses it.
//!
//! Two things are read off the declarations: the roles that an operator gives the agent ([`crate::rights`]), and the
//! questions to the API server, while planning, about what is needed only later. A right that is missing shall be found
//! before a wave moves, not when a failure is to be explained. Writes ask nothing: their dry run proves the right.

use aldis_core::action::Action;
use serde_json::{Value, json};

use super::paths::Resource;
use super::server::Deadline;
use super::{Cluster, get, owners, probe, read, references, resolve_template, wait, write};

const REVIEWS: &str = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";

/// One verb on one kind of object, and what it is good for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Right {
    /// Such as `get`.
    pub verb: &'static str,
    resource: Resource,
    subresource: &'static str,
    /// The one object that is meant, where it is always the same.
    pub object: Option<&'static str>,
    /// Where the objects are.
    pub scope: Scope,
    /// In which parts of an action it is used.
    pub uses: &'static [Use],
    /// Without which the action still works, as an operator may choose.
    pub choice: Option<Choice>,
    /// Ends the sentence "it is needed …".
    pub purpose: &'static str,
}

/// Where objects are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Scope {
    /// In no namespace, or in one that nobody can say beforehand.
    Cluster,
    /// In the namespace that the action works in.
    Namespace,
}

/// The parts of an action.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Use {
    /// The dry run.
    Plan,
    /// To see whether an effect is there, and to keep one on its way from landing.
    Observe,
    /// The reading before an effect, and the effect.
    Apply,
    /// The way back, with its wait.
    Undo,
}

/// What an operator may grant or leave out: the action then says what it could not know.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Choice {
    /// To read Secrets: granted unless it is left out.
    Secrets,
    /// To read the Applications of Argo CD: left out unless it is granted.
    ArgoCd,
    /// To read what Flux applies: left out unless it is granted.
    Flux,
}

impl Choice {
    /// As it is written.
    pub fn name(self) -> &'static str {
        match self {
            Self::Secrets => "secrets",
            Self::ArgoCd => "argo-cd",
            Self::Flux => "flux",
        }
    }
}

/// A right in the action's namespace.
pub(super) const fn right(
    verb: &'static str,
    resource: Resource,
    uses: &'static [Use],
    purpose: &'static str,
) -> Right {
    Right {
        verb,
        resource,
        subresource: "",
        object: None,
        scope: Scope::Namespace,
        uses,
        choice: None,
        purpose,
    }
}

impl Right {
    /// On a part of the object that has rights of its own.
    pub(super) const fn on(mut self, subresource: &'static str) -> Self {
        self.subresource = subresource;
        self
    }

    /// On objects outside the action's namespace.
    pub(super) const fn cluster_wide(mut self) -> Self {
        self.scope = Scope::Cluster;
        self
    }

    /// On one object, outside the action's namespace.
    pub(super) const fn of(mut self, object: &'static str) -> Self {
        self.object = Some(object);
        self.cluster_wide()
    }

    /// Where the operator chose so.
    pub(super) const fn by_choice(mut self, choice: Choice) -> Self {
        self.choice = Some(choice);
        self
    }

    /// As a role names the group.
    pub fn group(&self) -> &'static str {
        self.resource.group()
    }

    /// As a role names the resource, with its subresource.
    pub fn resource(&self) -> String {
        match self.subresource {
            "" => self.resource.plural.to_owned(),
            sub => format!("{}/{sub}", self.resource.plural),
        }
    }

    /// Whether a plan does not use it: only then must it be asked for.
    fn is_for_later(&self) -> bool {
        self.scope == Scope::Namespace && !self.uses.contains(&Use::Plan)
    }

    fn question(&self, namespace: &str) -> Value {
        json!({
            "apiVersion": "authorization.k8s.io/v1",
            "kind": "SelfSubjectAccessReview",
            "spec": {"resourceAttributes": {
                "namespace": namespace,
                "verb": self.verb,
                "group": self.group(),
                "resource": self.resource.plural,
                "subresource": self.subresource,
            }},
        })
    }

    fn warning(&self, namespace: &str) -> String {
        format!(
            "the agent may not {} {} in namespace {namespace}, which it needs {}",
            self.verb,
            self.resource(),
            self.purpose
        )
    }
}

/// What the agent needs to begin, whatever it may do then.
pub fn always() -> &'static [Right] {
    &super::RIGHTS
}

/// What `action` needs. The sources may name a right twice.
pub fn of(action: Action) -> Vec<Right> {
    let parts: &[&[Right]] = match action {
        Action::KubeGet => &[&get::RIGHTS],
        Action::KubeResolveTemplate => &[&resolve_template::RIGHTS, &references::RIGHTS],
        Action::KubeRolloutUndo | Action::KubeSetImage => &[
            &read::RIGHTS,
            &write::RIGHTS,
            &references::RIGHTS,
            &owners::RIGHTS,
            &wait::AFTER_UNDO,
        ],
        Action::KubeWait => &[&wait::RIGHTS],
        Action::HttpProbe => &[&probe::RIGHTS],
    };
    parts.concat()
}

impl Cluster {
    /// A warning for each right of `action` that is missing and that its plan would not miss. An answer that does not
    /// come is no warning: the step itself will tell.
    pub(super) async fn missing_rights(
        &self,
        action: Action,
        namespace: &str,
        deadline: Deadline,
    ) -> Vec<String> {
        let mut warnings = Vec::new();
        for right in of(action).iter().filter(|right| right.is_for_later()) {
            let question = right.question(namespace);
            let answer = self.server.ask(REVIEWS, &question, deadline).await;
            if answer.is_ok_and(|answer| refused(&answer)) {
                warnings.push(right.warning(namespace));
            }
        }
        warnings
    }
}

fn refused(answer: &Value) -> bool {
    answer.pointer("/status/allowed") == Some(&Value::Bool(false))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `Use`s, then `group/resource verb`, each right once, in the order of the text.
    fn table(action: Action) -> Vec<String> {
        let line = |right: &Right| {
            let uses: String = right
                .uses
                .iter()
                .map(|used| match used {
                    Use::Plan => 'p',
                    Use::Observe => 'o',
                    Use::Apply => 'a',
                    Use::Undo => 'u',
                })
                .collect();
            let place = match right.scope {
                Scope::Cluster => "everywhere",
                Scope::Namespace => "namespace",
            };
            let group = right.group();
            let choice = right
                .choice
                .map_or_else(String::new, |choice| format!(" ({})", choice.name()));
            format!(
                "{group}/{} {} {place} {uses}{choice}",
                right.resource(),
                right.verb
            )
        };
        let mut lines: Vec<_> = of(action).iter().map(line).collect();
        lines.sort();
        lines
    }

    const REFERENCES: [&str; 10] = [
        "/configmaps get namespace pa",
        "/persistentvolumeclaims get namespace pa",
        "/secrets get namespace pa (secrets)",
        "/serviceaccounts get namespace pa",
        "node.k8s.io/runtimeclasses get everywhere pa",
        "resource.k8s.io/resourceclaims get namespace pa",
        "resource.k8s.io/resourceclaimtemplates get namespace pa",
        "scheduling.k8s.io/priorityclasses get everywhere pa",
        "storage.k8s.io/csidrivers get everywhere pa",
        "storage.k8s.io/storageclasses get everywhere pa",
    ];

    fn expected(parts: &[&[&str]]) -> Vec<String> {
        let mut lines: Vec<_> = parts
            .concat()
            .iter()
            .map(|line| (*line).to_owned())
            .collect();
        lines.sort();
        lines
    }

    #[test]
    fn each_action_needs_what_its_requests_ask_for() {
        let write = [
            "/namespaces get namespace poau",
            "apps/deployments get namespace poau",
            "apps/deployments list namespace poau",
            "/pods list namespace u",
            "/pods/log get namespace u",
            "apps/deployments patch namespace poau",
            "apps/replicasets list namespace poau",
            "apps/replicasets list namespace u",
            "argoproj.io/applications get everywhere p (argo-cd)",
            "argoproj.io/applications list everywhere p (argo-cd)",
            "autoscaling/horizontalpodautoscalers list namespace p",
            "helm.toolkit.fluxcd.io/helmreleases get everywhere p (flux)",
            "kustomize.toolkit.fluxcd.io/kustomizations get everywhere p (flux)",
        ];
        for action in Action::ALL {
            let needed = match action {
                Action::KubeGet => expected(&[&["apps/deployments get namespace pa"]]),
                Action::KubeWait => expected(&[&[
                    "/namespaces get namespace a",
                    "/pods list namespace a",
                    "/pods/log get namespace a",
                    "apps/deployments get namespace a",
                    "apps/deployments list namespace a",
                    "apps/replicasets list namespace a",
                ]]),
                Action::KubeResolveTemplate => expected(&[
                    &[
                        "/namespaces get namespace pa",
                        "apps/deployments get namespace pa",
                        "apps/deployments list namespace pa",
                        "apps/replicasets list namespace pa",
                    ],
                    &REFERENCES,
                ]),
                Action::KubeRolloutUndo | Action::KubeSetImage => expected(&[&write, &REFERENCES]),
                Action::HttpProbe => expected(&[&[
                    "/pods list namespace a",
                    "/pods/portforward create namespace a",
                    "/pods/portforward get namespace a",
                    "/services get namespace pa",
                    "discovery.k8s.io/endpointslices list namespace pa",
                ]]),
            };
            assert_eq!(table(action), needed, "{}", action.name());
        }
    }

    #[test]
    fn the_only_object_needed_by_every_agent_is_the_namespace_that_identifies_its_cluster() {
        let [identity] = always() else {
            panic!("one right");
        };
        assert_eq!(
            (identity.verb, identity.object),
            ("get", Some("kube-system"))
        );
        assert_eq!(
            (identity.resource().as_str(), identity.scope),
            ("namespaces", Scope::Cluster)
        );
    }

    #[test]
    fn only_the_writes_may_change_an_object() {
        for action in Action::ALL {
            let changes = of(action).iter().any(|right| right.verb == "patch");
            let writes = action.effect() != aldis_core::action::Effect::Read;
            assert_eq!(changes, writes, "{}", action.name());
        }
    }

    #[test]
    fn a_question_names_group_resource_and_subresource() {
        let rights = of(Action::KubeWait);
        let log = rights
            .iter()
            .find(|right| right.resource() == "pods/log")
            .unwrap();
        let asked = &log.question("shop")["spec"]["resourceAttributes"];
        assert_eq!(
            (&asked["verb"], &asked["resource"], &asked["subresource"]),
            (&json!("get"), &json!("pods"), &json!("log"))
        );
        let sets = rights
            .iter()
            .find(|right| right.resource() == "replicasets")
            .unwrap();
        assert_eq!(
            sets.question("shop")["spec"]["resourceAttributes"]["group"],
            "apps"
        );
        assert_eq!(
            log.warning("shop"),
            "the agent may not get pods/log in namespace shop, which it needs to show the last lines of a container that fails"
        );
    }

    #[test]
    fn what_a_plan_uses_itself_is_not_asked_for() {
        let later = |action| {
            of(action)
                .iter()
                .filter(|right| right.is_for_later())
                .count()
        };
        assert_eq!(later(Action::KubeGet), 0);
        assert_eq!(later(Action::KubeWait), of(Action::KubeWait).len());
        assert_eq!(later(Action::HttpProbe), 3);
    }

    #[test]
    fn only_a_clear_no_is_a_no() {
        assert!(refused(&json!({"status": {"allowed": false}})));
        assert!(!refused(&json!({"status": {"allowed": true}})));
        assert!(!refused(&json!({})));
    }
}
