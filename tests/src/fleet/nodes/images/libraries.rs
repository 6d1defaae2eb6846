//! What a program is linked against on this machine, the dynamic linker among it, by the word of `ldd`.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::fleet::nodes::commands;

/// The files without which it does not start.
pub(super) fn of(program: &Path) -> anyhow::Result<Vec<PathBuf>> {
    let shown = program.display().to_string();
    let said = commands::run("ldd", &[&shown])?;
    named(&said).with_context(|| format!("find what {shown} is linked against"))
}

/// Lines are `NAME => FILE (ADDRESS)`, and `FILE (ADDRESS)` for the linker. What has no file is the kernel's.
fn named(said: &str) -> anyhow::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for line in said.lines() {
        if line.contains("=> not found") {
            bail!("`ldd` says `{}`", line.trim());
        }
        let (name, file) = line.split_once("=>").unwrap_or(("", line));
        match file.split_whitespace().next() {
            Some(file) if file.starts_with('/') => found.push(PathBuf::from(file)),
            Some(_) | None if name.is_empty() => {}
            Some(_) | None => bail!("`ldd` says `{}`", line.trim()),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_and_their_linker_are_found_and_the_kernels_own_passed_over() {
        let said = "\tlinux-vdso.so.1 (0x00007f9b)\n\tlibc.so.6 => /lib/libc.so.6 (0x00007f9c)\n\t/lib64/ld.so.2 (0x7f)\n";
        let found = named(said).unwrap();
        assert_eq!(
            found,
            [
                PathBuf::from("/lib/libc.so.6"),
                PathBuf::from("/lib64/ld.so.2")
            ]
        );
    }

    #[test]
    fn a_library_that_this_machine_lacks_is_named() {
        let error = named("\tlibssl.so.9 => not found\n").unwrap_err();
        assert!(error.to_string().contains("libssl.so.9"), "{error}");
    }
}
