//! The disk of an agent's journal, in memory: it outlives the process that writes to it.
//!
//! It can end its process at a write: before it, in the middle of it, or when it is safely on the disk and
//! nobody has heard so.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use aldis_agent::journal::{Disk, DiskFile};
use tokio_util::sync::CancellationToken;

use crate::chance::Chance;

/// An open file keeps its bytes also when it gets another name.
type Bytes = Arc<Mutex<Vec<u8>>>;

type Files = BTreeMap<String, Bytes>;

/// The disk. Clones are the same.
#[derive(Clone, Default)]
pub(crate) struct JournalDisk(Arc<Mutex<Inner>>);

#[derive(Default)]
struct Inner {
    files: Files,
    /// Writes until the process that makes them ends.
    ends_after: Option<usize>,
    /// What there was before each write, from when it was wanted.
    earlier: Option<Vec<Files>>,
}

impl JournalDisk {
    /// The disk as one process sees it.
    pub(crate) fn mounted(&self, life: CancellationToken, chance: Chance) -> Box<dyn Disk> {
        Box::new(Mounted {
            disk: self.clone(),
            life,
            chance,
        })
    }

    /// Another disk with the same on it, as it is now.
    pub(crate) fn copy(&self) -> Self {
        let files = copied(&self.lock().files);
        Self(Arc::new(Mutex::new(Inner {
            files,
            ..Inner::default()
        })))
    }

    /// Puts what an earlier copy held in place of what is there.
    pub(crate) fn restore(&self, earlier: &JournalDisk) {
        let files = copied(&earlier.lock().files);
        self.lock().files = files;
    }

    /// Remembers, from here on, what there was before each write.
    pub(crate) fn remember(&self) {
        self.lock().earlier = Some(Vec::new());
    }

    /// The last so many writes were never made.
    pub(crate) fn cut(&self, writes: usize) {
        let mut inner = self.lock();
        let earlier = inner.earlier.take().expect("it remembers");
        let at = earlier.len().saturating_sub(writes);
        if let Some(files) = earlier.into_iter().nth(at) {
            inner.files = files;
        }
    }

    /// Somebody deletes everything.
    pub(crate) fn clear(&self) {
        self.lock().files.clear();
    }

    /// The process ends at the write that comes after so many.
    pub(crate) fn end_process_after(&self, writes: usize) {
        self.lock().ends_after = Some(writes);
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        lock(&self.0)
    }
}

fn lock<T>(what: &Mutex<T>) -> MutexGuard<'_, T> {
    what.lock().unwrap_or_else(PoisonError::into_inner)
}

fn copied(files: &Files) -> Files {
    let copy = |bytes: &Bytes| Arc::new(Mutex::new(lock(bytes).clone()));
    let copies = files
        .iter()
        .map(|(name, bytes)| (name.clone(), copy(bytes)));
    copies.collect()
}

#[derive(Clone)]
struct Mounted {
    disk: JournalDisk,
    life: CancellationToken,
    chance: Chance,
}

impl Mounted {
    fn alive(&self) -> io::Result<MutexGuard<'_, Inner>> {
        if self.life.is_cancelled() {
            return Err(gone());
        }
        Ok(self.disk.lock())
    }
}

fn gone() -> io::Error {
    io::Error::other("the process has ended")
}

fn missing() -> io::Error {
    io::Error::new(io::ErrorKind::NotFound, "no such file")
}

impl Disk for Mounted {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.alive()?.files.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.alive()?;
        let bytes = inner.files.get(name).ok_or_else(missing)?;
        Ok(lock(bytes).clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let empty = Bytes::default();
        self.alive()?.files.insert(name.to_owned(), empty);
        self.open(name)
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let bytes = self.alive()?.files.get(name).cloned();
        Ok(Box::new(Open {
            mounted: self.clone(),
            bytes: bytes.ok_or_else(missing)?,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.alive()?;
        let bytes = inner.files.remove(from).ok_or_else(missing)?;
        inner.files.insert(to.to_owned(), bytes);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        self.alive()?
            .files
            .remove(name)
            .map(|_| ())
            .ok_or_else(missing)
    }

    fn sync_dir(&self) -> io::Result<()> {
        self.alive().map(|_| ())
    }
}

struct Open {
    mounted: Mounted,
    bytes: Bytes,
}

impl DiskFile for Open {
    /// A zero tail and a missing one are the same to a journal.
    fn reserve(&mut self, _length: u64) -> io::Result<()> {
        self.mounted.alive().map(|_| ())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.mounted.alive()?;
        let ends = match &mut inner.ends_after {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                false
            }
            None => false,
        };
        let arrives = match ends {
            false => bytes.len(),
            // All of it one time in two: on the disk, and nobody hears of it.
            true if self.mounted.chance.one_in(2) => bytes.len(),
            true => self.mounted.chance.below(bytes.len() + 1),
        };
        if inner.earlier.is_some() {
            let files = copied(&inner.files);
            inner.earlier.get_or_insert_default().push(files);
        }
        let start = usize::try_from(offset).expect("journals are short");
        let mut file = lock(&self.bytes);
        let length = file.len().max(start + arrives);
        file.resize(length, 0);
        file[start..start + arrives].copy_from_slice(&bytes[..arrives]);
        if ends {
            inner.ends_after = None;
            self.mounted.life.cancel();
            return Err(gone());
        }
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        self.mounted.alive().map(|_| ())
    }
}
