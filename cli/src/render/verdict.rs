//! The end of a job in words: what failed and why, what stands now, and what can be typed next.

use std::collections::BTreeMap;

use aldis_core::ids::{StepId, TargetName};
use aldis_core::job::{JobState, Rest, StopCause, TargetState};
use aldis_core::outcome::{Failure, StepState};
use aldis_core::runbook::Direction;
use aldis_core::view::{JobView, TargetView};

use super::job::{state_words, tone};
use super::standing::name_in;
use super::text::{Line, Tone, count};

/// Different failures that are told in full; more are counted. One cause has many effects.
const TOLD: usize = 5;

/// Targets named beside a failure or a count.
const NAMED: usize = 6;

/// Facts shown of one failure.
const EVIDENCE: usize = 12;

/// The verdict of a job that has ended, or rests until an operator speaks.
pub fn lines(view: &JobView) -> Vec<Line> {
    let mut lines = so_far(view);
    let cause = cause(view);
    if !cause.is_empty() {
        lines.extend(cause);
        lines.push(Line::new());
    }
    lines.push(summary(view));
    lines.extend(next(view));
    lines
}

/// What is to be told of targets while a job goes on, each part with a blank line after it.
pub fn so_far(view: &JobView) -> Vec<Line> {
    let mut lines = Vec::new();
    for told in [
        failures(view),
        questions(view),
        stopped(view),
        left_alone(view),
    ] {
        if !told.is_empty() {
            lines.extend(told);
            lines.push(Line::new());
        }
    }
    lines
}

/// `Job j-… rollback-service@1 SUCCEEDED   4 changed · 2 left alone   exit 0`.
pub fn summary(view: &JobView) -> Line {
    let header = &view.header;
    let mut line = Line::of(Tone::Strong, format!("Job {}", header.id.short()));
    line.push(Tone::Plain, format!(" {} ", header.runbook));
    let words = state_words(&header.state).to_uppercase();
    line.push(tone(&header.state), words);
    let counts = counts(view);
    if !counts.is_empty() {
        line.push(Tone::Plain, format!("   {}", counts.join(" · ")));
    }
    if header.simulated {
        line.push(Tone::Warn, "   with simulated targets");
    }
    if let Some(exit) = view.exit_code {
        line.push(Tone::Dim, format!("   exit {exit}"));
    }
    line
}

/// What became of the targets, the good news first. Each target is counted once.
fn counts(view: &JobView) -> Vec<String> {
    let mut of: BTreeMap<Fate, Vec<&TargetName>> = BTreeMap::new();
    for (name, target) in &view.targets {
        let fate = match fate(target) {
            // What was not begun when a job ended stays untouched.
            Fate::NotStarted if view.header.state.is_ended() => Fate::Untouched,
            // Only a remedy was there to help.
            Fate::Failed if view.direction == Direction::Remedy => Fate::NotHelped,
            fate => fate,
        };
        of.entry(fate).or_default().push(name);
    }
    of.into_iter()
        .map(|(fate, names)| {
            let count = format!("{} {}", names.len(), fate.word());
            match fate {
                Fate::Changed | Fate::Restored | Fate::NotStarted | Fate::Untouched => count,
                Fate::LeftAlone
                | Fate::NotHelped
                | Fate::Failed
                | Fate::Stopped
                | Fate::Unknown
                | Fate::Stuck
                | Fate::HalfWay => {
                    format!("{count} ({})", named(view, &names))
                }
            }
        })
        .collect()
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    Changed,
    Restored,
    LeftAlone,
    Untouched,
    NotHelped,
    Failed,
    /// Left as it was when an operator or the budget stopped the job.
    Stopped,
    Unknown,
    Stuck,
    HalfWay,
    NotStarted,
}

impl Fate {
    fn word(self) -> &'static str {
        match self {
            Self::Changed => "changed",
            Self::Restored => "restored",
            Self::LeftAlone => "left alone",
            Self::Untouched => "untouched",
            Self::NotHelped => "not helped",
            Self::Failed => "failed",
            Self::Stopped => "stopped half way",
            Self::Unknown => "unknown",
            Self::Stuck => "stuck",
            Self::HalfWay => "on the way",
            Self::NotStarted => "not started",
        }
    }
}

fn fate(target: &TargetView) -> Fate {
    use TargetState as T;
    match &target.state {
        T::Rest(Rest::Changed) => Fate::Changed,
        T::Rest(Rest::Restored) => Fate::Restored,
        T::Rest(Rest::Untouched) if target.failure.is_none() && target.left_out.is_some() => {
            Fate::LeftAlone
        }
        T::Rest(Rest::Untouched) => Fate::Untouched,
        T::Rest(Rest::NeedsOperator { .. }) if target.failure.is_some() => Fate::Failed,
        T::Rest(Rest::NeedsOperator { .. }) => Fate::Stopped,
        T::Unknown { .. } => Fate::Unknown,
        T::Stuck { .. } => Fate::Stuck,
        T::NotStarted if target.left_out.is_some() => Fate::LeftAlone,
        T::NotStarted | T::Deferred { .. } => Fate::NotStarted,
        T::Assigned { .. }
        | T::Running { .. }
        | T::AtBarrier { .. }
        | T::Failed { .. }
        | T::Stopped { .. }
        | T::UndoAssigned
        | T::Undoing => Fate::HalfWay,
    }
}

fn named(view: &JobView, names: &[&TargetName]) -> String {
    let mut shown: Vec<String> = names
        .iter()
        .take(NAMED)
        .map(|name| name_in(view, name))
        .collect();
    if names.len() > NAMED {
        shown.push(format!("and {} more", names.len() - NAMED));
    }
    shown.join(", ")
}

/// What failed, told once for all the targets that failed alike.
fn failures(view: &JobView) -> Vec<Line> {
    let mut alike: Vec<(Alike<'_>, Vec<&TargetName>)> = Vec::new();
    for (name, target) in &view.targets {
        let Some(failure) = &target.failure else {
            continue;
        };
        let this = Alike {
            step: failure.step.as_ref(),
            place: place(target, failure.step.as_ref()),
            failure: &failure.failure,
        };
        match alike.iter_mut().find(|(other, _)| *other == this) {
            Some((_, names)) => names.push(name),
            None => alike.push((this, vec![name])),
        }
    }
    let mut lines = Vec::new();
    let more = alike.len().saturating_sub(TOLD);
    for (alike, names) in alike.iter().take(TOLD) {
        let at = match (alike.step, alike.place) {
            (Some(step), Some((n, of))) => format!(" failed at {step} ({n}/{of})"),
            (Some(step), None) => format!(" failed at {step}"),
            (None, _) => " failed".to_owned(),
        };
        let mut head = Line::of(Tone::Bad, "✘ ");
        head.push(Tone::Strong, named(view, names));
        head.push(Tone::Bad, at);
        lines.push(head);
        lines.extend(told(alike.failure));
    }
    if more > 0 {
        let text = format!("✘ and {}", count(more, "other failure", "other failures"));
        let mut line = Line::of(Tone::Bad, text);
        let all = format!(
            "   all of them: aldis status {} --failed",
            view.header.id.short()
        );
        line.push(Tone::Plain, all);
        lines.push(line);
    }
    lines
}

#[derive(PartialEq)]
struct Alike<'a> {
    step: Option<&'a StepId>,
    place: Option<(usize, usize)>,
    failure: &'a Failure,
}

fn place(target: &TargetView, step: Option<&StepId>) -> Option<(usize, usize)> {
    let index = target.steps.iter().position(|(id, _)| Some(id) == step)?;
    Some((index + 1, target.steps.len()))
}

/// Cause, evidence, way forward.
pub fn told(failure: &Failure) -> Vec<Line> {
    let mut lines = vec![Line::from(format!("  {}", failure.cause))];
    let facts = failure.evidence.iter().flat_map(|fact| fact.lines());
    let total = facts.clone().count();
    lines.extend(
        facts
            .take(EVIDENCE)
            .map(|fact| Line::from(format!("    {fact}"))),
    );
    if total > EVIDENCE {
        let more = format!("    … {} more lines", total - EVIDENCE);
        lines.push(Line::of(Tone::Dim, more));
    }
    if let Some(hint) = &failure.hint {
        lines.push(Line::of(Tone::Busy, "  hint: ").and(hint.as_str()));
    }
    lines
}

/// Outcomes that nobody knows and undos that did not work, each with the command that settles it.
fn questions(view: &JobView) -> Vec<Line> {
    let open = view.targets.iter().filter(|(_, target)| is_open(target));
    let more = open.clone().count().saturating_sub(TOLD);
    let told = open.take(TOLD);
    let mut lines: Vec<Line> = told
        .flat_map(|(name, target)| question(view, name, target))
        .collect();
    if more > 0 {
        let job = view.header.id.short();
        let text = format!("? and {}", count(more, "other question", "other questions"));
        let all = format!("   all of them: aldis status {job} --failed");
        lines.push(Line::of(Tone::Warn, text).and(all));
    }
    lines
}

/// The open question of one target, if it has one.
pub fn questions_of(view: &JobView, name: &TargetName) -> Vec<Line> {
    let target = view.targets.get(name);
    target.map_or_else(Vec::new, |target| question(view, name, target))
}

fn is_open(target: &TargetView) -> bool {
    matches!(
        target.state,
        TargetState::Unknown { .. } | TargetState::Stuck { .. }
    )
}

fn question(view: &JobView, name: &TargetName, target: &TargetView) -> Vec<Line> {
    let (what, facts) = match &target.state {
        TargetState::Unknown { evidence, .. } => (
            "nobody can say whether its effect happened",
            evidence.clone(),
        ),
        TargetState::Stuck { failure, .. } => {
            let mut facts = vec![failure.cause.clone()];
            facts.extend(failure.evidence.clone());
            facts.extend(failure.hint.as_ref().map(|hint| format!("hint: {hint}")));
            ("its undo did not work", facts)
        }
        _ => return Vec::new(),
    };
    let step = open_step(target);
    let mut head = Line::of(Tone::Warn, "? ");
    head.push(Tone::Strong, name_in(view, name));
    let at = step.map_or_else(String::new, |step| format!(" at {step}"));
    head.push(Tone::Warn, format!("{at}: {what}"));
    let mut lines = vec![head];
    let facts = facts.iter().take(EVIDENCE);
    lines.extend(facts.map(|fact| Line::from(format!("    {fact}"))));
    let step = step.map_or("STEP".to_owned(), ToString::to_string);
    let job = view.header.id.short();
    lines.push(Line::of(Tone::Busy, "  look at the cluster, then: ").and(format!(
        "aldis resolve {job} --target {name} --step {step} --as done|not-done|abandon --reason TEXT"
    )));
    lines
}

/// Targets that need somebody though nothing failed on them, told once for each reason.
fn stopped(view: &JobView) -> Vec<Line> {
    let mut reasons: BTreeMap<&str, Vec<&TargetName>> = BTreeMap::new();
    for (name, target) in &view.targets {
        if let TargetState::Rest(Rest::NeedsOperator { why }) = &target.state
            && target.failure.is_none()
        {
            reasons.entry(why).or_default().push(name);
        }
    }
    let told = reasons.into_iter().map(|(why, names)| {
        let mut line = Line::of(Tone::Bad, "✘ ");
        line.push(Tone::Strong, named(view, &names));
        line.and(format!(" {why}"))
    });
    told.collect()
}

/// Targets that had no part in it, told once for each reason.
fn left_alone(view: &JobView) -> Vec<Line> {
    let mut reasons: BTreeMap<&str, Vec<&TargetName>> = BTreeMap::new();
    for (name, target) in &view.targets {
        if let (Fate::LeftAlone, Some(why)) = (fate(target), &target.left_out) {
            reasons.entry(why).or_default().push(name);
        }
    }
    reasons
        .into_iter()
        .map(|(why, names)| {
            let mut line = Line::of(Tone::Dim, "= ").and(named(view, &names));
            line.push(Tone::Plain, format!(" left alone: {why}"));
            line
        })
        .collect()
}

/// The step that an open question is about.
pub fn open_step(target: &TargetView) -> Option<&StepId> {
    if let TargetState::Stuck {
        step: Some(step), ..
    } = &target.state
    {
        return Some(step);
    }
    let unsettled = |state: &StepState| {
        matches!(
            state,
            StepState::Unknown { .. } | StepState::UndoFailed { .. } | StepState::Running { .. }
        )
    };
    let found = target.steps.iter().find(|(_, state)| unsettled(state));
    found.map(|(id, _)| id)
}

/// Why the job stopped, where it did.
fn cause(view: &JobView) -> Vec<Line> {
    let state = match &view.header.state {
        JobState::NeedsOperator { after } => after,
        state => state,
    };
    let cause = match state {
        JobState::Stopping { cause }
        | JobState::Unwinding { cause }
        | JobState::Failed { cause }
        | JobState::Undone { cause }
        | JobState::Cancelled { cause } => cause,
        JobState::Queued
        | JobState::Running
        | JobState::Paused
        | JobState::Succeeded
        | JobState::PartlyDone
        | JobState::NeedsOperator { .. } => return Vec::new(),
    };
    if let StopCause::Drift { targets } = cause {
        let head = "Refused: something changed since the plan was made; nothing was touched";
        let mut lines = vec![Line::of(Tone::Bad, head)];
        let each = targets
            .iter()
            .map(|(name, what)| Line::from(format!("  {}: {what}", name_in(view, name))));
        lines.extend(each);
        return lines;
    }
    vec![Line::from(format!("Stopped: {cause}"))]
}

/// What can be typed next.
fn next(view: &JobView) -> Vec<Line> {
    let job = view.header.id.short();
    let any = |wanted: fn(&TargetView) -> bool| view.targets.values().any(wanted);
    let failed = any(|target| target.failure.is_some());
    let changed = any(stands);
    let mut commands: Vec<(&str, String)> = Vec::new();
    let is_drift = matches!(
        &view.header.state,
        JobState::Failed {
            cause: StopCause::Drift { .. }
        }
    );
    if is_drift {
        commands.push(("look", format!("aldis describe {job}")));
        commands.push(("plan", format!("plan `{}` again", view.header.runbook.name)));
        return rows(&commands);
    }
    let narrow = if failed { " --failed" } else { "" };
    match &view.header.state {
        JobState::Succeeded => {
            if changed {
                commands.push(("undo", format!("aldis undo {job}")));
            }
        }
        JobState::PartlyDone | JobState::Failed { .. } => {
            commands.push(("logs", format!("aldis logs {job}{narrow}")));
            commands.push(("retry", format!("aldis retry {job}")));
            if changed {
                commands.push(("undo", format!("aldis undo {job}")));
            }
        }
        JobState::Undone { .. } => {
            commands.push(("logs", format!("aldis logs {job}{narrow}")));
            commands.push(("retry", format!("aldis retry {job}")));
        }
        JobState::Cancelled { .. } => {
            if changed {
                commands.push(("undo", format!("aldis undo {job}")));
            }
            commands.push(("retry", format!("aldis retry {job}")));
        }
        JobState::NeedsOperator { .. } => {
            commands.push(("logs", format!("aldis logs {job}")));
            commands.push(("after", format!("aldis watch {job}")));
        }
        JobState::Queued
        | JobState::Running
        | JobState::Paused
        | JobState::Stopping { .. }
        | JobState::Unwinding { .. } => {
            commands.push(("watch", format!("aldis watch {job}")));
        }
    }
    rows(&commands)
}

/// Whether something of the job stands there, which an undo would put back.
pub fn stands(target: &TargetView) -> bool {
    match &target.state {
        TargetState::Rest(Rest::Changed) => true,
        TargetState::Rest(Rest::Restored) => false,
        _ => target
            .steps
            .iter()
            .any(|(_, state)| state.may_have_effect()),
    }
}

fn rows(commands: &[(&str, String)]) -> Vec<Line> {
    commands
        .iter()
        .map(|(what, command)| {
            let mut line = Line::of(Tone::Dim, format!("  {what}"));
            line.pad(9);
            line.push(Tone::Plain, command.as_str());
            line
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, done, fail, image_gone, plan, put, step, view};
    use crate::render::text::plain;
    use aldis_core::job::Job;
    use aldis_core::plan::Disposition;

    fn ended(job: &mut Job, state: JobState) -> String {
        job.header.state = state;
        plain(&lines(&view(job, &[], 300)))
    }

    fn budget() -> StopCause {
        StopCause::Budget {
            failed: 1,
            unknown: 0,
            budget: 0,
        }
    }

    #[test]
    fn success_is_one_line_and_a_way_back() {
        let mut plan = plan(&["eu-west/prod-1", "us-east/prod-1"]);
        let alone = plan
            .parts
            .get_mut(&sample::target("us-east/prod-1"))
            .unwrap();
        alone.disposition = Disposition::Unchanged {
            why: "does not run v2.18.0".into(),
        };
        let mut job = sample::job(plan);
        put(&mut job, "eu-west/prod-1", TargetState::Rest(Rest::Changed));
        insta::assert_snapshot!(ended(&mut job, JobState::Succeeded), @r"
        = us-east/prod-1 left alone: does not run v2.18.0

        Job j-01c9d4aabbcc rollback-service@1 SUCCEEDED   1 changed · 1 left alone (us-east/prod-1)   exit 0
          undo   aldis undo j-01c9d4aabbcc
        ");
    }

    #[test]
    fn a_change_that_failed_names_cause_evidence_and_what_is_back() {
        let mut job = sample::job(plan(&[
            "eu-west/prod-1",
            "us-east/prod-1",
            "us-east/prod-2",
        ]));
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Rest(Rest::Restored),
        );
        fail(
            &mut job,
            "us-east/prod-1",
            "wait_rollout",
            image_gone(),
            TargetState::Rest(Rest::Restored),
        );
        put(
            &mut job,
            "us-east/prod-2",
            TargetState::Rest(Rest::Untouched),
        );
        insta::assert_snapshot!(ended(&mut job, JobState::Undone { cause: budget() }), @r"
        ✘ us-east/prod-1 failed at wait_rollout (4/5)
          Deployment shop/checkout: 7 of 12 pods ready, not progressing for 120s (limit 120s)
            pod checkout-6f9c-x2k: ImagePullBackOff checkout:v2.17.4 (not found)
            12:11:58 pull checkout:v2.17.4: manifest unknown

        Stopped: 1 failed and 0 unknown, more than the 0 that `maxFailures` accepts

        Job j-01c9d4aabbcc rollback-service@1 FAILED AND UNDONE   2 restored · 1 untouched   exit 4
          logs   aldis logs j-01c9d4aabbcc --failed
          retry  aldis retry j-01c9d4aabbcc
        ");
    }

    #[test]
    fn targets_that_failed_alike_are_told_once() {
        let names: Vec<String> = (1..=9).map(|n| format!("eu-west/prod-{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut job = sample::job(plan(&names));
        for name in names {
            let needs = Rest::NeedsOperator {
                why: "a remedy that did not help".into(),
            };
            fail(
                &mut job,
                name,
                "wait_rollout",
                image_gone(),
                TargetState::Rest(needs),
            );
        }
        let said = ended(&mut job, JobState::PartlyDone);
        assert_eq!(said.matches("ImagePullBackOff").count(), 1, "{said}");
        assert!(
            said.contains("prod-6, and 3 more failed at wait_rollout (4/5)"),
            "{said}"
        );
    }

    #[test]
    fn a_cancelled_change_says_where_it_stopped_and_offers_to_put_it_back() {
        let mut plan = plan(&["eu-west/prod-1", "us-east/prod-1"]);
        plan.scope.body.spec.direction = Direction::Change;
        let mut job = sample::job(plan);
        let why = "stopped half way; what was changed stands".to_owned();
        let rest = TargetState::Rest(Rest::NeedsOperator { why });
        put(&mut job, "eu-west/prod-1", rest);
        step(&mut job, "eu-west/prod-1", "rollback", done());
        let cause = StopCause::Cancelled {
            by: "user/mei".into(),
            reason: "wrong day".into(),
        };
        insta::assert_snapshot!(ended(&mut job, JobState::Cancelled { cause }), @r"
        ✘ eu-west/prod-1 stopped half way; what was changed stands

        Stopped: cancelled by user/mei: wrong day

        Job j-01c9d4aabbcc rollback-service@1 CANCELLED   1 untouched · 1 stopped half way (eu-west/prod-1)   exit 6
          undo   aldis undo j-01c9d4aabbcc
          retry  aldis retry j-01c9d4aabbcc
        ");
    }

    #[test]
    fn a_thousand_questions_are_a_few_and_a_number() {
        let names: Vec<String> = (0..1000).map(|n| format!("eu-west/c{n}")).collect();
        let names: Vec<&str> = names.iter().map(String::as_str).collect();
        let mut job = sample::job(plan(&names));
        for name in names {
            let unknown = TargetState::Unknown {
                direction: aldis_core::job::Direction::Forward,
                segment: 1,
                evidence: vec!["no word".into()],
            };
            put(&mut job, name, unknown);
        }
        let state = JobState::NeedsOperator {
            after: Box::new(JobState::Running),
        };
        let said = ended(&mut job, state);
        assert_eq!(said.matches("aldis resolve").count(), TOLD, "{said}");
        assert!(said.contains("and 995 other questions"), "{said}");
    }

    #[test]
    fn an_unknown_outcome_comes_with_the_command_that_settles_it() {
        let mut job = sample::job(plan(&["eu-west/prod-1", "us-east/prod-1"]));
        put(&mut job, "eu-west/prod-1", TargetState::Rest(Rest::Changed));
        let evidence = vec!["journal id changed; intent recorded, no outcome".to_owned()];
        let unknown = TargetState::Unknown {
            direction: aldis_core::job::Direction::Forward,
            segment: 1,
            evidence: evidence.clone(),
        };
        put(&mut job, "us-east/prod-1", unknown);
        step(&mut job, "us-east/prod-1", "old", done());
        step(
            &mut job,
            "us-east/prod-1",
            "rollback",
            StepState::Unknown { evidence },
        );
        let state = JobState::NeedsOperator {
            after: Box::new(JobState::Running),
        };
        insta::assert_snapshot!(ended(&mut job, state), @r"
        ? us-east/prod-1 at rollback: nobody can say whether its effect happened
            journal id changed; intent recorded, no outcome
          look at the cluster, then: aldis resolve j-01c9d4aabbcc --target us-east/prod-1 --step rollback --as done|not-done|abandon --reason TEXT

        Job j-01c9d4aabbcc rollback-service@1 NEEDS OPERATOR   1 changed · 1 unknown (us-east/prod-1)   exit 14
          logs   aldis logs j-01c9d4aabbcc
          after  aldis watch j-01c9d4aabbcc
        ");
    }

    #[test]
    fn drift_says_what_changed_and_that_nothing_was_touched() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        let found = "Deployment shop/checkout was changed by kubectl-edit";
        let targets = BTreeMap::from([(sample::target("eu-west/prod-1"), found.to_owned())]);
        let cause = StopCause::Drift { targets };
        insta::assert_snapshot!(ended(&mut job, JobState::Failed { cause }), @r"
        Refused: something changed since the plan was made; nothing was touched
          eu-west/prod-1: Deployment shop/checkout was changed by kubectl-edit

        Job j-01c9d4aabbcc rollback-service@1 REFUSED   1 untouched   exit 13
          look   aldis describe j-01c9d4aabbcc
          plan   plan `rollback-service` again
        ");
    }
}
