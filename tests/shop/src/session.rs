//! The secret of the shop's sessions. Nobody is shown it: only its hash, which tells two secrets apart.
//!
//! Two kinds of programs exist, and a runbook that rotates a secret must know which it has: one that reads its secret
//! again, and one that must be restarted.

use std::path::{Path, PathBuf};
use std::time::Duration;

use sha2::{Digest, Sha256};
use tokio::sync::watch;

/// Between two looks at the file. Kubernetes itself takes up to a minute to change it.
const EVERY: Duration = Duration::from_millis(500);

/// Why there is no secret.
#[derive(Debug, thiserror::Error)]
#[error("read the session secret from {}", file.display())]
pub(crate) struct Error {
    file: PathBuf,
    source: std::io::Error,
}

/// The secret as it was last read.
pub(crate) struct Session {
    file: PathBuf,
    hash: watch::Sender<String>,
}

impl Session {
    /// Reads it.
    pub(crate) fn read(file: &Path) -> Result<Self, Error> {
        Ok(Self {
            hash: watch::Sender::new(hash(file)?),
            file: file.to_owned(),
        })
    }

    /// SHA-256 of the secret.
    pub(crate) fn hash(&self) -> String {
        self.hash.borrow().clone()
    }

    /// Reads it again for ever, and tells when it has changed. A file that is away for a moment changes nothing.
    pub(crate) async fn follow(&self, mut changed: impl FnMut()) {
        loop {
            tokio::time::sleep(EVERY).await;
            if self.look() {
                changed();
            }
        }
    }

    fn look(&self) -> bool {
        match hash(&self.file) {
            Ok(hash) => self.hash.send_if_modified(|kept| {
                let differs = *kept != hash;
                *kept = hash;
                differs
            }),
            Err(error) => {
                tracing::warn!("{error}: {}; the secret read before is kept", error.source);
                false
            }
        }
    }
}

fn hash(file: &Path) -> Result<String, Error> {
    match std::fs::read(file) {
        Ok(secret) => Ok(hex::encode(Sha256::digest(secret))),
        Err(source) => Err(Error {
            file: file.to_owned(),
            source,
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_that_is_away_for_a_moment_is_kept() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("secret");
        std::fs::write(&file, "one").unwrap();
        let session = Session::read(&file).unwrap();
        let one = session.hash();
        assert!(!session.look(), "nothing changed");
        std::fs::remove_file(&file).unwrap();
        assert!(!session.look());
        assert_eq!(session.hash(), one);
        std::fs::write(&file, "two").unwrap();
        assert!(session.look());
        assert_ne!(session.hash(), one);
    }

    #[test]
    fn without_its_secret_it_does_not_start_and_names_the_file() {
        let error = Session::read(Path::new("/does/not/exist")).err().unwrap();
        assert!(error.to_string().contains("/does/not/exist"));
    }
}
