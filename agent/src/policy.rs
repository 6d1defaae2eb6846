//! What this cluster's own operators allow, whoever asks: a local file that no control plane can change.
//!
//! Without a file everything is allowed that the agent's account may do in the cluster. With a file only what it lists
//! is: an empty one allows nothing, and a misspelt key is an error rather than a rule that never applies. See
//! `deploy/agent-policy.example.yaml`. The file is read once, at start; it limits plans as well as effects.

use std::fmt;
use std::path::{Path, PathBuf};

use aldis_core::action::Action;
use serde::Deserialize;

/// The rules of one file, or none.
#[derive(Clone, Debug)]
pub struct Policy {
    given: Option<Given>,
}

#[derive(Clone, Debug)]
struct Given {
    file: PathBuf,
    rules: Rules,
}

/// The file as written.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct Rules {
    /// Globs of actions, such as `kube.*`.
    #[serde(default)]
    actions: Vec<Glob>,
    /// Globs of namespaces. An action that touches none is limited by `actions` alone.
    #[serde(default)]
    namespaces: Vec<Glob>,
}

/// One entry of the rule for namespaces.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Exactly this one.
    Named(String),
    /// Each that the glob means.
    Pattern(String),
}

/// An action that the file does not allow.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{subject} is not allowed by rule `{rule}` of {}, which allows {allowed}", file.display())]
pub struct Refusal {
    /// What was asked for, such as ``action `kube.get` ``.
    pub subject: String,
    /// The key of the file that decides.
    pub rule: &'static str,
    /// What that key allows, for people.
    pub allowed: String,
    /// The file.
    pub file: PathBuf,
}

/// A file that is not a policy.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// It cannot be read.
    #[error("read the policy file {}", file.display())]
    Read {
        /// The file.
        file: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It says something that is no rule.
    #[error("{}:{line}:{column}: {reason}", file.display())]
    Invalid {
        /// The file.
        file: PathBuf,
        /// Counted from 1.
        line: u64,
        /// Counted from 1.
        column: u64,
        /// What is wrong.
        reason: String,
    },
}

impl Policy {
    /// No file: the agent's account in the cluster is the only limit.
    pub fn without_file() -> Self {
        Self { given: None }
    }

    /// Reads `file`.
    pub fn load(file: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(file).map_err(|source| Error::Read {
            file: file.to_owned(),
            source,
        })?;
        Self::parse(file, &text)
    }

    /// The policy in `text`, which errors and refusals call `file`.
    pub fn parse(file: &Path, text: &str) -> Result<Self, Error> {
        // A file of comments only is a null document: no rule at all, hence nothing allowed.
        let rules =
            serde_saphyr::from_str::<Option<Rules>>(text).map_err(|error| invalid(file, &error))?;
        Ok(Self {
            given: Some(Given {
                file: file.to_owned(),
                rules: rules.unwrap_or_default(),
            }),
        })
    }

    /// Whether `action` may be planned and run, in `namespace` if it touches one.
    pub fn check(&self, action: &str, namespace: Option<&str>) -> Result<(), Refusal> {
        let Some(given) = &self.given else {
            return Ok(());
        };
        given.check("actions", &given.rules.actions, "action", action)?;
        match namespace {
            Some(namespace) => given.check(
                "namespaces",
                &given.rules.namespaces,
                "namespace",
                namespace,
            ),
            None => Ok(()),
        }
    }

    /// Whether `action` is allowed at all, in whatever namespace.
    pub fn allows(&self, action: &str) -> bool {
        match &self.given {
            None => true,
            Some(given) => given.rules.actions.iter().any(|glob| glob.matches(action)),
        }
    }

    /// What the rule for namespaces says, as it is written.
    pub fn namespaces(&self) -> Vec<Reach> {
        match &self.given {
            None => vec![Reach::Pattern("*".to_owned())],
            Some(given) => given.rules.namespaces.iter().map(Glob::reach).collect(),
        }
    }

    /// Entries of the rule for actions that mean no action of this agent: misspelt ones, and those of later versions.
    pub fn actions_of_nothing(&self) -> Vec<String> {
        let rules = self.given.iter().flat_map(|given| &given.rules.actions);
        let idle =
            rules.filter(|glob| !Action::ALL.iter().any(|action| glob.matches(action.name())));
        idle.map(Glob::to_string).collect()
    }
}

impl Given {
    fn check(
        &self,
        rule: &'static str,
        allowed: &[Glob],
        kind: &str,
        name: &str,
    ) -> Result<(), Refusal> {
        if allowed.iter().any(|glob| glob.matches(name)) {
            return Ok(());
        }
        let names: Vec<_> = allowed.iter().map(|glob| format!("`{glob}`")).collect();
        Err(Refusal {
            subject: format!("{kind} `{name}`"),
            rule,
            allowed: if names.is_empty() {
                "nothing".to_owned()
            } else {
                names.join(", ")
            },
            file: self.file.clone(),
        })
    }
}

fn invalid(file: &Path, error: &serde_saphyr::Error) -> Error {
    let (line, column) = error
        .location()
        .map_or((1, 1), |at| (at.line(), at.column()));
    Error::Invalid {
        file: file.to_owned(),
        line,
        column,
        reason: error.without_snippet().to_string(),
    }
}

/// Text in which `*` stands for any run of characters, also an empty one.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(transparent)]
struct Glob(String);

impl Glob {
    fn reach(&self) -> Reach {
        if self.0.contains('*') {
            Reach::Pattern(self.0.clone())
        } else {
            Reach::Named(self.0.clone())
        }
    }

    fn matches(&self, name: &str) -> bool {
        let Some((first, rest)) = self.0.split_once('*') else {
            return self.0 == name;
        };
        let Some(mut left) = name.strip_prefix(first) else {
            return false;
        };
        let mut parts: Vec<_> = rest.split('*').collect();
        let last = parts.pop().unwrap_or_default();
        // The earliest place for each inner part leaves the most for those behind it.
        for part in parts {
            let Some(at) = left.find(part) else {
                return false;
            };
            left = &left[at + part.len()..];
        }
        left.ends_with(last)
    }
}

impl fmt::Display for Glob {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Policy, Error> {
        Policy::parse(Path::new("/etc/aldis/policy.yaml"), text)
    }

    fn policy(text: &str) -> Policy {
        parse(text).expect("a policy")
    }

    #[test]
    fn without_a_file_the_cluster_decides() {
        assert_eq!(
            Policy::without_file().check("kube.set-image", Some("shop")),
            Ok(())
        );
    }

    #[test]
    fn an_empty_file_allows_nothing() {
        for text in ["", "# nothing yet\n", "actions: []\n"] {
            let refusal = policy(text).check("kube.get", None).expect_err(text);
            assert_eq!(
                refusal.to_string(),
                "action `kube.get` is not allowed by rule `actions` of /etc/aldis/policy.yaml, which allows nothing"
            );
        }
    }

    #[test]
    fn an_action_needs_both_rules() {
        let policy = policy("actions: [kube.*, http.probe]\nnamespaces: [shop, team-*]\n");
        assert_eq!(policy.check("kube.rollout-undo", Some("team-a")), Ok(()));
        assert_eq!(policy.check("http.probe", None), Ok(()));
        assert_eq!(
            policy
                .check("postgres.restore", Some("shop"))
                .expect_err("action")
                .rule,
            "actions"
        );
        let refusal = policy
            .check("kube.get", Some("kube-system"))
            .expect_err("namespace");
        assert_eq!(
            refusal.to_string(),
            "namespace `kube-system` is not allowed by rule `namespaces` of /etc/aldis/policy.yaml, which allows `shop`, `team-*`"
        );
    }

    #[test]
    fn allowing_actions_alone_allows_no_namespace() {
        assert!(
            policy("actions: ['*']\n")
                .check("kube.get", Some("shop"))
                .is_err()
        );
    }

    #[test]
    fn a_misspelt_rule_is_an_error_with_its_place() {
        let error = parse("actions: [kube.*]\nnamespace: [shop]\n").expect_err("unknown field");
        assert!(
            error
                .to_string()
                .starts_with("/etc/aldis/policy.yaml:2:1: "),
            "{error}"
        );
        assert!(error.to_string().contains("namespace"), "{error}");
        assert!(
            !error.to_string().contains('\n'),
            "one line, for the log: {error}"
        );
        let error = parse("actions: [kube.*\n").expect_err("not closed");
        assert!(matches!(error, Error::Invalid { .. }), "{error}");
        assert!(parse("actions: kube.*\n").is_err(), "a list, not one name");
    }

    #[test]
    fn the_example_is_a_policy() {
        let example = policy(include_str!("../../deploy/agent-policy.example.yaml"));
        assert_eq!(example.check("kube.rollout-undo", Some("shop")), Ok(()));
        assert!(
            example
                .check("kube.rollout-undo", Some("kube-system"))
                .is_err()
        );
    }

    #[test]
    fn globs() {
        for (glob, name, expected) in [
            ("kube.*", "kube.get", true),
            ("kube.*", "kubernetes", false),
            ("*", "", true),
            ("a", "ab", false),
            ("a*a", "a", false),
            ("a*b*c", "a-b-b-c", true),
            ("a*b*c", "a-c-b", false),
            ("*-prod", "shop-prod", true),
            ("*-prod", "shop-prod-2", false),
        ] {
            assert_eq!(
                Glob(glob.into()).matches(name),
                expected,
                "{glob} on {name}"
            );
        }
    }
}
