//! What the journal says: the entries, and the names of what they are about.
//!
//! An entry is stored as JSON under the number of its form (`{"v1": {"accepted": {…}}}`), so that a later form can
//! stand beside this one in the same file. What belongs to the core's types (assignments, outcomes, prior state) is
//! carried as plain JSON: the journal keeps it and never looks inside, so a change of those types is not a change of
//! the journal's format.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// One numbered try of a segment: the unit that the control plane commits and this agent accepts.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct AttemptKey {
    /// The job, as the control plane names it.
    pub job: String,
    /// `region/cluster`.
    pub target: String,
    /// Rises by fenced transactions only, over all segments of the target.
    pub number: u32,
}

impl fmt::Display for AttemptKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "attempt {} of job {} on {}",
            self.number, self.job, self.target
        )
    }
}

/// Which half of a step acts. A step and its undo must never be taken for each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Half {
    /// The step itself.
    Apply,
    /// Its reversal.
    Undo,
}

/// What one agent wrote down, in order. Times are wall-clock milliseconds, for people and for retention only.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", rename_all_fields = "camelCase")]
pub enum Entry {
    /// The highest token seen, written before acting on the message that carried it.
    Fence {
        /// Rises when an operator restores the control plane's store.
        incarnation: u64,
        /// Number of the leader's term.
        epoch: u64,
        /// The highest revision of the store that any message carried.
        store_revision: u64,
    },
    /// The attempt is this agent's to run. A repeat is answered from here.
    Accepted {
        /// Which attempt.
        attempt: AttemptKey,
        /// The whole assignment, so that a restarted agent needs nobody to go on.
        assignment: Value,
        /// When.
        at: u64,
    },
    /// An effect is about to begin.
    StepIntent {
        /// Which attempt.
        attempt: AttemptKey,
        /// Which step.
        step: String,
        /// The step, or its undo.
        half: Half,
        /// Tries of a step below one attempt are the agent's own; the first is 1.
        try_number: u32,
        /// What stood there before, for the undo.
        before: Value,
        /// When.
        at: u64,
    },
    /// Something learned while the outcome is open. Written without reserved space.
    Evidence {
        /// Which attempt.
        attempt: AttemptKey,
        /// Which step.
        step: String,
        /// The step, or its undo.
        half: Half,
        /// What was seen.
        data: Value,
    },
    /// How the last intent of this step ended.
    StepOutcome {
        /// Which attempt.
        attempt: AttemptKey,
        /// Which step.
        step: String,
        /// The step, or its undo.
        half: Half,
        /// The outcome.
        outcome: Value,
        /// When.
        at: u64,
    },
    /// How the segment ended.
    SegmentOutcome {
        /// Which attempt.
        attempt: AttemptKey,
        /// The outcome.
        outcome: Value,
        /// When.
        at: u64,
    },
    /// The control plane has stored the end of this attempt.
    Acked {
        /// Which attempt.
        attempt: AttemptKey,
        /// When.
        at: u64,
    },
    /// The attempt is closed for ever, with this answer. It may never have been accepted.
    Tombstone {
        /// Which attempt.
        attempt: AttemptKey,
        /// What the control plane was told.
        answer: Value,
        /// When.
        at: u64,
    },
}

impl Entry {
    /// The attempt this entry is about. A fence is about none.
    pub fn attempt(&self) -> Option<&AttemptKey> {
        match self {
            Self::Fence { .. } => None,
            Self::Accepted { attempt, .. }
            | Self::StepIntent { attempt, .. }
            | Self::Evidence { attempt, .. }
            | Self::StepOutcome { attempt, .. }
            | Self::SegmentOutcome { attempt, .. }
            | Self::Acked { attempt, .. }
            | Self::Tombstone { attempt, .. } => Some(attempt),
        }
    }
}

#[derive(Serialize)]
#[serde(rename_all = "lowercase")]
enum Written<'a> {
    V1(&'a Entry),
}

#[derive(Deserialize)]
#[serde(rename_all = "lowercase")]
enum Read {
    V1(Entry),
}

/// The bytes of an entry.
pub(super) fn to_bytes(entry: &Entry) -> Result<Vec<u8>, serde_json::Error> {
    serde_json::to_vec(&Written::V1(entry))
}

/// The entry in `bytes`, whose checksum holds. A failure means that a later version wrote it.
pub(super) fn from_bytes(bytes: &[u8]) -> Result<Entry, serde_json::Error> {
    let Read::V1(entry) = serde_json::from_slice(bytes)?;
    Ok(entry)
}

/// Names one journal file for ever: 128 random bits, drawn by the caller. Another id means lost records.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct JournalId(pub u128);

impl fmt::Display for JournalId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:032x}", self.0)
    }
}

/// Text that is no journal id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a journal id: 32 hex digits")]
pub struct NotAJournalId(pub String);

impl FromStr for JournalId {
    type Err = NotAJournalId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let refused = || NotAJournalId(text.to_owned());
        if text.len() != 32 || !text.bytes().all(|b| b.is_ascii_hexdigit()) {
            return Err(refused());
        }
        u128::from_str_radix(text, 16)
            .map(Self)
            .map_err(|_| refused())
    }
}

impl Serialize for JournalId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for JournalId {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn entries_of_the_first_form_load_for_ever() {
        let fixture = include_str!("../../tests/fixtures/journal-v1.jsonl");
        let mut lines = 0;
        for line in fixture.lines() {
            let entry = from_bytes(line.as_bytes()).expect(line);
            let again = to_bytes(&entry).expect("an entry is JSON");
            assert_eq!(
                String::from_utf8_lossy(&again),
                line,
                "read and written again, it is the same"
            );
            lines += 1;
        }
        assert_eq!(lines, 8, "one line for each kind of entry");
    }

    #[test]
    fn an_entry_of_an_unheard_of_form_is_refused() {
        assert!(from_bytes(br#"{"v2":{"accepted":{}}}"#).is_err());
        assert!(from_bytes(br#"{"v1":{"promised":{}}}"#).is_err());
    }

    #[test]
    fn an_id_is_32_hex_digits() {
        let id = JournalId(0xab);
        assert_eq!(id.to_string(), "000000000000000000000000000000ab");
        assert_eq!(id.to_string().parse(), Ok(id));
        assert!("ab".parse::<JournalId>().is_err());
        assert!(
            "+00000000000000000000000000000ab"
                .parse::<JournalId>()
                .is_err()
        );
    }
}
