//! Whether a rollout moves, is where it should be, or cannot get there: judged on one look after another. Pure; time
//! comes in by argument.
//!
//! A pod tells long before the Deployment does what is wrong with it. But a pod that fails once may start the second
//! time (a registry that hiccups, a database that is not up yet), so each reason has a grace:
//!
//! | seen in a pod of the new template | fails after | why so long |
//! |---|---|---|
//! | image name that is none, image never pulled | at once | it cannot change by itself |
//! | image cannot be pulled | 5 s | a registry may hiccup once |
//! | container cannot be made (ConfigMap, Secret) | 5 s | the object may come a moment later |
//! | crash loop, two restarts or more | at once | one restart may be a dependency that was not up |
//! | not ready, three restarts during the wait | at once | the same, where no look ever met the waiting state |
//! | no node takes it | half the patience, at most 60 s | an autoscaler may add a node |
//! | the controller cannot make pods (quota, admission) | 10 s | quota is freed by pods that end |
//! | nothing gets better | the patience (`failAfterNoProgress`) | |

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::Digest;
use aldis_core::outcome::Failure;
use serde_json::Value;

use super::super::template::{Completeness, changed_since};
use super::deployment::{Counts, Live, conditions, text};

const HICCUP: Duration = Duration::from_secs(5);
const LONGEST_UNSCHEDULED: Duration = Duration::from_secs(60);
const QUOTA: Duration = Duration::from_secs(10);

/// A condition that an earlier rollout left goes away with the first progress of this one.
const STALE: Duration = Duration::from_secs(10);

/// Restarts that make a loop, with the waiting state seen and without it.
const LOOP_SEEN: i64 = 2;
const LOOP_COUNTED: i64 = 3;

/// Pods named in the evidence; the others fail alike.
const MOST_PODS: usize = 3;

/// A kubelet's message repeats the image's name several times.
const LONGEST_MESSAGE: usize = 300;

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

/// A pod of the template that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    /// Its name.
    pub(super) name: String,
    /// Whether it serves.
    pub(super) ready: bool,
    /// Why no node takes it.
    pub(super) unscheduled: Option<String>,
    /// Its containers, init containers too.
    pub(super) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Container {
    /// Its name.
    pub(super) name: String,
    /// Whether it serves, or, for an init container, has ended well.
    pub(super) ready: bool,
    /// How often it was started again.
    pub(super) restarts: i64,
    /// Reason and message of its waiting state.
    pub(super) waiting: Option<(String, String)>,
    /// Whether it runs right now.
    pub(super) running: bool,
    /// How it ended last, such as "exit code 1 (Error)".
    pub(super) ended: Option<String>,
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

/// A reason why a pod does not start.
#[derive(Clone, Debug, PartialEq)]
struct Ail {
    pod: String,
    container: Option<String>,
    /// The pod's own word.
    reason: String,
    message: String,
    grace: Duration,
    log: Option<LogOf>,
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
    /// Pods of the last look that do not serve, and for no reason of the table.
    unready: Vec<Unready>,
}

/// A pod that does not serve and does not say why.
#[derive(Clone, Debug, PartialEq)]
struct Unready {
    line: String,
    log: Option<LogOf>,
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
            unready: Vec::new(),
        }
    }

    /// Judges one look, taken `now` since the watch began.
    pub(super) fn look(&mut self, look: &Look<'_>, now: Duration) -> Verdict {
        let live = look.live;
        if let Some(failure) = self.another_template(live) {
            return Verdict::Stuck(Stuck { failure, log: None });
        }
        if self.goal.reached(&live.counts) {
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
                live.counts.sentence()
            );
            return Verdict::Stuck(self.explained(Failure::new("noProgress", cause)));
        }
        Verdict::Moving
    }

    /// For the end of the time that the step has.
    pub(super) fn timed_out(&self, live: &Live, after: Duration) -> Stuck {
        let cause = format!(
            "{} is not rolled out after {} s: {}",
            live.object(),
            after.as_secs(),
            live.counts.sentence()
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
                found.push(Ail {
                    pod: pod.name.clone(),
                    container: None,
                    reason: "Unschedulable".to_owned(),
                    message: message.clone(),
                    grace: (self.patience / 2).min(LONGEST_UNSCHEDULED),
                    log: None,
                });
            }
            for container in &pod.containers {
                let key = (pod.name.clone(), container.name.clone());
                let first = *self.restarts.entry(key).or_insert(container.restarts);
                found.extend(ail(pod, container, container.restarts - first));
            }
        }
        found.extend(not_made(live));
        found
    }

    fn not_serving(&self, pods: &[Pod]) -> Vec<Unready> {
        let ails = |pod: &Pod| self.ails.iter().any(|ail| ail.pod == pod.name);
        let unready = pods.iter().filter(|pod| !pod.ready && !ails(pod));
        unready.map(Unready::of).collect()
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
            live.counts.sentence()
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
        let left = evidence.len().saturating_sub(MOST_PODS);
        evidence.truncate(MOST_PODS);
        if left > 0 {
            evidence.push(format!("{left} more like these"));
        }
        Stuck {
            failure: failure.with_evidence(evidence),
            log: self.log(),
        }
    }

    fn log(&self) -> Option<LogOf> {
        let of_ail = self.ails.iter().find_map(|ail| ail.log.clone());
        of_ail.or_else(|| self.unready.iter().find_map(|unready| unready.log.clone()))
    }
}

impl Unready {
    fn of(pod: &Pod) -> Self {
        let name = &pod.name;
        let Some(container) = pod.containers.iter().find(|container| !container.ready) else {
            let says = if pod.containers.is_empty() {
                "no container has been started yet"
            } else {
                "its containers are ready and it is not"
            };
            let line = format!("pod {name}: {says}");
            return Self { line, log: None };
        };
        let line = format!("pod {name}, container {}", container.line());
        let log = container.running.then(|| LogOf {
            pod: name.clone(),
            container: container.name.clone(),
            previous: false,
        });
        Self { line, log }
    }
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

impl Ail {
    /// The two image reasons come in turn and are one.
    fn key(&self) -> (String, String, String) {
        let class = match self.reason.as_str() {
            "ErrImagePull" | "ImagePullBackOff" => "image",
            other => other,
        };
        (
            self.pod.clone(),
            self.container.clone().unwrap_or_default(),
            class.to_owned(),
        )
    }

    fn line(&self) -> String {
        let message = if self.message.is_empty() {
            String::new()
        } else {
            format!(": {}", self.message)
        };
        match &self.container {
            Some(container) => format!(
                "pod {}, container {container}: {}{message}",
                self.pod, self.reason
            ),
            None if self.pod.is_empty() => format!("{}{message}", self.reason),
            None => format!("pod {}: {}{message}", self.pod, self.reason),
        }
    }
}

/// What is wrong with one container, if anything. `restarted` counts since the watch began.
fn ail(pod: &Pod, container: &Container, restarted: i64) -> Option<Ail> {
    let found = |reason: &str, message: String, grace: Duration, log: Option<bool>| Ail {
        pod: pod.name.clone(),
        container: Some(container.name.clone()),
        reason: reason.to_owned(),
        message,
        grace,
        log: log.map(|previous| LogOf {
            pod: pod.name.clone(),
            container: container.name.clone(),
            previous,
        }),
    };
    let ended = container.ended.as_deref().unwrap_or("it ended");
    let crashes = format!("restarted {} times, {ended}", container.restarts);
    match &container.waiting {
        Some((reason, message)) => match reason.as_str() {
            "InvalidImageName" | "ErrImageNeverPull" => {
                Some(found(reason, cut(message), Duration::ZERO, None))
            }
            "ErrImagePull" | "ImagePullBackOff" | "ImageInspectError" | "RegistryUnavailable" => {
                Some(found(reason, cut(message), HICCUP, None))
            }
            "CreateContainerConfigError" | "CreateContainerError" | "RunContainerError" => {
                Some(found(reason, cut(message), HICCUP, None))
            }
            "CrashLoopBackOff" if container.restarts >= LOOP_SEEN => {
                Some(found(reason, crashes, Duration::ZERO, Some(true)))
            }
            _ => None,
        },
        None if !container.ready && restarted >= LOOP_COUNTED => {
            Some(found("crash loop", crashes, Duration::ZERO, Some(true)))
        }
        None if !container.ready => None,
        None => None,
    }
}

/// The controller could not make a pod at all.
fn not_made(live: &Live) -> Option<Ail> {
    let condition = live.condition("ReplicaFailure")?;
    if condition.status != "True" || !live.counts.observed {
        return None;
    }
    Some(Ail {
        pod: String::new(),
        container: None,
        reason: condition.reason.clone(),
        message: cut(&condition.message),
        grace: QUOTA,
        log: None,
    })
}

fn cut(message: &str) -> String {
    message.chars().take(LONGEST_MESSAGE).collect()
}

impl Pod {
    /// Reads a pod; none where it is on its way out.
    pub(super) fn read(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        if metadata.get("deletionTimestamp").is_some() {
            return None;
        }
        let status = object.get("status").unwrap_or(&Value::Null);
        let conditions = conditions(Some(status));
        let unscheduled = conditions
            .iter()
            .find(|c| c.kind == "PodScheduled" && c.status == "False")
            .filter(|c| c.reason == "Unschedulable")
            .map(|c| cut(&c.message));
        let containers = ["initContainerStatuses", "containerStatuses"]
            .iter()
            .filter_map(|list| status.get(list)?.as_array())
            .flatten()
            .map(Container::read)
            .collect();
        Some(Self {
            name: text(metadata, "name"),
            ready: conditions
                .iter()
                .any(|c| c.kind == "Ready" && c.status == "True"),
            unscheduled,
            containers,
        })
    }
}

impl Container {
    fn read(status: &Value) -> Self {
        let waiting = status.pointer("/state/waiting");
        let ended = status
            .pointer("/state/terminated")
            .or_else(|| status.pointer("/lastState/terminated"));
        Self {
            name: text(status, "name"),
            ready: status["ready"] == true,
            restarts: status["restartCount"].as_i64().unwrap_or(0),
            waiting: waiting.map(|waiting| (text(waiting, "reason"), text(waiting, "message"))),
            running: status.pointer("/state/running").is_some(),
            ended: ended.map(ending),
        }
    }

    /// Such as "app: running, not ready, restarted 2 times, ended last with exit code 1 (Error)".
    fn line(&self) -> String {
        let state = match &self.waiting {
            Some((reason, message)) if message.is_empty() => format!("waiting ({reason})"),
            Some((reason, message)) => format!("waiting ({reason}: {})", cut(message)),
            None if self.running => "running".to_owned(),
            None => "ended".to_owned(),
        };
        let ended = match &self.ended {
            Some(ended) => format!(", ended last with {ended}"),
            None => String::new(),
        };
        let Self { name, restarts, .. } = self;
        format!("{name}: {state}, not ready, restarted {restarts} times{ended}")
    }
}

fn ending(terminated: &Value) -> String {
    let code = terminated["exitCode"].as_i64().unwrap_or(0);
    match text(terminated, "reason").as_str() {
        "" => format!("exit code {code}"),
        reason => format!("exit code {code} ({reason})"),
    }
}

#[cfg(test)]
mod tests {
    use super::super::deployment::{Condition, samples};
    use super::*;
    use serde_json::json;

    const PATIENCE: Duration = Duration::from_secs(120);

    fn moving() -> Live {
        let mut live = samples::live("checkout:v2");
        live.counts.updated = 1;
        live.counts.total = 4;
        live
    }

    fn pod(container: &Value) -> Pod {
        Pod::read(&json!({
            "metadata": {"name": "p-1"},
            "status": {"containerStatuses": [container]},
        }))
        .expect("a pod")
    }

    fn waiting(reason: &str, restarts: i64) -> Pod {
        pod(&json!({
            "name": "app", "ready": false, "restartCount": restarts,
            "state": {"waiting": {"reason": reason, "message": "because"}},
            "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
        }))
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn watch() -> Watch {
        Watch::new(Goal::RolledOut, PATIENCE, None)
    }

    fn stuck(verdict: Verdict) -> Stuck {
        match verdict {
            Verdict::Stuck(stuck) => stuck,
            other @ (Verdict::Reached | Verdict::Moving) => panic!("{other:?}"),
        }
    }

    fn look(watch: &mut Watch, live: &Live, pods: &[Pod], at: u64) -> Verdict {
        let look = Look {
            live,
            pods: Some(pods),
        };
        watch.look(&look, seconds(at))
    }

    #[test]
    fn a_finished_rollout_is_reached_at_once() {
        let live = samples::live("a");
        assert_eq!(look(&mut watch(), &live, &[], 0), Verdict::Reached);
    }

    #[test]
    fn an_image_that_cannot_be_pulled_has_a_moment_and_not_more() {
        let mut watch = watch();
        let live = moving();
        let at = |watch: &mut Watch, reason, at| look(watch, &live, &[waiting(reason, 0)], at);
        assert_eq!(at(&mut watch, "ErrImagePull", 1), Verdict::Moving);
        assert_eq!(at(&mut watch, "ImagePullBackOff", 3), Verdict::Moving);
        let stuck = stuck(at(&mut watch, "ErrImagePull", 6));
        assert_eq!(
            stuck.failure.cause,
            "Deployment shop/checkout cannot start: ErrImagePull in pod p-1"
        );
        assert_eq!(
            stuck.failure.evidence,
            [
                "pod p-1, container app: ErrImagePull: because",
                "1 of 3 pods updated, 3 available"
            ]
        );
    }

    #[test]
    fn a_registry_that_hiccups_starts_its_grace_anew() {
        let mut watch = watch();
        let live = moving();
        let running = pod(&json!({"name": "app", "ready": false, "state": {"running": {}}}));
        assert_eq!(
            look(&mut watch, &live, &[waiting("ErrImagePull", 0)], 0),
            Verdict::Moving
        );
        assert_eq!(look(&mut watch, &live, &[running], 3), Verdict::Moving);
        assert_eq!(
            look(&mut watch, &live, &[waiting("ErrImagePull", 0)], 6),
            Verdict::Moving
        );
    }

    #[test]
    fn one_restart_is_forgiven_and_a_loop_is_not() {
        let mut watch = watch();
        let live = moving();
        let first = look(&mut watch, &live, &[waiting("CrashLoopBackOff", 1)], 0);
        assert_eq!(first, Verdict::Moving);
        let stuck = stuck(look(
            &mut watch,
            &live,
            &[waiting("CrashLoopBackOff", 2)],
            1,
        ));
        assert!(stuck.failure.evidence[0].ends_with("restarted 2 times, exit code 1 (Error)"));
        let log = stuck.log.expect("whose log");
        assert_eq!((log.container.as_str(), log.previous), ("app", true));
    }

    #[test]
    fn a_loop_is_found_by_its_count_where_no_look_meets_it_waiting() {
        let mut watch = watch();
        let live = moving();
        let running = |restarts: i64, ready: bool| {
            pod(
                &json!({"name": "app", "ready": ready, "restartCount": restarts, "state": {"running": {}}}),
            )
        };
        // Restarts of long ago do not count, and a pod that serves is not failed for them.
        assert_eq!(
            look(&mut watch, &live, &[running(7, false)], 0),
            Verdict::Moving
        );
        assert_eq!(
            look(&mut watch, &live, &[running(9, false)], 1),
            Verdict::Moving
        );
        assert_eq!(
            look(&mut watch, &live, &[running(10, true)], 2),
            Verdict::Moving
        );
        let stuck = stuck(look(&mut watch, &live, &[running(10, false)], 3));
        assert!(
            stuck.failure.cause.contains("crash loop in pod p-1"),
            "{stuck:?}"
        );
    }

    #[test]
    fn a_config_error_and_a_name_that_is_none_are_told() {
        let live = moving();
        let mut first = watch();
        let pods = [waiting("CreateContainerConfigError", 0)];
        assert_eq!(look(&mut first, &live, &pods, 0), Verdict::Moving);
        let told = stuck(look(&mut first, &live, &pods, 5)).failure;
        assert!(told.cause.contains("CreateContainerConfigError"), "{told}");
        let told = stuck(look(
            &mut watch(),
            &live,
            &[waiting("InvalidImageName", 0)],
            0,
        ))
        .failure;
        assert!(told.cause.contains("InvalidImageName"), "{told}");
    }

    #[test]
    fn a_pod_that_no_node_takes_waits_for_an_autoscaler_and_tells_the_reason() {
        let unscheduled = Pod::read(&json!({
            "metadata": {"name": "p-1"},
            "status": {"conditions": [{"type": "PodScheduled", "status": "False",
                "reason": "Unschedulable", "message": "0/3 nodes are available: 3 Insufficient cpu."}]},
        }))
        .unwrap();
        let mut watch = Watch::new(Goal::RolledOut, seconds(20), None);
        let live = moving();
        let pods = [unscheduled];
        assert_eq!(look(&mut watch, &live, &pods, 0), Verdict::Moving);
        assert_eq!(look(&mut watch, &live, &pods, 9), Verdict::Moving);
        let stuck = stuck(look(&mut watch, &live, &pods, 10));
        assert!(
            stuck.failure.evidence[0].contains("Insufficient cpu"),
            "{stuck:?}"
        );
    }

    #[test]
    fn pods_that_cannot_be_made_are_told() {
        let mut live = moving();
        live.conditions.push(Condition {
            kind: "ReplicaFailure".into(),
            status: "True".into(),
            reason: "FailedCreate".into(),
            message: "exceeded quota: pods".into(),
        });
        let mut watch = watch();
        assert_eq!(look(&mut watch, &live, &[], 0), Verdict::Moving);
        let stuck = stuck(look(&mut watch, &live, &[], 10));
        assert_eq!(
            stuck.failure.evidence[0],
            "FailedCreate: exceeded quota: pods"
        );
    }

    #[test]
    fn readiness_that_comes_and_goes_is_no_progress() {
        let mut watch = watch();
        let mut live = moving();
        let mut at = |ready: i64, at: u64| {
            live.counts.ready = ready;
            look(&mut watch, &live, &[], at)
        };
        assert_eq!(at(3, 0), Verdict::Moving);
        assert_eq!(at(4, 60), Verdict::Moving);
        for (ready, time) in [(3, 90), (4, 120), (3, 150), (4, 179)] {
            assert_eq!(at(ready, time), Verdict::Moving);
        }
        let stuck = stuck(at(3, 180));
        assert_eq!(stuck.failure.kind, "noProgress");
        assert!(
            stuck.failure.cause.contains("has not moved for 120 s"),
            "{stuck:?}"
        );
    }

    #[test]
    fn a_deadline_that_an_earlier_rollout_missed_is_not_held_against_this_one() {
        let mut overdue = moving();
        overdue.conditions.push(Condition {
            kind: "Progressing".into(),
            status: "False".into(),
            reason: "ProgressDeadlineExceeded".into(),
            message: String::new(),
        });
        let mut stale = watch();
        assert_eq!(look(&mut stale, &overdue, &[], 0), Verdict::Moving);
        assert_eq!(look(&mut stale, &overdue, &[], 9), Verdict::Moving);
        assert!(matches!(
            look(&mut stale, &overdue, &[], 10),
            Verdict::Stuck(_)
        ));
        let mut fresh = watch();
        assert_eq!(look(&mut fresh, &moving(), &[], 0), Verdict::Moving);
        let told = stuck(look(&mut fresh, &overdue, &[], 1)).failure;
        assert!(
            told.cause.contains("passed its progress deadline"),
            "{told}"
        );
    }

    #[test]
    fn a_template_that_changes_meanwhile_is_drift_and_a_pause_ends_the_wait() {
        let mut watch = watch();
        assert_eq!(look(&mut watch, &moving(), &[], 0), Verdict::Moving);
        let mut other = samples::live("checkout:v3");
        let failure = stuck(look(&mut watch, &other, &[], 1)).failure;
        assert_eq!(failure.kind, "drift");
        assert!(failure.cause.contains("by kubectl-set"), "{failure}");
        other = moving();
        other.paused = true;
        assert_eq!(
            stuck(look(&mut watch, &other, &[], 2)).failure.kind,
            "paused"
        );
    }

    #[test]
    fn a_rollout_of_a_template_that_the_job_did_not_leave_is_drift_however_complete() {
        let left = samples::live("checkout:v2").hash;
        let mut watch = Watch::new(Goal::RolledOut, PATIENCE, Some(left));
        assert_eq!(
            look(&mut watch, &samples::live("checkout:v2"), &[], 0),
            Verdict::Reached
        );
        let failure = stuck(look(&mut watch, &samples::live("checkout:v1"), &[], 1)).failure;
        assert_eq!(failure.kind, "drift");
        assert!(
            failure
                .cause
                .contains("after the job wrote it, by kubectl-set at"),
            "{failure}"
        );
    }

    #[test]
    fn pods_that_run_and_do_not_serve_are_told_with_whose_log_to_read() {
        let mut watch = watch();
        let live = moving();
        let pods: Vec<Pod> = (1..=4)
            .map(|number| {
                let mut pod = pod(&json!({
                    "name": "app", "ready": false, "restartCount": 1, "state": {"running": {}},
                    "lastState": {"terminated": {"exitCode": 1, "reason": "Error"}},
                }));
                pod.name = format!("p-{number}");
                pod
            })
            .collect();
        assert_eq!(look(&mut watch, &live, &pods, 0), Verdict::Moving);
        let stuck = stuck(look(&mut watch, &live, &pods, 120));
        assert_eq!(
            stuck.failure.evidence[0],
            "pod p-1, container app: running, not ready, restarted 1 times, ended last with exit code 1 (Error)"
        );
        assert_eq!(stuck.failure.evidence.len(), MOST_PODS + 1, "{stuck:?}");
        let log = stuck.log.expect("whose log");
        assert_eq!((log.pod.as_str(), log.previous), ("p-1", false));
    }

    #[test]
    fn an_undo_waits_for_as_much_as_there_was() {
        let goal = |complete, updated, available| {
            Goal::AsBefore(Completeness {
                complete,
                updated,
                available,
            })
        };
        let mut counts = moving().counts;
        assert!(!goal(true, 3, 3).reached(&counts), "it was complete");
        assert!(goal(false, 1, 3).reached(&counts), "it was as far as this");
        assert!(!goal(false, 2, 3).reached(&counts));
        counts.wanted = 1;
        assert!(
            goal(false, 2, 3).reached(&counts),
            "fewer are wanted by now"
        );
        counts.observed = false;
        assert!(!goal(false, 1, 3).reached(&counts), "the numbers are old");
    }

    #[test]
    fn a_pod_on_its_way_out_does_not_count() {
        let leaving =
            json!({"metadata": {"name": "p", "deletionTimestamp": "2026-11-24T09:00:00Z"}});
        assert_eq!(Pod::read(&leaving), None);
    }
}
