//! What a record's value was read as, kept beside it.
//!
//! A leader looks at every agent and every target of a job after each change, and a change is one record: without
//! this, each would be parsed anew a thousand times for a thousand agents. The store neither fills nor compares it,
//! and a record with another value is another record, so it can never be stale.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, OnceLock};

/// Filled once, seen by all clones of a record.
#[derive(Clone, Default)]
pub(super) struct Memo(Arc<OnceLock<Arc<dyn Any + Send + Sync>>>);

impl Memo {
    /// What it was read as, if that was of this type.
    pub(super) fn get<T: Send + Sync + 'static>(&self) -> Option<Arc<T>> {
        self.0.get()?.clone().downcast().ok()
    }

    /// Keeps the first: nobody reads one record as two types.
    pub(super) fn set<T: Send + Sync + 'static>(&self, read: Arc<T>) {
        let _ = self.0.set(read);
    }
}

impl PartialEq for Memo {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Memo {}

impl fmt::Debug for Memo {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str("_")
    }
}
