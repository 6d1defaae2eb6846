//! Runbooks by name: those every build carries, and those that were pushed.

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
    pub async fn runbooks(&self) -> Result<Vec<(Loaded, Origin)>, Error> {
        let mut all = Vec::new();
        for (name, text) in builtin::ALL {
            all.push((read(name, text)?, Origin::BuiltIn));
        }
        for record in self.0.store.list(keys::RUNBOOKS).await?.records {
            all.push((stored(&record)?, Origin::Pushed));
        }
        all.sort_by(|(a, _), (b, _)| place(a).cmp(&place(b)));
        Ok(all)
    }

    /// The runbook of a name, the newest version where none is given.
    pub async fn runbook(&self, wanted: &str) -> Result<(Loaded, Origin), Error> {
        let (name, version) = match wanted.split_once('@') {
            Some((name, version)) => (name, Some(number(wanted, version)?)),
            None => (wanted, None),
        };
        let fits = |loaded: &Loaded| {
            let metadata = &loaded.runbook.metadata;
            metadata.name == name && version.is_none_or(|version| version == metadata.version)
        };
        let all = self.runbooks().await?;
        let found = all.iter().rfind(|(loaded, _)| fits(loaded)).cloned();
        found.ok_or_else(|| {
            let names: Vec<String> = all
                .iter()
                .map(|(loaded, _)| place(loaded))
                .map(|(name, version)| format!("{name}@{version}"))
                .collect();
            Error::not_found(format!("there is no runbook `{wanted}`")).hint(format!(
                "there are: {}; a file is named by its path",
                names.join(", ")
            ))
        })
    }
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
    let name = match record.key.name() {
        Some(Name::Runbook { name, version }) => format!("{name}@{version}"),
        _ => record.key.to_string(),
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

fn place(loaded: &Loaded) -> (&str, u32) {
    let metadata = &loaded.runbook.metadata;
    (&metadata.name, metadata.version)
}

fn number(wanted: &str, version: &str) -> Result<u32, Error> {
    version.parse().map_err(|_| {
        Error::usage(format!(
            "`{wanted}` names no version: write NAME@NUMBER, such as rollback-service@1"
        ))
    })
}
