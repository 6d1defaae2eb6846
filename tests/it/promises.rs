//! What the documents point at exists: the code and the test that each row of the guarantees names, and the versions of
//! other projects' programs, which the script that builds them and the harness that looks for them both name.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use crate::house::{EDGES, root, rust_files};

/// A row of the table: `| 17 FULL-UNWIND | code | test |`.
struct Row<'a> {
    name: &'a str,
    cells: [&'a str; 2],
}

fn rows(text: &str) -> Vec<Row<'_>> {
    let row = |line| {
        let cells: Vec<&str> = str::split(line, '|').map(str::trim).collect();
        let [_, name, code, test, _] = cells[..] else {
            return None;
        };
        name.starts_with(|first: char| first.is_ascii_digit())
            .then_some(Row {
                name,
                cells: [code, test],
            })
    };
    text.lines().filter_map(row).collect()
}

/// All that is written in Rust below a folder.
fn sources(folder: &str) -> String {
    let mut files = Vec::new();
    rust_files(&root().join(folder), &mut files);
    files
        .iter()
        .map(|file| std::fs::read_to_string(file).unwrap())
        .collect()
}

/// What stands between backticks.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

/// A path is written from the root, or from where the one before it is, or from that one's crate.
fn exists(path: &str, before: Option<&Path>) -> Option<PathBuf> {
    let crate_of = |path: &Path| -> PathBuf { path.components().take(2).collect() };
    let from = before.into_iter().flat_map(|before| {
        let beside = before.parent().unwrap_or(before);
        [beside.to_owned(), before.to_owned(), crate_of(before)]
    });
    std::iter::once(PathBuf::new())
        .chain(from)
        .map(|folder| folder.join(path))
        .find(|path| root().join(path).exists() || root().join(path).with_extension("rs").exists())
}

fn is_path(word: &str) -> bool {
    word.contains('/') || word.ends_with(".rs")
}

/// Tests are sentences; names of types and of variants are not.
fn is_test(word: &str) -> bool {
    word.matches('_').count() > 2 && word.chars().all(|c| c.is_ascii_lowercase() || c == '_')
}

#[test]
fn every_row_of_the_guarantees_names_code_and_tests_that_exist() {
    let text = std::fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let code: String = EDGES.iter().map(|(folder, _)| sources(folder)).collect();
    let rows = rows(&text);
    assert!(rows.len() > 30, "the table is read");
    let mut wrong = Vec::new();
    for row in rows {
        for cell in row.cells {
            let mut before: Option<PathBuf> = None;
            for word in quoted(cell) {
                if is_path(word) {
                    match exists(word, before.as_deref()) {
                        Some(path) => before = Some(path),
                        None => wrong.push(format!("{}: no such path: {word}", row.name)),
                    }
                } else if is_test(word) && !code.contains(&format!("fn {word}(")) {
                    wrong.push(format!("{}: no such test: {word}", row.name));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[test]
fn what_is_built_and_what_is_looked_for_are_of_one_version() {
    let script = std::fs::read_to_string(root().join("tests/fleet/binaries.sh")).unwrap();
    let after = |text: &str, mark: &str| -> BTreeSet<String> {
        let versions = text.split(mark).skip(1);
        versions
            .map(|rest| rest.split([' ', '"', '\n']).next().unwrap().to_owned())
            .filter(|version| version.starts_with(|first: char| first.is_ascii_digit()))
            .collect()
    };
    let mut built = after(&script, " version=");
    // Only the Makefile runs it.
    let makefile = std::fs::read_to_string(root().join("Makefile")).unwrap();
    for version in after(&makefile, "BUF := buf-") {
        assert!(built.remove(&version), "buf {version} is not built");
    }
    let looked_for = after(&sources("tests/src"), "VERSION: &str = \"");
    assert_eq!(built, looked_for);
}
