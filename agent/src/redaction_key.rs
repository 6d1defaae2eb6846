//! The secret under which this agent hashes what a plan does not show, kept beside its journal.
//!
//! Drawn once: plans made under another key would show other hashes for the same value, and a change
//! would look like one where there is none. It is no secret of the cluster: who reads it can at most
//! guess at hashed values.

use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use crate::actions::redact::Key;

/// Reads the key of a data directory, and draws it where there is none yet.
pub fn of(data: &Path) -> std::io::Result<Key> {
    let path = data.join("redaction.key");
    match std::fs::File::open(&path) {
        Ok(mut file) => {
            let mut key = [0; 32];
            file.read_exact(&mut key)?;
            Ok(Key::new(key))
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => draw(&path),
        Err(error) => Err(error),
    }
}

/// Written under another name first, so that a crash leaves no half of one.
fn draw(path: &Path) -> std::io::Result<Key> {
    let key: [u8; 32] = rand::random();
    let making = path.with_extension("making");
    let mut file = std::fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&making)?;
    file.write_all(&key)?;
    file.sync_all()?;
    std::fs::rename(&making, path)?;
    Ok(Key::new(key))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_drawn_once_and_read_by_its_owner_only() {
        use std::os::unix::fs::PermissionsExt;
        let data = tempfile::tempdir().unwrap();
        of(data.path()).unwrap();
        let path = data.path().join("redaction.key");
        let first = std::fs::read(&path).unwrap();
        of(data.path()).unwrap();
        assert_eq!(first, std::fs::read(&path).unwrap());
        assert_eq!(first.len(), 32);
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
    }
}
