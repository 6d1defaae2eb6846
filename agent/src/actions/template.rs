//! What is kept of a Deployment before its pod template changes, and what follows from it afterwards.
//!
//! Pure, and the same for a real cluster and a practice one: both bring what they see ([`Seen`]) and do what is decided
//! here.
//!
//! | seen later | [`Before::observe`] | [`Before::way_back`] |
//! |---|---|---|
//! | our stamp | done | put back, where the template is the one that we left |
//! | the template of before | not done | nothing to do |
//! | anything else | cannot be told, names who | refused, names who |

use aldis_core::ids::Digest;
use aldis_core::outcome::Failure;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::redact::Key;
use super::revisions::hash;
use super::{Applied, Call, Observed, Trouble};

/// A change of one Deployment's pod template, worked out and not sent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Change {
    /// The template to send.
    pub(super) template: Value,
    /// What the action says once it is done.
    pub(super) outputs: Value,
    /// Why there is nothing to send; none where there is.
    pub(super) unchanged: Option<String>,
}

/// How far a rollout had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Completeness {
    /// Every wanted pod was of the template, and available.
    pub(super) complete: bool,
    /// Pods of the template.
    pub(super) updated: i64,
    /// Available pods.
    pub(super) available: i64,
}

/// Prior state of a template change. It holds the whole template, so it never leaves the agent.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Before {
    /// UID of the object: one of the same name that was made since is another one.
    pub(super) uid: String,
    /// As found.
    pub(super) template: Value,
    /// Its hash.
    pub(super) hash: Digest,
    /// How far its rollout had come.
    pub(super) rollout: Completeness,
    /// What is to be sent.
    pub(super) change: Change,
    /// Hash of what the change leaves, by the server's own dry run where there was one.
    pub(super) after: Digest,
    /// Key of the effect, to find it again when the way back has a stamp of its own.
    pub(super) key: String,
}

/// The object as it is at a later moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Seen {
    /// Its UID.
    pub(super) uid: String,
    /// Hash of its pod template.
    pub(super) hash: Digest,
    /// Value of annotation `aldis.dev/attempt`.
    pub(super) key: Option<String>,
    /// Who wrote the template last, and when, such as "kubectl-edit at 2026-11-24T10:00:00Z".
    pub(super) changed_by: String,
}

/// What an undo has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum WayBack {
    /// Nothing was ever done.
    NothingDone,
    /// What was captured is there already.
    AlreadyBack,
    /// Send the captured template.
    Send,
}

impl Before {
    /// Reads what [`super::Actions::capture`] returned.
    pub(super) fn read(before: &super::Before) -> Result<Self, Trouble> {
        Self::deserialize(before).map_err(|error| {
            let cause = format!("the captured state of the Deployment cannot be read: {error}");
            Trouble::refused(Failure::new("invalid", cause))
        })
    }

    /// For the journal.
    ///
    /// # Panics
    /// Never: text keys only.
    pub(super) fn write(&self) -> super::Before {
        serde_json::to_value(self).expect("text keys only")
    }

    /// What the effect left, when this is the answer of the server.
    pub(super) fn applied(&self, after: &Digest) -> Applied {
        Applied {
            outputs: self.change.outputs.clone(),
            changed: self.change.unchanged.is_none(),
            after: json!({ "hash": after }),
        }
    }

    /// Whether the effect of the call with `key` is there.
    pub(super) fn observe(&self, seen: &Seen, key: &str) -> Observed {
        if self.change.unchanged.is_some() {
            return Observed::Done(self.applied(&self.after));
        }
        // Before the stamp: a restored backup brings annotations along.
        if seen.uid != self.uid {
            let evidence = vec![format!("it was made anew since: its UID is {}", seen.uid)];
            return Observed::Indeterminate { evidence };
        }
        if seen.key.as_deref() == Some(key) {
            return Observed::Done(self.applied(&self.after));
        }
        if seen.hash == self.hash {
            return Observed::NotDone;
        }
        let evidence = vec![
            "its pod template is not the one that was found before the step".to_owned(),
            "it does not carry the stamp of the step".to_owned(),
            format!("its pod template was last written by {}", seen.changed_by),
        ];
        Observed::Indeterminate { evidence }
    }

    /// Whether an undo with `key` has been done: the mirror of [`Before::observe`].
    pub(super) fn observe_undo(&self, seen: &Seen, key: &str, after: Option<&Digest>) -> Observed {
        let back = Observed::Done(Applied {
            outputs: Value::Null,
            changed: self.change.unchanged.is_none(),
            after: json!({ "hash": self.hash }),
        });
        let stamped = seen.uid == self.uid && seen.key.as_deref() == Some(key);
        if stamped && seen.hash == self.hash {
            return back;
        }
        if stamped && self.change.unchanged.is_none() {
            let evidence = vec![
                "it carries the stamp of the undo, so that was done".to_owned(),
                format!("its pod template was changed since, by {}", seen.changed_by),
            ];
            return Observed::Indeterminate { evidence };
        }
        match self.way_back("the Deployment", seen, after) {
            Ok(WayBack::NothingDone | WayBack::AlreadyBack) => back,
            Ok(WayBack::Send) => Observed::NotDone,
            Err(failure) => Observed::Indeterminate {
                evidence: [vec![failure.cause], failure.evidence].concat(),
            },
        }
    }

    /// What an undo has to do. Only a template that our step left is ever replaced.
    pub(super) fn way_back(
        &self,
        object: &str,
        seen: &Seen,
        after: Option<&Digest>,
    ) -> Result<WayBack, Failure> {
        if self.change.unchanged.is_some() {
            return Ok(WayBack::NothingDone);
        }
        if seen.uid != self.uid {
            let cause = format!("{object} was made anew since our step; it is left as it is");
            return Err(Failure::new("drift", cause));
        }
        if seen.hash == self.hash {
            return Ok(WayBack::AlreadyBack);
        }
        let ours = match after {
            Some(after) => seen.hash == *after,
            // Nothing was recorded: the stamp says that the effect landed, the hash that it still stands.
            None => seen.key.as_ref() == Some(&self.key) && seen.hash == self.after,
        };
        if ours {
            return Ok(WayBack::Send);
        }
        let by = &seen.changed_by;
        let cause =
            format!("{object} was changed after our step, by {by}; it is left as that made it");
        Err(Failure::new("drift", cause)
            .with_hint("decide with them which template shall stay, then resolve the step"))
    }
}

/// What can be said when the captured state is lost: the stamp alone must do.
pub(super) fn observe_without_before(seen: &Seen, key: &str) -> Observed {
    if seen.key.as_deref() == Some(key) {
        return Observed::Done(Applied {
            outputs: Value::Null,
            changed: true,
            after: json!({ "hash": seen.hash }),
        });
    }
    Observed::NotDone
}

/// The hash in what [`Before::applied`] journalled.
pub(super) fn after_hash(after: Option<&Value>) -> Option<Digest> {
    let hash = after?.get("hash")?.as_str()?;
    Some(Digest::new(hash))
}

/// Whether what is found, and what would be sent, are still what was planned; or, behind another step of the job, what
/// that one left.
pub(super) fn as_planned(
    call: &Call,
    object: &str,
    seen: &Seen,
    change: &Change,
    key: &Key,
) -> Result<(), Failure> {
    if let Some(left) = &call.left
        && *left != seen.hash
    {
        return Err(drift(object, left, seen, key));
    }
    let Some(planned) = &call.planned else {
        return Ok(());
    };
    let found = key.sealed(&seen.hash);
    if let Some(touched) = &planned.touched
        && *touched != found
    {
        return Err(drifted(object, touched, &found, &seen.changed_by));
    }
    let sent = || key.sealed(&hash(&change.template));
    match &planned.becomes {
        Some(becomes) if change.unchanged.is_none() && *becomes != sent() => {
            let cause = format!("the step would give {object} another template than was planned");
            Err(Failure::new("drift", cause)
                .with_evidence(vec![format!(
                    "template hash {} was planned, {} is what the input means by now",
                    becomes.short(),
                    sent().short()
                )])
                .with_hint("its revisions changed since; plan again to see which one is meant"))
        }
        Some(_) | None => Ok(()),
    }
}

/// A template that is not the one that a step of the job left, or put back.
pub(super) fn changed_since(object: &str, changed_by: &str) -> Failure {
    let cause =
        format!("the pod template of {object} was changed after the job wrote it, by {changed_by}");
    Failure::new("drift", cause)
        .with_hint("find out who or what puts another template there; it would do so again")
}

/// A template that is not `expected`.
pub(super) fn drift(object: &str, expected: &Digest, seen: &Seen, key: &Key) -> Failure {
    let (expected, found) = (key.sealed(expected), key.sealed(&seen.hash));
    drifted(object, &expected, &found, &seen.changed_by)
}

/// Both digests sealed: a failure travels.
fn drifted(object: &str, planned: &Digest, found: &Digest, changed_by: &str) -> Failure {
    let cause =
        format!("the pod template of {object} changed since it was planned, by {changed_by}");
    Failure::new("drift", cause)
        .with_evidence(vec![format!(
            "template hash {} when planned, {} when it was to be changed",
            planned.short(),
            found.short()
        )])
        .with_hint("plan again to see what would happen to the template that is there")
}

#[cfg(test)]
mod tests {
    use super::*;
    use aldis_core::plan::StepPlan;

    fn before() -> Before {
        let (old, new) = (json!({"image": "v1"}), json!({"image": "v2"}));
        Before {
            uid: "u-1".into(),
            hash: hash(&old),
            template: old,
            rollout: Completeness {
                complete: true,
                updated: 3,
                available: 3,
            },
            after: hash(&new),
            change: Change {
                template: new,
                outputs: json!({"changed": true}),
                unchanged: None,
            },
            key: "ours".into(),
        }
    }

    fn seen(image: &str, key: Option<&str>) -> Seen {
        Seen {
            uid: "u-1".into(),
            hash: hash(&json!({ "image": image })),
            key: key.map(str::to_owned),
            changed_by: "kubectl-edit at noon".into(),
        }
    }

    fn key() -> Key {
        Key::new([7; 32])
    }

    fn planned(before: &Before) -> Call {
        let action = aldis_core::action::Action::KubeRolloutUndo;
        let stamp = crate::actions::Stamp {
            job: "j-1".into(),
            target: "eu-west/prod-1".parse().unwrap(),
            step: "rollback".into(),
            attempt: aldis_core::ids::Attempt(1),
            direction: aldis_core::job::Direction::Forward,
        };
        let plan = StepPlan {
            step: stamp.step.clone(),
            action,
            with: None,
            object: None,
            touched: Some(key().sealed(&before.hash)),
            becomes: Some(key().sealed(&before.after)),
            changes: true,
            diff: Vec::new(),
            owners: Vec::new(),
            undo: aldis_core::plan::part::Feasibility::Possible,
            basis: aldis_core::plan::part::Basis::DryRun,
            outputs: None,
        };
        Call {
            action,
            with: Value::Null,
            stamp,
            planned: Some(plan),
            left: None,
            timeout: std::time::Duration::from_secs(5),
        }
    }

    #[test]
    fn another_template_found_or_to_be_sent_is_drift() {
        let before = before();
        let judge = |image: &str, change: &Change| {
            as_planned(&planned(&before), "it", &seen(image, None), change, &key())
        };
        assert_eq!(judge("v1", &before.change), Ok(()));
        let found = judge("v2", &before.change).unwrap_err();
        assert!(found.cause.contains("by kubectl-edit"), "{found}");
        let told = format!("{found:?}");
        assert!(!told.contains(before.after.short()), "plain: {told}");
        let other = Change {
            template: json!({"image": "v0"}),
            ..before.change.clone()
        };
        let sent = judge("v1", &other).unwrap_err();
        assert!(sent.cause.contains("another template"), "{sent}");
    }

    #[test]
    fn behind_another_step_what_that_one_left_must_be_found() {
        let before = before();
        let mut call = planned(&before);
        call.left = Some(before.after.clone());
        if let Some(planned) = &mut call.planned {
            (planned.touched, planned.becomes) = (None, None);
        }
        let judge =
            |image: &str| as_planned(&call, "it", &seen(image, None), &before.change, &key());
        assert_eq!(judge("v2"), Ok(()));
        assert_eq!(judge("v1").unwrap_err().kind, "drift");
    }

    #[test]
    fn an_undo_that_somebody_covered_is_not_taken_for_done() {
        let back = |image| before().observe_undo(&seen(image, Some("undo")), "undo", None);
        assert!(matches!(back("v1"), Observed::Done(_)));
        assert!(matches!(back("v2"), Observed::Indeterminate { .. }));
    }

    #[test]
    fn the_stamp_alone_proves_the_effect() {
        let Observed::Done(applied) = before().observe(&seen("v2", Some("ours")), "ours") else {
            panic!("done");
        };
        assert!(applied.changed);
        assert_eq!(after_hash(Some(&applied.after)), Some(before().after));
    }

    #[test]
    fn an_untouched_template_proves_that_nothing_was_done() {
        let observed = before().observe(&seen("v1", Some("of another job")), "ours");
        assert_eq!(observed, Observed::NotDone);
    }

    #[test]
    fn a_third_template_proves_nothing_and_names_who_made_it() {
        let Observed::Indeterminate { evidence } = before().observe(&seen("v3", None), "ours")
        else {
            panic!("indeterminate");
        };
        assert!(evidence[2].contains("kubectl-edit at noon"), "{evidence:?}");
    }

    #[test]
    fn the_same_template_without_our_stamp_may_be_somebody_elses() {
        let observed = before().observe(&seen("v2", None), "ours");
        assert!(matches!(observed, Observed::Indeterminate { .. }));
    }

    #[test]
    fn an_object_of_the_same_name_made_since_is_another() {
        let other = Seen {
            uid: "u-2".into(),
            ..seen("v1", None)
        };
        assert!(matches!(
            before().observe(&other, "ours"),
            Observed::Indeterminate { .. }
        ));
        assert!(before().way_back("it", &other, None).is_err());
    }

    #[test]
    fn only_what_we_left_is_put_back() {
        let left = before().after;
        let way = |seen: &Seen| before().way_back("Deployment shop/checkout", seen, Some(&left));
        assert_eq!(way(&seen("v2", None)), Ok(WayBack::Send));
        assert_eq!(way(&seen("v1", None)), Ok(WayBack::AlreadyBack));
        assert_eq!(
            way(&seen("v3", Some("ours"))).unwrap_err().cause,
            "Deployment shop/checkout was changed after our step, by kubectl-edit at noon; it is left as that made it"
        );
    }

    #[test]
    fn without_a_record_only_a_stamped_template_is_put_back() {
        let way = |seen: &Seen| before().way_back("it", seen, None);
        assert_eq!(way(&seen("v2", Some("ours"))), Ok(WayBack::Send));
        assert_eq!(way(&seen("v1", None)), Ok(WayBack::AlreadyBack));
        assert!(way(&seen("v2", None)).is_err());
        assert!(way(&seen("v3", Some("ours"))).is_err());
    }

    #[test]
    fn a_step_that_changed_nothing_needs_no_way_back() {
        let mut before = before();
        before.change.unchanged = Some("does not run v2".into());
        assert_eq!(
            before.way_back("it", &seen("v3", None), None),
            Ok(WayBack::NothingDone)
        );
    }
}
