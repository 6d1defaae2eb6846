//! Writing a whole journal file anew: a first one, one in place of what is set aside, and a compacted one.
//!
//! The file is written and synced under another name and then renamed, so that a crash leaves the old one or the new
//! one. Compaction keeps id and sequences: to the control plane it never happened.

use std::collections::BTreeSet;
use std::time::Duration;

use super::disk::{Disk, DiskFile};
use super::entry::{AttemptKey, Entry, JournalId};
use super::load::{self, Contents, MAKING, NAME, io};
use super::promises::Promises;
use super::state::Fence;
use super::{CHUNK, Error, Header, Journal, Replaces, SetAside, encode_entry, frame, is_full};

/// Attempts acknowledged longer ago than this leave the journal and the list.
pub const RETENTION: Duration = Duration::from_secs(7 * 24 * 60 * 60);

/// What a compaction did.
#[derive(Debug, PartialEq, Eq)]
pub struct Compacted {
    /// Entries that left the journal.
    pub dropped: usize,
    /// Entries that stayed.
    pub kept: usize,
}

impl Journal {
    /// Drops the entries of attempts acknowledged more than [`RETENTION`] before `now_ms`. Their tombstones stay:
    /// nothing that was stopped may ever start again. With [`Error::Full`] the journal goes on as it is.
    pub fn compact(&mut self, now_ms: u64) -> Result<Compacted, Error> {
        let contents = self.read_back()?;
        let before = contents.entries.len();
        let kept = retained(contents.entries, now_ms);
        let compacted = Compacted {
            dropped: before - kept.len(),
            kept: kept.len(),
        };
        if compacted.dropped > 0 {
            let header = Header {
                base: self.sequence,
                ..self.header.clone()
            };
            self.replace(header, kept, None)?;
        }
        Ok(compacted)
    }

    /// Puts this journal aside and begins a fresh one under `new_id`, because the control plane says that it cannot
    /// be trusted: its list is shorter than recorded, or it is a copy of another machine's.
    pub fn set_aside(&mut self, reason: &str, new_id: JournalId) -> Result<SetAside, Error> {
        let readable = self.read_back()?.into_entries();
        let names = self.disk.names().map_err(io("list the directory of"))?;
        let replaces = Replaces {
            file: load::next_aside(&names),
            reason: reason.to_owned(),
            id: Some(self.header.id),
        };
        let numbered = (1..).zip(carried(&readable)).collect();
        self.replace(
            load::fresh(new_id, Some(replaces.clone())),
            numbered,
            Some(&replaces.file),
        )?;
        Ok(SetAside { replaces, readable })
    }

    /// Forgets what this journal began in place of: everybody who must know knows. With [`Error::Full`] it goes on as it
    /// is.
    pub fn forget_replaced(&mut self) -> Result<(), Error> {
        if self.header.replaces.is_none() {
            return Ok(());
        }
        let entries = self.read_back()?.entries;
        let header = Header {
            replaces: None,
            ..self.header.clone()
        };
        self.replace(header, entries, None)
    }

    /// Reads the file again, which must hold what this process wrote.
    fn read_back(&mut self) -> Result<Contents, Error> {
        self.refuse_after_failure()?;
        let contents = Contents::read(&self.disk.read(NAME).map_err(io("read back"))?)?;
        let reason = match &contents.damage {
            Some(reason) => reason.clone(),
            None if contents.sequence != self.sequence => {
                "records at its end are missing".to_owned()
            }
            None => return Ok(contents),
        };
        Err(self.fail(Error::Damaged { reason }))
    }

    fn replace(
        &mut self,
        header: Header,
        entries: Vec<(u64, Entry)>,
        aside: Option<&str>,
    ) -> Result<(), Error> {
        let image = Image::new(header, entries)?;
        let made = image.write(self.disk.as_ref()).and_then(|written| {
            put_in_place(self.disk.as_ref(), aside)?;
            Ok(written)
        });
        match made {
            Ok(written) => {
                self.file = written.file;
                self.allocated = written.allocated;
                self.used = image.bytes.len() as u64;
                self.sequence = image.sequence;
                self.header = image.header;
                self.promises = image.promises;
                Ok(())
            }
            Err(Error::Full { needed }) => Err(Error::Full { needed }),
            Err(other) => Err(self.fail(other)),
        }
    }
}

/// Makes a fresh journal, which names what it replaces; that file is renamed if it still has the journal's name.
pub(super) fn begin(
    disk: Box<dyn Disk>,
    header: Header,
    carried: &[Entry],
) -> Result<Journal, Error> {
    let aside = header
        .replaces
        .as_ref()
        .map(|replaces| replaces.file.clone());
    let image = Image::new(header, (1..).zip(carried.iter().cloned()).collect())?;
    let written = image.write(disk.as_ref())?;
    let standing = disk
        .names()
        .map_err(io("list the directory of"))?
        .iter()
        .any(|name| name == NAME);
    put_in_place(disk.as_ref(), aside.as_deref().filter(|_| standing))?;
    Ok(Journal {
        disk,
        file: written.file,
        used: image.bytes.len() as u64,
        allocated: written.allocated,
        sequence: image.sequence,
        header: image.header,
        promises: image.promises,
        failed: false,
    })
}

/// What a fresh journal takes over from one that was set aside: the highest fence and nothing else. An agent that has
/// seen an epoch acts on no lower one, whatever became of its journal.
pub(super) fn carried(readable: &[Entry]) -> Vec<Entry> {
    Fence::highest(readable)
        .map(Entry::from)
        .into_iter()
        .collect()
}

/// A whole file in memory.
struct Image {
    header: Header,
    bytes: Vec<u8>,
    sequence: u64,
    promises: Promises,
}

struct Written {
    file: Box<dyn super::DiskFile>,
    allocated: u64,
}

impl Image {
    fn new(header: Header, entries: Vec<(u64, Entry)>) -> Result<Self, Error> {
        let payload = serde_json::to_vec(&header).map_err(Error::Encode)?;
        let mut bytes = frame::encode(0, &payload).map_err(|long| Error::TooLong {
            length: long.length,
        })?;
        for (sequence, entry) in &entries {
            bytes.extend(encode_entry(*sequence, entry)?);
        }
        let last = entries.last().map_or(0, |(sequence, _)| *sequence);
        let promises = Promises::after(entries.iter().map(|(_, entry)| entry));
        Ok(Self {
            sequence: header.base.max(last),
            header,
            bytes,
            promises,
        })
    }

    fn write(&self, disk: &dyn Disk) -> Result<Written, Error> {
        let mut file = disk.create(MAKING).map_err(io("create"))?;
        let needed = self.bytes.len() as u64 + self.promises.bytes();
        let allocated = match reserve(&mut *file, needed) {
            Ok(allocated) => allocated,
            Err(error) => {
                disk.remove(MAKING).map_err(io("remove the rest of"))?;
                return Err(error);
            }
        };
        file.write_at(0, &self.bytes).map_err(io("write to"))?;
        file.sync().map_err(Error::Fsync)?;
        Ok(Written { file, allocated })
    }
}

/// Reserves a whole chunk, or just what is needed where the disk is nearly full: an agent with a
/// damaged journal must be able to start there, and a compaction to free space.
fn reserve(file: &mut dyn DiskFile, needed: u64) -> Result<u64, Error> {
    for length in [needed.next_multiple_of(CHUNK), needed] {
        match file.reserve(length) {
            Ok(()) => return Ok(length),
            Err(error) if is_full(&error) => {}
            Err(source) => {
                return Err(Error::Io {
                    doing: "reserve room in",
                    source,
                });
            }
        }
    }
    Err(Error::Full { needed })
}

fn put_in_place(disk: &dyn Disk, aside: Option<&str>) -> Result<(), Error> {
    if let Some(aside) = aside {
        disk.rename(NAME, aside).map_err(io("set aside"))?;
        // Without this the second rename could last and the first not, and the old file would be gone.
        disk.sync_dir().map_err(Error::Fsync)?;
    }
    disk.rename(MAKING, NAME).map_err(io("rename"))?;
    disk.sync_dir().map_err(Error::Fsync)
}

/// What stays: everything of attempts that are open or were acknowledged lately, all tombstones, the highest fence.
fn retained(entries: Vec<(u64, Entry)>, now_ms: u64) -> Vec<(u64, Entry)> {
    let cutoff = now_ms.saturating_sub(RETENTION.as_millis() as u64);
    let old: BTreeSet<AttemptKey> = entries
        .iter()
        .filter_map(|(_, entry)| match entry {
            Entry::Acked { attempt, at } if *at < cutoff => Some(attempt.clone()),
            _ => None,
        })
        .collect();
    let stopped: BTreeSet<AttemptKey> = entries
        .iter()
        .filter(|(_, entry)| matches!(entry, Entry::Tombstone { .. }))
        .filter_map(|(_, entry)| entry.attempt().cloned())
        .collect();
    let highest = Fence::highest(entries.iter().map(|(_, entry)| entry));
    let last_fence = entries
        .iter()
        .rposition(|(_, entry)| matches!(entry, Entry::Fence { .. }));
    let keeps = |entry: &Entry| match (entry, entry.attempt()) {
        (Entry::Tombstone { .. }, _) | (_, None) => true,
        // Without it a kept tombstone would look unacknowledged again.
        (Entry::Acked { .. }, Some(attempt)) => !old.contains(attempt) || stopped.contains(attempt),
        (_, Some(attempt)) => !old.contains(attempt),
    };
    entries
        .into_iter()
        .enumerate()
        .filter_map(|(index, (sequence, entry))| match entry {
            Entry::Fence { .. } if Some(index) != last_fence => None,
            Entry::Fence { .. } => highest.map(|fence| (sequence, Entry::from(fence))),
            other => keeps(&other).then_some((sequence, other)),
        })
        .collect()
}
