//! Cuts a group of commits into transactions that the store will take.
//!
//! etcd counts operations over nesting: the larger of a transaction's compares and writes, plus the
//! same of the largest transaction nested in it, may be [`MAX_OPERATIONS`]. It checks *all* compares,
//! nested ones too, before it writes anything, and refuses two writes of one key. So a commit that
//! looks at or writes what an earlier one of the same group writes begins another transaction; then
//! a group means the same as its commits made one after the other, on every adapter.

use std::collections::BTreeSet;
use std::ops::Range;

use super::{Commit, Error, Group, Key, MAX_BYTES, MAX_OPERATIONS, Precondition, Result, Write};

/// Operations that one commit of a group may have: one is taken by its place in the group, one is
/// kept so that two commits fit together.
pub const MAX_GROUPED_OPERATIONS: usize = MAX_OPERATIONS - 2;

/// Refuses a commit that no adapter takes: too many operations, too large, one key written twice.
pub fn check(commit: &Commit) -> Result<()> {
    check_against(commit, MAX_OPERATIONS)
}

/// The ranges of a group's commits that go into one transaction each. Refuses the whole group,
/// before anything is sent, where one commit cannot go into any.
pub fn cut(group: &Group) -> Result<Vec<Range<usize>>> {
    for commit in &group.commits {
        check_against(commit, MAX_GROUPED_OPERATIONS)?;
    }
    if group.fence.len() > MAX_GROUPED_OPERATIONS {
        return Err(too_large("preconditions in its fence", group.fence.len()));
    }
    let mut ranges = Vec::new();
    let mut start = 0;
    let mut chunk = Chunk::behind(&group.fence);
    for (index, commit) in group.commits.iter().enumerate() {
        if !chunk.take(commit) {
            ranges.push(start..index);
            start = index;
            chunk = Chunk::behind(&group.fence);
            if !chunk.take(commit) {
                return Err(too_large("operations beside its fence", operations(commit)));
            }
        }
    }
    if start < group.commits.len() {
        ranges.push(start..group.commits.len());
    }
    Ok(ranges)
}

/// What one transaction holds so far.
struct Chunk<'a> {
    fence: usize,
    commits: usize,
    largest: usize,
    bytes: usize,
    written: BTreeSet<&'a Key>,
}

impl<'a> Chunk<'a> {
    fn behind(fence: &[Precondition]) -> Self {
        Self {
            fence: fence.len(),
            commits: 0,
            largest: 0,
            bytes: fence.iter().map(|held| held.key().as_str().len()).sum(),
            written: BTreeSet::new(),
        }
    }

    /// Adds a commit where it fits, and says whether it did.
    fn take(&mut self, commit: &'a Commit) -> bool {
        let outer = self.fence.max(self.commits + 1);
        let largest = self.largest.max(operations(commit));
        let bytes = self.bytes + size(commit);
        if outer + largest > MAX_OPERATIONS || bytes > MAX_BYTES || self.touches_written(commit) {
            return false;
        }
        self.commits += 1;
        self.largest = largest;
        self.bytes = bytes;
        self.written.extend(commit.writes.iter().map(Write::key));
        true
    }

    fn touches_written(&self, commit: &Commit) -> bool {
        let compared = commit.preconditions.iter().map(Precondition::key);
        let written = commit.writes.iter().map(Write::key);
        compared
            .chain(written)
            .any(|key| self.written.contains(key))
    }
}

fn check_against(commit: &Commit, limit: usize) -> Result<()> {
    if operations(commit) > limit {
        return Err(too_large("operations", operations(commit)));
    }
    if size(commit) > MAX_BYTES {
        return Err(too_large("bytes", size(commit)));
    }
    let mut written = BTreeSet::new();
    match commit.writes.iter().find(|one| !written.insert(one.key())) {
        None => Ok(()),
        Some(twice) => Err(Error::Refused {
            doing: "commit",
            why: format!("`{}` is written twice", twice.key()),
        }),
    }
}

fn too_large(what: &str, count: usize) -> Error {
    Error::Refused {
        doing: "commit",
        why: format!("{count} {what} are more than one transaction holds"),
    }
}

fn operations(commit: &Commit) -> usize {
    commit.preconditions.len().max(commit.writes.len())
}

fn size(commit: &Commit) -> usize {
    let compared = commit.preconditions.iter().map(|one| one.key());
    let compared: usize = compared.map(|key| key.as_str().len()).sum();
    let written: usize = commit.writes.iter().map(write_size).sum();
    compared + written
}

fn write_size(write: &Write) -> usize {
    match write {
        Write::Put { key, value, .. } => key.as_str().len() + value.len(),
        Write::Delete { key } => key.as_str().len(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::Revision;

    fn put(key: usize, bytes: usize) -> Commit {
        Commit {
            preconditions: vec![Precondition::Absent(key_of(key))],
            writes: vec![Write::put(key_of(key), vec![0; bytes])],
        }
    }

    fn key_of(number: usize) -> Key {
        Key::raw(format!("k{number:04}"))
    }

    fn fence() -> Vec<Precondition> {
        vec![Precondition::Created {
            key: Key::raw("leader"),
            at: Revision(1),
        }]
    }

    fn lengths(group: &Group) -> Vec<usize> {
        cut(group)
            .expect("cut")
            .iter()
            .map(ExactSizeIterator::len)
            .collect()
    }

    #[test]
    fn a_full_transaction_holds_126_records_with_two_compares() {
        let commits = (0..300).map(|number| {
            let mut commit = put(number, 1);
            commit
                .preconditions
                .push(Precondition::Exists(Key::raw("session")));
            commit
        });
        let group = Group {
            fence: fence(),
            commits: commits.collect(),
        };
        assert_eq!(lengths(&group), [126, 126, 48]);
    }

    #[test]
    fn bytes_cut_before_the_limit() {
        let group = Group {
            fence: Vec::new(),
            commits: (0..5).map(|number| put(number, 400_000)).collect(),
        };
        assert_eq!(lengths(&group), [2, 2, 1]);
    }

    #[test]
    fn a_commit_that_looks_at_an_earlier_write_comes_after_it() {
        let mut second = put(1, 1);
        second.preconditions = vec![Precondition::Exists(key_of(0))];
        let group = Group {
            fence: Vec::new(),
            commits: vec![put(0, 1), second, put(1, 1), put(2, 1)],
        };
        assert_eq!(lengths(&group), [1, 1, 2]);
    }

    #[test]
    fn what_fits_nowhere_is_refused_before_anything_is_sent() {
        let large = put(1, MAX_BYTES + 1);
        let many = Commit {
            preconditions: Vec::new(),
            writes: (0..200)
                .map(|number| Write::delete(key_of(number)))
                .collect(),
        };
        let twice = Commit {
            preconditions: Vec::new(),
            writes: vec![Write::delete(key_of(1)), Write::put(key_of(1), "x")],
        };
        for commit in [large, many, twice] {
            assert!(matches!(check(&commit), Err(Error::Refused { .. })));
            let group = Group {
                fence: Vec::new(),
                commits: vec![put(0, 1), commit],
            };
            assert!(matches!(cut(&group), Err(Error::Refused { .. })));
        }
    }

    #[test]
    fn nothing_is_cut_into_nothing() {
        assert_eq!(lengths(&Group::default()), [] as [usize; 0]);
    }
}
