//! What of a pod tells whether it starts and serves, read from the object as the API server has it.

use serde_json::Value;

use super::super::deployment::{conditions, text};

/// A kubelet's message repeats the image's name several times.
const LONGEST_MESSAGE: usize = 300;

/// A pod of the template that is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::actions::cluster) struct Pod {
    /// Its name.
    pub(super) name: String,
    /// The node that it was given to; empty before.
    pub(super) node: String,
    /// Whether it serves.
    pub(super) ready: bool,
    /// When that changed last, as the server wrote it; empty where it does not say.
    pub(super) readiness_dated: String,
    /// Why no node takes it.
    pub(super) unscheduled: Option<String>,
    /// Its containers, init containers too.
    pub(super) containers: Vec<Container>,
}

/// A container of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::actions::cluster) struct Container {
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

impl Pod {
    /// Reads a pod; none where it is on its way out.
    pub(in crate::actions::cluster) fn read(object: &Value) -> Option<Self> {
        let metadata = object.get("metadata")?;
        if metadata.get("deletionTimestamp").is_some() {
            return None;
        }
        let status = object.get("status").unwrap_or(&Value::Null);
        let readiness = status["conditions"].as_array().into_iter().flatten();
        let mut readiness = readiness.filter(|condition| condition["type"] == "Ready");
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
            node: text(&object["spec"], "nodeName"),
            ready: conditions
                .iter()
                .any(|c| c.kind == "Ready" && c.status == "True"),
            readiness_dated: readiness
                .next()
                .map(|condition| text(condition, "lastTransitionTime"))
                .unwrap_or_default(),
            unscheduled,
            containers,
        })
    }
}

impl Pod {
    /// Such as "pod checkout-6f9c-x2k on node worker-7": whoever looks after it looks at its node first.
    pub(super) fn and_where(&self) -> String {
        match self.node.as_str() {
            "" => format!("pod {}", self.name),
            node => format!("pod {} on node {node}", self.name),
        }
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
    pub(super) fn line(&self) -> String {
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
        let ready = if self.ready { "ready" } else { "not ready" };
        let restarted = times(self.restarts);
        format!(
            "{}: {state}, {ready}, restarted {restarted}{ended}",
            self.name
        )
    }
}

fn ending(terminated: &Value) -> String {
    let code = terminated["exitCode"].as_i64().unwrap_or(0);
    match text(terminated, "reason").as_str() {
        "" => format!("exit code {code}"),
        reason => format!("exit code {code} ({reason})"),
    }
}

/// Such as "once" and "3 times".
pub(super) fn times(number: impl TryInto<u64>) -> String {
    match number.try_into().unwrap_or_default() {
        1 => "once".to_owned(),
        number => format!("{number} times"),
    }
}

/// As much of a message as helps.
pub(super) fn cut(message: &str) -> String {
    message.chars().take(LONGEST_MESSAGE).collect()
}
