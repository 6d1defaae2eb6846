//! Runbooks by name: those every build carries, and those that were pushed.

use std::collections::BTreeSet;

use aldis_core::ids::Digest;
use aldis_core::runbook::builtin;
use aldis_core::runbook::load::{Loaded, load};

use super::{Error, Kind, Services};
use crate::records::{self, StoredRunbook};
use crate::store::keys::{self, Name};
use crate::store::{Commit, Precondition, Record, Write};

/// Where a runbook comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Origin {
    /// Every build carries it.
    BuiltIn,
    /// Somebody pushed it.
    Pushed,
}

impl Origin {
    /// In words.
    pub fn words(self) -> &'static str {
        match self {
            Self::BuiltIn => "built in",
            Self::Pushed => "pushed",
        }
    }
}

/// A runbook as lists show it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Its name.
    pub name: String,
    /// Its version.
    pub version: u32,
    /// Digest of its content.
    pub digest: Digest,
    /// What it is for; of one that this build cannot run, that it cannot.
    pub title: String,
    /// Where it comes from.
    pub origin: Origin,
}

impl Services {
    /// Keeps a runbook under its name and version; true when it was there already.
    pub async fn push(&self, file: &str, text: &str, by: &str) -> Result<(Loaded, bool), Error> {
        let loaded = read(file, text)?;
        let metadata = &loaded.runbook.metadata;
        let (name, version) = (metadata.name.clone(), metadata.version);
        if let Some(ours) = built_in(&name)?
            && ours.runbook.metadata.version == version
        {
            return same_or_refused(loaded, &ours.digest, "built in");
        }
        let key = keys::runbook(&name, &version.to_string());
        let stored = StoredRunbook {
            format: 1,
            text: text.to_owned(),
            digest: loaded.digest.clone(),
            pushed_by: by.to_owned(),
        };
        let commit = Commit {
            preconditions: vec![Precondition::Absent(key.clone())],
            writes: vec![Write::put(key.clone(), records::write(&stored))],
        };
        if self.0.store.commit(commit).await?.is_committed() {
            return Ok((loaded, false));
        }
        match self.0.store.get(&key).await? {
            Some(record) => {
                let there: StoredRunbook = records::read(&record)?;
                same_or_refused(
                    loaded,
                    &there.digest,
                    &format!("pushed by {}", there.pushed_by),
                )
            }
            None => Err(Error::new(
                Kind::Unavailable,
                "somebody else changed that runbook just now",
            )),
        }
    }

    /// Every runbook, by name and version.
    pub async fn runbooks(&self) -> Result<Vec<Entry>, Error> {
        entries(&self.0.store.list(keys::RUNBOOKS).await?.records)
    }

    /// The runbook of a name, the newest version where none is given.
    pub async fn runbook(&self, wanted: &str) -> Result<(Loaded, Origin), Error> {
        find(wanted, &self.0.store.list(keys::RUNBOOKS).await?.records)
    }
}

/// Built in and pushed, by name and version. One that an earlier build took and this one refuses is named
/// as such: it must not hide the others.
fn entries(pushed: &[Record]) -> Result<Vec<Entry>, Error> {
    let mut all = Vec::new();
    for (name, text) in builtin::ALL {
        all.push(Entry::of(&read(name, text)?, Origin::BuiltIn));
    }
    for record in pushed {
        if let Some((name, version)) = named(record) {
            all.push(Entry::stored(record, name, version)?);
        }
    }
    all.sort_by(|a, b| (&a.name, a.version).cmp(&(&b.name, b.version)));
    Ok(all)
}

/// The one that is wanted. Judges no other.
fn find(wanted: &str, pushed: &[Record]) -> Result<(Loaded, Origin), Error> {
    let (name, version) = match wanted.split_once('@') {
        Some((name, version)) => (name, Some(number(wanted, version)?)),
        None => (wanted, None),
    };
    let fits = |found: u32| version.is_none_or(|version| version == found);
    let ours = built_in(name)?.filter(|ours| fits(ours.runbook.metadata.version));
    let newest = pushed
        .iter()
        .filter_map(|record| Some((named(record)?, record)))
        .filter(|((known, version), _)| known == name && fits(*version))
        .max_by_key(|((_, version), _)| *version);
    match (ours, newest) {
        (Some(ours), Some(((_, newest), _))) if ours.runbook.metadata.version > newest => {
            Ok((ours, Origin::BuiltIn))
        }
        (_, Some((_, record))) => Ok((stored(record)?, Origin::Pushed)),
        (Some(ours), None) => Ok((ours, Origin::BuiltIn)),
        (None, None) => Err(no_such(wanted, pushed)),
    }
}

impl Entry {
    /// Of one that this build can run.
    pub fn of(loaded: &Loaded, origin: Origin) -> Self {
        let metadata = &loaded.runbook.metadata;
        Self {
            name: metadata.name.clone(),
            version: metadata.version,
            digest: loaded.digest.clone(),
            title: metadata.title.clone().unwrap_or_default(),
            origin,
        }
    }

    fn stored(record: &Record, name: String, version: u32) -> Result<Self, Error> {
        let stored: StoredRunbook = records::read(record)?;
        let loaded = load(&format!("{name}@{version}"), &stored.text);
        Ok(match loaded {
            Ok(loaded) => Self::of(&loaded, Origin::Pushed),
            Err(found) => Self {
                title: format!(
                    "refused by this build ({} errors): `aldis runbook show {name}@{version}`",
                    found.len()
                ),
                digest: stored.digest,
                origin: Origin::Pushed,
                name,
                version,
            },
        })
    }
}

/// The name and version that a record is kept under.
fn named(record: &Record) -> Option<(String, u32)> {
    match record.key.name() {
        Some(Name::Runbook { name, version }) => Some((name, version.parse().ok()?)),
        _ => None,
    }
}

fn no_such(wanted: &str, pushed: &[Record]) -> Error {
    let ours = builtin::ALL.iter().filter_map(|(name, _)| {
        let version = built_in(name).ok()??.runbook.metadata.version;
        Some(format!("{name}@{version}"))
    });
    let pushed = pushed.iter().filter_map(named);
    let pushed = pushed.map(|(name, version)| format!("{name}@{version}"));
    let names: BTreeSet<String> = ours.chain(pushed).collect();
    let names: Vec<String> = names.into_iter().collect();
    Error::not_found(format!("there is no runbook `{wanted}`")).hint(format!(
        "there are: {}; a file is named by its path",
        names.join(", ")
    ))
}

/// Loads a text; every mistake in one refusal.
pub(super) fn read(file: &str, text: &str) -> Result<Loaded, Error> {
    load(file, text).map_err(|found| Error::new(Kind::Runbook, found.render()))
}

fn built_in(name: &str) -> Result<Option<Loaded>, Error> {
    let ours = builtin::ALL.iter().find(|(ours, _)| *ours == name);
    ours.map(|(name, text)| read(name, text)).transpose()
}

fn stored(record: &Record) -> Result<Loaded, Error> {
    let stored: StoredRunbook = records::read(record)?;
    let name = match named(record) {
        Some((name, version)) => format!("{name}@{version}"),
        None => record.key.to_string(),
    };
    read(&name, &stored.text)
}

fn same_or_refused(loaded: Loaded, there: &Digest, origin: &str) -> Result<(Loaded, bool), Error> {
    if *there == loaded.digest {
        return Ok((loaded, true));
    }
    let metadata = &loaded.runbook.metadata;
    let (name, version) = (&metadata.name, metadata.version);
    Err(Error::refused(format!(
        "{name}@{version} is there already with other content ({origin})"
    ))
    .hint(format!("raise `metadata.version` to {}", version + 1)))
}

fn number(wanted: &str, version: &str) -> Result<u32, Error> {
    version.parse().map_err(|_| {
        Error::usage(format!(
            "`{wanted}` names no version: write NAME@NUMBER, such as rollback-service@1"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn pushed(name: &str, version: u32, text: &str) -> Record {
        let stored = StoredRunbook {
            format: 1,
            text: text.to_owned(),
            digest: Digest::from("digest"),
            pushed_by: "mei".to_owned(),
        };
        let key = keys::runbook(name, &version.to_string());
        Record::new(key, records::write(&stored), Revision(1), Revision(1))
    }

    /// A good runbook under this name and version.
    fn good(name: &str, version: u32) -> Record {
        let (ours, text) = builtin::ALL[0];
        let text = text
            .replacen(&format!("name: {ours}"), &format!("name: {name}"), 1)
            .replacen("version: 1", &format!("version: {version}"), 1);
        pushed(name, version, &text)
    }

    #[test]
    fn one_that_this_build_refuses_hides_no_other() {
        let all = [
            good("ours", 1),
            good("ours", 2),
            pushed("old", 1, "kind: Runbook"),
        ];
        let (found, origin) = find("ours", &all).unwrap();
        assert_eq!(
            (found.runbook.metadata.version, origin),
            (2, Origin::Pushed)
        );
        assert_eq!(find("ours@1", &all).unwrap().0.runbook.metadata.version, 1);
        let refused = find("old", &all).unwrap_err().to_string();
        assert!(refused.contains("old@1"), "{refused}");
        let listed = entries(&all).unwrap();
        let old = listed.iter().find(|entry| entry.name == "old").unwrap();
        assert!(old.title.contains("refused by this build"), "{old:?}");
        assert_eq!(listed.len(), 3 + builtin::ALL.len());
    }

    #[test]
    fn a_newer_one_of_ours_goes_before_an_older_one_that_was_pushed() {
        let (name, _) = builtin::ALL[0];
        let (_, origin) = find(name, &[]).unwrap();
        assert_eq!(origin, Origin::BuiltIn);
        let (found, origin) = find(name, &[good(name, 7)]).unwrap();
        assert_eq!(
            (found.runbook.metadata.version, origin),
            (7, Origin::Pushed)
        );
    }
}
