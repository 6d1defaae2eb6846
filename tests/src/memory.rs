//! Memory of a process as the kernel counts it: resident pages now, and the most there ever were.
//!
//! Counted from outside, on a process that does one thing. A counter in an allocator of our own would miss what
//! libraries keep in pages of theirs, and what the allocator itself does not give back.

use anyhow::Context;
use rustix::process::Pid;

/// Resident memory, in KiB.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Resident {
    /// At this moment.
    pub now: u64,
    /// The most since the process began.
    pub peak: u64,
}

impl Resident {
    /// Of a process that runs.
    pub fn of(pid: Pid) -> anyhow::Result<Self> {
        let path = format!("/proc/{}/status", pid.as_raw_nonzero());
        let status = std::fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        Ok(Self {
            now: field(&status, "VmRSS:")?,
            peak: field(&status, "VmHWM:")?,
        })
    }
}

fn field(status: &str, name: &str) -> anyhow::Result<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix(name));
    let kib = line.and_then(|rest| rest.split_whitespace().next());
    let kib = kib.with_context(|| format!("there is no {name}"))?;
    kib.parse().with_context(|| format!("{name} is no number"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_touched_once_stays_in_the_peak() {
        let me = rustix::process::getpid();
        let before = Resident::of(me).unwrap();
        let touched = std::hint::black_box(vec![1_u8; 64 << 20]);
        drop(touched);
        let after = Resident::of(me).unwrap();
        assert!(
            after.peak >= before.now + (60 << 10),
            "{before:?} {after:?}"
        );
        assert!(after.now <= after.peak);
    }
}
