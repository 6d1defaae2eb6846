//! What the journal says to an order.

use crate::journal::AttemptKey;
use crate::journal::state::{TooLate, Verdict};
use crate::ledger::Ledger;

pub(super) enum Weighed {
    /// Unknown so far, and nothing stands against it.
    New,
    /// Known and not ended.
    Open,
    /// Ended or closed: the answer is in the journal.
    Ended,
    /// An earlier attempt of the same job must end first.
    Behind(AttemptKey),
    /// It must not start here, ever.
    TooLate(TooLate),
}

pub(super) fn weigh(ledger: &Ledger, key: &AttemptKey) -> Weighed {
    ledger.read(|attempts| match attempts.may_accept(key) {
        Verdict::Accept => Weighed::New,
        Verdict::Repeat(known) if known.is_running() => Weighed::Open,
        Verdict::Repeat(_) => Weighed::Ended,
        Verdict::Refuse(TooLate::EarlierOpen { open }) => Weighed::Behind(AttemptKey {
            number: open,
            ..key.clone()
        }),
        Verdict::Refuse(why @ (TooLate::NewerKnown { .. } | TooLate::Closed { .. })) => {
            Weighed::TooLate(why)
        }
    })
}
