//! Who else writes a Deployment, and whether they would put our change back.
//!
//! | owner | found by | would revert |
//! |---|---|---|
//! | Argo CD | tracking annotation or label, its field manager | where its Application syncs automatically |
//! | Flux | labels, its field managers | unless suspended, or switched off for this object |
//! | Helm | release annotation | no: the next upgrade will |
//! | HorizontalPodAutoscaler | its target | no: it owns `replicas`, which no action of ours touches |
//! | an operator | controller in `ownerReferences`, marks of known ones | yes |
//! | anybody else | `managedFields` of the pod template | not known to |
//!
//! **Tracked, and the policy cannot be read, counts as yes**: a rollback that is undone within minutes is worse than one
//! that is refused with a reason. People (`kubectl`) and we ourselves are no owners.

use aldis_core::plan::part::ObjectOwner;
use kube::api::ListParams;
use serde_json::Value;

use super::super::Trouble;
use super::Cluster;
use super::deployment::{Live, MANAGER, text};
use super::paths::{Resource, resource};
use super::rights::{Choice, Right, Use, right};
use super::server::{Deadline, Shape};

const APPLICATION: Resource = resource("Application", "/apis/argoproj.io/v1alpha1", "applications");
const KUSTOMIZATION: Resource = resource(
    "Kustomization",
    "/apis/kustomize.toolkit.fluxcd.io/v1",
    "kustomizations",
);
const HELM_RELEASE: Resource = resource(
    "HelmRelease",
    "/apis/helm.toolkit.fluxcd.io/v2",
    "helmreleases",
);
const AUTOSCALER: Resource = resource(
    "HorizontalPodAutoscaler",
    "/apis/autoscaling/v2",
    "horizontalpodautoscalers",
);

const PLAN: &[Use] = &[Use::Plan];
const SYNCS: &str = "to know whether a change would be put back by itself";

/// What looking for them needs. Marks of Argo CD and Flux are seen without a right; whether they sync by themselves is
/// not, and then they are taken to.
pub(super) const RIGHTS: [Right; 5] = [
    right(
        "list",
        AUTOSCALER,
        PLAN,
        "to know who else owns a Deployment",
    ),
    right("get", APPLICATION, PLAN, SYNCS)
        .cluster_wide()
        .by_choice(Choice::ArgoCd),
    right("list", APPLICATION, PLAN, SYNCS)
        .cluster_wide()
        .by_choice(Choice::ArgoCd),
    right("get", KUSTOMIZATION, PLAN, SYNCS)
        .cluster_wide()
        .by_choice(Choice::Flux),
    right("get", HELM_RELEASE, PLAN, SYNCS)
        .cluster_wide()
        .by_choice(Choice::Flux),
];

/// Where Argo CD keeps Applications unless told otherwise.
const ARGO_NAMESPACE: &str = "argocd";

/// Labels and annotations of systems that put back what they manage, and of which nothing more is read.
const MARKS: [(&str, &str); 4] = [
    ("configmanagement.gke.io/managed", "Config Sync"),
    ("objectset.rio.cattle.io/owner-name", "Rancher Fleet"),
    ("olm.owner", "Operator Lifecycle Manager"),
    ("kapp.k14s.io/app", "kapp"),
];

/// What was found, and what could not be read.
pub(super) struct Owners {
    pub(super) found: Vec<ObjectOwner>,
    pub(super) warnings: Vec<String>,
}

/// A mark of an owner on the Deployment, before its policy is read.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Claim {
    /// By tracking id or label; the namespace where the id has one.
    Argo {
        namespace: Option<String>,
        application: String,
        evidence: String,
    },
    /// A Kustomization.
    Kustomization {
        namespace: String,
        name: String,
        evidence: String,
    },
    /// A HelmRelease of Flux.
    HelmRelease {
        namespace: String,
        name: String,
        evidence: String,
    },
    /// Nothing more is to be read.
    Known(ObjectOwner),
}

impl Cluster {
    /// Everybody who owns the Deployment besides us.
    pub(super) async fn owners(&self, live: &Live, deadline: Deadline) -> Owners {
        let mut owners = Owners {
            found: Vec::new(),
            warnings: Vec::new(),
        };
        for claim in claims(live) {
            let owner = self.judged(claim, live, deadline).await;
            owners.found.push(owner);
        }
        match self.autoscalers(live, deadline).await {
            Ok(found) => owners.found.extend(found),
            Err(trouble) => owners.warnings.push(format!(
                "whether an autoscaler owns the replicas of {} is not known: {trouble}",
                live.object()
            )),
        }
        owners.found.sort();
        owners.found.dedup();
        owners
    }

    async fn judged(&self, claim: Claim, live: &Live, deadline: Deadline) -> ObjectOwner {
        match claim {
            Claim::Known(owner) => owner,
            Claim::Argo {
                namespace,
                application,
                evidence,
            } => {
                let found = self
                    .application(namespace.as_deref(), &application, live, deadline)
                    .await;
                let (would_revert, policy) = argo_policy(found.as_ref());
                owner("Argo CD", &application, would_revert, &evidence, &policy)
            }
            Claim::Kustomization {
                namespace,
                name,
                evidence,
            } => {
                let found = self
                    .policy(KUSTOMIZATION, &namespace, &name, deadline)
                    .await;
                let (would_revert, policy) = kustomization_policy(live, found.as_ref());
                let name = format!("Kustomization {namespace}/{name}");
                owner("Flux", &name, would_revert, &evidence, &policy)
            }
            Claim::HelmRelease {
                namespace,
                name,
                evidence,
            } => {
                let found = self.policy(HELM_RELEASE, &namespace, &name, deadline).await;
                let (would_revert, policy) = helm_release_policy(found.as_ref());
                let name = format!("HelmRelease {namespace}/{name}");
                owner("Flux", &name, would_revert, &evidence, &policy)
            }
        }
    }

    /// The Application, if it can be read and says itself that the Deployment is one of its resources.
    async fn application(
        &self,
        namespace: Option<&str>,
        name: &str,
        live: &Live,
        deadline: Deadline,
    ) -> Option<Value> {
        let namespace = namespace.unwrap_or(ARGO_NAMESPACE);
        if let Some(found) = self.policy(APPLICATION, namespace, name, deadline).await
            && has_resource(&found, live)
        {
            return Some(found);
        }
        let path = APPLICATION.all(None).ok()?;
        let params = ListParams::default().fields(&format!("metadata.name={name}"));
        let found = self.server.list(&path, &params, Shape::Whole, deadline);
        let found = found.await.ok()?;
        found.into_iter().find(|found| has_resource(found, live))
    }

    async fn policy(
        &self,
        resource: Resource,
        namespace: &str,
        name: &str,
        deadline: Deadline,
    ) -> Option<Value> {
        let path = resource.one(Some(namespace), name).ok()?;
        let found = self.server.find(&path, Shape::Whole, deadline).await;
        found.ok().flatten()
    }

    async fn autoscalers(
        &self,
        live: &Live,
        deadline: Deadline,
    ) -> Result<Vec<ObjectOwner>, Trouble> {
        let path = AUTOSCALER
            .all(Some(&live.namespace))
            .map_err(Trouble::refused)?;
        let params = ListParams::default();
        let found = self.server.list(&path, &params, Shape::Whole, deadline);
        let found = found
            .await
            .map_err(|error| error.reading("list autoscalers"))?;
        let ours = found.iter().filter(|scaler| scales(scaler, live));
        Ok(ours.map(autoscaler).collect())
    }
}

/// What the Deployment itself says.
fn claims(live: &Live) -> Vec<Claim> {
    let mut found: Vec<Claim> = Vec::new();
    found.extend(argo(live));
    found.extend(flux(live));
    found.extend(helm(live));
    found.extend(operators(live));
    let covered = |system: &str| {
        found.iter().any(|claim| match claim {
            Claim::Argo { .. } => system == "Argo CD",
            Claim::Kustomization { .. } | Claim::HelmRelease { .. } => system == "Flux",
            Claim::Known(owner) => owner.system == system,
        })
    };
    let managers: Vec<_> = managers(live)
        .into_iter()
        .filter(|owner| !covered(&owner.system))
        .map(Claim::Known)
        .collect();
    found.extend(managers);
    found
}

fn argo(live: &Live) -> Option<Claim> {
    if let Some(id) = live.annotations.get("argocd.argoproj.io/tracking-id") {
        return tracked(id, live);
    }
    let by_own = live.labels.get("argocd.argoproj.io/instance");
    // Helm's own charts use the same label for the release.
    let by_common = live
        .labels
        .get("app.kubernetes.io/instance")
        .filter(|_| helm(live).is_none());
    let (label, name) = match (by_own, by_common) {
        (Some(name), _) => ("argocd.argoproj.io/instance", name),
        (None, Some(name)) => ("app.kubernetes.io/instance", name),
        (None, None) => return None,
    };
    Some(Claim::Argo {
        namespace: None,
        application: name.clone(),
        evidence: format!("label {label}={name}, by which Argo CD tracks"),
    })
}

/// `APPLICATION:GROUP/KIND:NAMESPACE/NAME`, the application with its namespace before a `_` where it has another one.
/// An id that names another object was copied along, and Argo CD passes over it as well.
fn tracked(id: &str, live: &Live) -> Option<Claim> {
    let mut parts = id.splitn(3, ':');
    let application = parts.next().unwrap_or_default();
    let object = parts.nth(1);
    let ours = format!("{}/{}", live.namespace, live.name);
    if object.is_some_and(|object| object != ours) {
        return None;
    }
    let (namespace, application) = match application.split_once('_') {
        Some((namespace, name)) => (Some(namespace.to_owned()), name),
        None => (None, application),
    };
    Some(Claim::Argo {
        namespace,
        application: application.to_owned(),
        evidence: format!("annotation argocd.argoproj.io/tracking-id={id}"),
    })
}

fn flux(live: &Live) -> Vec<Claim> {
    let labelled = |group: &str| {
        let name = live.labels.get(&format!("{group}/name"))?.clone();
        let namespace = live.labels.get(&format!("{group}/namespace"));
        let evidence = format!("label {group}/name={name}");
        Some((namespace.unwrap_or(&live.namespace).clone(), name, evidence))
    };
    let kustomization =
        labelled("kustomize.toolkit.fluxcd.io").map(|(namespace, name, evidence)| {
            Claim::Kustomization {
                namespace,
                name,
                evidence,
            }
        });
    let release =
        labelled("helm.toolkit.fluxcd.io").map(|(namespace, name, evidence)| Claim::HelmRelease {
            namespace,
            name,
            evidence,
        });
    kustomization.into_iter().chain(release).collect()
}

fn helm(live: &Live) -> Option<Claim> {
    let release = live.annotations.get("meta.helm.sh/release-name")?;
    Some(Claim::Known(owner(
        "Helm",
        release,
        false,
        &format!("annotation meta.helm.sh/release-name={release}"),
        "the next upgrade of the release puts its own template there",
    )))
}

fn operators(live: &Live) -> Vec<Claim> {
    let owned = live.owned_by.iter().map(|by| {
        let name = format!("{} {}", by.kind, by.name);
        let policy = if by.controller {
            "it is the controller of this Deployment and writes it as it sees fit"
        } else {
            "it takes the Deployment along when it is deleted"
        };
        owner("owner", &name, by.controller, "ownerReferences", policy)
    });
    let marked = MARKS.iter().filter_map(|(mark, system)| {
        let value = live
            .labels
            .get(*mark)
            .or_else(|| live.annotations.get(*mark))?;
        let evidence = format!("{mark}={value}");
        Some(owner(system, value, true, &evidence, UNREADABLE))
    });
    owned.chain(marked).map(Claim::Known).collect()
}

/// Other writers of the pod template.
fn managers(live: &Live) -> Vec<ObjectOwner> {
    let others = live.writers.iter().filter(|writer| {
        writer.template && writer.manager != MANAGER && !writer.manager.starts_with("kubectl")
    });
    others
        .map(|writer| {
            let manager = writer.manager.as_str();
            let evidence = format!(
                "managedFields: {manager} wrote the pod template at {}",
                writer.time
            );
            let system = match manager {
                _ if manager.starts_with("argocd") => "Argo CD",
                "kustomize-controller" | "helm-controller" => "Flux",
                "helm" | "Helm" => "Helm",
                _ => "field manager",
            };
            match system {
                "Argo CD" | "Flux" => owner(system, manager, true, &evidence, UNREADABLE),
                _ => owner(
                    system,
                    manager,
                    false,
                    &evidence,
                    "nothing says that it would again",
                ),
            }
        })
        .collect()
}

const UNREADABLE: &str =
    "tracked, its policy cannot be read here: taken as one that puts changes back";

fn argo_policy(application: Option<&Value>) -> (bool, String) {
    let Some(application) = application else {
        return (true, UNREADABLE.to_owned());
    };
    let automated = application.pointer("/spec/syncPolicy/automated");
    let automated = automated.filter(|policy| !policy.is_null() && policy["enabled"] != false);
    let text = match automated {
        None => return (false, "its Application is synced by hand only".to_owned()),
        Some(policy) if policy["selfHeal"] == true => "its Application heals itself",
        Some(_) => "its Application syncs by itself: the next sync puts its template back",
    };
    (true, text.to_owned())
}

fn has_resource(application: &Value, live: &Live) -> bool {
    let resources = application.pointer("/status/resources");
    resources
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .any(|of| {
            of["kind"] == "Deployment"
                && text(of, "namespace") == live.namespace
                && text(of, "name") == live.name
        })
}

fn kustomization_policy(live: &Live, found: Option<&Value>) -> (bool, String) {
    let own = |name: &str| {
        let key = format!("kustomize.toolkit.fluxcd.io/{name}");
        live.annotations.get(&key).or_else(|| live.labels.get(&key))
    };
    if own("reconcile").is_some_and(|value| value == "disabled") {
        return (false, "reconciling this object is switched off".to_owned());
    }
    if own("ssa").is_some_and(|value| value == "Ignore" || value == "IfNotPresent") {
        return (false, "it does not overwrite this object".to_owned());
    }
    suspended(found).unwrap_or_else(|| (true, "it is applied at every interval".to_owned()))
}

fn helm_release_policy(found: Option<&Value>) -> (bool, String) {
    suspended(found).unwrap_or_else(|| {
        let mode = found.and_then(|found| found.pointer("/spec/driftDetection/mode"));
        match mode.and_then(Value::as_str) {
            Some("enabled") => (true, "it corrects drift".to_owned()),
            _ => (
                false,
                "it does not correct drift; its next upgrade puts its own template there"
                    .to_owned(),
            ),
        }
    })
}

/// What holds for every object of Flux, before its own policy.
fn suspended(found: Option<&Value>) -> Option<(bool, String)> {
    let Some(found) = found else {
        return Some((true, UNREADABLE.to_owned()));
    };
    (found.pointer("/spec/suspend") == Some(&Value::Bool(true)))
        .then(|| (false, "it is suspended".to_owned()))
}

fn scales(scaler: &Value, live: &Live) -> bool {
    let target = scaler
        .pointer("/spec/scaleTargetRef")
        .unwrap_or(&Value::Null);
    target["kind"] == "Deployment" && target["name"] == live.name.as_str()
}

fn autoscaler(scaler: &Value) -> ObjectOwner {
    let number = |path: &str| scaler.pointer(path).and_then(Value::as_i64).unwrap_or(1);
    let metadata = scaler.get("metadata").unwrap_or(&Value::Null);
    owner(
        "HorizontalPodAutoscaler",
        &text(metadata, "name"),
        false,
        &format!(
            "its target; {} to {} replicas",
            number("/spec/minReplicas"),
            number("/spec/maxReplicas")
        ),
        "it owns the number of replicas, which stays as it is",
    )
}

fn owner(
    system: &str,
    name: &str,
    would_revert: bool,
    evidence: &str,
    policy: &str,
) -> ObjectOwner {
    ObjectOwner {
        system: system.to_owned(),
        name: name.to_owned(),
        would_revert,
        evidence: format!("{evidence}; {policy}"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::deployment::{OwnedBy, Writer, samples};
    use super::*;
    use serde_json::json;

    fn labelled(name: &str, value: &str) -> Live {
        let mut live = samples::live("a");
        live.labels.insert(name.into(), value.into());
        live
    }

    fn annotated(name: &str, value: &str) -> Live {
        let mut live = samples::live("a");
        live.annotations.insert(name.into(), value.into());
        live
    }

    #[test]
    fn people_are_no_owners() {
        assert_eq!(claims(&samples::live("a")), []);
    }

    #[test]
    fn argo_tracks_by_annotation_and_by_label() {
        let id = "team_shop:apps/Deployment:shop/checkout";
        let claim = argo(&annotated("argocd.argoproj.io/tracking-id", id)).expect("tracked");
        let Claim::Argo {
            namespace,
            application,
            ..
        } = claim
        else {
            panic!("Argo CD");
        };
        assert_eq!(
            (namespace.as_deref(), application.as_str()),
            (Some("team"), "shop")
        );
        for label in ["app.kubernetes.io/instance", "argocd.argoproj.io/instance"] {
            assert!(argo(&labelled(label, "shop")).is_some(), "{label}");
        }
    }

    #[test]
    fn a_tracking_id_of_another_object_was_copied_along() {
        let id = "shop:apps/Deployment:shop/other";
        assert_eq!(argo(&annotated("argocd.argoproj.io/tracking-id", id)), None);
    }

    #[test]
    fn the_label_of_a_helm_release_is_not_argos() {
        let mut live = annotated("meta.helm.sh/release-name", "shop");
        live.labels
            .insert("app.kubernetes.io/instance".into(), "shop".into());
        let claims = claims(&live);
        assert!(
            matches!(claims.as_slice(), [Claim::Known(owner)] if owner.system == "Helm" && !owner.would_revert),
            "{claims:?}"
        );
    }

    #[test]
    fn a_policy_that_cannot_be_read_counts_as_one_that_reverts() {
        assert!(argo_policy(None).0);
        assert!(kustomization_policy(&samples::live("a"), None).0);
        assert!(helm_release_policy(None).0);
    }

    #[test]
    fn an_application_reverts_where_it_syncs_by_itself() {
        let policy = |policy: Value| argo_policy(Some(&json!({"spec": {"syncPolicy": policy}}))).0;
        assert!(policy(json!({"automated": {"selfHeal": true}})));
        assert!(policy(json!({"automated": {}})));
        assert!(!policy(
            json!({"automated": {"enabled": false, "selfHeal": true}})
        ));
        assert!(!policy(json!({})));
    }

    #[test]
    fn flux_reverts_unless_it_is_held() {
        let kustomization = json!({"spec": {}});
        let held = json!({"spec": {"suspend": true}});
        let plain = samples::live("a");
        assert!(kustomization_policy(&plain, Some(&kustomization)).0);
        assert!(!kustomization_policy(&plain, Some(&held)).0);
        let off = annotated("kustomize.toolkit.fluxcd.io/reconcile", "disabled");
        assert!(!kustomization_policy(&off, Some(&kustomization)).0);
        let detects = json!({"spec": {"driftDetection": {"mode": "enabled"}}});
        assert!(helm_release_policy(Some(&detects)).0);
        assert!(!helm_release_policy(Some(&kustomization)).0);
        let claims = claims(&labelled("kustomize.toolkit.fluxcd.io/name", "apps"));
        assert!(
            matches!(&claims[..], [Claim::Kustomization { namespace, .. }] if namespace == "shop")
        );
    }

    #[test]
    fn a_controller_reverts_and_a_plain_owner_does_not() {
        let mut live = samples::live("a");
        for controller in [true, false] {
            live.owned_by = vec![OwnedBy {
                kind: "Canary".into(),
                name: "checkout".into(),
                controller,
            }];
            let [Claim::Known(owner)] = &claims(&live)[..] else {
                panic!("one owner");
            };
            assert_eq!(owner.would_revert, controller);
        }
        let marked = claims(&labelled("olm.owner", "csv"));
        assert!(matches!(&marked[..], [Claim::Known(owner)] if owner.would_revert));
    }

    #[test]
    fn writers_of_the_template_are_shown_and_gitops_ones_revert() {
        let writer = |manager: &str, template| Writer {
            manager: manager.into(),
            time: "2026-11-24T10:00:00Z".into(),
            template,
        };
        let mut live = samples::live("a");
        live.writers = vec![
            writer("aldis", true),
            writer("kubectl-edit", true),
            writer("kube-controller-manager", false),
            writer("terraform", true),
            writer("argocd-controller", true),
        ];
        let found: Vec<_> = managers(&live)
            .into_iter()
            .map(|owner| (owner.system, owner.would_revert))
            .collect();
        assert_eq!(
            found,
            [
                ("field manager".to_owned(), false),
                ("Argo CD".to_owned(), true)
            ]
        );
    }

    #[test]
    fn an_autoscaler_of_this_deployment_is_found() {
        let live = samples::live("a");
        let scaler = |name: &str| {
            json!({
                "metadata": {"name": "hpa"},
                "spec": {"minReplicas": 2, "maxReplicas": 9, "scaleTargetRef": {"kind": "Deployment", "name": name}},
            })
        };
        assert!(scales(&scaler("checkout"), &live));
        assert!(!scales(&scaler("other"), &live));
        let owner = autoscaler(&scaler("checkout"));
        assert!(!owner.would_revert);
        assert!(
            owner.evidence.contains("2 to 9 replicas"),
            "{}",
            owner.evidence
        );
    }
}
