//! The roles that an agent needs in its cluster, from what its local policy allows and from what the actions declare
//! ([`crate::actions::cluster::rights`]). Nothing that is not allowed is in them, so that the API server holds the
//! agent to the policy a second time.
//!
//! | the policy names | the agent is given |
//! |---|---|
//! | namespaces only | a Role in each of them |
//! | a pattern, such as `team-*` | a ClusterRole, to be bound in each namespace: RBAC knows no patterns |
//! | anything | a ClusterRole for what is in no namespace, with the one object that identifies the cluster |

mod render;
mod table;

use std::collections::{BTreeMap, BTreeSet};

use aldis_core::action::Action;

use crate::actions::cluster::rights::{self as declared, Choice, Right, Scope};
use crate::policy::{Policy, Reach};

pub use render::render;
pub use table::table;

/// What the operator wishes besides the policy.
#[derive(Clone, Debug, Default)]
pub struct Wish {
    /// What the roles are called; `aldis-agent` where it is none.
    pub name: Option<String>,
    /// Whom to bind the roles to; none prints roles alone.
    pub subject: Option<Subject>,
    /// Binds the ClusterRole for patterns to every namespace, those of others included: the agent's own policy is then
    /// all that keeps it out of them.
    pub every_namespace: bool,
    /// What is granted beside the usual.
    pub with: BTreeSet<Choice>,
    /// What is left out of the usual.
    pub without: BTreeSet<Choice>,
}

/// Whose rights they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Subject {
    /// Of an agent that runs in its cluster.
    ServiceAccount {
        /// Where it is.
        namespace: String,
        /// Its name.
        name: String,
    },
    /// Of an agent beside its cluster, by a certificate or a token.
    User(String),
}

/// Text that is not `NAMESPACE/NAME`.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not NAMESPACE/NAME")]
pub struct NotAnAccount(String);

impl Subject {
    /// From `NAMESPACE/NAME`.
    pub fn account(text: &str) -> Result<Self, NotAnAccount> {
        let is_name = |part: &str| {
            let known = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
            !part.is_empty() && part.chars().all(known)
        };
        match text.split_once('/') {
            Some((namespace, name)) if is_name(namespace) && is_name(name) => {
                Ok(Self::ServiceAccount {
                    namespace: namespace.to_owned(),
                    name: name.to_owned(),
                })
            }
            Some(_) | None => Err(NotAnAccount(text.to_owned())),
        }
    }
}

impl Wish {
    fn grants(&self, right: &Right) -> bool {
        match right.choice {
            None => true,
            Some(choice @ Choice::Secrets) => !self.without.contains(&choice),
            Some(choice @ (Choice::ArgoCd | Choice::Flux)) => {
                self.with.contains(&choice) && !self.without.contains(&choice)
            }
        }
    }
}

/// One rule of a role: a resource, what may be done with it, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Rule {
    group: &'static str,
    resource: String,
    object: Option<&'static str>,
    verbs: BTreeSet<&'static str>,
    purposes: Vec<&'static str>,
}

/// Everything that a policy leads to.
#[derive(Debug)]
struct Needed {
    cluster: Vec<Rule>,
    namespace: Vec<Rule>,
    named: Vec<String>,
    patterns: Vec<String>,
}

impl Needed {
    fn by(policy: &Policy, wish: &Wish) -> Self {
        let allowed = Action::ALL
            .into_iter()
            .filter(|action| policy.allows(action.name()));
        let rights: Vec<Right> = declared::always()
            .iter()
            .copied()
            .chain(allowed.flat_map(declared::of))
            .filter(|right| wish.grants(right))
            .collect();
        let (mut named, mut patterns) = (Vec::new(), Vec::new());
        for reach in policy.namespaces() {
            match reach {
                Reach::Named(name) => named.push(name),
                Reach::Pattern(glob) => patterns.push(glob),
            }
        }
        Self {
            cluster: rules(&rights, Scope::Cluster),
            namespace: rules(&rights, Scope::Namespace),
            named,
            patterns,
        }
    }
}

/// One rule a resource, so that each says what it is for.
fn rules(rights: &[Right], scope: Scope) -> Vec<Rule> {
    let mut found: BTreeMap<_, Rule> = BTreeMap::new();
    for right in rights.iter().filter(|right| right.scope == scope) {
        let key = (right.group(), right.resource(), right.object);
        let rule = found.entry(key).or_insert_with(|| Rule {
            group: right.group(),
            resource: right.resource(),
            object: right.object,
            verbs: BTreeSet::new(),
            purposes: Vec::new(),
        });
        rule.verbs.insert(right.verb);
        if !rule.purposes.contains(&right.purpose) {
            rule.purposes.push(right.purpose);
        }
    }
    found.into_values().collect()
}

#[cfg(test)]
mod tests;
