//! What happened between two views of a job. Plain lines and JSON lines are made of these.

use aldis_core::decide::WaitingOn;
use aldis_core::ids::{StepId, TargetName};
use aldis_core::job::JobState;
use aldis_core::outcome::StepState;
use aldis_core::view::{JobView, TargetView};
use serde::Serialize;

use crate::render::job::state_words;
use crate::render::standing;

/// Something that became different.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "type", rename_all = "camelCase")]
pub enum Change {
    /// The job's own state.
    Job {
        /// In words.
        state: String,
        /// Why, where there is a cause.
        cause: Option<String>,
    },
    /// A wave began.
    Wave {
        /// From 1.
        wave: usize,
        /// Its name.
        name: String,
        /// How many targets it has.
        targets: usize,
    },
    /// A step of a target began, or began again.
    Step {
        /// Whose.
        target: TargetName,
        /// True for a practice cluster.
        simulated: bool,
        /// Which.
        step: StepId,
        /// Its place, from 1.
        position: usize,
        /// Number of steps.
        of: usize,
        /// From 1.
        tries: u32,
    },
    /// A target's state.
    Target {
        /// Whose.
        target: TargetName,
        /// True for a practice cluster.
        simulated: bool,
        /// In words.
        state: String,
        /// What is behind it.
        detail: String,
        /// Facts that show why, where it failed.
        evidence: Vec<String>,
    },
    /// A new reason for waiting.
    Waiting {
        /// In words.
        on: String,
        /// What an operator can type.
        next: Option<String>,
    },
}

/// Everything that became different, the job first, and last where it is over. Without a view before, everything that is not as
/// it was at the very beginning.
pub fn between(before: Option<&JobView>, after: &JobView) -> Vec<Change> {
    let mut changes = Vec::new();
    let moved = before.map(|view| &view.header.state) != Some(&after.header.state);
    let is_over = after.exit_code.is_some();
    if moved && !is_over {
        changes.push(job(after));
    }
    wave(before, after, &mut changes);
    for (name, target) in &after.targets {
        let was = before.and_then(|view| Some((view, view.targets.get(name)?)));
        changes.extend(standing_of(was, after, name, target));
        changes.extend(steps(was.map(|(_, target)| target), name, target));
    }
    changes.extend(waiting(before, after));
    if moved && is_over {
        changes.push(job(after));
    }
    changes
}

fn job(after: &JobView) -> Change {
    use aldis_core::job::JobState as S;
    let cause = match &after.header.state {
        S::Stopping { cause }
        | S::Unwinding { cause }
        | S::Failed { cause }
        | S::Undone { cause }
        | S::Cancelled { cause } => Some(cause.to_string()),
        S::Queued
        | S::Running
        | S::Paused
        | S::Succeeded
        | S::PartlyDone
        | S::NeedsOperator { .. } => None,
    };
    Change::Job {
        state: state_words(&after.header.state).to_owned(),
        cause,
    }
}

fn wave(before: Option<&JobView>, after: &JobView, changes: &mut Vec<Change>) {
    let working = |view: &JobView| {
        let runs = view.header.started_at.is_some() && view.header.state == JobState::Running;
        runs.then_some(view.header.wave)
    };
    // A job that was paused goes on in the wave it was in.
    let was = before.and_then(|view| view.header.started_at.map(|_| view.header.wave));
    let is = working(after);
    if was == is {
        return;
    }
    let found = is.and_then(|index| Some((index, after.waves.get(index)?)));
    if let Some((index, wave)) = found {
        changes.push(Change::Wave {
            wave: index + 1,
            name: wave.name.clone(),
            targets: wave.targets.len(),
        });
    }
}

fn steps<'a>(
    before: Option<&'a TargetView>,
    name: &'a TargetName,
    after: &'a TargetView,
) -> impl Iterator<Item = Change> + 'a {
    let of = after.steps.len();
    let entries = after.steps.iter().enumerate();
    entries.filter_map(move |(index, (id, state))| {
        let StepState::Running { tries } = state else {
            return None;
        };
        let was = before.and_then(|target| target.steps.get(index));
        if was.is_some_and(|(_, was)| was == state) {
            return None;
        }
        Some(Change::Step {
            target: name.clone(),
            simulated: after.simulated,
            step: id.clone(),
            position: index + 1,
            of,
            tries: *tries,
        })
    })
}

fn standing_of(
    before: Option<(&JobView, &TargetView)>,
    view: &JobView,
    name: &TargetName,
    target: &TargetView,
) -> Option<Change> {
    let is = standing::of(view, name, target);
    let was = before.map(|(view, target)| standing::of(view, name, target));
    // Steps have lines of their own, and what was sent is news once it is begun: only another word is.
    let word = was.as_ref().map_or("waiting", |was| was.word);
    if word == is.word || matches!(is.word, "running" | "sent" | "sent back") {
        return None;
    }
    let failure = target.failure.as_ref();
    let known = before.is_some_and(|(_, was)| was.failure.is_some());
    // How a target rests whose failure was told is news; the failure is none.
    let told = known && failure.is_some_and(|f| is.detail.contains(&f.failure.cause));
    Some(Change::Target {
        target: name.clone(),
        simulated: target.simulated,
        state: is.word.to_owned(),
        detail: if told { String::new() } else { is.detail },
        evidence: match failure {
            Some(failure) if !known => failure.failure.evidence.clone(),
            _ => Vec::new(),
        },
    })
}

fn waiting<'a>(
    before: Option<&'a JobView>,
    after: &'a JobView,
) -> impl Iterator<Item = Change> + 'a {
    let known: Vec<String> = before
        .into_iter()
        .flat_map(|view| &view.waiting)
        .filter_map(|waiting| key(&waiting.on))
        .collect();
    after.waiting.iter().filter_map(move |waiting| {
        let key = key(&waiting.on)?;
        (!known.contains(&key)).then(|| Change::Waiting {
            on: waiting.text.clone(),
            next: waiting.next.clone(),
        })
    })
}

/// What makes a reason the same one in the next view, though its numbers differ. None = no news: agents
/// at work are seen by their steps, absent ones by their target's state.
fn key(on: &WaitingOn) -> Option<String> {
    Some(match on {
        WaitingOn::Agent { .. } | WaitingOn::EarlierWaves { .. } => return None,
        WaitingOn::Turn => "turn".to_owned(),
        WaitingOn::RunningJobs { .. } => "running jobs".to_owned(),
        WaitingOn::Lock { object, target, by } => format!("lock {object} {target} {by}"),
        WaitingOn::DriftCheck { .. } => "drift".to_owned(),
        WaitingOn::AgentAbsent { target, .. } => format!("absent {target}"),
        WaitingOn::AgentNotMerged { target } => format!("merge {target}"),
        WaitingOn::AgentContested { target, .. } => format!("contested {target}"),
        WaitingOn::AgentHeld { target, .. } => format!("held {target}"),
        WaitingOn::OrderRefused { target, .. } => format!("refused {target}"),
        WaitingOn::DispatchHalted { .. } => "halted".to_owned(),
        WaitingOn::Barrier { segment, .. } => format!("barrier {segment}"),
        WaitingOn::Slot { .. } => "slot".to_owned(),
        WaitingOn::Soak { wave, unread, .. } => {
            let unread: Vec<_> = unread.keys().map(ToString::to_string).collect();
            format!("soak {wave} {}", unread.join(" "))
        }
        WaitingOn::Deferred { target, .. } => format!("deferred {target}"),
        WaitingOn::LatePlan { target } => format!("late {target}"),
        WaitingOn::Paused => "paused".to_owned(),
        WaitingOn::Operator { target, .. } => format!("operator {target}"),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, done, fail, image_gone, plan, put, step, view};
    use aldis_core::job::{Rest, TargetState};
    use std::time::Duration;

    fn soak(seconds: u64) -> WaitingOn {
        WaitingOn::Soak {
            wave: 0,
            left: Duration::from_secs(seconds),
            unread: Default::default(),
        }
    }

    #[test]
    fn the_same_view_twice_is_no_news() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Running { segment: 0 },
        );
        let view = view(&job, &[soak(20)], 0);
        assert!(!between(None, &view).is_empty());
        assert_eq!(between(Some(&view), &view), []);
    }

    #[test]
    fn a_soak_that_goes_on_is_no_news() {
        let job = sample::job(plan(&["eu-west/prod-1"]));
        let (first, next) = (view(&job, &[soak(20)], 0), view(&job, &[soak(15)], 5));
        assert_eq!(between(Some(&first), &next), []);
    }

    #[test]
    fn a_step_and_its_failure_are_one_line_each() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Running { segment: 1 },
        );
        step(&mut job, "eu-west/prod-1", "now", done());
        let first = view(&job, &[], 0);
        step(
            &mut job,
            "eu-west/prod-1",
            "rollback",
            StepState::Running { tries: 1 },
        );
        let second = view(&job, &[], 1);
        let changes = between(Some(&first), &second);
        assert!(
            matches!(
                changes.as_slice(),
                [Change::Step {
                    position: 3,
                    of: 5,
                    ..
                }]
            ),
            "{changes:?}"
        );
        let needs = TargetState::Rest(Rest::NeedsOperator {
            why: "not helped".into(),
        });
        fail(&mut job, "eu-west/prod-1", "rollback", image_gone(), needs);
        let changes = between(Some(&second), &view(&job, &[], 2));
        let [
            Change::Target {
                state, evidence, ..
            },
        ] = changes.as_slice()
        else {
            panic!("{changes:?}");
        };
        assert_eq!((state.as_str(), evidence.len()), ("needs operator", 2));
    }

    #[test]
    fn a_failure_that_was_told_is_not_told_again_when_its_target_rests() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        let failed = TargetState::Failed { segment: 1 };
        fail(&mut job, "eu-west/prod-1", "rollback", image_gone(), failed);
        let first = view(&job, &[], 0);
        let told = between(None, &first);
        let cause = image_gone().cause;
        assert!(
            matches!(&told[..], [.., Change::Target { detail, .. }] if detail.contains(&cause)),
            "{told:?}"
        );
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Rest(Rest::Restored),
        );
        let told = between(Some(&first), &view(&job, &[], 1));
        let [Change::Target { state, detail, .. }] = &told[..] else {
            panic!("{told:?}");
        };
        assert_eq!((state.as_str(), detail.as_str()), ("restored", ""));
    }
}
