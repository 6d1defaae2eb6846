//! Whether pods stay ready, from one look after another.
//!
//! A pod that is ready at every look may still have been unready in between: the server dates each change, and the
//! dates are compared too. What counts is that a pod *lost* its readiness while it was watched; one that takes long to
//! get ready has lost nothing.

use std::collections::BTreeMap;
use std::time::Duration;

use super::pod::Pod;

/// A pod that lost its readiness is believed once it has kept it for so long: a kubelet asks every ten seconds where
/// nobody says otherwise, and should have asked once. Rollouts of pods that never lost it wait for nothing.
const SETTLED: Duration = Duration::from_secs(10);

/// What was seen of the pods of the wanted template.
#[derive(Default)]
pub(super) struct Readiness(BTreeMap<String, Seen>);

struct Seen {
    ready: bool,
    /// The date of the last change, as the server wrote it.
    dated: String,
    /// Since when it is as it is, on the clock of the watch.
    since: Duration,
    lost: usize,
}

impl Readiness {
    /// Takes one look at all pods. One that is not among them is gone.
    pub(super) fn look(&mut self, pods: &[Pod], now: Duration) {
        self.0
            .retain(|name, _| pods.iter().any(|pod| pod.name == *name));
        for pod in pods {
            let seen = self.0.entry(pod.name.clone());
            let seen = seen.or_insert_with(|| Seen::first(pod, now));
            seen.look(pod, now);
        }
    }

    /// How often a pod lost its readiness.
    pub(super) fn lost_by(&self, pod: &str) -> usize {
        self.0.get(pod).map_or(0, |seen| seen.lost)
    }

    /// The same of all pods together.
    pub(super) fn lost(&self) -> usize {
        self.0.values().map(|seen| seen.lost).sum()
    }

    /// Whether some pod lost its readiness and has not kept it since for long enough.
    pub(super) fn is_in_doubt(&self, now: Duration) -> bool {
        self.0.values().any(|seen| seen.is_in_doubt(now))
    }
}

impl Seen {
    fn first(pod: &Pod, now: Duration) -> Self {
        Self {
            ready: pod.ready,
            dated: pod.readiness_dated.clone(),
            since: now,
            lost: 0,
        }
    }

    fn look(&mut self, pod: &Pod, now: Duration) {
        let between = !self.dated.is_empty() && self.dated != pod.readiness_dated;
        let lost = match (self.ready, pod.ready) {
            (true, false) => true,
            // There and back, or back and there, between two looks.
            (true, true) | (false, false) => between,
            (false, true) => false,
        };
        if lost {
            self.lost += 1;
        }
        if lost || self.ready != pod.ready {
            self.since = now;
        }
        self.ready = pod.ready;
        self.dated.clone_from(&pod.readiness_dated);
    }

    fn is_in_doubt(&self, now: Duration) -> bool {
        self.lost > 0 && !(self.ready && now.saturating_sub(self.since) >= SETTLED)
    }
}
