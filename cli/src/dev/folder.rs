//! Where a trial keeps everything, and what is left of trials that were killed.
//!
//! A trial holds a lock on a file in its folder for as long as it lives; the kernel lets go of it however
//! the trial ends. So whoever can take the lock of another trial's folder knows that it is over, and that
//! its keys and its context are nobody's.

use std::fs::File;
use std::path::{Path, PathBuf};

use rustix::fs::{FlockOperation, flock};

use super::Error;
use crate::context::Context;

/// How folders are called that are thrown away at the end.
const PREFIX: &str = "aldis-dev-";

/// The file that is locked.
const LOCK: &str = "dev.lock";

/// The folder of one trial.
#[derive(Debug)]
pub struct Folder {
    place: Place,
    _lock: File,
}

#[derive(Debug)]
enum Place {
    Kept(PathBuf),
    ThrownAway(tempfile::TempDir),
}

impl Folder {
    /// The folder that was asked for, else one that goes with the trial.
    pub fn new(data: Option<&Path>) -> Result<Self, Error> {
        let failed = |path: PathBuf| move |source| Error::File { path, source };
        let place = match data {
            None => {
                let folder = tempfile::Builder::new().prefix(PREFIX).tempdir();
                Place::ThrownAway(folder.map_err(failed(std::env::temp_dir()))?)
            }
            Some(data) => {
                std::fs::create_dir_all(data).map_err(failed(data.to_owned()))?;
                let whole = std::fs::canonicalize(data).map_err(failed(data.to_owned()))?;
                Place::Kept(whole)
            }
        };
        let path = place.path().join(LOCK);
        let lock = File::create(&path).map_err(failed(path))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            let folder = place.path().to_owned();
            return Err(Error::InUse { folder });
        }
        Ok(Self { place, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        self.place.path()
    }

    /// What becomes of it at the end, for people.
    pub fn about(&self) -> String {
        match &self.place {
            Place::Kept(path) => path.display().to_string(),
            Place::ThrownAway(_) => "thrown away at exit (use --data to keep)".to_owned(),
        }
    }

    /// Whether it goes with the trial, and the context with it.
    pub fn is_thrown_away(&self) -> bool {
        matches!(self.place, Place::ThrownAway(_))
    }

    /// Whether a context leads into this folder.
    pub fn owns(&self, context: &Context) -> bool {
        context.ca.starts_with(self.path())
    }
}

impl Place {
    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::ThrownAway(folder) => folder.path(),
        }
    }
}

/// Takes away the folders of trials that were killed, and says which.
pub fn sweep() -> Vec<PathBuf> {
    let Ok(entries) = std::fs::read_dir(std::env::temp_dir()) else {
        return Vec::new();
    };
    let folders = entries.filter_map(|entry| Some(entry.ok()?.path()));
    let left = folders.filter(|folder| is_named_so(folder) && is_over(folder));
    left.filter(|folder| std::fs::remove_dir_all(folder).is_ok())
        .collect()
}

/// Whether a context is one of a trial that is over: it may be replaced.
pub fn is_left_over(context: &Context) -> bool {
    // FOLDER/pki/ca.pem
    let folder = context.ca.parent().and_then(Path::parent);
    folder.is_some_and(|folder| {
        if folder.join(LOCK).exists() {
            is_over(folder)
        } else {
            is_named_so(folder) && !folder.exists()
        }
    })
}

fn is_named_so(folder: &Path) -> bool {
    let name = folder.file_name().and_then(|name| name.to_str());
    name.is_some_and(|name| name.starts_with(PREFIX))
}

/// A folder whose lock is not there yet belongs to a trial that has just begun.
fn is_over(folder: &Path) -> bool {
    File::open(folder.join(LOCK))
        .is_ok_and(|lock| flock(&lock, FlockOperation::NonBlockingLockExclusive).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn context(folder: &Path) -> Context {
        Context {
            ca: folder.join("pki/ca.pem"),
            ..Context::default()
        }
    }

    #[test]
    fn a_trial_that_lives_is_not_over_and_one_that_ended_is() {
        let folder = Folder::new(None).unwrap();
        let path = folder.path().to_owned();
        assert!(!is_over(&path) && !is_left_over(&context(&path)));
        assert!(folder.owns(&context(&path)));
        drop(folder);
        assert!(!path.exists() && is_left_over(&context(&path)));
    }

    #[test]
    fn one_folder_is_of_one_trial_at_a_time() {
        let data = tempfile::tempdir().unwrap();
        let first = Folder::new(Some(data.path())).unwrap();
        let second = Folder::new(Some(data.path()));
        assert!(matches!(second, Err(Error::InUse { .. })), "{second:?}");
        drop(first);
        assert!(is_left_over(&context(data.path())));
        Folder::new(Some(data.path())).unwrap();
    }

    #[test]
    fn what_is_no_trials_is_never_left_over() {
        let theirs = tempfile::tempdir().unwrap();
        assert!(!is_left_over(&context(theirs.path())));
        assert!(!is_left_over(&context(Path::new("/etc/aldis"))));
    }
}
