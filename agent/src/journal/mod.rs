//! The agent's journal: what it was given, what it is about to do, and how that ended, on disk *before* anyone acts
//! on it or hears of it.
//!
//! After any crash the journal opens to a prefix of what was written ([`frame`] tells a torn tail from damage), and an
//! entry whose append returned is in that prefix. Three rules carry this:
//!
//! | rule | because |
//! |---|---|
//! | `append` returns after `fdatasync` | an effect that no record foretells can never be found again |
//! | room for an outcome is reserved with its intent ([`promises`]) | a full disk must stop us before an effect, not after |
//! | after a failed write or sync the journal refuses everything, and the agent exits | a later sync could succeed without the lost bytes |
//!
//! A damaged journal, or one that the control plane knows to be cut, is **set aside**: the file gets another name, a
//! fresh one with a new id takes its place, and everything the old one may have held is *unknown*, never "not
//! started". Only the fence (the highest epoch seen) is carried over.
//!
//! The calls block on the disk: callers use `spawn_blocking` or a thread of the journal's own. What the entries mean
//! is in [`state`]; who writes which, and when, is the runner's. An existing library was considered and refused: a
//! key-value store brings its own recovery, which cuts damage silently where we must report it.

mod disk;
mod entry;
#[cfg(test)]
pub(crate) mod faulty;
mod frame;
mod load;
mod promises;
mod rewrite;
pub mod state;
#[cfg(test)]
mod tests;

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

pub use disk::{Disk, DiskFile, LockError, RealDisk};
pub use entry::{AttemptKey, Entry, Half, JournalId, NotAJournalId};
pub use promises::OUTCOME_ROOM;
pub use rewrite::{Compacted, RETENTION};

use promises::Promises;

/// Space is taken from the disk in steps of this size, so that most appends change no file length.
const CHUNK: u64 = 1 << 20;
/// The longest entry. Prior state is the largest part of one, and a Kubernetes object ends at 1.5 MiB.
const LONGEST_ENTRY: usize = 4 << 20;

/// An open journal. One writer; the directory is locked for as long as this lives.
pub struct Journal {
    disk: Box<dyn Disk>,
    file: Box<dyn DiskFile>,
    header: Header,
    /// Sequence of the last entry.
    sequence: u64,
    /// Where the next frame goes.
    used: u64,
    /// Up to where the disk has promised us room.
    allocated: u64,
    promises: Promises,
    /// Set by the first failed write or sync, and never taken back.
    failed: bool,
}

/// The first frame of a file.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Header {
    /// Raised by a change that this version could not read.
    format: u32,
    id: JournalId,
    /// The highest sequence when this file was written. Up to it numbers may be missing (compacted), beyond it none.
    base: u64,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    replaces: Option<Replaces>,
}

/// Why a journal does not begin at the beginning.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Replaces {
    /// Name of the file that was set aside, in the same directory.
    pub file: String,
    /// The reason, for people.
    pub reason: String,
    /// The id of that journal, where it could be read.
    pub id: Option<JournalId>,
}

/// What [`Journal::open`] found.
pub struct Opened {
    /// Ready for appending.
    pub journal: Journal,
    /// Every entry of the journal, in order, also those that a fresh journal carried over.
    pub replayed: Vec<Entry>,
    /// Present when this open found that earlier entries may be missing. The file says so until everybody who must know
    /// does: see [`Journal::replaces`].
    pub damage: Option<Damage>,
}

/// Earlier entries may be missing; the journal has a new id.
#[derive(Debug, PartialEq)]
pub enum Damage {
    /// The journal was damaged and has been set aside at this open.
    Quarantined(SetAside),
    /// There is no journal, but one that was set aside earlier: a crash in between, or somebody took the file away.
    Missing(SetAside),
}

/// A journal that is kept for reading only.
#[derive(Debug, PartialEq)]
pub struct SetAside {
    /// Where it is and why.
    pub replaces: Replaces,
    /// What can still be read of it, up to the damage. More may have been in it.
    pub readable: Vec<Entry>,
}

/// Why the journal did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another process has it.
    #[error(transparent)]
    Lock(#[from] LockError),
    /// The disk is full. Nothing was written, and what was promised before still holds.
    #[error("no room in the journal for {needed} bytes: the disk is full")]
    Full {
        /// How many bytes the file would need.
        needed: u64,
    },
    /// The entry is longer than any entry may be.
    #[error("an entry of {length} bytes is longer than the journal takes ({LONGEST_ENTRY})")]
    TooLong {
        /// Its length.
        length: usize,
    },
    /// The entry is not JSON.
    #[error("encode a journal entry")]
    Encode(#[source] serde_json::Error),
    /// What was written may or may not be on the disk. The process must exit and open the journal afresh.
    #[error("sync the journal to disk")]
    Fsync(#[source] io::Error),
    /// The file system failed in another way. The process must exit.
    #[error("{doing} the journal")]
    Io {
        /// What was being done.
        doing: &'static str,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// An earlier write or sync failed; what the file holds is not known to this process.
    #[error("the journal failed earlier and takes nothing until the agent is started again")]
    Failed,
    /// A later version of the agent wrote this journal. It is left as it is.
    #[error("the journal was written by a later version of the agent (record {sequence})")]
    Later {
        /// Which record cannot be read.
        sequence: u64,
        /// Why not.
        #[source]
        source: serde_json::Error,
    },
    /// A later version of the agent wrote this journal. It is left as it is.
    #[error("the journal has format {format}; this agent reads format {FORMAT}")]
    LaterFormat {
        /// Its format.
        format: u32,
    },
    /// The file on disk is not what this process wrote to it. It is set aside at the next open.
    #[error("the journal was damaged while it was open: {reason}")]
    Damaged {
        /// What does not fit.
        reason: String,
    },
}

/// The format that this version writes, and the only one it reads.
const FORMAT: u32 = 1;

impl Journal {
    /// Locks `dir`, reads what is there and makes it ready for appending. `new_id` is asked only when a fresh journal
    /// begins.
    pub fn open(dir: &Path, new_id: impl FnOnce() -> JournalId) -> Result<Opened, Error> {
        Self::open_on(Box::new(RealDisk::lock(dir)?), new_id)
    }

    /// As [`Journal::open`], on a disk that the caller brings.
    pub fn open_on(
        disk: Box<dyn Disk>,
        new_id: impl FnOnce() -> JournalId,
    ) -> Result<Opened, Error> {
        load::open(disk, new_id)
    }

    /// Writes one entry and returns its sequence when it is on the disk.
    pub fn append(&mut self, entry: &Entry) -> Result<u64, Error> {
        self.append_many(std::slice::from_ref(entry))
    }

    /// Writes entries with one sync and returns the last one's sequence. A crash keeps a prefix of them.
    pub fn append_many(&mut self, entries: &[Entry]) -> Result<u64, Error> {
        self.refuse_after_failure()?;
        let mut frames = Vec::new();
        let mut promises = self.promises.clone();
        let mut sequence = self.sequence;
        for entry in entries {
            sequence += 1;
            frames.extend(encode_entry(sequence, entry)?);
            promises.apply(entry);
        }
        self.make_room(frames.len() as u64, &promises)?;
        self.write_and_sync(&frames)?;
        self.used += frames.len() as u64;
        self.sequence = sequence;
        self.promises = promises;
        Ok(sequence)
    }

    /// The id of this journal.
    pub fn id(&self) -> JournalId {
        self.header.id
    }

    /// The sequence of the last entry, 0 before the first. It never falls for one id.
    pub fn highest_sequence(&self) -> u64 {
        self.sequence
    }

    /// What this journal began in place of, until [`Journal::forget_replaced`].
    pub fn replaces(&self) -> Option<&Replaces> {
        self.header.replaces.as_ref()
    }

    /// Bytes of entries in the file: what compaction could make smaller.
    pub fn bytes(&self) -> u64 {
        self.used
    }

    fn refuse_after_failure(&self) -> Result<(), Error> {
        if self.failed {
            Err(Error::Failed)
        } else {
            Ok(())
        }
    }

    /// Room for `frames` and for everything promised after them.
    fn make_room(&mut self, frames: u64, after: &Promises) -> Result<(), Error> {
        let needed = self.used + frames + after.bytes();
        match self.grow_to(needed) {
            // The promise that these frames settle was made for them.
            Err(Error::Full { .. })
                if after.bytes() < self.promises.bytes()
                    && self.used + frames <= self.allocated =>
            {
                Ok(())
            }
            other => other,
        }
    }

    fn grow_to(&mut self, needed: u64) -> Result<(), Error> {
        if needed <= self.allocated {
            return Ok(());
        }
        for length in [needed.next_multiple_of(CHUNK), needed] {
            match self.file.reserve(length) {
                Ok(()) => {
                    self.allocated = length;
                    return Ok(());
                }
                Err(error) if is_full(&error) => {}
                Err(source) => {
                    return Err(self.fail(Error::Io {
                        doing: "reserve room in",
                        source,
                    }));
                }
            }
        }
        Err(Error::Full { needed })
    }

    fn write_and_sync(&mut self, frames: &[u8]) -> Result<(), Error> {
        if let Err(source) = self.file.write_at(self.used, frames) {
            return Err(self.fail(Error::Io {
                doing: "write to",
                source,
            }));
        }
        self.file
            .sync()
            .map_err(|source| self.fail(Error::Fsync(source)))
    }

    fn fail(&mut self, error: Error) -> Error {
        self.failed = true;
        error
    }
}

fn encode_entry(sequence: u64, entry: &Entry) -> Result<Vec<u8>, Error> {
    let payload = entry::to_bytes(entry).map_err(Error::Encode)?;
    if payload.len() > LONGEST_ENTRY {
        return Err(Error::TooLong {
            length: payload.len(),
        });
    }
    frame::encode(sequence, &payload).map_err(|long| Error::TooLong {
        length: long.length,
    })
}

fn is_full(error: &io::Error) -> bool {
    use io::ErrorKind as Kind;
    matches!(
        error.kind(),
        Kind::StorageFull | Kind::QuotaExceeded | Kind::FileTooLarge
    )
}
