//! Where objects are on an API server. Pure.
//!
//! A name that comes from a runbook goes into a path, so it is checked first: `../` must not lead to another object.

use aldis_core::outcome::Failure;
use aldis_core::plan::ObjectRef;

/// Longest name that Kubernetes allows.
const LONGEST_NAME: usize = 253;

/// One kind of object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Resource {
    /// Such as `Deployment`.
    pub(super) kind: &'static str,
    /// Such as `/apis/apps/v1`.
    pub(super) base: &'static str,
    /// Such as `deployments`.
    pub(super) plural: &'static str,
}

pub(super) const fn resource(
    kind: &'static str,
    base: &'static str,
    plural: &'static str,
) -> Resource {
    Resource { kind, base, plural }
}

pub(super) const DEPLOYMENT: Resource = resource("Deployment", "/apis/apps/v1", "deployments");
pub(super) const REPLICA_SET: Resource = resource("ReplicaSet", "/apis/apps/v1", "replicasets");
pub(super) const POD: Resource = resource("Pod", "/api/v1", "pods");
pub(super) const NAMESPACE: Resource = resource("Namespace", "/api/v1", "namespaces");

impl Resource {
    /// The group, empty for the core one.
    pub(super) fn group(&self) -> &'static str {
        let mut parts = self.base.split('/').skip(2);
        let first = parts.next().unwrap_or_default();
        if parts.next().is_some() { first } else { "" }
    }

    /// The path of all of them in `namespace`; of the whole cluster where it is none.
    pub(super) fn all(&self, namespace: Option<&str>) -> Result<String, Failure> {
        match namespace {
            Some(namespace) => {
                checked("namespace", namespace)?;
                Ok(format!(
                    "{}/namespaces/{namespace}/{}",
                    self.base, self.plural
                ))
            }
            None => Ok(format!("{}/{}", self.base, self.plural)),
        }
    }

    /// The path of one.
    pub(super) fn one(&self, namespace: Option<&str>, name: &str) -> Result<String, Failure> {
        let all = self.all(namespace)?;
        checked(&format!("name of a {}", self.kind), name)?;
        Ok(format!("{all}/{name}"))
    }

    /// For messages and locks.
    pub(super) fn named(&self, namespace: &str, name: &str) -> ObjectRef {
        ObjectRef {
            kind: self.kind.to_owned(),
            namespace: namespace.to_owned(),
            name: name.to_owned(),
        }
    }
}

fn checked(what: &str, name: &str) -> Result<(), Failure> {
    let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || matches!(c, '-' | '.');
    let ends = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit();
    let fits = name.len() <= LONGEST_NAME
        && name.chars().all(letter)
        && name.starts_with(ends)
        && name.ends_with(ends);
    if fits {
        return Ok(());
    }
    let shown: String = name.chars().take(80).collect();
    Err(Failure::new(
        "invalid",
        format!("`{shown}` is not a {what}"),
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_has_group_namespace_and_name() {
        assert_eq!(
            DEPLOYMENT.one(Some("shop"), "checkout").unwrap(),
            "/apis/apps/v1/namespaces/shop/deployments/checkout"
        );
        assert_eq!(
            NAMESPACE.one(None, "kube-system").unwrap(),
            "/api/v1/namespaces/kube-system"
        );
        assert_eq!((DEPLOYMENT.group(), POD.group()), ("apps", ""));
    }

    #[test]
    fn a_name_cannot_lead_elsewhere() {
        for name in [
            "",
            "..",
            "../secrets/x",
            "a/b",
            "a?b",
            "a%2fb",
            "Ä",
            "-a",
            "a.",
        ] {
            let failure = DEPLOYMENT.one(Some("shop"), name).unwrap_err();
            assert_eq!(failure.kind, "invalid", "{name}");
            assert!(DEPLOYMENT.all(Some(name)).is_err(), "{name}");
        }
    }
}
