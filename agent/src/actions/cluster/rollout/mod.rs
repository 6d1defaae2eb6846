//! Whether a rollout moves, is where it should be, or cannot get there: judged on one look after another. Pure; time
//! comes in by argument.
//!
//! | file | what it knows |
//! |---|---|
//! | `pod` | how a pod and its containers are read |
//! | `ail` | why one does not start, and how long each reason is forgiven |
//! | `readiness` | whether one stays ready |

mod ail;
mod pod;
mod readiness;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::Digest;
use aldis_core::outcome::Failure;

pub(super) use self::ail::ailing;
use self::ail::{Ail, Unready};
pub(super) use self::pod::Pod;
use self::pod::times;
use self::readiness::Readiness;
use super::super::template::{Completeness, changed_since};
use super::deployment::{Counts, Live};

/// A condition that an earlier rollout left goes away with the first progress of this one.
const STALE: Duration = Duration::from_secs(10);

/// Pods named in the evidence; the others fail alike.
const MOST_PODS: usize = 3;

/// Where a rollout shall get to.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Goal {
    /// All of it.
    RolledOut,
    /// As far as it had come when it was captured.
    AsBefore(Completeness),
}

impl Goal {
    /// Whether it is there. An autoscaler may want fewer pods by now than were captured.
    pub(super) fn reached(&self, counts: &Counts) -> bool {
        let partly = |before: &Completeness| {
            !before.complete
                && counts.observed
                && counts.updated >= before.updated.min(counts.wanted)
                && counts.available >= before.available.min(counts.wanted)
        };
        counts.complete()
            || match self {
                Self::RolledOut => false,
                Self::AsBefore(before) => partly(before),
            }
    }
}

/// What one look found.
pub(super) struct Look<'a> {
    /// The Deployment.
    pub(super) live: &'a Live,
    /// Its pods of the wanted template; none where they were not read this time.
    pub(super) pods: Option<&'a [Pod]>,
}

/// What a look says.
#[derive(Debug, PartialEq)]
pub(super) enum Verdict {
    /// The goal is reached.
    Reached,
    /// Not yet.
    Moving,
    /// It will not be reached.
    Stuck(Stuck),
}

/// Why not, and whose log tells more.
#[derive(Debug, PartialEq)]
pub(super) struct Stuck {
    /// For the verdict.
    pub(super) failure: Failure,
    /// Where to read the last lines.
    pub(super) log: Option<LogOf>,
}

/// A container whose last words help.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct LogOf {
    /// The pod.
    pub(super) pod: String,
    /// The container.
    pub(super) container: String,
    /// Of the run before this one.
    pub(super) previous: bool,
}

/// Looks at one rollout from beginning to end.
pub(super) struct Watch {
    goal: Goal,
    patience: Duration,
    /// The template that the job left; none where no step of it wrote one.
    left: Option<Digest>,
    /// The one of the first look.
    template: Option<Digest>,
    best: Option<Best>,
    moved: Duration,
    since: BTreeMap<(String, String, String), Duration>,
    restarts: BTreeMap<(String, String), i64>,
    overdue: Option<(Duration, bool)>,
    ails: Vec<Ail>,
    readiness: Readiness,
    /// Pods of the last look that do not serve, or not for long, and for no reason of the table.
    unready: Vec<Unready>,
}

/// The furthest that a rollout has come. Each number can only rise, so that a pod that gets ready and fails again and
/// again is no progress.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Best {
    wanted: i64,
    updated: i64,
    ready: i64,
    available: i64,
    gone: i64,
    scheduled: i64,
}

impl Watch {
    /// Waits for `goal` and gives up when nothing gets better for `patience`, or when the template is not the one that
    /// the job `left`: a rollout of another one is nothing to wait for, however well it goes.
    pub(super) fn new(goal: Goal, patience: Duration, left: Option<Digest>) -> Self {
        Self {
            goal,
            patience,
            left,
            template: None,
            best: None,
            moved: Duration::ZERO,
            since: BTreeMap::new(),
            restarts: BTreeMap::new(),
            overdue: None,
            ails: Vec::new(),
            readiness: Readiness::default(),
            unready: Vec::new(),
        }
    }

    /// Judges one look, taken `now` since the watch began.
    pub(super) fn look(&mut self, look: &Look<'_>, now: Duration) -> Verdict {
        let live = look.live;
        if let Some(failure) = self.another_template(live) {
            return Verdict::Stuck(Stuck { failure, log: None });
        }
        if let Some(pods) = look.pods {
            self.readiness.look(pods, now);
        }
        if self.goal.reached(&live.counts) && !self.is_in_doubt(now) {
            return Verdict::Reached;
        }
        if live.paused {
            let failure = Failure::new("paused", format!("{} is paused", live.object()));
            return Verdict::Stuck(Stuck { failure, log: None });
        }
        self.note_progress(look, now);
        if let Some(pods) = look.pods {
            self.ails = self.ailing(live, pods);
            self.unready = self.not_serving(pods);
        }
        self.date(now);
        if let Some(ail) = self.past_grace(now) {
            return Verdict::Stuck(self.cannot_start(live, &ail));
        }
        if let Some(failure) = self.overdue(live, now) {
            return Verdict::Stuck(self.explained(failure));
        }
        let still = now.saturating_sub(self.moved);
        if still >= self.patience {
            let cause = format!(
                "{} has not moved for {} s: {}",
                live.object(),
                still.as_secs(),
                self.sentence(live)
            );
            return Verdict::Stuck(self.explained(Failure::new("noProgress", cause)));
        }
        Verdict::Moving
    }

    /// How far the rollout has come, for people.
    pub(super) fn sentence(&self, live: &Live) -> String {
        let counts = live.counts.sentence();
        match self.readiness.lost() {
            0 => counts,
            lost => format!(
                "{counts}, pods that were ready became unready again {}",
                times(lost as u64)
            ),
        }
    }

    /// All pods may be available at one moment and not at the next. What an undo must reach is only what there was
    /// before, and that may have been no better.
    fn is_in_doubt(&self, now: Duration) -> bool {
        self.goal == Goal::RolledOut && self.readiness.is_in_doubt(now)
    }

    /// For the end of the time that the step has.
    pub(super) fn timed_out(&self, live: &Live, after: Duration) -> Stuck {
        let cause = format!(
            "{} is not rolled out after {} s: {}",
            live.object(),
            after.as_secs(),
            self.sentence(live)
        );
        self.explained(Failure::new("timeout", cause))
    }

    /// Somebody gave it another template meanwhile: what they wait for is not what this step was to see.
    fn another_template(&mut self, live: &Live) -> Option<Failure> {
        if self.left.as_ref().is_some_and(|left| *left != live.hash) {
            return Some(changed_since(&live.object(), &live.changed_by()));
        }
        let first = self.template.get_or_insert_with(|| live.hash.clone());
        if *first == live.hash {
            return None;
        }
        let cause = format!(
            "the pod template of {} changed while its rollout was waited for, by {}",
            live.object(),
            live.changed_by()
        );
        Some(Failure::new("drift", cause))
    }

    fn note_progress(&mut self, look: &Look<'_>, now: Duration) {
        let counts = look.live.counts;
        let scheduled = look.pods.map(|pods| {
            pods.iter()
                .filter(|pod| pod.unscheduled.is_none())
                .count()
                .try_into()
                .unwrap_or(i64::MAX)
        });
        let known = self.best.filter(|best| best.wanted == counts.wanted);
        let now_at = Best {
            wanted: counts.wanted,
            updated: counts.updated,
            ready: counts.ready,
            available: counts.available,
            gone: counts.updated - counts.total,
            scheduled: scheduled.unwrap_or_else(|| known.map_or(0, |best| best.scheduled)),
        };
        let best = known.map_or(now_at, |best| best.with(now_at));
        if self.best != Some(best) {
            self.moved = now;
        }
        self.best = Some(best);
    }

    fn ailing(&mut self, live: &Live, pods: &[Pod]) -> Vec<Ail> {
        let mut found = Vec::new();
        for pod in pods {
            if let Some(message) = &pod.unscheduled {
                found.push(Ail::unscheduled(pod, message, self.patience));
            }
            for container in &pod.containers {
                let key = (pod.name.clone(), container.name.clone());
                let first = *self.restarts.entry(key).or_insert(container.restarts);
                found.extend(ail::of_container(
                    pod,
                    container,
                    container.restarts - first,
                ));
            }
        }
        found.extend(ail::not_made(live));
        found
    }

    fn not_serving(&self, pods: &[Pod]) -> Vec<Unready> {
        let ails = |pod: &Pod| self.ails.iter().any(|ail| ail.pod == pod.name);
        let lost = |pod: &Pod| self.readiness.lost_by(&pod.name);
        let unready = pods
            .iter()
            .filter(|pod| (!pod.ready || lost(pod) > 0) && !ails(pod));
        unready.map(|pod| Unready::of(pod, lost(pod))).collect()
    }

    /// Keeps since when each reason holds; one that went away starts anew.
    fn date(&mut self, now: Duration) {
        let since = std::mem::take(&mut self.since);
        for ail in &self.ails {
            let key = ail.key();
            let first = since.get(&key).copied().unwrap_or(now);
            self.since.insert(key, first);
        }
    }

    fn past_grace(&self, now: Duration) -> Option<Ail> {
        let past = |ail: &&Ail| {
            let since = self.since.get(&ail.key()).copied().unwrap_or(now);
            now.saturating_sub(since) >= ail.grace
        };
        self.ails.iter().find(past).cloned()
    }

    /// `progressDeadlineSeconds` of the Deployment itself is over.
    fn overdue(&mut self, live: &Live, now: Duration) -> Option<Failure> {
        let first_look = self.overdue.is_none();
        let holds = live.counts.observed
            && live
                .condition("Progressing")
                .is_some_and(|c| c.reason == "ProgressDeadlineExceeded");
        let (since, stale) = match self.overdue {
            _ if !holds => {
                self.overdue = Some((now, false));
                return None;
            }
            Some((since, stale)) => (since, stale),
            None => (now, first_look),
        };
        self.overdue = Some((since, stale));
        if stale && now.saturating_sub(since) < STALE {
            return None;
        }
        let cause = format!(
            "{} passed its progress deadline: {}",
            live.object(),
            self.sentence(live)
        );
        Some(Failure::new("noProgress", cause))
    }

    fn cannot_start(&self, live: &Live, ail: &Ail) -> Stuck {
        let cause = match &ail.container {
            Some(_) => format!(
                "{} cannot start: {} in pod {}",
                live.object(),
                ail.reason,
                ail.pod
            ),
            None => format!("{} cannot start: {}", live.object(), ail.reason),
        };
        let mut stuck = self.explained(Failure::new("noProgress", cause));
        stuck.failure.evidence.push(live.counts.sentence());
        stuck.log = ail.log.clone();
        stuck
    }

    /// With what the pods say.
    fn explained(&self, failure: Failure) -> Stuck {
        let mut evidence: Vec<String> = self.ails.iter().map(Ail::line).collect();
        evidence.dedup();
        evidence.extend(self.unready.iter().map(|unready| unready.line.clone()));
        Stuck {
            failure: failure.with_evidence(some(evidence)),
            log: self.log(),
        }
    }

    fn log(&self) -> Option<LogOf> {
        let of_ail = self.ails.iter().find_map(|ail| ail.log.clone());
        of_ail.or_else(|| self.unready.iter().find_map(|unready| unready.log.clone()))
    }
}

/// Those that are told.
fn some(mut lines: Vec<String>) -> Vec<String> {
    let left = lines.len().saturating_sub(MOST_PODS);
    lines.truncate(MOST_PODS);
    if left > 0 {
        lines.push(format!("{left} more like these"));
    }
    lines
}

impl Best {
    fn with(self, other: Self) -> Self {
        Self {
            wanted: other.wanted,
            updated: self.updated.max(other.updated),
            ready: self.ready.max(other.ready),
            available: self.available.max(other.available),
            gone: self.gone.max(other.gone),
            scheduled: self.scheduled.max(other.scheduled),
        }
    }
}
