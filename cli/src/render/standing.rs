//! Where one target stands, in one word with a glyph. The tree, plain lines and tables all use this, so
//! that a state has one name everywhere.
//!
//! `running` is said only of what can be seen: while its agent is away a target is `absent`, whatever
//! was last heard of it.

use aldis_core::decide::WaitingOn;
use aldis_core::ids::TargetName;
use aldis_core::job::{JobState, Rest, TargetState};
use aldis_core::outcome::StepState;
use aldis_core::view::{JobView, TargetView};

use super::text::{Line, Tone, count};

/// What a target counts as, while a job goes on.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// An outcome that nobody knows, or an agent that cannot be seen.
    Unknown,
    /// Something failed on it.
    Failed,
    /// Something happens on it.
    Running,
    /// Its turn has not come.
    Waiting,
    /// At rest, and well.
    Done,
}

/// One target's state in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// What it counts as.
    pub class: Class,
    /// One character.
    pub glyph: &'static str,
    /// For colour.
    pub tone: Tone,
    /// The state.
    pub word: &'static str,
    /// What is behind it; may be empty.
    pub detail: String,
}

impl Standing {
    fn new(class: Class, word: &'static str, detail: impl Into<String>) -> Self {
        let (glyph, tone) = match class {
            Class::Unknown => ("?", Tone::Warn),
            Class::Failed => ("✘", Tone::Bad),
            Class::Running => ("◐", Tone::Busy),
            Class::Waiting => ("○", Tone::Dim),
            Class::Done => ("✔", Tone::Good),
        };
        Self {
            class,
            glyph,
            tone,
            word,
            detail: detail.into(),
        }
    }

    fn quiet(mut self, glyph: &'static str) -> Self {
        self.glyph = glyph;
        self.tone = Tone::Dim;
        self
    }

    /// Word and detail.
    pub fn line(&self) -> Line {
        let mut line = Line::of(self.tone, self.word);
        if !self.detail.is_empty() {
            line.push(Tone::Plain, format!("  {}", self.detail));
        }
        line
    }
}

/// The name of a target as every output shows it.
pub fn named(target: &impl std::fmt::Display, simulated: bool) -> String {
    if simulated {
        format!("{target} (simulated)")
    } else {
        target.to_string()
    }
}

/// The same, for a target of a job.
pub fn name_in(view: &JobView, target: &TargetName) -> String {
    let simulated = view.targets.get(target).is_some_and(|t| t.simulated);
    named(target, simulated)
}

/// Where a target of a job stands.
pub fn of(view: &JobView, name: &TargetName, target: &TargetView) -> Standing {
    use TargetState as T;
    let cause = || failure_line(target).unwrap_or_default();
    match &target.state {
        T::NotStarted => match &target.left_out {
            Some(why) => Standing::new(Class::Done, "left alone", why).quiet("="),
            None => Standing::new(Class::Waiting, "waiting", ""),
        },
        T::Deferred { .. } => {
            Standing::new(Class::Waiting, "deferred", "runs when its agent returns")
        }
        T::Assigned { .. } | T::Running { .. } | T::UndoAssigned | T::Undoing => {
            at_work(view, name, target)
        }
        T::AtBarrier { .. } => Standing::new(
            Class::Running,
            "at barrier",
            "waits for the others of its wave",
        ),
        T::Failed { .. } => Standing::new(Class::Failed, "failed", cause()),
        T::Stopped { .. } => Standing::new(Class::Running, "stopped", "at a safe point").quiet("‖"),
        T::Unknown { evidence, .. } => Standing::new(
            Class::Unknown,
            "unknown",
            evidence.first().cloned().unwrap_or_default(),
        ),
        T::Stuck { step, failure } => {
            let at = step.as_ref().map(|step| format!("{step}: "));
            let detail = format!("{}{}", at.unwrap_or_default(), failure.cause);
            Standing::new(Class::Failed, "stuck", detail)
        }
        T::Rest(Rest::Changed) if is_going_back(view) => {
            Standing::new(Class::Waiting, "changed", "to be put back").quiet("↩")
        }
        T::Rest(rest) => at_rest(rest, target),
    }
}

fn is_going_back(view: &JobView) -> bool {
    matches!(view.header.state, JobState::Unwinding { .. })
}

fn at_work(view: &JobView, name: &TargetName, target: &TargetView) -> Standing {
    let back = matches!(
        target.state,
        TargetState::UndoAssigned | TargetState::Undoing
    );
    let step = if back { None } else { step_line(target) };
    let last_known = step.clone().unwrap_or_else(|| {
        let known = if back {
            "going back"
        } else {
            "sent to its agent"
        };
        known.to_owned()
    });
    for waiting in &view.waiting {
        match &waiting.on {
            WaitingOn::AgentAbsent { target, .. } if target == name => {
                let detail = format!("its agent is away; last known: {last_known}");
                return Standing::new(Class::Unknown, "absent", detail);
            }
            WaitingOn::AgentContested { target, why } | WaitingOn::AgentHeld { target, why }
                if target == name =>
            {
                return Standing::new(
                    Class::Unknown,
                    "held",
                    format!("{why}; last known: {last_known}"),
                );
            }
            WaitingOn::Agent {
                target,
                parked: true,
                ..
            } if target == name => {
                return Standing::new(Class::Running, "resting", "at a safe point").quiet("‖");
            }
            _ => {}
        }
    }
    match (&target.state, step) {
        (TargetState::Assigned { .. }, None) => Standing::new(Class::Running, "sent", ""),
        (TargetState::UndoAssigned, _) => Standing::new(Class::Running, "sent back", ""),
        (TargetState::Undoing, _) => Standing::new(Class::Running, "going back", undo_line(target)),
        (_, step) => Standing::new(Class::Running, "running", step.unwrap_or_default()),
    }
}

fn at_rest(rest: &Rest, target: &TargetView) -> Standing {
    let failed = failure_line(target);
    match (rest, failed) {
        (Rest::Changed, None) => Standing::new(Class::Done, "changed", ""),
        (Rest::Restored, None) => Standing::new(Class::Done, "restored", ""),
        (Rest::Untouched, None) => {
            let why = target.left_out.clone().unwrap_or_default();
            Standing::new(Class::Done, "untouched", why).quiet("=")
        }
        (Rest::Changed, Some(cause)) => Standing::new(Class::Failed, "changed", cause),
        (Rest::Restored, Some(cause)) => Standing::new(Class::Failed, "restored", cause),
        (Rest::Untouched, Some(cause)) => Standing::new(Class::Failed, "untouched", cause),
        (Rest::NeedsOperator { why }, cause) => {
            let detail = match (&target.failure, cause) {
                // The reason holds the cause already, as the core writes it.
                (Some(failure), Some(cause)) if !why.contains(&failure.failure.cause) => {
                    format!("{why}: {cause}")
                }
                _ => why.clone(),
            };
            Standing::new(Class::Failed, "needs operator", detail)
        }
    }
}

/// `wait_rollout: 7 of 12 pods ready`.
fn failure_line(target: &TargetView) -> Option<String> {
    let failure = target.failure.as_ref()?;
    Some(match &failure.step {
        Some(step) => format!("{step}: {}", failure.failure.cause),
        None => failure.failure.cause.clone(),
    })
}

/// `3/5 wait_rollout`, with the try where it is not the first.
fn step_line(target: &TargetView) -> Option<String> {
    let of = target.steps.len();
    let running = target
        .steps
        .iter()
        .enumerate()
        .find_map(|(index, (id, state))| match state {
            StepState::Running { tries } => Some((index, id, *tries)),
            _ => None,
        });
    if let Some((index, id, tries)) = running {
        let again = if tries > 1 {
            format!(", try {tries}")
        } else {
            String::new()
        };
        return Some(format!("step {}/{of} {id}{again}", index + 1));
    }
    let done = |state: &StepState| !matches!(state, StepState::NotStarted);
    let (index, (id, _)) = target
        .steps
        .iter()
        .enumerate()
        .rev()
        .find(|(_, (_, state))| done(state))?;
    Some(format!("step {}/{of} {id} done", index + 1))
}

/// What failed, and how far the way back has come.
fn undo_line(target: &TargetView) -> String {
    let undone = target
        .steps
        .iter()
        .filter(|(_, state)| matches!(state, StepState::Undone))
        .count();
    let mut parts = Vec::new();
    if let Some(step) = target.failure.as_ref().and_then(|f| f.step.as_ref()) {
        parts.push(format!("{step} failed"));
    }
    if undone > 0 {
        parts.push(format!("{} undone", count(undone, "step", "steps")));
    }
    parts.join(", ")
}
