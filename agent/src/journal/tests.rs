//! What the journal promises when the machine does its worst: power loss, bit rot, failing and full disks.

use proptest::prelude::*;
use serde_json::json;

use super::faulty::{FaultyDisk, Kept};
use super::state::{Attempts, Fence};
use super::*;

const ID: JournalId = JournalId(1);
const OTHER_ID: JournalId = JournalId(2);
const ALL: Kept = Kept {
    bytes: usize::MAX,
    names: true,
};
const NOTHING: Kept = Kept {
    bytes: 0,
    names: false,
};
const DAY: u64 = 24 * 60 * 60 * 1000;

fn open(disk: &FaultyDisk) -> Result<Opened, Error> {
    Journal::open_on(disk.boxed(), || ID)
}

fn opened(disk: &FaultyDisk) -> Opened {
    open(disk).expect("the journal opens")
}

/// Opens a disk on which a journal must be: it keeps its id.
fn reopened(disk: &FaultyDisk) -> Opened {
    let opened = Journal::open_on(disk.boxed(), || OTHER_ID).expect("the journal opens");
    assert_eq!((opened.journal.id(), &opened.damage), (ID, &None));
    opened
}

fn key(number: u32) -> AttemptKey {
    AttemptKey {
        job: "j-1".into(),
        target: "eu-west/prod-1".into(),
        number,
    }
}

fn fence(epoch: u64) -> Entry {
    Entry::Fence {
        incarnation: 1,
        epoch,
        store_revision: epoch * 10,
    }
}

fn accepted(number: u32) -> Entry {
    Entry::Accepted {
        attempt: key(number),
        assignment: json!({"steps": ["a"]}),
        at: 1,
    }
}

fn intent(number: u32) -> Entry {
    let before = json!({"image": "shop:1"});
    Entry::StepIntent {
        attempt: key(number),
        step: "a".into(),
        half: Half::Apply,
        try_number: 1,
        before,
        at: 2,
    }
}

fn evidence(number: u32, length: usize) -> Entry {
    let data = json!("e".repeat(length));
    Entry::Evidence {
        attempt: key(number),
        step: "a".into(),
        half: Half::Apply,
        data,
    }
}

fn outcome(number: u32, length: usize) -> Entry {
    let outcome = json!("o".repeat(length));
    Entry::StepOutcome {
        attempt: key(number),
        step: "a".into(),
        half: Half::Apply,
        outcome,
        at: 3,
    }
}

fn ended(number: u32, length: usize) -> Entry {
    Entry::SegmentOutcome {
        attempt: key(number),
        outcome: json!("s".repeat(length)),
        at: 4,
    }
}

fn acked(number: u32, at: u64) -> Entry {
    Entry::Acked {
        attempt: key(number),
        at,
    }
}

fn tombstone(number: u32) -> Entry {
    Entry::Tombstone {
        attempt: key(number),
        answer: json!("stopped"),
        at: 5,
    }
}

fn story() -> Vec<Entry> {
    vec![
        fence(7),
        accepted(1),
        intent(1),
        evidence(1, 5),
        outcome(1, 5),
        ended(1, 5),
        acked(1, 6),
    ]
}

fn written(entries: &[Entry]) -> FaultyDisk {
    let disk = FaultyDisk::default();
    opened(&disk).journal.append_many(entries).expect("room");
    disk
}

#[test]
fn what_was_appended_is_there_after_power_loss() {
    let disk = FaultyDisk::default();
    let mut journal = opened(&disk).journal;
    let sequences: Vec<_> = story()
        .iter()
        .map(|entry| journal.append(entry).expect("room"))
        .collect();
    assert_eq!(sequences, [1, 2, 3, 4, 5, 6, 7]);

    let again = reopened(&disk.after_power_loss(NOTHING));
    assert_eq!(again.replayed, story());
    assert_eq!(again.journal.highest_sequence(), 7);
}

#[test]
fn a_record_torn_at_any_byte_is_cut_and_the_journal_goes_on() {
    // Longer than what is written over it later, so that a rest of it would be seen.
    let torn = evidence(1, 300);
    let record = encode_entry(2, &torn).expect("short").len();
    for bytes in 0..=record {
        let disk = written(&[fence(7)]);
        let mut journal = reopened(&disk).journal;
        disk.cut_power_after(1);
        journal
            .append(&torn)
            .expect_err("the power goes between write and sync");

        let after = disk.after_power_loss(Kept {
            bytes,
            names: false,
        });
        let mut again = reopened(&after);
        let whole = bytes == record;
        assert_eq!(
            again.replayed.len(),
            if whole { 2 } else { 1 },
            "{bytes} of {record} bytes arrived"
        );
        again.journal.append(&tombstone(3)).expect("goes on");
        assert_eq!(
            reopened(&after).replayed.last(),
            Some(&tombstone(3)),
            "{bytes} bytes"
        );
    }
}

#[test]
fn a_file_cut_short_at_any_byte_of_its_last_record_opens_without_it() {
    let whole = written(&story());
    let used = reopened(&whole).journal.bytes() as usize;
    let last = encode_entry(7, &acked(1, 6)).expect("short").len();
    for cut in used - last..used {
        let disk = whole.after_kill();
        disk.change(load::NAME, |bytes| bytes.truncate(cut));
        let opened = reopened(&disk);
        assert_eq!(opened.replayed, story()[..6], "cut at {cut}");
        assert_eq!(
            opened.journal.highest_sequence(),
            6,
            "shorter than it was, which the control plane sees"
        );
    }
}

#[test]
fn every_flipped_byte_sets_the_journal_aside() {
    let whole = written(&story());
    let used = reopened(&whole).journal.bytes() as usize;
    // A little of the reserved zeros is enough, and quicker to read a thousand times.
    whole.change(load::NAME, |bytes| bytes.truncate(used + 64));
    for at in 0..used {
        for flip in [0x01, 0xFF] {
            let disk = whole.after_kill();
            disk.change(load::NAME, |bytes| bytes[at] ^= flip);
            let opened = Journal::open_on(disk.boxed(), || OTHER_ID).expect("a fresh journal");
            assert_eq!(opened.journal.id(), OTHER_ID, "byte {at}");
            let Some(Damage::Quarantined(aside)) = opened.damage else {
                panic!("byte {at} ^ {flip:#x} was not found")
            };
            assert!(
                story().starts_with(&aside.readable),
                "byte {at}: only what stood before the damage"
            );
            assert!(disk.read(&aside.replaces.file).is_ok(), "the file is kept");
            assert_eq!(opened.journal.replaces(), Some(&aside.replaces));
        }
    }
}

#[test]
fn a_fresh_journal_keeps_the_fence_of_the_one_it_replaces() {
    let disk = written(&story());
    let used = reopened(&disk).journal.bytes() as usize;
    disk.change(load::NAME, |bytes| bytes[used - 3] ^= 1);
    let opened = Journal::open_on(disk.boxed(), || OTHER_ID).expect("a fresh journal");
    assert_eq!(opened.replayed, [fence(7)]);

    let later = Journal::open_on(disk.after_power_loss(NOTHING).boxed(), || ID).expect("opens");
    assert_eq!(
        (later.journal.id(), later.replayed),
        (OTHER_ID, vec![fence(7)])
    );
    assert!(
        later.damage.is_none() && later.journal.replaces().is_some(),
        "told at every start, found once"
    );
}

#[test]
fn a_record_taken_out_of_the_middle_is_damage() {
    let disk = written(&story());
    let header = written(&[]).read(load::NAME).expect("there");
    let start = frame::scan(&header).end;
    let first = encode_entry(1, &fence(7)).expect("short").len();
    disk.change(load::NAME, |bytes| drop(bytes.drain(start..start + first)));
    let opened = Journal::open_on(disk.boxed(), || OTHER_ID).expect("a fresh journal");
    assert!(matches!(opened.damage, Some(Damage::Quarantined(_))));
}

#[test]
fn after_a_failed_sync_nothing_is_taken_any_more() {
    let disk = written(&[fence(7)]);
    let mut journal = reopened(&disk).journal;
    disk.fail_sync_after(0);
    assert!(matches!(journal.append(&accepted(1)), Err(Error::Fsync(_))));
    disk.sync_works();
    assert!(
        matches!(journal.append(&accepted(1)), Err(Error::Failed)),
        "a sync that works proves nothing"
    );
    assert!(matches!(journal.compact(0), Err(Error::Failed)));
    assert!(matches!(
        journal.set_aside("short", OTHER_ID),
        Err(Error::Failed)
    ));
    assert_eq!(
        reopened(&disk.after_power_loss(NOTHING)).replayed,
        [fence(7)]
    );
}

#[test]
fn after_a_failed_write_nothing_is_taken_any_more() {
    let disk = written(&[fence(7)]);
    let mut journal = reopened(&disk).journal;
    disk.fail_writes();
    assert!(matches!(
        journal.append(&accepted(1)),
        Err(Error::Io { .. })
    ));
    assert!(matches!(journal.append(&accepted(1)), Err(Error::Failed)));
}

#[test]
fn a_sync_that_fails_at_open_opens_nothing() {
    let disk = written(&[fence(7)]);
    disk.fail_sync_after(0);
    assert!(matches!(open(&disk), Err(Error::Fsync(_))));
}

/// Appends until the disk takes no more.
fn fill(journal: &mut Journal, number: u32) {
    for length in [100_000, 1_000, 1] {
        while journal.append(&evidence(number, length)).is_ok() {}
    }
    assert!(matches!(
        journal.append(&evidence(number, 1)),
        Err(Error::Full { .. })
    ));
}

#[test]
fn on_a_full_disk_no_intent_is_taken_and_nothing_is_lost() {
    let disk = written(&[fence(7), accepted(1)]);
    let mut journal = reopened(&disk).journal;
    disk.leave_free(0);
    fill(&mut journal, 1);
    let sequence = journal.highest_sequence();
    assert!(matches!(
        journal.append(&intent(1)),
        Err(Error::Full { .. })
    ));
    assert!(matches!(
        journal.append_many(&[fence(8), accepted(2)]),
        Err(Error::Full { .. })
    ));
    assert_eq!(
        reopened(&disk.after_power_loss(ALL))
            .journal
            .highest_sequence(),
        sequence,
        "no half of a group"
    );
}

#[test]
fn the_room_reserved_with_an_intent_takes_the_longest_outcome_on_a_full_disk() {
    let longest = OUTCOME_ROOM as usize - 200; // names and braces take the rest
    for restarted in [false, true] {
        let disk = written(&[fence(7), accepted(1), intent(1)]);
        let mut journal = reopened(&disk).journal;
        disk.leave_free(0);
        fill(&mut journal, 1);
        if restarted {
            journal = reopened(&disk).journal;
            assert!(
                matches!(journal.append(&evidence(1, 1)), Err(Error::Full { .. })),
                "promises outlive the process"
            );
        }
        for end in [outcome(1, longest), ended(1, longest), acked(1, 6)] {
            journal.append(&end).expect("its room was reserved");
        }
        assert_eq!(
            reopened(&disk.after_power_loss(NOTHING)).replayed.last(),
            Some(&acked(1, 6))
        );
    }
}

#[test]
fn what_was_read_at_open_is_on_the_disk_before_anyone_acts_on_it() {
    let disk = written(&[fence(7)]);
    let mut journal = reopened(&disk).journal;
    disk.cut_power_after(1);
    journal
        .append(&accepted(1))
        .expect_err("killed between write and sync");

    let machine = disk.after_kill();
    assert_eq!(reopened(&machine).replayed, [fence(7), accepted(1)]);
    assert_eq!(
        reopened(&machine.after_power_loss(NOTHING)).replayed,
        [fence(7), accepted(1)]
    );
}

#[test]
fn compaction_drops_what_was_acknowledged_long_ago_and_keeps_id_and_sequence() {
    let late = [
        accepted(1),
        acked(1, DAY),
        fence(6),
        accepted(2),
        tombstone(2),
        acked(2, DAY),
        fence(7),
    ];
    let disk = written(&[&late[..], &[accepted(3), intent(3), acked(9, 3 * DAY)]].concat());
    let mut journal = reopened(&disk).journal;
    assert_eq!(
        journal.compact(8 * DAY + 1).expect("room"),
        Compacted {
            dropped: 4,
            kept: 6
        }
    );

    let kept = [
        tombstone(2),
        acked(2, DAY),
        fence(7),
        accepted(3),
        intent(3),
        acked(9, 3 * DAY),
    ];
    assert_eq!(journal.append(&outcome(3, 1)).expect("goes on"), 11);
    let again = reopened(&disk.after_power_loss(NOTHING));
    assert_eq!(again.replayed, [&kept[..], &[outcome(3, 1)]].concat());
    assert_eq!(again.journal.highest_sequence(), 11);
}

#[test]
fn compaction_to_nothing_keeps_the_sequence() {
    let disk = written(&[accepted(1), acked(1, 0)]);
    let mut journal = reopened(&disk).journal;
    journal.compact(99 * DAY).expect("room");
    let again = reopened(&disk.after_power_loss(NOTHING));
    assert_eq!(
        (again.replayed.len(), again.journal.highest_sequence()),
        (0, 2)
    );
}

#[test]
fn the_state_forgets_what_compaction_drops() {
    let entries = [
        accepted(1),
        acked(1, DAY),
        accepted(2),
        tombstone(2),
        acked(2, DAY),
        accepted(3),
    ];
    let disk = written(&entries);
    reopened(&disk).journal.compact(9 * DAY).expect("room");
    let mut attempts = Attempts::replay(&entries);
    attempts.forget(9 * DAY);
    let from_disk = Attempts::replay(&reopened(&disk).replayed);
    let numbers = |attempts: &Attempts| {
        (1..4)
            .filter(|n| attempts.attempt(&key(*n)).is_some())
            .collect::<Vec<_>>()
    };
    assert_eq!(numbers(&attempts), numbers(&from_disk));
    assert_eq!(numbers(&attempts), [2, 3]);
}

#[test]
fn power_loss_at_any_point_of_a_compaction_loses_nothing_open() {
    let entries = [fence(7), accepted(1), acked(1, DAY), accepted(2), intent(2)];
    for (disk, kept) in power_lost_during(&entries, |journal| drop(journal.compact(99 * DAY))) {
        let again = reopened(&disk);
        assert_eq!(again.journal.highest_sequence(), 5, "{kept:?}");
        let attempts = Attempts::replay(&again.replayed);
        assert_eq!(
            (attempts.open_intents().count(), attempts.fence().epoch),
            (1, 7),
            "{kept:?}"
        );
    }
}

#[test]
fn power_loss_at_any_point_of_setting_aside_leaves_the_old_journal_or_a_fresh_one() {
    for (disk, kept) in power_lost_during(&story(), |journal| {
        drop(journal.set_aside("too short", OTHER_ID))
    }) {
        let again = Journal::open_on(disk.boxed(), || OTHER_ID).expect("opens");
        if again.journal.id() == ID {
            assert_eq!(again.replayed, story(), "{kept:?}");
        } else {
            let replaces = again.journal.replaces().expect("it says what it replaces");
            let contents =
                load::Contents::read(&disk.read(&replaces.file).expect("the old file is kept"));
            assert_eq!(
                contents.expect("readable").into_entries(),
                story(),
                "{kept:?}"
            );
        }
        assert_eq!(
            Fence::highest(&again.replayed).map(|f| f.epoch),
            Some(7),
            "{kept:?}: the fence never falls"
        );
    }
}

/// The disks that power loss at each operation of `act` may leave.
fn power_lost_during(
    entries: &[Entry],
    act: impl Fn(&mut Journal),
) -> Vec<(FaultyDisk, (usize, Kept))> {
    let mut disks = Vec::new();
    let whole = written(entries);
    let mut journal = reopened(&whole).journal;
    let before = whole.operations();
    act(&mut journal);
    let operations = whole.operations() - before;
    assert!(operations >= 4, "it does something");
    for cut in 0..=operations {
        for kept in [0, 30, usize::MAX]
            .into_iter()
            .flat_map(|bytes| [false, true].map(|names| Kept { bytes, names }))
        {
            let disk = written(entries);
            let mut journal = reopened(&disk).journal;
            disk.cut_power_after(cut);
            act(&mut journal);
            disks.push((disk.after_power_loss(kept), (cut, kept)));
        }
    }
    disks
}

#[test]
fn a_compaction_without_room_leaves_the_journal_as_it_is() {
    let disk = written(&[accepted(1), acked(1, 0), accepted(2)]);
    let mut journal = reopened(&disk).journal;
    disk.leave_free(10);
    assert!(matches!(journal.compact(99 * DAY), Err(Error::Full { .. })));
    assert_eq!(journal.append(&ended(2, 1)).expect("goes on"), 4);
    assert_eq!(reopened(&disk).replayed.len(), 4);
}

#[test]
fn setting_aside_begins_anew_under_another_id() {
    let disk = written(&story());
    let mut journal = reopened(&disk).journal;
    let aside = journal
        .set_aside("the list was shorter than recorded", OTHER_ID)
        .expect("room");
    assert_eq!(aside.readable, story());
    assert_eq!((journal.id(), journal.highest_sequence()), (OTHER_ID, 1));
    journal.append(&accepted(4)).expect("goes on");
    let again = Journal::open_on(disk.after_power_loss(NOTHING).boxed(), || ID).expect("opens");
    assert_eq!(again.replayed, [fence(7), accepted(4)]);
    assert_eq!(
        again.journal.replaces().map(|r| r.reason.as_str()),
        Some("the list was shorter than recorded")
    );
}

#[test]
fn a_nearly_full_disk_still_lets_a_journal_be_set_aside() {
    let disk = written(&story());
    let mut journal = reopened(&disk).journal;
    disk.leave_free(4096);
    journal
        .set_aside("short", OTHER_ID)
        .expect("needs far less than a chunk");
    assert_eq!(journal.id(), OTHER_ID);
}

#[test]
fn a_journal_that_was_taken_away_after_one_was_set_aside_is_reported() {
    let disk = written(&story());
    reopened(&disk)
        .journal
        .set_aside("short", OTHER_ID)
        .expect("room");
    disk.remove(load::NAME).expect("there");
    let opened = Journal::open_on(disk.boxed(), || JournalId(3)).expect("a fresh journal");
    assert!(matches!(opened.damage, Some(Damage::Missing(_))));
    assert_eq!(
        (opened.journal.id(), opened.replayed),
        (JournalId(3), vec![fence(7)])
    );
}

#[test]
fn a_file_changed_under_an_open_journal_is_found_before_it_is_copied() {
    let disk = written(&story());
    let mut journal = reopened(&disk).journal;
    let used = journal.bytes() as usize;
    disk.change(load::NAME, |bytes| bytes[used - 30..].fill(0));
    assert!(matches!(
        journal.compact(99 * DAY),
        Err(Error::Damaged { .. })
    ));
    assert!(matches!(journal.append(&fence(9)), Err(Error::Failed)));
}

#[test]
fn a_journal_of_a_later_version_is_refused_and_left_as_it_is() {
    let later = frame::encode(1, br#"{"v2":{"accepted":{}}}"#).expect("short");
    let disk = written(&[]);
    let start = reopened(&disk).journal.bytes() as usize;
    disk.change(load::NAME, |bytes| {
        bytes[start..start + later.len()].copy_from_slice(&later)
    });
    assert!(matches!(open(&disk), Err(Error::Later { sequence: 1, .. })));

    let header = frame::encode(0, br#"{"format":2}"#).expect("short");
    disk.change(load::NAME, |bytes| *bytes = header);
    assert!(matches!(open(&disk), Err(Error::LaterFormat { format: 2 })));
    assert_eq!(
        disk.names().expect("names"),
        [load::NAME],
        "nothing is set aside"
    );
}

#[test]
fn an_entry_that_is_too_long_is_refused_and_the_journal_goes_on() {
    let mut journal = opened(&FaultyDisk::default()).journal;
    assert!(matches!(
        journal.append(&evidence(1, LONGEST_ENTRY)),
        Err(Error::TooLong { .. })
    ));
    assert_eq!(journal.append(&fence(1)).expect("goes on"), 1);
}

#[test]
fn on_a_real_disk_it_is_kept_locked_and_grows() {
    let dir = tempfile::tempdir().expect("a directory");
    let place = dir.path().join("journal");
    let mut journal = Journal::open(&place, || ID).expect("opens").journal;
    assert!(matches!(
        Journal::open(&place, || OTHER_ID),
        Err(Error::Lock(LockError::Held { .. }))
    ));
    journal
        .append_many(&[accepted(1), intent(1)])
        .expect("room");
    for _ in 0..3 {
        journal
            .append(&evidence(1, CHUNK as usize / 2))
            .expect("it grows");
    }
    journal
        .append_many(&[outcome(1, 9), acked(1, 0)])
        .expect("room");
    drop(journal);

    let mut opened = Journal::open(&place, || OTHER_ID).expect("opens again");
    assert_eq!((opened.journal.id(), opened.replayed.len()), (ID, 7));
    opened.journal.compact(99 * DAY).expect("room");
    opened.journal.set_aside("a copy", OTHER_ID).expect("room");
    drop(opened);
    let opened = Journal::open(&place, || JournalId(3)).expect("opens again");
    assert_eq!((opened.journal.id(), opened.replayed.len()), (OTHER_ID, 0));
}

fn any_entry() -> impl Strategy<Value = Entry> {
    let number = 1..4_u32;
    prop_oneof![
        (0..9_u64).prop_map(fence),
        number.clone().prop_map(accepted),
        number.clone().prop_map(intent),
        (number.clone(), 0..3000_usize).prop_map(|(n, length)| evidence(n, length)),
        (number.clone(), 0..3000_usize).prop_map(|(n, length)| outcome(n, length)),
        (number.clone(), 0..300_usize).prop_map(|(n, length)| ended(n, length)),
        (number.clone(), 0..9_u64).prop_map(|(n, at)| acked(n, at)),
        number.prop_map(tombstone),
    ]
}

proptest! {
    /// Guarantee 23: what opens is a prefix of what was written, and holds everything whose append returned.
    #[test]
    fn after_power_loss_at_any_point_the_journal_opens_to_a_prefix(
        groups in prop::collection::vec(prop::collection::vec(any_entry(), 1..4), 1..12),
        cut in 0..40_usize,
        bytes in prop_oneof![0..200_usize, 0..10_000_usize],
        names in any::<bool>(),
        killed_first in any::<bool>(),
    ) {
        let disk = FaultyDisk::default();
        disk.cut_power_after(cut);
        let mut confirmed = 0;
        if let Ok(opened) = open(&disk) {
            let mut journal = opened.journal;
            for group in &groups {
                match journal.append_many(group) {
                    Ok(sequence) => confirmed = sequence as usize,
                    Err(_) => break,
                }
            }
        }
        let written = groups.concat();
        let mut seen = 0;
        let disk = if killed_first {
            let machine = disk.after_kill();
            seen = opened(&machine).replayed.len();
            machine
        } else {
            disk
        };
        let again = opened(&disk.after_power_loss(Kept { bytes, names }));
        prop_assert_eq!(again.damage, None);
        prop_assert!(written.starts_with(&again.replayed));
        prop_assert!(again.replayed.len() >= confirmed.max(seen));
        prop_assert_eq!(again.journal.highest_sequence(), again.replayed.len() as u64);
    }
}
