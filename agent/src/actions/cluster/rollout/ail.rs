//! Why a pod does not start, or runs and does not serve.
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
//! | nothing gets better; readiness that comes and goes is nothing better | the patience (`failAfterNoProgress`) | |

use std::time::Duration;

use super::super::deployment::Live;
use super::pod::{Container, Pod, cut, times};
use super::{LogOf, some};

const HICCUP: Duration = Duration::from_secs(5);
const LONGEST_UNSCHEDULED: Duration = Duration::from_secs(60);
const QUOTA: Duration = Duration::from_secs(10);

/// Restarts that make a loop, with the waiting state seen and without it.
const LOOP_SEEN: i64 = 2;
const LOOP_COUNTED: i64 = 3;

/// A reason why a pod does not start.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Ail {
    pub(super) pod: String,
    pub(super) container: Option<String>,
    /// The pod's own word.
    pub(super) reason: String,
    pub(super) message: String,
    pub(super) grace: Duration,
    pub(super) log: Option<LogOf>,
}

/// A pod that does not serve, or not for long, and does not say why.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Unready {
    pub(super) line: String,
    pub(super) log: Option<LogOf>,
}

impl Ail {
    /// No node takes it. An autoscaler has half of the wait's patience to add one.
    pub(super) fn unscheduled(pod: &Pod, message: &str, patience: Duration) -> Self {
        Self {
            pod: pod.name.clone(),
            container: None,
            reason: "Unschedulable".to_owned(),
            message: message.to_owned(),
            grace: (patience / 2).min(LONGEST_UNSCHEDULED),
            log: None,
        }
    }

    /// The two image reasons come in turn and are one.
    pub(super) fn key(&self) -> (String, String, String) {
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

    pub(super) fn line(&self) -> String {
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
pub(super) fn of_container(pod: &Pod, container: &Container, restarted: i64) -> Option<Ail> {
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
    let crashes = format!("restarted {}, {ended}", times(container.restarts));
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
        None => None,
    }
}

/// What ails pods that were not watched, by one look: those that do not serve, and those that serve again after a
/// container ended. Nothing of the others.
pub(in crate::actions::cluster) fn ailing(pods: &[Pod]) -> Vec<String> {
    some(pods.iter().filter_map(of_pod).collect())
}

fn of_pod(pod: &Pod) -> Option<String> {
    if let Some(message) = &pod.unscheduled {
        return Some(Ail::unscheduled(pod, message, Duration::ZERO).line());
    }
    let mut containers = pod.containers.iter();
    let ail = containers.find_map(|container| of_container(pod, container, container.restarts));
    if let Some(ail) = ail {
        return Some(ail.line());
    }
    let ended = pod
        .containers
        .iter()
        .find(|container| container.restarts > 0);
    match ended {
        Some(ended) => Some(format!("pod {}, container {}", pod.name, ended.line())),
        None => (!pod.ready).then(|| Unready::of(pod, 0).line),
    }
}

/// The controller could not make a pod at all.
pub(super) fn not_made(live: &Live) -> Option<Ail> {
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

impl Unready {
    /// `lost` says how often it was ready and then was not.
    pub(super) fn of(pod: &Pod, lost: usize) -> Self {
        let pod_there = pod.and_where();
        let first = match lost {
            0 => None,
            _ => pod.containers.first(),
        };
        let unready = pod.containers.iter().find(|container| !container.ready);
        let Some(container) = unready.or(first) else {
            let says = if pod.containers.is_empty() {
                "no container has been started yet"
            } else {
                "its containers are ready and it is not, as when its node is gone"
            };
            let line = format!("{pod_there}: {says}");
            return Self { line, log: None };
        };
        let line = match lost {
            0 => format!("{pod_there}, container {}", container.line()),
            _ => format!(
                "{pod_there} was ready and became unready again {}, container {}",
                times(lost as u64),
                container.line()
            ),
        };
        let log = container.running.then(|| LogOf {
            pod: pod.name.clone(),
            container: container.name.clone(),
            previous: false,
        });
        Self { line, log }
    }
}
