//! The shape of the house: who may depend on whom, and what the core must not know.
//!
//! Read from the manifests and the code themselves, so that a forbidden edge is found in the change
//! that adds it.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// What each crate may depend on. `core <- proto <- {control-plane, agent, cli} <- tests`. The shop is a program of
/// somebody else as far as Aldis is concerned, and knows nothing of it.
pub(crate) const EDGES: [(&str, &[&str]); 7] = [
    ("core", &[]),
    ("proto", &["aldis-core"]),
    ("control-plane", &["aldis-core", "aldis-proto"]),
    ("agent", &["aldis-core", "aldis-proto"]),
    ("cli", &["aldis-core", "aldis-proto"]),
    (
        "tests",
        &[
            "aldis",
            "aldis-agent",
            "aldis-control-plane",
            "aldis-core",
            "aldis-proto",
            "aldis-shop",
        ],
    ),
    ("tests/shop", &[]),
];

/// Libraries that act, wait, or talk: not for the core, nor for anything it is built with.
const ACTING: [&str; 11] = [
    "tokio",
    "tonic",
    "etcd-client",
    "kube",
    "hyper",
    "tracing",
    "rand",
    "getrandom",
    "rustix",
    "redb",
    "jiff",
];

/// Kubernetes, Postgres and S3 have no place in the command line.
const NOT_FOR_CLI: [&str; 4] = ["kube", "k8s-openapi", "tokio-postgres", "aws-sdk-s3"];

/// What the standard library offers that would let the core act or look around.
const ACTING_CODE: [&str; 10] = [
    "std::fs",
    "std::env",
    "std::net",
    "std::process",
    "std::thread",
    "SystemTime",
    "Instant::now",
    "println!",
    "eprintln!",
    "include_bytes!",
];

pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn manifest(folder: &str) -> toml::Table {
    let path = root().join(folder).join("Cargo.toml");
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    text.parse()
        .unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// Names under one kind of dependencies, also those of a target platform.
fn dependencies(folder: &str, kinds: &[&str]) -> BTreeSet<String> {
    let manifest = manifest(folder);
    let platforms = manifest
        .get("target")
        .and_then(toml::Value::as_table)
        .into_iter()
        .flatten();
    let tables = std::iter::once(&manifest).chain(platforms.filter_map(|(_, t)| t.as_table()));
    tables
        .flat_map(|table| kinds.iter().filter_map(|kind| table.get(*kind)?.as_table()))
        .flat_map(|table| table.keys().cloned())
        .collect()
}

const ANY: [&str; 3] = ["dependencies", "dev-dependencies", "build-dependencies"];

#[test]
fn crates_depend_on_each_other_one_way_only() {
    let members = manifest("")["workspace"]["members"].clone();
    let members: BTreeSet<String> = members.try_into().unwrap();
    let known: BTreeMap<&str, &[&str]> = EDGES.into();
    assert_eq!(
        members,
        known
            .keys()
            .map(ToString::to_string)
            .collect::<BTreeSet<_>>()
    );
    for (folder, allowed) in EDGES {
        let ours = |name: &String| name == "aldis" || name.starts_with("aldis-");
        let found: Vec<String> = dependencies(folder, &ANY)
            .into_iter()
            .filter(ours)
            .collect();
        for name in found {
            assert!(
                allowed.contains(&name.as_str()),
                "{folder} must not depend on {name}"
            );
        }
    }
}

#[test]
fn the_core_depends_on_nothing_that_acts() {
    let found = dependencies("core", &["dependencies", "build-dependencies"]);
    for name in ACTING {
        assert!(!found.contains(name), "core must not depend on {name}");
    }
}

#[test]
fn the_command_line_links_nothing_of_the_clusters() {
    let found = dependencies("cli", &["dependencies", "build-dependencies"]);
    for name in NOT_FOR_CLI {
        assert!(!found.contains(name), "cli must not depend on {name}");
    }
}

#[test]
fn the_core_has_no_way_to_act_or_look_around() {
    let mut files = Vec::new();
    rust_files(&root().join("core/src"), &mut files);
    assert!(
        files.len() > 10,
        "the walk found only {} files",
        files.len()
    );
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.trim_start().starts_with("//"));
        for (line, written) in code.enumerate() {
            for forbidden in ACTING_CODE {
                let shown = file.display();
                assert!(
                    !written.contains(forbidden),
                    "{shown}: code line {line} uses {forbidden}"
                );
            }
        }
    }
}

pub(crate) fn rust_files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            rust_files(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}
