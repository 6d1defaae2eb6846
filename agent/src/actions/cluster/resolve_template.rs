//! `kube.resolve-template`: which older template is meant, and whether what it refers to still exists.
//!
//! Of Secrets it asks for metadata alone. Where a template names a key of one and the metadata does not show that it is
//! there, it reads the Secret and keeps the names of its keys.

use aldis_core::action::inputs::KubeResolveTemplate;
use aldis_core::plan::part::Feasibility;
use serde_json::{Value, json};

use super::super::{Trouble, images};
use super::deployment::Live;
use super::error::Error;
use super::paths::REPLICA_SET;
use super::references::{
    CLAIM, Reference, References, SECRET, SERVICE_ACCOUNT, lacking, pull_secrets, shows_keys,
};
use super::rights::{Right, Use, right};
use super::server::{Deadline, Shape};
use super::{Cluster, read};
use crate::clock::{Clock, SystemClock};

/// Objects looked up for one template. More than any template of ours names; the rest is told as unknown.
const MOST_LOOKUPS: usize = 100;

/// What was found out about the references of a template.
#[derive(Debug, Default)]
pub(super) struct Resolved {
    /// What is gone.
    pub(super) missing: Vec<String>,
    /// What cannot be known.
    pub(super) unknown: Vec<String>,
}

/// What is known of the way back from a change, before it is made.
pub(super) struct Back {
    pub(super) feasibility: Feasibility,
    pub(super) warnings: Vec<String>,
}

/// A template that was chosen, for the plan's warnings.
pub(super) struct Chosen {
    /// The declared outputs.
    pub(super) outputs: Value,
    /// One for each thing that is missing or unknown.
    pub(super) warnings: Vec<String>,
}

const READ: &[Use] = &[Use::Plan, Use::Apply];

/// What the action needs besides what the template refers to.
pub(super) const RIGHTS: [Right; 4] = {
    let [get, list, namespace] = read::deployments(READ);
    let sets = right(
        "list",
        REPLICA_SET,
        READ,
        "to read the revisions of a Deployment",
    );
    [get, list, namespace, sets]
};

impl Cluster {
    pub(super) async fn resolve_template(
        &self,
        with: &KubeResolveTemplate,
        deadline: Deadline,
    ) -> Result<Chosen, Trouble> {
        let live = self
            .existing(&with.namespace, &with.deployment, deadline)
            .await?;
        let history = live.history(&self.revisions(&live, deadline).await?);
        let chosen = history.choose(&with.to).map_err(Trouble::refused)?;
        let resolved = self.resolved(&live, &chosen.template, deadline).await?;
        let now = i64::try_from(SystemClock.wall_now_ms() / 1000).unwrap_or(i64::MAX);
        let of = format!("revision {} of {}", chosen.number, live.object());
        Ok(Chosen {
            warnings: warnings(&of, &resolved),
            outputs: json!({
                "revision": chosen.number,
                "image": images::first(&chosen.template),
                "ageSeconds": chosen.created.map_or(0, |created| now.saturating_sub(created).max(0)),
                "missing": resolved.missing,
                "unknown": resolved.unknown,
            }),
        })
    }

    /// Looks up every object that `template` refers to.
    pub(super) async fn resolved(
        &self,
        live: &Live,
        template: &Value,
        deadline: Deadline,
    ) -> Result<Resolved, Trouble> {
        let references = References::of(template);
        let mut resolved = Resolved {
            missing: Vec::new(),
            unknown: [references.unknown.clone(), references.images.clone()].concat(),
        };
        for reference in references.iter().take(MOST_LOOKUPS) {
            let found = self
                .look_up(live, reference, &mut resolved, deadline)
                .await?;
            if let Some(account) = found.filter(|_| reference.resource == SERVICE_ACCOUNT) {
                for secret in pull_secrets(&account, template) {
                    self.look_up(live, &secret, &mut resolved, deadline).await?;
                }
            }
        }
        let left = references.iter().skip(MOST_LOOKUPS);
        resolved
            .unknown
            .extend(left.map(|reference| format!("whether {} is there", reference.object())));
        Ok(resolved)
    }

    async fn look_up(
        &self,
        live: &Live,
        reference: &Reference,
        resolved: &mut Resolved,
        deadline: Deadline,
    ) -> Result<Option<Value>, Trouble> {
        let namespace = reference.namespaced().then_some(live.namespace.as_str());
        let Ok(path) = reference.resource.one(namespace, &reference.name) else {
            resolved.missing.push(reference.object());
            return Ok(None);
        };
        match self.read_of(reference, &path, deadline).await {
            Ok(found) => {
                resolved.note(reference, found.as_ref());
                return Ok(found);
            }
            Err(Error::Refused(_)) => resolved.unknown.push(format!(
                "whether {} is there: the agent may not read it",
                reference.object()
            )),
            Err(error) => return Err(error.reading(&format!("read {}", reference.object()))),
        }
        Ok(None)
    }

    /// As little of an object as tells whether it will do.
    async fn read_of(
        &self,
        reference: &Reference,
        path: &str,
        deadline: Deadline,
    ) -> Result<Option<Value>, Error> {
        // A claim's phase is in its status, an account's pull secrets beside its metadata.
        let whole = [CLAIM, SERVICE_ACCOUNT].contains(&reference.resource);
        let keys = !reference.keys.is_empty();
        if whole || (keys && reference.resource != SECRET) {
            return self.server.find(path, Shape::Whole, deadline).await;
        }
        let found = self.server.find(path, Shape::Metadata, deadline).await?;
        match &found {
            Some(found) if !shows_keys(reference, found) => {
                self.server.find(path, Shape::Whole, deadline).await
            }
            Some(_) | None => Ok(found),
        }
    }

    /// Whether the template that is there now could be put back, once another one has taken its place.
    pub(super) async fn way_back(&self, live: &Live, deadline: Deadline) -> Result<Back, Trouble> {
        let mut resolved = self.resolved(live, &live.template, deadline).await?;
        if live.counts.complete() {
            // Its pods run, so its images were pulled.
            let images = References::of(&live.template).images;
            resolved.unknown.retain(|what| !images.contains(what));
        }
        let feasibility = if resolved.missing.is_empty() {
            Feasibility::Possible
        } else {
            let missing = resolved.missing.join(", ");
            let why = format!("the template that is there now needs what is gone: {missing}");
            Feasibility::Impossible { why }
        };
        let of = format!("{}, if it is put back as it is now", live.object());
        let unknown = resolved.unknown.iter();
        Ok(Back {
            feasibility,
            warnings: unknown.map(|what| not_known(&of, what)).collect(),
        })
    }
}

impl Resolved {
    fn note(&mut self, reference: &Reference, found: Option<&Value>) {
        match found {
            None if reference.needed => self.missing.push(reference.object()),
            None => self.unknown.push(format!(
                "whether the image can be pulled without {}, which is gone",
                reference.object()
            )),
            Some(claim) if claim.pointer("/status/phase") == Some(&json!("Lost")) => {
                self.missing
                    .push(format!("the volume of {}", reference.object()));
            }
            // Asked for its metadata alone, it holds nothing else.
            Some(found) if shows_keys(reference, found) => {}
            Some(found) => {
                let lacking = lacking(reference, found);
                self.missing.extend(
                    lacking
                        .iter()
                        .map(|key| format!("key {key} of {}", reference.object())),
                );
            }
        }
    }
}

fn warnings(of: &str, resolved: &Resolved) -> Vec<String> {
    let missing = resolved
        .missing
        .iter()
        .map(|what| format!("{of}: {what} is missing"));
    let unknown = resolved.unknown.iter().map(|what| not_known(of, what));
    missing.chain(unknown).collect()
}

fn not_known(of: &str, what: &str) -> String {
    format!("{of}: not known: {what}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn references() -> References {
        References::of(&json!({"spec": {
            "imagePullSecrets": [{"name": "registry"}],
            "containers": [{"name": "app", "env": [
                {"valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
            ]}],
            "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
        }}))
    }

    fn noted(name: &str, found: Option<Value>) -> Resolved {
        let mut resolved = Resolved::default();
        let references = references();
        let reference = references.iter().find(|r| r.name == name).unwrap();
        resolved.note(reference, found.as_ref());
        resolved
    }

    #[test]
    fn what_is_gone_is_missing_with_what_uses_it() {
        let object = "Secret db (env of container app)";
        assert_eq!(noted("db", None).missing, [object]);
        let other = json!({"data": {"user": "eA=="}});
        assert_eq!(
            noted("db", Some(other)).missing,
            [format!("key password of {object}")]
        );
        assert!(
            noted("db", Some(json!({"data": {"password": "eA=="}})))
                .missing
                .is_empty()
        );
    }

    #[test]
    fn a_lost_volume_is_missing_and_a_pull_secret_only_warns() {
        let lost = json!({"status": {"phase": "Lost"}});
        assert_eq!(noted("data", Some(lost)).missing.len(), 1);
        let gone = noted("registry", None);
        assert!(gone.missing.is_empty());
        assert_eq!(gone.unknown.len(), 1);
    }
}
