//! The shop's program, linked statically: one file that is a whole container image, since it needs no library, no
//! shell and no folder.
//!
//! glibc itself is linked in, which needs no other target than the machine's own. The build has a target folder of
//! its own: other flags would build every dependency of the workspace again, each time the flags change.

use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::fleet::system::programs::beside_me;

/// What makes the C library part of the program.
const FLAGS: &str = "-C target-feature=+crt-static";

/// A profile of the workspace: small.
const PROFILE: &str = "shop";

/// Builds it as the sources are, where that was not done yet; the program.
pub async fn build() -> anyhow::Result<PathBuf> {
    let profile = beside_me()?;
    let target = profile
        .parent()
        .context("a profile is in a target folder")?;
    let folder = target.join("shop");
    let platform = format!("{}-unknown-linux-gnu", std::env::consts::ARCH);
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    // The flags go to the shop and not to what builds it, since a platform is named.
    let output = tokio::process::Command::new(cargo)
        .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/.."))
        .args([
            "build",
            "--quiet",
            "--locked",
            "-p",
            "aldis-shop",
            "--bin",
            "shop",
        ])
        .args(["--profile", PROFILE, "--target", &platform, "--target-dir"])
        .arg(&folder)
        .env("RUSTFLAGS", FLAGS)
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .await
        .context("run cargo")?;
    if !output.status.success() {
        let said = String::from_utf8_lossy(&output.stderr);
        bail!("build the shop:\n{said}");
    }
    Ok(folder.join(platform).join(PROFILE).join("shop"))
}

/// Fails for a program that needs anything of the machine it runs on.
pub fn ensure_static(program: &Path) -> anyhow::Result<()> {
    let bytes = std::fs::read(program).with_context(|| format!("read {}", program.display()))?;
    let asks =
        needs_an_interpreter(&bytes).with_context(|| format!("read {}", program.display()))?;
    if asks {
        bail!(
            "{} is linked dynamically: it would not start in an empty image",
            program.display()
        );
    }
    Ok(())
}

/// Whether the kernel would look for a dynamic linker: whether a program header is of type `PT_INTERP`.
fn needs_an_interpreter(elf: &[u8]) -> anyhow::Result<bool> {
    const INTERPRETER: u32 = 3;
    if elf.get(..6) != Some(b"\x7fELF\x02\x01") {
        bail!("no 64-bit little-endian ELF");
    }
    let number = |at: usize| -> Option<usize> {
        Some(usize::from(u16::from_le_bytes(
            elf.get(at..at + 2)?.try_into().ok()?,
        )))
    };
    let first = elf
        .get(32..40)
        .and_then(|at| Some(u64::from_le_bytes(at.try_into().ok()?)));
    let first = usize::try_from(first.context("cut off")?)?;
    let (size, count) = number(54).zip(number(56)).context("cut off")?;
    for header in 0..count {
        let at = first + header * size;
        let kind = elf.get(at..at + 4).context("cut off")?;
        if kind == INTERPRETER.to_le_bytes() {
            return Ok(true);
        }
    }
    Ok(false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_like_this_test_is_not_static() {
        let me = std::env::current_exe().unwrap();
        let error = ensure_static(&me).unwrap_err();
        assert!(error.to_string().contains("linked dynamically"), "{error}");
    }

    #[test]
    fn what_is_no_program_is_refused() {
        assert!(needs_an_interpreter(b"#!/bin/sh").is_err());
        assert!(needs_an_interpreter(b"\x7fELF\x02\x01").is_err());
    }
}
