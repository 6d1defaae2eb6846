//! All randomness of a story, from its seed.
//!
//! Ours is drawn from a [`Chance`]. That of the programs under test (journal ids, pauses, the order in
//! which `select!` looks at its branches, hash maps of libraries) comes from the kernel, by way of
//! `getrandom`, which the standard library and `rand` look up as a symbol that a program may bring
//! itself. This one does: in a process that tells a story it answers from the story's seed, and from
//! `/dev/urandom` everywhere else.

use std::cell::Cell;
use std::fs::File;
use std::io::Read;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use super::telling;

/// Draws. Clones draw from the same row.
#[derive(Clone)]
pub(crate) struct Chance(Arc<AtomicU64>);

impl Chance {
    pub(crate) fn of(seed: u64) -> Self {
        Self(Arc::new(AtomicU64::new(seed)))
    }

    pub(crate) fn number(&self) -> u64 {
        mixed(self.0.fetch_add(STRIDE, Ordering::Relaxed))
    }

    /// Below `bound`, which is not zero.
    pub(crate) fn below(&self, bound: usize) -> usize {
        usize::try_from(self.number() % bound as u64).expect("it is below a usize")
    }

    pub(crate) fn one_in(&self, many: usize) -> bool {
        self.below(many) == 0
    }

    pub(crate) fn one_of<'a, T>(&self, from: &'a [T]) -> &'a T {
        &from[self.below(from.len())]
    }

    /// Between two lengths in milliseconds.
    pub(crate) fn between(&self, shortest: u64, longest: u64) -> Duration {
        Duration::from_millis(shortest + self.number() % (longest - shortest + 1))
    }
}

/// Of splitmix64: odd, so that every state comes once.
const STRIDE: u64 = 0x9e37_79b9_7f4a_7c15;

fn mixed(state: u64) -> u64 {
    let mut z = state.wrapping_add(STRIDE);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

thread_local! {
    /// Each thread has a row of its own: which of two threads asks first must not matter.
    static ROW: Cell<u64> = const { Cell::new(0) };
}

fn seeded() -> Option<u64> {
    static SEED: OnceLock<Option<u64>> = OnceLock::new();
    *SEED.get_or_init(telling::seed)
}

/// Stands in for the C library's.
///
/// # Safety
/// As of the function that it stands in for: `buffer` has room for `length` bytes.
#[allow(unsafe_code)]
#[unsafe(no_mangle)]
unsafe extern "C" fn getrandom(buffer: *mut u8, length: usize, _flags: u32) -> isize {
    // SAFETY: the caller promises that room.
    let bytes = unsafe { std::slice::from_raw_parts_mut(buffer, length) };
    match seeded() {
        Some(seed) => fill(bytes, seed),
        None => File::open("/dev/urandom")
            .and_then(|mut random| random.read_exact(bytes))
            .expect("read /dev/urandom"),
    }
    isize::try_from(length).expect("no slice is longer")
}

fn fill(bytes: &mut [u8], seed: u64) {
    for chunk in bytes.chunks_mut(8) {
        let at = ROW.get().wrapping_add(STRIDE);
        ROW.set(at);
        chunk.copy_from_slice(&mixed(seed ^ at).to_le_bytes()[..chunk.len()]);
    }
}
