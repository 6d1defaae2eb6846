//! `kube.wait`: looks at a Deployment until it is rolled out, or until it cannot be. [`super::rollout`] judges; here it
//! is looked, and a failure gets the last lines of the container's log.
//!
//! It polls rather than watches: a watch would save a few requests and need a second way for clusters where watching is
//! not allowed and for watches that die silently.

use std::time::Duration;

use aldis_core::action::inputs::KubeWait;
use aldis_core::ids::Digest;
use aldis_core::outcome::Failure;
use kube::api::ListParams;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::super::{Progress, Trouble};
use super::deployment::{Live, TEMPLATE_HASH, controlled_by};
use super::paths::{POD, REPLICA_SET};
use super::rights::{Right, Use, right};
use super::rollout::{Goal, LogOf, Look, Pod, Stuck, Verdict, Watch};
use super::server::{Deadline, Shape};
use super::{Cluster, read};

/// What an undo waits with: as `failAfterNoProgress` is where it is not given.
const PATIENCE: Duration = Duration::from_secs(120);

/// Between two looks at pods. The Deployment itself is looked at more often, at first.
const PODS_EACH: Duration = Duration::from_secs(1);

/// So long the API server may be away in the middle of a wait: an upgrade of a single one takes less.
const LONGEST_BLIND: Duration = Duration::from_secs(60);

/// Lines of a log shown in a verdict, and how long one may be.
const LOG_LINES: usize = 5;
const LONGEST_LINE: usize = 300;

const APPLY: &[Use] = &[Use::Apply];

/// What the action needs. Its plan reads nothing.
pub(super) const RIGHTS: [Right; 6] = {
    let [get, list, namespace] = read::deployments(APPLY);
    let [sets, pods, log] = rollout(APPLY);
    [get, list, namespace, sets, pods, log]
};

/// What the wait at the end of an undo needs.
pub(super) const AFTER_UNDO: [Right; 3] = rollout(&[Use::Undo]);

const fn rollout(uses: &'static [Use]) -> [Right; 3] {
    [
        right("list", REPLICA_SET, uses, "to find the pods of a rollout"),
        right("list", POD, uses, "to fail early with a pod's own reason"),
        right(
            "get",
            POD,
            uses,
            "to show the last lines of a container that fails",
        )
        .on("log"),
    ]
}

impl Cluster {
    pub(super) async fn wait(
        &self,
        with: &KubeWait,
        left: Option<Digest>,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Value, Trouble> {
        let watch = Watch::new(Goal::RolledOut, with.fail_after_no_progress, left);
        let live = self
            .watched(&with.namespace, &with.deployment, watch, progress, deadline)
            .await?;
        Ok(json!({"ready": live.counts.available, "replicas": live.counts.wanted}))
    }

    /// Waits for what an undo must reach, with the template that it put `back`.
    pub(super) async fn wait_for(
        &self,
        namespace: &str,
        name: &str,
        goal: Goal,
        back: Digest,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Live, Trouble> {
        let watch = Watch::new(goal, PATIENCE, Some(back));
        self.watched(namespace, name, watch, progress, deadline)
            .await
    }

    async fn watched(
        &self,
        namespace: &str,
        name: &str,
        mut watch: Watch,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Live, Trouble> {
        let began = Instant::now();
        // The verdict must be there before the caller stops waiting for it.
        let margin = (deadline.left() / 10).min(Duration::from_secs(2));
        let mut seen = began;
        let mut pods_at: Option<Instant> = None;
        let mut said = String::new();
        loop {
            let live = match self.existing(namespace, name, deadline).await {
                Ok(live) => live,
                Err(Trouble::Retriable { failure }) => {
                    if seen.elapsed() >= LONGEST_BLIND || deadline.left() <= margin {
                        return Err(Trouble::Retriable { failure });
                    }
                    progress.say(format!("{failure}; looking again"));
                    tokio::time::sleep(PODS_EACH).await;
                    continue;
                }
                Err(decided @ (Trouble::Failed { .. } | Trouble::Unknown { .. })) => {
                    return Err(decided);
                }
            };
            seen = Instant::now();
            let due = pods_at.is_none_or(|at| at.elapsed() >= PODS_EACH);
            let pods = if due && live.counts.observed {
                pods_at = Some(seen);
                self.pods(&live, deadline).await
            } else {
                None
            };
            let look = Look {
                live: &live,
                pods: pods.as_deref(),
            };
            match watch.look(&look, began.elapsed()) {
                Verdict::Reached => return Ok(live),
                Verdict::Stuck(stuck) => return Err(self.told(&live, stuck, deadline).await),
                Verdict::Moving => {}
            }
            let sentence = watch.sentence(&live);
            if sentence != said {
                progress.say(format!("{}: {sentence}", live.object()));
                said = sentence;
            }
            if deadline.left() <= margin {
                let stuck = watch.timed_out(&live, began.elapsed());
                return Err(self.told(&live, stuck, deadline).await);
            }
            tokio::time::sleep(pace(began.elapsed()).min(deadline.left())).await;
        }
    }

    /// The pods of the wanted template. Without them the Deployment's own numbers must do, so an error is no end.
    async fn pods(&self, live: &Live, deadline: Deadline) -> Option<Vec<Pod>> {
        let sets = self.revisions(live, deadline).await.ok()?;
        let current = live.current(&sets)?;
        let path = POD.all(Some(&live.namespace)).ok()?;
        let selector = format!("{},{TEMPLATE_HASH}={}", live.selector, current.label);
        let params = ListParams::default().labels(&selector);
        let found = self.server.list(&path, &params, Shape::Whole, deadline);
        let found = found.await.ok()?;
        let ours = found
            .iter()
            .filter(|pod| controlled_by(pod, &current.uid))
            .filter_map(Pod::read);
        Some(ours.collect())
    }

    /// The failure, with the last words of the container that it is about.
    async fn told(&self, live: &Live, stuck: Stuck, deadline: Deadline) -> Trouble {
        let mut failure = stuck.failure;
        if let Some(of) = &stuck.log {
            failure.evidence.extend(self.log(live, of, deadline).await);
        }
        Trouble::refused(with_hint(live, failure))
    }

    async fn log(&self, live: &Live, of: &LogOf, deadline: Deadline) -> Vec<String> {
        let Ok(pod) = POD.one(Some(&live.namespace), &of.pod) else {
            return Vec::new();
        };
        // The run before this one may not be kept any more.
        for previous in [of.previous, false] {
            let uri = format!(
                "{pod}/log?container={}&tailLines={LOG_LINES}&limitBytes=65536&previous={previous}",
                of.container
            );
            match self.server.text(&uri, deadline).await {
                Ok(text) if !text.trim().is_empty() => return last_lines(&text),
                Ok(_) | Err(_) => {}
            }
        }
        Vec::new()
    }
}

fn last_lines(text: &str) -> Vec<String> {
    let lines: Vec<_> = text
        .lines()
        .filter(|line| !line.trim().is_empty())
        .collect();
    let first = lines.len().saturating_sub(LOG_LINES);
    lines[first..]
        .iter()
        .map(|line| {
            format!(
                "log: {}",
                line.chars().take(LONGEST_LINE).collect::<String>()
            )
        })
        .collect()
}

fn with_hint(live: &Live, failure: Failure) -> Failure {
    match failure.kind.as_str() {
        "noProgress" | "timeout" => {
            let look = format!(
                "look at its pods: kubectl -n {} get pods -l {}",
                live.namespace, live.selector
            );
            failure.with_hint(look)
        }
        _ => failure,
    }
}

/// Quick while a small rollout may end at any moment, then slower: a long one does not notice.
fn pace(elapsed: Duration) -> Duration {
    match elapsed.as_secs() {
        0..10 => Duration::from_millis(150),
        10..60 => Duration::from_millis(500),
        _ => Duration::from_secs(2),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_lines_of_a_log_are_kept_short() {
        let long = "x".repeat(1000);
        let text = format!("a\nb\n\nc\nd\ne\n{long}\n");
        let lines = last_lines(&text);
        assert_eq!(lines.len(), LOG_LINES);
        assert_eq!(lines[0], "log: b");
        assert_eq!(lines[4].len(), "log: ".len() + LONGEST_LINE);
    }
}
