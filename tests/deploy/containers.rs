//! The container files, as far as they can be held to something without a container engine.

use std::path::{Path, PathBuf};

use crate::{deploy, root};

/// A program, and the package that the workspace builds it from.
const PROGRAMS: [(&str, &str, &str); 3] = [
    ("control-plane", "aldis-control-plane", "control-plane"),
    ("agent", "aldis-agent", "agent"),
    ("cli", "aldis", "cli"),
];

/// One instruction and what follows it, with continued lines joined.
fn instructions(name: &str) -> Vec<(String, String)> {
    let file = deploy().join(format!("containers/{name}.Containerfile"));
    let text = std::fs::read_to_string(file).unwrap();
    let joined = text.replace("\\\n", " ");
    let lines = joined
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines
        .map(|line| {
            let (word, rest) = line.split_once(' ').unwrap();
            (
                word.to_owned(),
                rest.split_whitespace().collect::<Vec<_>>().join(" "),
            )
        })
        .collect()
}

fn of(name: &str, word: &str) -> Vec<String> {
    let found = instructions(name)
        .into_iter()
        .filter(|(found, _)| found == word);
    found.map(|(_, rest)| rest).collect()
}

fn toml(path: PathBuf) -> toml::Table {
    std::fs::read_to_string(path).unwrap().parse().unwrap()
}

#[test]
fn each_source_that_is_copied_exists() {
    for (name, ..) in PROGRAMS {
        let copies = of(name, "COPY")
            .into_iter()
            .filter(|copy| !copy.starts_with("--from="));
        for copy in copies {
            let words: Vec<_> = copy.split(' ').collect();
            for source in &words[..words.len() - 1] {
                assert!(root().join(source).exists(), "{name}: {source}");
            }
        }
    }
}

#[test]
fn each_member_of_the_workspace_is_copied_since_cargo_reads_all_of_them() {
    let workspace = toml(root().join("Cargo.toml"));
    let members = workspace["workspace"]["members"].as_array().unwrap();
    for (name, ..) in PROGRAMS {
        let copies = of(name, "COPY");
        for member in members.iter().map(|member| member.as_str().unwrap()) {
            // A member may stand inside another.
            let with_one = |folder: &str| copies.contains(&format!("{folder} {folder}"));
            let mut folders = Path::new(member).ancestors().filter_map(Path::to_str);
            assert!(folders.any(with_one), "{name}: {member}");
        }
    }
}

#[test]
fn what_is_built_is_a_program_of_its_package_and_what_the_image_runs() {
    for (name, program, folder) in PROGRAMS {
        let manifest = toml(root().join(folder).join("Cargo.toml"));
        // Cargo calls the program of src/main.rs like the package.
        let named = manifest
            .get("bin")
            .map_or(&manifest["package"]["name"], |bins| &bins[0]["name"]);
        assert_eq!(named.as_str(), Some(program));
        let package = manifest["package"]["name"].as_str().unwrap();
        let build = format!("cargo build --release --locked -p {package} --bin {program}");
        assert!(of(name, "RUN").contains(&build), "{name}: {build}");
        let copy = format!("--from=build /source/target/release/{program} /usr/bin/{program}");
        assert!(of(name, "COPY").contains(&copy), "{name}: {copy}");
        assert_eq!(
            of(name, "ENTRYPOINT"),
            [format!("[\"/usr/bin/{program}\"]")]
        );
    }
}

#[test]
fn each_base_has_a_tag_and_nothing_runs_as_root() {
    for (name, ..) in PROGRAMS {
        for base in of(name, "FROM") {
            let image = base.split(' ').next().unwrap();
            let tag = image.rsplit_once(':').map(|(_, tag)| tag);
            assert!(tag.is_some_and(|tag| tag != "latest"), "{name}: {image}");
        }
        assert_eq!(of(name, "USER"), ["65532:65532"], "{name}");
    }
}

#[test]
fn the_toolchain_is_the_one_that_the_workspace_asks_for() {
    let workspace = toml(root().join("Cargo.toml"));
    let needed = workspace["workspace"]["package"]["rust-version"]
        .as_str()
        .unwrap();
    for (name, ..) in PROGRAMS {
        assert!(
            of(name, "FROM")[0].contains(&format!("rust:{needed}-")),
            "{name}"
        );
    }
}
