//! Finds the servers that come as packages of a distribution, in a version that is new enough.
//!
//! They are not pinned as those that we build ourselves (see [`crate::binaries`]): nothing of ours depends on
//! a patch version, and a machine with a later distribution should do.

use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A version as far as it counts here.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Version(pub(super) u32, pub(super) u32);

/// A server that is looked for.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wanted {
    pub(super) name: &'static str,
    pub(super) least: Version,
    /// The package of Debian and Ubuntu that has it.
    pub(super) package: &'static str,
}

/// A server that is not there, or too old.
#[derive(Debug, thiserror::Error)]
#[error(
    "`{name}` {least} or later is not installed{}\n\nhint: `make prerequisites` installs it, or `apt-get install {package}`",
    older(found)
)]
pub(super) struct NotInstalled {
    name: &'static str,
    least: Version,
    package: &'static str,
    found: Option<(PathBuf, Version)>,
}

impl Wanted {
    /// The first that is new enough: in the given folders, then on `PATH`.
    pub(super) fn find(self, folders: &[PathBuf]) -> Result<PathBuf, NotInstalled> {
        let path = std::env::var_os("PATH").unwrap_or_default();
        let mut found = None;
        for folder in folders.iter().cloned().chain(std::env::split_paths(&path)) {
            let program = folder.join(self.name);
            match version(&program) {
                Some(version) if version >= self.least => return Ok(program),
                Some(version) => found = found.or(Some((program, version))),
                None => {}
            }
        }
        Err(NotInstalled {
            name: self.name,
            least: self.least,
            package: self.package,
            found,
        })
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.0, self.1)
    }
}

fn older(found: &Option<(PathBuf, Version)>) -> String {
    match found {
        Some((path, version)) => format!(", {} is {version}", path.display()),
        None => String::new(),
    }
}

fn version(program: &Path) -> Option<Version> {
    if !program.is_file() {
        return None;
    }
    let said = Command::new(program).arg("--version").output().ok()?;
    // Prometheus 2 says it on either, by its build.
    let text = [said.stdout, said.stderr].concat();
    first_version(&String::from_utf8_lossy(&text))
}

/// The first word that is a version, whatever stands before its first digit: `v=7.0.15`, `2.42.0+ds`.
fn first_version(text: &str) -> Option<Version> {
    text.split_whitespace().find_map(|word| {
        let number = word.trim_start_matches(|c: char| !c.is_ascii_digit());
        let mut parts = number.split(|c: char| !c.is_ascii_digit());
        let (major, minor) = (parts.next()?, parts.next()?);
        number[major.len()..].starts_with('.').then_some(())?;
        Some(Version(major.parse().ok()?, minor.parse().ok()?))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_each_server_says_them() {
        for (said, version) in [
            (
                "postgres (PostgreSQL) 15.18 (Debian 15.18-0+deb12u1)",
                Version(15, 18),
            ),
            (
                "Redis server v=7.0.15 sha=00000000:0 malloc=jemalloc-5.3.0",
                Version(7, 0),
            ),
            (
                "prometheus, version 2.42.0+ds (branch: debian/sid)",
                Version(2, 42),
            ),
        ] {
            assert_eq!(first_version(said), Some(version), "{said}");
        }
        assert_eq!(first_version("no version, 12 words"), None);
    }

    #[test]
    fn one_that_is_too_old_is_named_with_the_way_to_another() {
        let folder = tempfile::tempdir().unwrap();
        let program = folder.path().join("old-server");
        std::fs::write(&program, "#!/bin/sh\necho version 1.2.3\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&program, mode).unwrap();
        let wanted = Wanted {
            name: "old-server",
            least: Version(2, 0),
            package: "new-server",
        };
        let error = wanted
            .find(&[folder.path().to_owned()])
            .unwrap_err()
            .to_string();
        assert!(error.contains("`old-server` 2.0 or later"), "{error}");
        assert!(error.contains("is 1.2"), "{error}");
        assert!(error.contains("apt-get install new-server"), "{error}");
    }
}
