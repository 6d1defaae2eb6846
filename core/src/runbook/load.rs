//! From the text of a file to a runbook that is worth planning, or to everything that is wrong with it.
//!
//! ```text
//! text ─▶ tree (places, limits) ─▶ checks ─▶ typed runbook, digest
//!               └──────── all mistakes at once ◀──┘
//! ```
//!
//! The digest is of the bytes of the file: it stays what it was when a later build learns another
//! field, and anybody can check it with `sha256sum`.

use super::codes::Code;
use super::diagnostics::{Diagnostics, Finding};
use super::lint::{self, Catalogue};
use super::{Runbook, fields, shape, tree};
use crate::canonical;
use crate::ids::Digest;

/// A runbook that holds every rule of the format.
#[derive(Clone, Debug, PartialEq)]
pub struct Loaded {
    /// What was written.
    pub runbook: Runbook,
    /// SHA-256 of [`Self::text`].
    pub digest: Digest,
    /// The file as it was.
    pub text: String,
}

/// Reads one runbook. `source_name` is what messages call the file.
pub fn load(source_name: &str, text: &str) -> Result<Loaded, Diagnostics> {
    load_by(source_name, text, Catalogue::default())
}

pub(super) fn load_by(
    source_name: &str,
    text: &str,
    catalogue: Catalogue,
) -> Result<Loaded, Diagnostics> {
    let mut found = Diagnostics::new(source_name, text);
    let tree = tree::parse(text, &mut found);
    let runbook = tree.and_then(|tree| judge(&tree, catalogue, &mut found));
    found.sort();
    match runbook {
        Some(runbook) if found.is_empty() => Ok(Loaded {
            runbook,
            digest: canonical::hash(text.as_bytes()),
            text: text.to_owned(),
        }),
        _ => Err(found),
    }
}

/// Every check, and the typed runbook where nothing is wrong.
fn judge(tree: &tree::Node, catalogue: Catalogue, found: &mut Diagnostics) -> Option<Runbook> {
    shape::check(tree, &fields::RUNBOOK, found);
    lint::check(tree, catalogue, found);
    if found.is_empty() {
        typed(tree, found)
    } else {
        None
    }
}

/// The typed runbook of a tree that passed the checks. Should a check have a hole, this says so.
fn typed(tree: &tree::Node, found: &mut Diagnostics) -> Option<Runbook> {
    serde_json::from_value(tree.json())
        .map_err(|error| {
            let span = tree.span.clone();
            found.push(Finding::new(Code::WrongType, span, error.to_string()));
        })
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::builtin;

    #[test]
    fn the_library_loads_and_its_digest_is_of_the_bytes() {
        for (name, text) in builtin::ALL {
            let loaded = load(name, text).unwrap_or_else(|found| panic!("{found}"));
            assert_eq!(loaded.runbook.metadata.name, name);
            assert_eq!(loaded.digest, canonical::hash(text.as_bytes()));
        }
    }
}
