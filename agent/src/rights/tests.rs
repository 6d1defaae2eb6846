use std::path::Path;

use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule, Role};
use serde_json::Value;

use super::*;

const EXAMPLE: &str = include_str!("../../../deploy/agent-policy.example.yaml");

fn policy(text: &str) -> Policy {
    Policy::parse(Path::new("policy.yaml"), text).unwrap()
}

fn account() -> Wish {
    Wish {
        subject: Some(Subject::account("aldis/agent").unwrap()),
        ..Wish::default()
    }
}

fn documents(text: &str, wish: &Wish) -> Vec<Value> {
    serde_saphyr::from_multiple(&render(&policy(text), wish)).unwrap()
}

/// Kind, namespace, name, and of a binding what it binds.
fn outline(documents: &[Value]) -> Vec<String> {
    let text = |document: &Value, at: &str| {
        let found = document.pointer(at).and_then(Value::as_str);
        found.unwrap_or("-").to_owned()
    };
    let line = |document: &Value| {
        [
            "/kind",
            "/metadata/namespace",
            "/metadata/name",
            "/roleRef/kind",
        ]
        .map(|at| text(document, at))
        .join(" ")
    };
    documents.iter().map(line).collect()
}

fn granted(rules: &[PolicyRule]) -> Vec<String> {
    let line = |rule: &PolicyRule| {
        let resources = rule.resources.clone().unwrap_or_default();
        format!("{} {}", resources.join(","), rule.verbs.join(","))
    };
    rules.iter().map(line).collect()
}

#[test]
fn the_roles_beside_the_example_policy_are_those_it_leads_to() {
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/agent-rights.yaml");
    let rendered = render(&policy(EXAMPLE), &Wish::default());
    if std::env::var("UPDATE_GOLDENS").as_deref() == Ok("1") {
        std::fs::write(&file, &rendered).unwrap();
    }
    assert_eq!(
        std::fs::read_to_string(&file).unwrap(),
        rendered,
        "UPDATE_GOLDENS=1 writes deploy/agent-rights.yaml again: read it before you commit it"
    );
}

#[test]
fn a_policy_that_names_its_namespaces_gives_rights_in_those_alone() {
    let text = "actions: [kube.set-image]\nnamespaces: [shop, stock]\n";
    assert_eq!(
        outline(&documents(text, &account())),
        [
            "ClusterRole - aldis-agent -",
            "ClusterRoleBinding - aldis-agent ClusterRole",
            "Role shop aldis-agent -",
            "RoleBinding shop aldis-agent Role",
            "Role stock aldis-agent -",
            "RoleBinding stock aldis-agent Role",
        ]
    );
}

#[test]
fn a_pattern_is_bound_in_every_namespace_only_where_that_is_wished() {
    let text = "actions: [kube.get]\nnamespaces: [shop, 'team-*']\n";
    let bindings = |wish: &Wish| outline(&documents(text, wish))[3..].to_vec();
    assert_eq!(
        bindings(&account()),
        ["RoleBinding shop aldis-agent-namespace ClusterRole"]
    );
    let everywhere = Wish {
        every_namespace: true,
        ..account()
    };
    assert_eq!(
        bindings(&everywhere),
        ["ClusterRoleBinding - aldis-agent-namespace ClusterRole"]
    );
    let said = render(&policy(text), &everywhere);
    assert!(said.contains("bound in EVERY namespace"), "{said}");
}

#[test]
fn an_action_that_is_not_allowed_gives_no_right() {
    let documents = documents(
        "actions: [kube.get]\nnamespaces: [shop]\n",
        &Wish::default(),
    );
    let cluster: ClusterRole = serde_json::from_value(documents[0].clone()).unwrap();
    assert_eq!(granted(&cluster.rules.unwrap()), ["namespaces get"]);
    let role: Role = serde_json::from_value(documents[1].clone()).unwrap();
    assert_eq!(granted(&role.rules.unwrap()), ["deployments get"]);
}

#[test]
fn a_policy_that_allows_nothing_gives_only_the_cluster_s_identity() {
    for text in ["", "actions: ['kube.*']\n", "namespaces: [shop]\n"] {
        let documents = documents(text, &Wish::default());
        let cluster: ClusterRole = serde_json::from_value(documents[0].clone()).unwrap();
        let rules = cluster.rules.unwrap();
        assert_eq!(
            rules[0].resource_names.as_deref(),
            Some(&["kube-system".to_owned()][..])
        );
        assert_eq!(documents.len(), 1, "{text}");
    }
}

#[test]
fn what_an_operator_may_choose_is_added_and_left_out() {
    let resources = |wish: &Wish| {
        let text = render(&policy("actions: ['*']\nnamespaces: [shop]\n"), wish);
        [
            "resources: [secrets]",
            "resources: [applications]",
            "resources: [helmreleases]",
        ]
        .map(|part| text.contains(part))
    };
    assert_eq!(resources(&Wish::default()), [true, false, false]);
    let wish = Wish {
        with: [Choice::ArgoCd].into(),
        without: [Choice::Secrets].into(),
        ..Wish::default()
    };
    assert_eq!(resources(&wish), [false, true, false]);
}

#[test]
fn a_misspelt_action_is_said() {
    let text = render(
        &policy("actions: [kube.gett]\nnamespaces: [shop]\n"),
        &Wish::default(),
    );
    assert!(text.contains("No action is called `kube.gett`"), "{text}");
}

#[test]
fn a_name_from_outside_cannot_write_yaml() {
    let wish = Wish {
        subject: Some(Subject::User("a}\n- kind: Group".to_owned())),
        ..Wish::default()
    };
    let text = "actions: [kube.get]\nnamespaces: [\"a\\n---\\nb\"]\n";
    let documents = documents(text, &wish);
    assert_eq!(
        documents[1].pointer("/subjects/0/name").unwrap(),
        "a}\n- kind: Group"
    );
    assert_eq!(
        documents[2].pointer("/metadata/namespace").unwrap(),
        "a\n---\nb"
    );
    for text in ["aldis", "aldis/", "/agent", "aldis/a gent", "a/b/c"] {
        assert!(Subject::account(text).is_err(), "{text}");
    }
}

#[test]
fn the_table_holds_every_action_and_reads_as_yaml() {
    let table: Value = serde_saphyr::from_str(&table()).unwrap();
    for action in Action::ALL {
        let rows = table["actions"][action.name()].as_array().unwrap();
        assert!(!rows.is_empty(), "{}", action.name());
    }
    assert_eq!(table["always"].as_array().unwrap().len(), 1);
}
