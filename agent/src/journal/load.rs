//! Opening: from whatever lies in the directory to a journal that can be appended to.
//!
//! | found | done |
//! |---|---|
//! | a journal, whole or with a torn tail | the tail is cleared |
//! | a damaged journal | set aside; a fresh one with a new id, and [`Damage::Quarantined`] |
//! | no journal, but one set aside | a fresh one with a new id, and [`Damage::Missing`] |
//! | nothing | a fresh one |
//! | a journal of a later version | refused and left as it is |
//!
//! A journal comes into being under a name of its own and is renamed when it is whole, so its header is never torn.

use super::disk::Disk;
use super::entry::{self, Entry, JournalId};
use super::frame::{self, Scan, Tail};
use super::promises::Promises;
use super::rewrite;
use super::{Damage, Error, FORMAT, Header, Journal, Opened, Replaces, SetAside};

/// The journal.
pub(super) const NAME: &str = "journal.log";
/// A journal in the making; one found at open is the rest of a crash.
pub(super) const MAKING: &str = "journal.log.new";
/// What journals that were set aside are called, with a rising number behind.
pub(super) const ASIDE: &str = "journal.log.quarantined-";

pub(super) fn open(
    disk: Box<dyn Disk>,
    new_id: impl FnOnce() -> JournalId,
) -> Result<Opened, Error> {
    let names = disk.names().map_err(io("list the directory of"))?;
    if names.iter().any(|name| name == MAKING) {
        disk.remove(MAKING).map_err(io("remove the rest of"))?;
    }
    if names.iter().any(|name| name == NAME) {
        let bytes = disk.read(NAME).map_err(io("read"))?;
        let contents = Contents::read(&bytes)?;
        return match contents.damage {
            None => resume(disk, contents),
            Some(_) => quarantine(disk, contents, &names, new_id()),
        };
    }
    match last_aside(&names) {
        Some(number) => replace_missing(disk, number, new_id()),
        None => Ok(Opened {
            journal: rewrite::begin(disk, fresh(new_id(), None), &[])?,
            replayed: Vec::new(),
            damage: None,
        }),
    }
}

/// What a file holds, read as far as it goes.
pub(super) struct Contents {
    pub(super) header: Option<Header>,
    /// With their sequences.
    pub(super) entries: Vec<(u64, Entry)>,
    pub(super) sequence: u64,
    used: usize,
    length: usize,
    torn: bool,
    pub(super) damage: Option<String>,
}

impl Contents {
    /// Fails only for what a later version wrote; damage is a result.
    pub(super) fn read(bytes: &[u8]) -> Result<Self, Error> {
        let Scan { frames, end, tail } = frame::scan(bytes);
        let mut contents = Self {
            header: None,
            entries: Vec::new(),
            sequence: 0,
            used: end,
            length: bytes.len(),
            torn: tail == Tail::Torn,
            damage: match tail {
                Tail::Clean | Tail::Torn => None,
                Tail::Damaged(reason) => Some(format!("{reason}, at byte {end}")),
            },
        };
        let mut frames = frames.into_iter();
        let Some(first) = frames.next().filter(|frame| frame.sequence == 0) else {
            contents
                .damage
                .get_or_insert_with(|| "the header is missing".to_owned());
            return Ok(contents);
        };
        let header = read_header(&bytes[first.payload])?;
        contents.sequence = header.base;
        let (base, mut last) = (header.base, 0);
        contents.header = Some(header);
        for frame in frames {
            if !follows(last, frame.sequence, base) {
                contents.damage = Some(format!(
                    "record {} stands where one after {last} belongs",
                    frame.sequence
                ));
                break;
            }
            last = frame.sequence;
            let entry =
                entry::from_bytes(&bytes[frame.payload]).map_err(|source| Error::Later {
                    sequence: last,
                    source,
                })?;
            contents.entries.push((last, entry));
        }
        contents.sequence = contents.sequence.max(last);
        Ok(contents)
    }

    pub(super) fn into_entries(self) -> Vec<Entry> {
        self.entries.into_iter().map(|(_, entry)| entry).collect()
    }
}

/// Whether `next` may stand behind `last`. Up to `base`, compaction may have left gaps.
fn follows(last: u64, next: u64, base: u64) -> bool {
    if next <= base {
        next > last
    } else {
        next == last.max(base) + 1
    }
}

fn read_header(payload: &[u8]) -> Result<Header, Error> {
    #[derive(serde::Deserialize)]
    struct Format {
        format: u32,
    }
    let later = |source| Error::Later {
        sequence: 0,
        source,
    };
    let Format { format } = serde_json::from_slice(payload).map_err(later)?;
    if format != FORMAT {
        return Err(Error::LaterFormat { format });
    }
    serde_json::from_slice(payload).map_err(later)
}

fn resume(disk: Box<dyn Disk>, contents: Contents) -> Result<Opened, Error> {
    let Some(header) = contents.header.clone() else {
        return Err(Error::Damaged {
            reason: "the header is missing".to_owned(),
        });
    };
    let mut file = disk.open(NAME).map_err(io("open"))?;
    if contents.torn {
        // Zeros, not a shorter file: the room that was promised stays ours.
        let zeros = vec![0; contents.length - contents.used];
        file.write_at(contents.used as u64, &zeros)
            .map_err(io("clear the torn end of"))?;
    }
    // What was read may still be in memory only, when the last process died between its write and its sync.
    file.sync().map_err(Error::Fsync)?;
    disk.sync_dir().map_err(Error::Fsync)?;
    let mut journal = Journal {
        disk,
        file,
        header,
        sequence: contents.sequence,
        used: contents.used as u64,
        allocated: contents.length as u64,
        promises: Promises::after(contents.entries.iter().map(|(_, entry)| entry)),
        failed: false,
    };
    match journal.grow_to(journal.used + journal.promises.bytes()) {
        // A full disk must not keep the agent from telling what it knows.
        Ok(()) | Err(Error::Full { .. }) => {}
        Err(other) => return Err(other),
    }
    Ok(Opened {
        journal,
        replayed: contents.into_entries(),
        damage: None,
    })
}

fn quarantine(
    disk: Box<dyn Disk>,
    contents: Contents,
    names: &[String],
    id: JournalId,
) -> Result<Opened, Error> {
    let replaces = Replaces {
        file: next_aside(names),
        reason: contents.damage.clone().unwrap_or_default(),
        id: contents.header.as_ref().map(|header| header.id),
    };
    let readable = contents.into_entries();
    let carried = rewrite::carried(&readable);
    let journal = rewrite::begin(disk, fresh(id, Some(replaces.clone())), &carried)?;
    Ok(Opened {
        journal,
        replayed: carried,
        damage: Some(Damage::Quarantined(SetAside { replaces, readable })),
    })
}

fn replace_missing(disk: Box<dyn Disk>, number: u32, id: JournalId) -> Result<Opened, Error> {
    let file = format!("{ASIDE}{number}");
    let contents = Contents::read(&disk.read(&file).map_err(io("read what was set aside of"))?)?;
    let replaces = Replaces {
        file,
        reason: "the journal is missing; this is the last one that was set aside".to_owned(),
        id: contents.header.as_ref().map(|header| header.id),
    };
    let readable = contents.into_entries();
    let carried = rewrite::carried(&readable);
    let journal = rewrite::begin(disk, fresh(id, Some(replaces.clone())), &carried)?;
    Ok(Opened {
        journal,
        replayed: carried,
        damage: Some(Damage::Missing(SetAside { replaces, readable })),
    })
}

pub(super) fn fresh(id: JournalId, replaces: Option<Replaces>) -> Header {
    Header {
        format: FORMAT,
        id,
        base: 0,
        replaces,
    }
}

fn last_aside(names: &[String]) -> Option<u32> {
    names
        .iter()
        .filter_map(|name| name.strip_prefix(ASIDE)?.parse().ok())
        .max()
}

/// A name that no file has.
pub(super) fn next_aside(names: &[String]) -> String {
    format!(
        "{ASIDE}{}",
        last_aside(names).map_or(1, |number| number.saturating_add(1))
    )
}

pub(super) fn io(doing: &'static str) -> impl Fn(std::io::Error) -> Error {
    move |source| Error::Io { doing, source }
}
