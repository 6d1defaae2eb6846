//! What was read of plans and may be asked for again: so many of them and no more.
//!
//! Nothing here is ever wrong for being dropped: whoever finds nothing reads it from the store. So the one that goes
//! when there is no room is any: plan ids are drawn, and the lowest is as good as the oldest, which would have to be
//! noted.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use aldis_core::ids::PlanId;

/// Values by plan.
pub(crate) struct Kept<V> {
    most: usize,
    values: Mutex<BTreeMap<PlanId, V>>,
}

impl<V: Clone> Kept<V> {
    /// Keeps no more than so many.
    pub(crate) fn of(most: usize) -> Self {
        Self {
            most,
            values: Mutex::default(),
        }
    }

    /// What is kept of a plan.
    pub(crate) fn get(&self, plan: &PlanId) -> Option<V> {
        self.values().get(plan).cloned()
    }

    /// Keeps it for the next who asks.
    pub(crate) fn keep(&self, plan: &PlanId, value: V) {
        let mut values = self.values();
        if values.len() >= self.most && !values.contains_key(plan) {
            values.pop_first();
        }
        values.insert(plan.clone(), value);
    }

    /// Forgets what has changed.
    pub(crate) fn forget(&self, plan: &PlanId) {
        self.values().remove(plan);
    }

    fn values(&self) -> MutexGuard<'_, BTreeMap<PlanId, V>> {
        self.values.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(number: u8) -> PlanId {
        PlanId::new(format!("p-{number:08}"))
    }

    #[test]
    fn no_more_than_the_bound_are_kept_and_the_newest_always() {
        let kept = Kept::of(2);
        for number in [3, 2, 1] {
            kept.keep(&plan(number), number);
            assert_eq!(kept.get(&plan(number)), Some(number));
        }
        let left = [1, 2, 3].map(|number| kept.get(&plan(number)));
        assert_eq!(left.iter().flatten().count(), 2);
    }

    #[test]
    fn what_is_kept_again_takes_nobodys_room() {
        let kept = Kept::of(2);
        for (number, value) in [(1, 1), (2, 2), (2, 3)] {
            kept.keep(&plan(number), value);
        }
        assert_eq!((kept.get(&plan(1)), kept.get(&plan(2))), (Some(1), Some(3)));
        kept.forget(&plan(2));
        assert_eq!(kept.get(&plan(2)), None);
    }
}
