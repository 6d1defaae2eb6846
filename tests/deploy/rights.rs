//! The agent's roles: the chart gives what `aldis-agent rights` prints for the same policy, and what the chart reads is
//! what the actions declare.

use std::collections::BTreeSet;
use std::path::Path;

use aldis_agent::actions::cluster::rights::Choice;
use aldis_agent::policy::Policy;
use aldis_agent::rights::{Subject, Wish, render, table};
use serde_json::{Value, json};

use crate::charts::example_with;
use crate::{helm, objects};

/// Where a right holds and what it is: `shop apps/deployments patch`, `* /namespaces(kube-system) get`, and for a
/// ClusterRole that nobody is bound to `-`.
fn granted(objects: &[Value]) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for role in objects
        .iter()
        .filter(|object| is(object, &["Role", "ClusterRole"]))
    {
        for place in places(role, objects) {
            for rule in role["rules"].as_array().into_iter().flatten() {
                found.extend(texts(&rule["verbs"]).iter().map(|verb| {
                    let names = texts(&rule["resourceNames"]).join(",");
                    let groups = texts(&rule["apiGroups"]).join(",");
                    let resources = texts(&rule["resources"]).join(",");
                    format!("{place} {groups}/{resources}({names}) {verb}")
                }));
            }
        }
    }
    found
}

fn is(object: &Value, kinds: &[&str]) -> bool {
    kinds.contains(&object["kind"].as_str().unwrap_or_default())
}

/// Where the bindings of a role let it be used.
fn places(role: &Value, objects: &[Value]) -> Vec<String> {
    let refers = |binding: &&Value| {
        let to = &binding["roleRef"];
        let same_namespace = role["kind"] == "ClusterRole"
            || binding["metadata"]["namespace"] == role["metadata"]["namespace"];
        to["kind"] == role["kind"] && to["name"] == role["metadata"]["name"] && same_namespace
    };
    let bindings = objects
        .iter()
        .filter(|object| is(object, &["RoleBinding", "ClusterRoleBinding"]))
        .filter(refers);
    let place = |binding: &Value| match binding["metadata"]["namespace"].as_str() {
        Some(namespace) => namespace.to_owned(),
        None => "*".to_owned(),
    };
    let places: Vec<_> = bindings.map(place).collect();
    if places.is_empty() {
        vec!["-".to_owned()]
    } else {
        places
    }
}

fn texts(list: &Value) -> Vec<&str> {
    let items = list.as_array().into_iter().flatten();
    items.filter_map(Value::as_str).collect()
}

/// One policy with what an operator may wish.
struct Asked {
    actions: &'static [&'static str],
    namespaces: &'static [&'static str],
    every_namespace: bool,
    with: &'static [Choice],
    without: &'static [Choice],
}

impl Asked {
    fn by_chart(&self) -> anyhow::Result<BTreeSet<String>> {
        let names = |choices: &[Choice]| -> Vec<_> { choices.iter().map(|c| c.name()).collect() };
        let values = example_with(
            "aldis-agent",
            json!({
                "policy": {"actions": self.actions, "namespaces": self.namespaces},
                "rights": {
                    "everyNamespace": self.every_namespace,
                    "with": names(self.with),
                    "without": names(self.without),
                },
            }),
        );
        let text = helm::template("aldis-agent", &values)?.manifests()?;
        Ok(granted(&objects::read(&text)?))
    }

    fn by_program(&self) -> anyhow::Result<BTreeSet<String>> {
        let text = json!({"actions": self.actions, "namespaces": self.namespaces}).to_string();
        let policy = Policy::parse(Path::new("policy.yaml"), &text)?;
        let wish = Wish {
            name: None,
            subject: Some(Subject::account("aldis/aldis-agent")?),
            every_namespace: self.every_namespace,
            with: self.with.iter().copied().collect(),
            without: self.without.iter().copied().collect(),
        };
        Ok(granted(&objects::read(&render(&policy, &wish))?))
    }
}

const USUAL: Asked = Asked {
    actions: &["kube.*", "http.probe"],
    namespaces: &["shop", "stock"],
    every_namespace: false,
    with: &[],
    without: &[],
};

#[test]
fn the_chart_gives_the_rights_that_the_program_prints() {
    let cases = [
        USUAL,
        Asked {
            actions: &["*"],
            namespaces: &["*"],
            every_namespace: true,
            ..USUAL
        },
        Asked {
            namespaces: &["shop", "team-*"],
            ..USUAL
        },
        Asked {
            namespaces: &["shop", "team-*"],
            every_namespace: true,
            ..USUAL
        },
        Asked {
            actions: &["kube.get"],
            ..USUAL
        },
        Asked {
            actions: &["kube.*t*-*"],
            ..USUAL
        },
        Asked {
            actions: &["kubexget", "http.prob"],
            ..USUAL
        },
        Asked {
            actions: &[],
            ..USUAL
        },
        Asked {
            namespaces: &[],
            ..USUAL
        },
        Asked {
            with: &[Choice::ArgoCd, Choice::Flux],
            without: &[Choice::Secrets],
            ..USUAL
        },
    ];
    for asked in cases {
        let (chart, program) = (asked.by_chart().unwrap(), asked.by_program().unwrap());
        assert!(!program.is_empty());
        assert_eq!(
            chart, program,
            "{:?} in {:?}",
            asked.actions, asked.namespaces
        );
    }
}

#[test]
fn a_chart_with_one_namespace_lets_the_agent_change_deployments_there_and_nowhere_else() {
    let asked = Asked {
        namespaces: &["shop"],
        ..USUAL
    };
    let changes: Vec<_> = asked
        .by_chart()
        .unwrap()
        .into_iter()
        .filter(|right| !["get", "list"].iter().any(|reads| right.ends_with(reads)))
        .collect();
    assert_eq!(
        changes,
        [
            "shop /pods/portforward() create",
            "shop apps/deployments() patch"
        ]
    );
}

#[test]
fn what_the_chart_reads_is_what_the_actions_declare() {
    let file = helm::chart("aldis-agent").join("files/action-rights.yaml");
    if std::env::var("UPDATE_GOLDENS").as_deref() == Ok("1") {
        std::fs::write(&file, table()).unwrap();
    }
    let kept = std::fs::read_to_string(&file).unwrap_or_default();
    assert_eq!(
        kept,
        table(),
        "UPDATE_GOLDENS=1 writes {} again",
        file.display()
    );
}
