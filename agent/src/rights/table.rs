//! The declarations as data, for whoever renders roles without this program: the Helm chart reads them from
//! `files/action-rights.yaml`, which a test holds equal to this.

use std::fmt::Write;

use aldis_core::action::Action;

use crate::actions::cluster::rights::{self as declared, Right, Scope};

/// Every action with each of its rights once.
pub fn table() -> String {
    let mut text = String::from(
        "# Generated from what the actions of the agent declare; do not edit. `UPDATE_GOLDENS=1 cargo test -p\n\
         # aldis-tests --test deploy` writes it again.\nalways:\n",
    );
    text.push_str(&lines(declared::always(), "  "));
    text.push_str("actions:\n");
    for action in Action::ALL {
        let _ = writeln!(text, "  {}:", action.name());
        text.push_str(&lines(&declared::of(action), "    "));
    }
    text
}

fn lines(rights: &[Right], indent: &str) -> String {
    let mut lines: Vec<_> = rights.iter().map(line).collect();
    lines.sort();
    lines.dedup();
    lines
        .iter()
        .map(|line| format!("{indent}- {line}\n"))
        .collect()
}

fn line(right: &Right) -> String {
    let scope = match right.scope {
        Scope::Cluster => "cluster",
        Scope::Namespace => "namespace",
    };
    let object = right
        .object
        .map_or_else(String::new, |object| format!(", resourceName: {object}"));
    let choice = right
        .choice
        .map_or_else(String::new, |choice| format!(", choice: {}", choice.name()));
    format!(
        "{{scope: {scope}, apiGroup: \"{}\", resource: {}{object}, verb: {}{choice}}}",
        right.group(),
        right.resource(),
        right.verb
    )
}
