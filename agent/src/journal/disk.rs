//! The seam between the journal and the file system, so that power loss, full and failing disks are ordinary tests.
//!
//! The law, the unpleasant case first: **nothing is kept before `sync` returned**. Until then any part of a write may
//! be on disk and any part may not; a name that was created, renamed or removed is kept only after `sync_dir`. After
//! `sync` failed, nothing is known of what was written, and a later `sync` that succeeds proves nothing.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, FlockOperation};
use rustix::io::Errno;

/// One directory, which belongs to one journal.
pub trait Disk: Send {
    /// The names in the directory.
    fn names(&self) -> io::Result<Vec<String>>;
    /// A whole file.
    fn read(&self, name: &str) -> io::Result<Vec<u8>>;
    /// Makes an empty file, in place of any that was there.
    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Opens a file that exists for writing.
    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>>;
    /// Gives a file another name, in place of any that had it.
    fn rename(&self, from: &str, to: &str) -> io::Result<()>;
    /// Forgets a file.
    fn remove(&self, name: &str) -> io::Result<()>;
    /// Makes names last.
    fn sync_dir(&self) -> io::Result<()>;
}

/// One open file.
pub trait DiskFile: Send {
    /// Makes sure that the first `length` bytes of the file have room on the disk; those never written are zero.
    /// Fails with [`io::ErrorKind::StorageFull`] and leaves what was written as it is.
    fn reserve(&mut self, length: u64) -> io::Result<()>;
    /// Writes within the reserved length.
    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()>;
    /// Makes bytes and length last.
    fn sync(&mut self) -> io::Result<()>;
}

/// A directory of the real file system, locked for this process.
pub struct RealDisk {
    dir: PathBuf,
    /// Held for its `flock`, which the kernel drops with the process, however it ends.
    _lock: File,
}

/// Why a directory could not be taken.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    /// Two agents on one journal would run one attempt twice.
    #[error("another process holds the journal directory {}", dir.display())]
    Held {
        /// The directory.
        dir: PathBuf,
    },
    /// The directory cannot be made or opened.
    #[error("open the journal directory {}", dir.display())]
    Io {
        /// The directory.
        dir: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
}

impl RealDisk {
    /// Makes the directory if it is missing and locks it, without waiting.
    pub fn lock(dir: &Path) -> Result<Self, LockError> {
        let failed = |source| LockError::Io {
            dir: dir.to_owned(),
            source,
        };
        // Prior state may hold secrets: nobody else reads it.
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)
            .map_err(failed)?;
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match rustix::fs::flock(&lock, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => Ok(Self {
                dir: dir.to_owned(),
                _lock: lock,
            }),
            Err(Errno::WOULDBLOCK) => Err(LockError::Held {
                dir: dir.to_owned(),
            }),
            Err(other) => Err(failed(other.into())),
        }
    }
}

impl Disk for RealDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        let mut names = Vec::new();
        for entry in std::fs::read_dir(&self.dir)? {
            // A name that is not text is none of ours.
            if let Ok(name) = entry?.file_name().into_string() {
                names.push(name);
            }
        }
        Ok(names)
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        std::fs::read(self.dir.join(name))
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(self.dir.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let file = OpenOptions::new().write(true).open(self.dir.join(name))?;
        Ok(Box::new(RealFile { file }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        std::fs::rename(self.dir.join(from), self.dir.join(to))
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        std::fs::remove_file(self.dir.join(name))
    }

    fn sync_dir(&self) -> io::Result<()> {
        File::open(&self.dir)?.sync_all()
    }
}

struct RealFile {
    file: File,
}

impl DiskFile for RealFile {
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        loop {
            match rustix::fs::fallocate(&self.file, FallocateFlags::empty(), 0, length) {
                Err(Errno::INTR) => continue,
                // File systems without it (NFS before 4.2, some overlays): zeros take the room as well.
                Err(Errno::OPNOTSUPP | Errno::NOSYS) => return self.write_zeros(length),
                other => return Ok(other?),
            }
        }
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.file.write_all_at(bytes, offset)
    }

    fn sync(&mut self) -> io::Result<()> {
        // `fdatasync` also makes the length last where the bytes need it.
        Ok(rustix::fs::fdatasync(&self.file)?)
    }
}

impl RealFile {
    fn write_zeros(&mut self, length: u64) -> io::Result<()> {
        const ZEROS: [u8; 4096] = [0; 4096];
        let mut at = self.file.metadata()?.len();
        while at < length {
            let step = (length - at).min(ZEROS.len() as u64);
            self.file.write_all_at(&ZEROS[..step as usize], at)?;
            at += step;
        }
        Ok(())
    }
}
