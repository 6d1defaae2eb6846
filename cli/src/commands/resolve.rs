//! `aldis resolve`: an operator says what became of a step that nobody else can say it of.

use aldis_core::ids::{StepId, TargetName};
use aldis_core::job::{TargetState, Verdict, Wish};
use aldis_core::view::JobView;

use super::jobs::ask;
use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::job::title;
use crate::render::standing::name_in;
use crate::render::text::{Line, Tone};
use crate::render::verdict::{open_step, questions_of};

/// `aldis resolve`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The job's id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// The target that rests as unknown or stuck
    #[arg(short = 't', long, value_name = "REGION/CLUSTER")]
    target: TargetName,
    /// The step in question; may be left out where only one is
    #[arg(long, value_name = "STEP")]
    step: Option<String>,
    /// What you saw on the cluster
    #[arg(long = "as", value_name = "WHAT")]
    verdict: Said,
    /// How you know; kept with the job
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
enum Said {
    /// The step's effect is there
    Done,
    /// It is not there, and will not come
    NotDone,
    /// Leave it as it is; the target rests as needing an operator
    Abandon,
}

/// Shows the evidence, asks, and says it.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let view = client.job(&args.job).await?;
    let step = step_in_question(&view, args)?;
    let (verdict, meaning) = match args.verdict {
        Said::Done => (Verdict::Done, "was done"),
        Said::NotDone => (Verdict::NotDone, "was not done, and will not be"),
        Said::Abandon => (Verdict::Abandon, "is to be left as it is"),
    };
    let mut lines = vec![title(&view)];
    lines.extend(questions_of(&view, &args.target));
    app.printer.note(lines);
    let name = name_in(&view, &args.target);
    app.confirm(&format!("Say that {step} on {name} {meaning}?"))
        .await?;
    let wish = Wish::Resolve {
        target: args.target.clone(),
        step: step.clone(),
        verdict,
    };
    ask(app, &client, &view, &args.reason, &wish).await?;
    let job = &view.header.id;
    match app.printer.output {
        Output::Human => app.printer.data([
            Line::of(Tone::Strong, format!("Job {}", job.short()))
                .and(format!(" takes your word: {step} on {name} {meaning}")),
            Line::from(format!("  aldis watch {}", job.short())),
        ]),
        Output::Json => app
            .printer
            .json(&serde_json::json!({"job": job, "requested": true})),
        Output::Name => app.printer.data([job.as_str()]),
    }
    Ok(Exit::Ok)
}

fn step_in_question(view: &JobView, args: &Args) -> Result<StepId, Error> {
    let job = view.header.id.short();
    let target = &args.target;
    let Some(found) = view.targets.get(target) else {
        return Err(
            Error::usage(format!("{target} is not part of job {job}")).hint(format!(
                "`aldis status {job} --targets` lists those that are"
            )),
        );
    };
    let open = matches!(
        found.state,
        TargetState::Unknown { .. } | TargetState::Stuck { .. }
    );
    if !open {
        let message = format!(
            "{target} of job {job} is neither unknown nor stuck: there is nothing to resolve"
        );
        return Err(
            Error::new(Exit::Refused, message).hint(format!("`aldis status {job}` says what is"))
        );
    }
    let Some(step) = &args.step else {
        let step = open_step(found).cloned();
        return step.ok_or_else(|| Error::usage("which step? name it with --step"));
    };
    let step = StepId::from(step.as_str());
    if found.steps.iter().any(|(id, _)| *id == step) {
        return Ok(step);
    }
    let steps: Vec<_> = found.steps.iter().map(|(id, _)| id.as_str()).collect();
    Err(Error::usage(format!("the runbook has no step `{step}`"))
        .hint(format!("its steps are: {}", steps.join(", "))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, plan, put, step, target, view};
    use aldis_core::job::{Direction, Rest};
    use aldis_core::outcome::StepState;

    fn args(step: Option<&str>) -> Args {
        Args {
            job: "j".into(),
            target: target("eu-west/prod-1"),
            step: step.map(str::to_owned),
            verdict: Said::Done,
            reason: "seen".into(),
        }
    }

    #[test]
    fn the_step_is_found_where_only_one_is_in_question() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        put(
            &mut job,
            "eu-west/prod-1",
            TargetState::Unknown {
                direction: Direction::Forward,
                segment: 1,
                evidence: vec![],
            },
        );
        step(
            &mut job,
            "eu-west/prod-1",
            "rollback",
            StepState::Unknown { evidence: vec![] },
        );
        let view = view(&job, &[], 0);
        assert_eq!(
            step_in_question(&view, &args(None)).unwrap(),
            "rollback".into()
        );
        let wrong = step_in_question(&view, &args(Some("rolback"))).unwrap_err();
        assert!(wrong.hint.unwrap().contains("rollback, wait_rollout"));
    }

    #[test]
    fn what_is_known_is_not_to_be_resolved() {
        let mut job = sample::job(plan(&["eu-west/prod-1"]));
        put(&mut job, "eu-west/prod-1", TargetState::Rest(Rest::Changed));
        let refused = step_in_question(&view(&job, &[], 0), &args(None)).unwrap_err();
        assert_eq!(refused.exit, Exit::Refused);
    }
}
