//! `kube.rollout-undo` and `kube.set-image` on a real cluster: both replace the pod template of one Deployment, and
//! differ only in which one they put there ([`rollout_undo::change`], [`set_image::change`]).
//!
//! What is sent is built in [`patch`], what follows from what is seen is decided in [`template`]; here the one is sent
//! and the other is read. The API server turns a late or repeated request away, because each is guarded by the version
//! of the object that it was made from. A request that found the object moved on is made again from what is there.

use aldis_core::action::Action;
use aldis_core::job::Direction;
use aldis_core::outcome::Failure;
use aldis_core::plan::part::{Basis, Feasibility};
use serde_json::{Value, json};
use std::time::Duration;

use super::super::planned::{self, WriteFacts};
use super::super::revisions::hash;
use super::super::template::{self, Before, Change, WayBack};
use super::super::{
    Applied, Call, Effect, Observed, Planned, Progress, Trouble, inputs, redact, rollout_undo,
    set_image,
};
use super::Cluster;
use super::deployment::{Live, ReplicaSet};
use super::error::Error;
use super::patch::{self, Mode};
use super::paths::{DEPLOYMENT, REPLICA_SET};
use super::rights::{Right, Use, right};
use super::rollout::Goal;
use super::server::Deadline;

/// Writes of others (status, autoscaler) come in bursts of two or three; one that still collides after so many is made
/// again by the runner, later.
const TRIES: u32 = 6;

/// Between two tries, times the number of the try: long enough for a burst to end.
const PAUSE: Duration = Duration::from_millis(40);

const ALL: &[Use] = &[Use::Plan, Use::Observe, Use::Apply, Use::Undo];

/// What both actions need besides reading the Deployment. The dry run of a plan is a patch too, and so is the fence
/// that an observation sets.
pub(super) const RIGHTS: [Right; 2] = [
    right(
        "patch",
        DEPLOYMENT,
        ALL,
        "to change its pod template: the only right to change anything",
    ),
    right(
        "list",
        REPLICA_SET,
        ALL,
        "to read the revisions of a Deployment",
    ),
];

/// What a dry run gave.
struct Tried {
    /// The template as the server would store it.
    template: Value,
    /// How that is known.
    basis: Basis,
    /// What to know before approving.
    warnings: Vec<String>,
}

impl Cluster {
    pub(super) async fn plan_write(
        &self,
        call: &Call,
        deadline: Deadline,
    ) -> Result<Planned, Trouble> {
        let (live, change) = self.wanted(call, deadline).await?;
        let (tried, undo) = match &change.unchanged {
            Some(_) => (untried(&live), Feasibility::NotNeeded),
            None => {
                not_paused(&live)?;
                let mut tried = self.try_out(call, &live, &change, deadline).await?;
                let back = self.way_back(&live, deadline).await?;
                tried.warnings.extend(back.warnings);
                (tried, back.feasibility)
            }
        };
        let owners = self.owners(&live, deadline).await;
        let mut warnings = tried.warnings;
        warnings.extend(owners.warnings);
        let facts = WriteFacts {
            object: DEPLOYMENT.named(&live.namespace, &live.name),
            touched: self.key.sealed(&live.hash),
            becomes: self.key.sealed(&hash(&change.template)),
            diff: redact::diff(&live.template, &tried.template, &self.key),
            owners: owners.found,
            basis: tried.basis,
            undo,
            warnings,
        };
        Ok(planned::write(call, &change, facts))
    }

    pub(super) async fn capture_write(
        &self,
        call: &Call,
        deadline: Deadline,
    ) -> Result<super::super::Before, Trouble> {
        let (live, change) = self.wanted(call, deadline).await?;
        template::as_planned(call, &live.object(), &live.seen(), &change, &self.key)
            .map_err(Trouble::refused)?;
        let after = match &change.unchanged {
            Some(_) => live.hash.clone(),
            None => {
                not_paused(&live)?;
                hash(&self.try_out(call, &live, &change, deadline).await?.template)
            }
        };
        let before = Before {
            uid: live.uid.clone(),
            hash: live.hash.clone(),
            rollout: live.counts.completeness(),
            template: live.template,
            change,
            after,
            key: call.stamp.key(),
        };
        Ok(before.write())
    }

    pub(super) async fn apply_write(
        &self,
        call: &Call,
        before: &super::super::Before,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<Applied, Trouble> {
        let before = Before::read(before)?;
        if before.change.unchanged.is_some() {
            return Ok(before.applied(&before.after));
        }
        let (namespace, name) = inputs::written(call)?;
        let mut collided = Collided::default();
        loop {
            let live = self.existing(&namespace, &name, deadline).await?;
            let seen = live.seen();
            if seen.uid == before.uid && seen.key.as_ref() == Some(&before.key) {
                return Ok(before.applied(&before.after));
            }
            if seen.uid != before.uid || seen.hash != before.hash {
                let failure = template::drift(&live.object(), &before.hash, &seen, &self.key);
                return Err(Trouble::refused(failure));
            }
            not_paused(&live)?;
            let sent = self.send(call, &live, &before.change.template, Mode::Real, deadline);
            match sent.await {
                Ok(after) => {
                    progress.say(format!("{}: pod template replaced", live.object()));
                    return Ok(before.applied(&after.hash));
                }
                Err(error) => collided.again(&live, error).await?,
            }
        }
    }

    pub(super) async fn observe_write(
        &self,
        call: &Call,
        before: Option<&super::super::Before>,
        deadline: Deadline,
    ) -> Result<Observed, Trouble> {
        let (namespace, name) = inputs::written(call)?;
        let key = call.stamp.key();
        let Some(before) = before else {
            let live = self.existing(&namespace, &name, deadline).await?;
            return match template::observe_without_before(&live.seen(), &key) {
                Observed::NotDone => {
                    let sets = self.revisions(&live, deadline).await?;
                    Ok(stamped(&sets, &key).map_or(Observed::NotDone, left_in_history))
                }
                told @ (Observed::Done(_) | Observed::Indeterminate { .. }) => Ok(told),
            };
        };
        let before = Before::read(before)?;
        let Some(live) = self.find(&namespace, &name, deadline).await? else {
            let evidence = vec![format!("Deployment {namespace}/{name} does not exist")];
            return Ok(Observed::Indeterminate { evidence });
        };
        match call.stamp.direction {
            Direction::Forward => self.observe_forward(&before, &live, &key, deadline).await,
            Direction::Undo => Ok(observe_undo(&before, &live, &key)),
        }
    }

    pub(super) async fn fence_write(&self, call: &Call, deadline: Deadline) -> Result<(), Trouble> {
        let (namespace, name) = inputs::written(call)?;
        let mut collided = Collided::default();
        loop {
            // What is gone cannot be changed, and one of its name made later has another UID.
            let Some(live) = self.find(&namespace, &name, deadline).await? else {
                return Ok(());
            };
            let path = path(&live)?;
            let fence = patch::fence(&live, &call.stamp);
            let query = Mode::Real.query();
            let sent = self
                .server
                .patch(&path, &query, patch::MERGE_PATCH, &fence, deadline);
            match sent.await {
                Ok(_) => return Ok(()),
                Err(Error::Conflict) => collided.again(&live, Error::Conflict).await?,
                // Also where no answer came: a second fence does no harm.
                Err(error) => return Err(error.reading(&format!("move {} on", live.object()))),
            }
        }
    }

    pub(super) async fn undo_write(
        &self,
        call: &Call,
        effect: &Effect,
        progress: &Progress,
        deadline: Deadline,
    ) -> Result<(), Trouble> {
        let before = Before::read(&effect.before)?;
        if before.change.unchanged.is_some() {
            return Ok(());
        }
        let after = template::after_hash(effect.after.as_ref());
        let (namespace, name) = inputs::written(call)?;
        // The request of a step whose end nobody recorded may still be on its way.
        let mut may_land = effect.after.is_none();
        let mut collided = Collided::default();
        let back = loop {
            let Some(live) = self.find(&namespace, &name, deadline).await? else {
                let cause = format!("Deployment {namespace}/{name} was deleted since our step");
                return Err(Trouble::refused(Failure::new("drift", cause)));
            };
            let way = before.way_back(&live.object(), &live.seen(), after.as_ref());
            match way.map_err(Trouble::refused)? {
                WayBack::NothingDone => return Ok(()),
                WayBack::AlreadyBack if may_land => {
                    self.fence_write(call, deadline).await?;
                    may_land = false;
                    continue;
                }
                WayBack::AlreadyBack => break live.hash,
                WayBack::Send => {}
            }
            not_paused(&live)?;
            let sent = self.send(call, &live, &before.template, Mode::Real, deadline);
            match sent.await {
                Ok(after) => {
                    progress.say(format!("{}: pod template put back", live.object()));
                    break after.hash;
                }
                Err(error) => collided.again(&live, error).await?,
            }
        };
        let goal = Goal::AsBefore(before.rollout);
        self.wait_for(&namespace, &name, goal, back, progress, deadline)
            .await
            .map(|_| ())
            .map_err(after_effect)
    }

    /// The Deployment that `call` writes, and the change that its input means right now.
    async fn wanted(&self, call: &Call, deadline: Deadline) -> Result<(Live, Change), Trouble> {
        let (namespace, name) = inputs::written(call)?;
        let live = self.existing(&namespace, &name, deadline).await?;
        let change = match call.action {
            Action::KubeRolloutUndo => {
                let sets = self.revisions(&live, deadline).await?;
                rollout_undo::change(&live.history(&sets), &inputs::read(call)?)
            }
            Action::KubeSetImage => set_image::change(&live.template, &inputs::read(call)?),
            Action::KubeGet
            | Action::KubeResolveTemplate
            | Action::KubeWait
            | Action::HttpProbe => Err(inputs::reads_only(call)),
        };
        Ok((live, change.map_err(Trouble::refused)?))
    }

    /// Lets the server try the change: it proves rights, validity and admission, and shows what would be stored.
    async fn try_out(
        &self,
        call: &Call,
        live: &Live,
        change: &Change,
        deadline: Deadline,
    ) -> Result<Tried, Trouble> {
        let mut live = live.clone();
        let mut collided = Collided::default();
        loop {
            let tried = self.send(call, &live, &change.template, Mode::Dry, deadline);
            let error = match tried.await {
                Ok(after) => {
                    return Ok(Tried {
                        template: after.template,
                        basis: Basis::DryRun,
                        warnings: Vec::new(),
                    });
                }
                Err(Error::NotTaken(said)) => {
                    return Ok(Tried {
                        template: change.template.clone(),
                        basis: Basis::Read,
                        warnings: vec![format!(
                            "{}: the API server could not try the change: {said}",
                            live.object()
                        )],
                    });
                }
                Err(error) => error,
            };
            collided.again(&live, error).await.map_err(nothing_sent)?;
            let now = self.existing(&live.namespace, &live.name, deadline).await?;
            if now.uid != live.uid || now.hash != live.hash {
                let failure = template::drift(&live.object(), &live.hash, &now.seen(), &self.key);
                return Err(Trouble::refused(failure));
            }
            live = now;
        }
    }

    async fn send(
        &self,
        call: &Call,
        live: &Live,
        template: &Value,
        mode: Mode,
        deadline: Deadline,
    ) -> Result<Live, Error> {
        let path = path(live).map_err(|_| Error::NotFound)?;
        let patch = patch::template(live, template, &call.stamp);
        let answer = self
            .server
            .patch(&path, &mode.query(), patch::JSON_PATCH, &patch, deadline)
            .await?;
        Live::read(&answer).ok_or_else(|| Error::Corrupt("it is no Deployment".to_owned()))
    }

    async fn observe_forward(
        &self,
        before: &Before,
        live: &Live,
        key: &str,
        deadline: Deadline,
    ) -> Result<Observed, Trouble> {
        let observed = before.observe(&live.seen(), key);
        if observed != Observed::NotDone {
            return Ok(observed);
        }
        // `kubectl rollout undo` puts the old annotations back with the old template: the stamp is then only on the
        // ReplicaSet that the effect made.
        let sets = self.revisions(live, deadline).await?;
        let Some(set) = stamped(&sets, key) else {
            return Ok(Observed::NotDone);
        };
        let evidence = vec![
            format!(
                "ReplicaSet {} carries the stamp of the step, so it was done",
                set.name
            ),
            format!(
                "the pod template of before the step is there again, written by {}",
                live.changed_by()
            ),
        ];
        Ok(Observed::Indeterminate { evidence })
    }
}

/// Done only when the rollout has come as far as it was: until then the undo is to be called again, which waits.
fn observe_undo(before: &Before, live: &Live, key: &str) -> Observed {
    match before.observe_undo(&live.seen(), key, None) {
        Observed::Done(_) if !Goal::AsBefore(before.rollout).reached(&live.counts) => {
            Observed::NotDone
        }
        told @ (Observed::Done(_) | Observed::NotDone | Observed::Indeterminate { .. }) => told,
    }
}

fn stamped<'a>(sets: &'a [ReplicaSet], key: &str) -> Option<&'a ReplicaSet> {
    sets.iter().find(|set| set.key.as_deref() == Some(key))
}

fn left_in_history(set: &ReplicaSet) -> Observed {
    Observed::Done(Applied {
        outputs: Value::Null,
        changed: true,
        after: json!({ "hash": hash(&set.revision.template) }),
    })
}

fn untried(live: &Live) -> Tried {
    Tried {
        template: live.template.clone(),
        basis: Basis::Read,
        warnings: Vec::new(),
    }
}

fn path(live: &Live) -> Result<String, Trouble> {
    DEPLOYMENT
        .one(Some(&live.namespace), &live.name)
        .map_err(Trouble::refused)
}

/// A paused Deployment takes a template and rolls nothing out: the step would look done and help nobody.
fn not_paused(live: &Live) -> Result<(), Trouble> {
    if !live.paused {
        return Ok(());
    }
    let cause = format!("{} is paused: nothing would be rolled out", live.object());
    let resume = format!(
        "find out who paused it and why; then `kubectl -n {} rollout resume deployment/{}`",
        live.namespace, live.name
    );
    Err(Trouble::refused(
        Failure::new("paused", cause).with_hint(resume),
    ))
}

/// A dry run that got no answer changed nothing.
fn nothing_sent(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Unknown { evidence } => Trouble::Retriable {
            failure: Failure::new("unavailable", evidence.join("; ")),
        },
        known @ (Trouble::Failed { .. } | Trouble::Retriable { .. }) => known,
    }
}

/// What goes wrong while waiting after the effect does not undo the effect.
fn after_effect(trouble: Trouble) -> Trouble {
    match trouble {
        Trouble::Failed { failure, .. } => Trouble::Failed {
            failure,
            applied: true,
        },
        other @ (Trouble::Unknown { .. } | Trouble::Retriable { .. }) => other,
    }
}

/// Guarded requests of one call that found the object moved on.
#[derive(Default)]
struct Collided {
    tries: u32,
    version: Option<String>,
}

impl Collided {
    /// Returns when the request may be made again from what is there then; fails where that would not help.
    ///
    /// A guard that fails and a template that is invalid are told apart by the version: the server answers both alike.
    async fn again(&mut self, live: &Live, error: Error) -> Result<(), Trouble> {
        let what = format!("write {}", live.object());
        let moved = self.version.replace(live.resource_version.clone())
            != Some(live.resource_version.clone());
        let guard =
            matches!(error, Error::Conflict) || (matches!(error, Error::Invalid(_)) && moved);
        if !guard {
            return Err(error.writing(&what));
        }
        self.tries += 1;
        if self.tries >= TRIES {
            let cause = format!("cannot {what}: others write it all the time");
            return Err(Trouble::Retriable {
                failure: Failure::new("unavailable", cause),
            });
        }
        tokio::time::sleep(PAUSE * self.tries).await;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::super::deployment::samples;
    use super::*;

    fn version(version: &str) -> Live {
        Live {
            resource_version: version.to_owned(),
            ..samples::live("a")
        }
    }

    #[tokio::test]
    async fn a_failed_guard_is_tried_again_and_an_invalid_template_is_not() {
        let mut collided = Collided::default();
        let invalid = || Error::Invalid("spec.template: Invalid".into());
        assert_eq!(collided.again(&version("1"), invalid()).await, Ok(()));
        // The same version and the same answer: it was not the guard.
        let Err(Trouble::Failed { failure, .. }) = collided.again(&version("1"), invalid()).await
        else {
            panic!("decided");
        };
        assert_eq!(failure.kind, "invalid");
    }

    #[tokio::test]
    async fn collisions_are_bounded() {
        let mut collided = Collided::default();
        let mut tries = 0;
        let trouble = loop {
            tries += 1;
            match collided
                .again(&version(&tries.to_string()), Error::Conflict)
                .await
            {
                Ok(()) => {}
                Err(trouble) => break trouble,
            }
        };
        assert_eq!(tries, TRIES);
        assert!(matches!(trouble, Trouble::Retriable { .. }));
    }

    #[test]
    fn a_paused_deployment_is_refused_with_the_way_out() {
        let paused = Live {
            paused: true,
            ..samples::live("a")
        };
        let Err(Trouble::Failed { failure, applied }) = not_paused(&paused) else {
            panic!("refused");
        };
        assert_eq!((failure.kind.as_str(), applied), ("paused", false));
        assert!(
            failure
                .hint
                .unwrap()
                .contains("rollout resume deployment/checkout")
        );
    }
}
