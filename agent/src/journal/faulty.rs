//! A disk in memory that loses what it may lose: bytes that were not synced, names whose directory was not, all of it
//! when the power goes; and that is full or broken on demand.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::disk::{Disk, DiskFile};

/// Clones share the disk.
#[derive(Clone, Default)]
pub(crate) struct FaultyDisk {
    inner: Arc<Mutex<Inner>>,
}

#[derive(Clone, Default)]
struct Inner {
    files: Vec<Inode>,
    names: BTreeMap<String, usize>,
    durable_names: BTreeMap<String, usize>,
    /// Room for all files together.
    capacity: Option<usize>,
    /// Operations that change something before the power goes; `None`: it stays.
    operations_left: Option<usize>,
    /// Syncs that succeed before one fails.
    syncs_left: Option<usize>,
    writes_fail: bool,
    operations: usize,
}

#[derive(Clone, Default)]
struct Inode {
    durable: Vec<u8>,
    seen: Vec<u8>,
    /// Since the last sync.
    unsynced: Vec<(usize, Vec<u8>)>,
}

/// What the power leaves of unsynced work.
#[derive(Clone, Copy, Debug)]
pub(super) struct Kept {
    /// How many unsynced bytes of each file arrived, in order.
    pub(super) bytes: usize,
    /// Whether unsynced names arrived.
    pub(super) names: bool,
}

impl FaultyDisk {
    pub(crate) fn boxed(&self) -> Box<dyn Disk> {
        Box::new(self.clone())
    }

    /// The power goes after this many more operations.
    pub(super) fn cut_power_after(&self, operations: usize) {
        self.lock().operations_left = Some(operations);
    }

    pub(super) fn operations(&self) -> usize {
        self.lock().operations
    }

    pub(super) fn fail_sync_after(&self, syncs: usize) {
        self.lock().syncs_left = Some(syncs);
    }

    pub(super) fn sync_works(&self) {
        self.lock().syncs_left = None;
    }

    pub(super) fn fail_writes(&self) {
        self.lock().writes_fail = true;
    }

    /// Room for `bytes` more than all files hold.
    pub(crate) fn leave_free(&self, bytes: usize) {
        let mut inner = self.lock();
        inner.capacity = Some(inner.taken() + bytes);
    }

    /// Somebody made room.
    pub(crate) fn has_room(&self) {
        self.lock().capacity = None;
    }

    /// The machine starts again after the power went.
    pub(super) fn after_power_loss(&self, kept: Kept) -> Self {
        let mut inner = self.lock().clone();
        for file in &mut inner.files {
            file.lose(kept.bytes);
        }
        let names = if kept.names {
            inner.names.clone()
        } else {
            inner.durable_names.clone()
        };
        inner.names = names.clone();
        inner.durable_names = names;
        inner.operations_left = None;
        inner.syncs_left = None;
        inner.writes_fail = false;
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// The process starts again; the machine ran on.
    pub(super) fn after_kill(&self) -> Self {
        let mut inner = self.lock().clone();
        inner.operations_left = None;
        Self {
            inner: Arc::new(Mutex::new(inner)),
        }
    }

    /// Changes a file behind the journal's back.
    pub(super) fn change(&self, name: &str, change: impl FnOnce(&mut Vec<u8>)) {
        let mut inner = self.lock();
        let index = inner.names[name];
        let file = &mut inner.files[index];
        change(&mut file.seen);
        file.durable = file.seen.clone();
        file.unsynced.clear();
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    fn operation(&mut self) -> io::Result<()> {
        self.operations += 1;
        match &mut self.operations_left {
            Some(0) => Err(io::Error::other("the power is off")),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn sync(&mut self) -> io::Result<()> {
        self.operation()?;
        match &mut self.syncs_left {
            Some(0) => Err(io::Error::from_raw_os_error(5)),
            Some(left) => {
                *left -= 1;
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn index(&self, name: &str) -> io::Result<usize> {
        self.names
            .get(name)
            .copied()
            .ok_or_else(|| io::ErrorKind::NotFound.into())
    }

    fn taken(&self) -> usize {
        self.names
            .values()
            .map(|index| self.files[*index].seen.len())
            .sum()
    }
}

impl Inode {
    fn lose(&mut self, mut kept: usize) {
        for (offset, bytes) in std::mem::take(&mut self.unsynced) {
            let arrived = bytes.len().min(kept);
            kept -= arrived;
            put(&mut self.durable, offset, &bytes[..arrived]);
        }
        self.seen = self.durable.clone();
    }
}

fn put(file: &mut Vec<u8>, offset: usize, bytes: &[u8]) {
    let end = offset + bytes.len();
    if file.len() < end {
        file.resize(end, 0);
    }
    file[offset..end].copy_from_slice(bytes);
}

impl Disk for FaultyDisk {
    fn names(&self) -> io::Result<Vec<String>> {
        Ok(self.lock().names.keys().cloned().collect())
    }

    fn read(&self, name: &str) -> io::Result<Vec<u8>> {
        let inner = self.lock();
        Ok(inner.files[inner.index(name)?].seen.clone())
    }

    fn create(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let mut inner = self.lock();
        inner.operation()?;
        let index = inner.files.len();
        inner.files.push(Inode::default());
        inner.names.insert(name.to_owned(), index);
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            index,
        }))
    }

    fn open(&self, name: &str) -> io::Result<Box<dyn DiskFile>> {
        let index = self.lock().index(name)?;
        Ok(Box::new(FaultyFile {
            disk: self.clone(),
            index,
        }))
    }

    fn rename(&self, from: &str, to: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operation()?;
        let index = inner.index(from)?;
        inner.names.remove(from);
        inner.names.insert(to.to_owned(), index);
        Ok(())
    }

    fn remove(&self, name: &str) -> io::Result<()> {
        let mut inner = self.lock();
        inner.operation()?;
        inner.index(name)?;
        inner.names.remove(name);
        Ok(())
    }

    fn sync_dir(&self) -> io::Result<()> {
        let mut inner = self.lock();
        inner.sync()?;
        inner.durable_names = inner.names.clone();
        Ok(())
    }
}

struct FaultyFile {
    disk: FaultyDisk,
    index: usize,
}

impl DiskFile for FaultyFile {
    fn reserve(&mut self, length: u64) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.operation()?;
        let length = length as usize;
        let more = length.saturating_sub(inner.files[self.index].seen.len());
        if inner
            .capacity
            .is_some_and(|capacity| inner.taken() + more > capacity)
        {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let file = &mut inner.files[self.index];
        // Not `resize`, which a debug build does byte by byte.
        file.seen.extend_from_slice(&vec![0; more]);
        Ok(())
    }

    fn write_at(&mut self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.operation()?;
        if inner.writes_fail {
            return Err(io::Error::from_raw_os_error(5));
        }
        let offset = offset as usize;
        let file = &mut inner.files[self.index];
        assert!(
            offset + bytes.len() <= file.seen.len(),
            "a write beyond what was reserved"
        );
        put(&mut file.seen, offset, bytes);
        file.unsynced.push((offset, bytes.to_vec()));
        Ok(())
    }

    fn sync(&mut self) -> io::Result<()> {
        let mut inner = self.disk.lock();
        inner.sync()?;
        let file = &mut inner.files[self.index];
        file.durable = file.seen.clone();
        file.unsynced.clear();
        Ok(())
    }
}
