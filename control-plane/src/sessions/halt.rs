//! Whether all dispatch is stopped, found once for each change of the view, however many agents ask.
//!
//! It takes a look at every agent, and every agent asks for permits: each looking for itself, a thousand would have
//! a replica do nothing else.

use std::sync::{Mutex, PoisonError};

use crate::presence;
use crate::view::View;

/// What was found last, and at which count of changes.
#[derive(Default)]
pub(super) struct Halt(Mutex<Option<Found>>);

struct Found {
    at: u64,
    why: Option<String>,
}

impl Halt {
    /// Why nothing may be dispatched to anybody, if so.
    pub(super) fn why(&self, view: &View) -> Option<String> {
        // Read before the records: a change in between is looked at again by the next who asks.
        let now = view.changes();
        let mut found = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        match &*found {
            Some(found) if found.at == now => found.why.clone(),
            Some(_) | None => {
                let why = view.read(presence::halted);
                *found = Some(Found {
                    at: now,
                    why: why.clone(),
                });
                why
            }
        }
    }
}
