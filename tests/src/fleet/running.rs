//! Which process a number meant: the number and the moment it started.
//!
//! A process id alone is handed on by the kernel, and a fleet may be taken down days after it was started
//! or after a restart of the machine.

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, kill_process_group};

/// A process that ran when it was noted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Running {
    pid: Pid,
    /// Ticks since the machine started, field 22 of `/proc/PID/stat`.
    started: u64,
}

impl Running {
    /// Notes a process that runs. `None` when it does not.
    pub fn note(pid: Pid) -> Option<Self> {
        Some(Self {
            pid,
            started: started(pid)?,
        })
    }

    /// This process.
    pub fn me() -> Option<Self> {
        Self::note(rustix::process::getpid())
    }

    /// Its number.
    pub fn pid(self) -> Pid {
        self.pid
    }

    /// Reads a note.
    pub fn read(path: &Path) -> Option<Self> {
        std::fs::read_to_string(path).ok()?.parse().ok()
    }

    /// Whether that very process still runs.
    pub fn is_alive(self) -> bool {
        started(self.pid) == Some(self.started)
    }

    /// Sends that very process a signal, unless it is gone. Fails on what another user runs.
    pub fn signal(self, signal: Signal) -> Result<(), Errno> {
        if !self.is_alive() {
            return Ok(());
        }
        match kill_process(self.pid, signal) {
            Err(Errno::SRCH) => Ok(()),
            sent => sent,
        }
    }

    /// Kills it and all of its group, which is its own. False when it is gone.
    pub fn kill_group(self) -> bool {
        self.is_alive() && kill_process_group(self.pid, Signal::KILL).is_ok()
    }
}

impl fmt::Display for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.pid.as_raw_nonzero(), self.started)
    }
}

impl FromStr for Running {
    type Err = NotANote;

    fn from_str(text: &str) -> Result<Self, NotANote> {
        let mut words = text.split_whitespace();
        let pid = words.next().and_then(|word| word.parse().ok());
        let started = words.next().and_then(|word| word.parse().ok());
        match (pid.and_then(Pid::from_raw), started) {
            (Some(pid), Some(started)) => Ok(Self { pid, started }),
            _ => Err(NotANote),
        }
    }
}

/// A text that is not `PID START-TIME`.
#[derive(Debug, thiserror::Error)]
#[error("not a process id and a start time")]
pub struct NotANote;

/// `None` also for one that ended and was not waited for yet.
fn started(pid: Pid) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).ok()?;
    // The second field is the program's name in brackets and may hold anything.
    let mut fields = stat[stat.rfind(')')? + 1..].split_whitespace();
    let state = fields.next()?;
    let started = fields.nth(18)?.parse().ok()?;
    (!matches!(state, "Z" | "X")).then_some(started)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_note_reads_back_and_knows_its_process() {
        let me = Running::me().unwrap();
        let read: Running = me.to_string().parse().unwrap();
        assert_eq!(read, me);
        assert!(read.is_alive());
    }

    #[test]
    fn another_start_time_is_another_process() {
        let mut me = Running::me().unwrap();
        me.started += 1;
        assert!(!me.is_alive());
        me.signal(Signal::TERM)
            .expect("nobody is sent it, or this test would have ended");
    }

    #[test]
    fn what_is_no_note_is_refused() {
        for text in ["", "12", "x 1", "0 1"] {
            assert!(text.parse::<Running>().is_err(), "{text:?}");
        }
    }
}
