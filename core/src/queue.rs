//! Which queued job may start: by priority, then age, within a bound, and only with its locks.

use std::collections::{BTreeMap, BTreeSet};

use crate::ids::{JobId, TargetName, Timestamp};
use crate::inventory::Turn;
use crate::job::LockName;
use crate::plan::ObjectRef;

/// A job in the queue.
#[derive(Clone, Debug)]
pub struct Queued {
    /// Which.
    pub job: JobId,
    /// Higher goes first.
    pub priority: i32,
    /// Older goes first among equals.
    pub submitted_at: Timestamp,
    /// What it must hold before it starts.
    pub locks: BTreeSet<LockName>,
}

/// An object in a cluster, as locks name it.
pub type LockKey = (String, ObjectRef);

/// Says of each queued job whether its turn has come. A job that waits for a lock lets others pass,
/// but reserves what it could take: a stream of small jobs cannot starve it.
pub fn turns(
    queued: &[Queued],
    running: usize,
    bound: usize,
    held: &BTreeMap<LockKey, JobId>,
) -> BTreeMap<JobId, Turn> {
    let mut order: Vec<&Queued> = queued.iter().collect();
    order.sort_by(|a, b| {
        (b.priority, a.submitted_at, &a.job).cmp(&(a.priority, b.submitted_at, &b.job))
    });
    let mut reserved: BTreeMap<LockKey, JobId> = held.clone();
    let mut free = bound.saturating_sub(running);
    let mut turns = BTreeMap::new();
    for job in order {
        let turn = match conflict(job, &reserved) {
            Some((object, target, by)) => Turn::Locked { object, target, by },
            None if free == 0 => Turn::Full { running: bound },
            None => {
                free -= 1;
                Turn::Yes
            }
        };
        for lock in &job.locks {
            reserved.entry(key(lock)).or_insert_with(|| job.job.clone());
        }
        turns.insert(job.job.clone(), turn);
    }
    turns
}

/// The first object that somebody else holds.
pub fn conflict(
    job: &Queued,
    held: &BTreeMap<LockKey, JobId>,
) -> Option<(ObjectRef, TargetName, JobId)> {
    job.locks.iter().find_map(|lock| {
        let by = held.get(&key(lock)).filter(|by| **by != job.job)?;
        Some((lock.object.clone(), lock.target.clone(), by.clone()))
    })
}

fn key(lock: &LockName) -> LockKey {
    (lock.cluster_uid.clone(), lock.object.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lock(name: &str) -> LockName {
        LockName {
            cluster_uid: "uid".into(),
            target: "eu/prod".parse().unwrap(),
            object: ObjectRef {
                kind: "Deployment".into(),
                namespace: "shop".into(),
                name: name.into(),
            },
        }
    }

    fn queued(job: &str, priority: i32, at: u64, locks: &[&str]) -> Queued {
        let locks = locks.iter().map(|name| lock(name)).collect();
        Queued {
            job: job.into(),
            priority,
            submitted_at: Timestamp(at),
            locks,
        }
    }

    #[test]
    fn priority_then_age_within_the_bound() {
        let jobs = [
            queued("old", 0, 1, &[]),
            queued("urgent", 5, 3, &[]),
            queued("new", 0, 2, &[]),
        ];
        let turns = turns(&jobs, 0, 2, &BTreeMap::new());
        assert_eq!(turns[&"urgent".into()], Turn::Yes);
        assert_eq!(turns[&"old".into()], Turn::Yes);
        assert_eq!(turns[&"new".into()], Turn::Full { running: 2 });
    }

    #[test]
    fn one_object_one_job_and_the_holder_is_named() {
        let held = BTreeMap::from([(key(&lock("a")), JobId::from("first"))]);
        let turns = turns(&[queued("second", 0, 1, &["a"])], 1, 8, &held);
        assert!(
            matches!(&turns[&"second".into()], Turn::Locked { by, .. } if by.as_str() == "first")
        );
    }

    #[test]
    fn a_job_that_waits_for_two_locks_is_not_starved_by_small_ones() {
        let held = BTreeMap::from([(key(&lock("a")), JobId::from("first"))]);
        let jobs = [
            queued("large", 0, 1, &["a", "b"]),
            queued("small", 0, 2, &["b"]),
        ];
        let turns = turns(&jobs, 1, 8, &held);
        assert!(
            matches!(&turns[&"small".into()], Turn::Locked { by, .. } if by.as_str() == "large")
        );
    }
}
