//! Numbers that are ours until this process ends: ports, and networks of nodes.
//!
//! A number is claimed by a lock on a small file. The kernel lets go of it when this process ends, however
//! it ends, and the file stays: removing it would let two processes hold locks on two files of one name.

use std::fs::{File, OpenOptions, Permissions};
use std::io::ErrorKind;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::fs::{FlockOperation, flock};

/// Claims a number of a kind. `None` while somebody else has it.
pub(super) fn claim(folder: &Path, number: u16) -> anyhow::Result<Option<File>> {
    make(folder)?;
    let path = folder.join(number.to_string());
    let file = open(&path).with_context(|| format!("open {}", path.display()))?;
    let ours = flock(&file, FlockOperation::NonBlockingLockExclusive).is_ok();
    Ok(ours.then_some(file))
}

/// Where claims of a kind are kept: one folder for all users of the machine.
pub(super) fn folder(kind: &str) -> PathBuf {
    Path::new("/tmp").join(format!("aldis-{kind}"))
}

/// Writable by everyone, as `/tmp` is: two users must see each other's claims.
fn make(folder: &Path) -> anyhow::Result<()> {
    std::fs::create_dir_all(folder).with_context(|| format!("create {}", folder.display()))?;
    // Only its owner can, and need: he made it.
    let _ = std::fs::set_permissions(folder, Permissions::from_mode(0o1777));
    Ok(())
}

/// Opened to be read where it exists: another user's file cannot be written, and need not be.
fn open(path: &Path) -> std::io::Result<File> {
    match File::open(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(false)
            .open(path)
            .or_else(|_| File::open(path)),
        opened => opened,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_is_claimed_once_and_free_again_after() {
        let dir = tempfile::tempdir().unwrap();
        let first = claim(dir.path(), 7).unwrap();
        assert!(first.is_some());
        assert!(claim(dir.path(), 7).unwrap().is_none());
        assert!(claim(dir.path(), 8).unwrap().is_some());
        drop(first);
        assert!(claim(dir.path(), 7).unwrap().is_some());
    }

    #[test]
    fn another_users_file_is_locked_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        drop(claim(dir.path(), 7).unwrap());
        let file = dir.path().join("7");
        std::fs::set_permissions(&file, Permissions::from_mode(0o444)).unwrap();
        assert!(claim(dir.path(), 7).unwrap().is_some());
    }
}
