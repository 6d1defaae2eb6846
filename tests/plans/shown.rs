//! The golden of a case: what the command line shows, then what it does not show and the job will go by.

use std::fmt::Write;

use aldis_cli::render::plan::Drawing;
use aldis_cli::render::text::Line;
use aldis_control_plane::services::Error;
use aldis_core::ids::{TargetName, Timestamp};
use aldis_core::plan::Plan;
use aldis_core::view::PlanView;

use crate::case::{Case, Detail, Variant};
use crate::planner::NOW;

/// What an agent says of its part of a plan: what changed, if anything.
pub(crate) type Drift = (TargetName, Option<String>);

pub(crate) fn heading(case: &Case) -> String {
    format!("# {}\n\n", case.about)
}

/// A question that is no plan.
pub(crate) fn refusal(error: &Error) -> String {
    let mut text = format!("no plan ({:?}): {}\n", error.kind, error.problem);
    if let Some(hint) = &error.hint {
        // Writing into a String cannot fail.
        let _ = write!(text, "\nhint: {hint}\n");
    }
    text
}

pub(crate) fn plan(view: &PlanView, detail: Detail) -> String {
    let drawing = Drawing {
        view,
        now: Timestamp(NOW),
        columns: 100,
        detail: match detail {
            Detail::Folded => aldis_cli::render::plan::Detail::Folded,
            Detail::Full => aldis_cli::render::plan::Detail::Full,
        },
    };
    let drawn = drawing.lines().iter().map(Line::plain).collect::<Vec<_>>();
    let plan = &view.plan;
    // The id is drawn at random, and the digest may come to cover more: what changes it is a matter of `digest/`.
    let drawn = drawn
        .join("\n")
        .replace(plan.id.short(), "[id]")
        .replace(plan.digest.as_str(), "[digest]")
        .replace(plan.digest.short(), "[short digest]");
    format!("{drawn}\n\n{}", rollout(plan))
}

fn rollout(plan: &Plan) -> String {
    let phase = plan.phase();
    let mut text = format!(
        "budget {}, then {:?}; drift {:?}; unreachable {:?}; owner {:?}\n",
        phase.budget,
        phase.on_failure,
        plan.scope.body.drift(),
        plan.scope.body.when_unreachable(),
        plan.scope.body.spec.owner,
    );
    for wave in &phase.waves {
        let (name, targets, most) = (&wave.name, wave.targets.len(), wave.max_parallel);
        let _ = writeln!(text, "wave {name}: {targets}, at once {most}");
    }
    for (number, segment) in phase.segments.iter().enumerate() {
        let steps: Vec<&str> = segment.steps.iter().map(|s| s.step.id.as_str()).collect();
        let then = match segment.barrier.map(|barrier| barrier.timeout_ms) {
            None => "",
            Some(None) => ", barrier",
            Some(Some(_)) => ", barrier with a limit",
        };
        let _ = writeln!(text, "segment {}: {}{then}", number + 1, steps.join(" "));
    }
    text
}

pub(crate) fn drift(plan: &Plan, found: &[Drift]) -> String {
    let mut text = format!("\nSince then, under {:?}:\n", plan.scope.body.drift());
    for (target, says) in found {
        let says = says.as_deref().unwrap_or("as planned");
        let _ = writeln!(text, "  {target}  {says}");
    }
    text
}

pub(crate) fn variants(found: &[(Variant, bool)]) -> String {
    let mut text = "\nDigest of the same question with one difference:\n".to_owned();
    for (variant, same) in found {
        let word = if *same { "same " } else { "other" };
        let _ = writeln!(text, "  {word}  {}", variant.about);
    }
    text
}
