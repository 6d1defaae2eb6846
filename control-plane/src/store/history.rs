//! Notices when a store goes back in time, which a restored backup does.
//!
//! Every answer counts: a read below the highest revision seen when it was *asked*, or a write of our
//! own that is not above it. Compared with what was seen at the asking and not at the answer, since
//! answers may overtake each other. Watches do not count: a member of the cluster may lag.
//!
//! Once noticed it stays noticed. Other writes will bring the revision level again, and then nothing
//! in an answer would tell that the history between is another one.

use std::sync::{Mutex, PoisonError};

use super::{Error, Result, Revision};

/// What this process has seen of the store's history.
#[derive(Debug, Default)]
pub(crate) struct History(Mutex<Seen>);

#[derive(Debug, Default)]
struct Seen {
    highest: Revision,
    /// The answer that gave it away.
    back: Option<Revision>,
    /// Rises when an operator accepts a restored store: answers to older questions say nothing.
    life: u64,
}

/// What had been seen when a question was asked.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Asked {
    highest: Revision,
    life: u64,
}

impl History {
    /// Before each request. Refuses where the store is known to have gone back.
    pub(crate) fn ask(&self) -> Result<Asked> {
        let seen = self.lock();
        match seen.back {
            Some(now) => Err(went_back(&seen, now)),
            None => Ok(Asked {
                highest: seen.highest,
                life: seen.life,
            }),
        }
    }

    /// After the answer to a read, or to a write that changed nothing.
    pub(crate) fn read(&self, asked: Asked, now: Revision) -> Result<()> {
        self.answered(asked, now, now < asked.highest)
    }

    /// After the answer to a write that must have raised the revision.
    pub(crate) fn wrote(&self, asked: Asked, now: Revision) -> Result<()> {
        self.answered(asked, now, now <= asked.highest)
    }

    /// The highest revision seen.
    #[cfg(test)]
    pub(crate) fn highest(&self) -> Revision {
        self.lock().highest
    }

    /// The restored history is the history from here on.
    pub(crate) fn accept(&self) {
        let mut seen = self.lock();
        *seen = Seen {
            life: seen.life + 1,
            ..Seen::default()
        };
    }

    fn answered(&self, asked: Asked, now: Revision, fell: bool) -> Result<()> {
        let mut seen = self.lock();
        if seen.life != asked.life {
            return Ok(());
        }
        if fell {
            seen.back = Some(now);
            return Err(went_back(&seen, now));
        }
        seen.highest = seen.highest.max(now);
        Ok(())
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Seen> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn went_back(seen: &Seen, now: Revision) -> Error {
    Error::WentBack {
        seen: seen.highest,
        now,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seen(revision: i64) -> History {
        let history = History::default();
        let asked = history.ask().expect("ask");
        history.read(asked, Revision(revision)).expect("read");
        history
    }

    #[test]
    fn answers_may_overtake_each_other() {
        let history = seen(5);
        let slow = history.ask().expect("ask");
        let fast = history.ask().expect("ask");
        history.wrote(fast, Revision(7)).expect("write");
        history.read(slow, Revision(6)).expect("late answer");
        assert_eq!(history.highest(), Revision(7));
    }

    #[test]
    fn a_fall_is_never_forgotten() {
        let history = seen(5);
        let asked = history.ask().expect("ask");
        let error = history.read(asked, Revision(4)).expect_err("fell");
        let Error::WentBack { seen, now } = error else {
            panic!("{error}")
        };
        assert_eq!((seen, now), (Revision(5), Revision(4)));
        assert!(history.ask().is_err(), "later calls are refused too");
    }

    #[test]
    fn a_write_that_does_not_rise_gives_it_away() {
        let history = seen(5);
        let asked = history.ask().expect("ask");
        assert!(history.wrote(asked, Revision(5)).is_err());
    }

    #[test]
    fn an_accepted_restore_starts_afresh() {
        let history = seen(5);
        let old = history.ask().expect("ask");
        history.read(old, Revision(2)).expect_err("fell");
        history.accept();
        let asked = history.ask().expect("accepted");
        history.read(asked, Revision(3)).expect("another history");
        history.read(old, Revision(900)).expect("says nothing");
        assert_eq!(history.highest(), Revision(3));
    }
}
