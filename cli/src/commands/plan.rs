//! `aldis plan`: what a runbook would do on every target. `aldis plan show`: a stored plan again.

use aldis_core::view::PlanView;

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::input::Input;
use crate::printer::Output;
use crate::render::plan::{Detail, Drawing, has_changes, refusals};
use crate::render::text::{Line, Tone};
use crate::render::time;

/// `aldis plan`.
#[derive(Debug, clap::Args)]
#[command(args_conflicts_with_subcommands = true)]
pub struct Args {
    #[command(subcommand)]
    show: Option<Show>,
    #[command(flatten)]
    input: Input,
    /// Show each target with each step
    #[arg(long)]
    full: bool,
    /// Exit with 10 when the plan has changes
    #[arg(long)]
    detailed_exitcode: bool,
}

#[derive(Debug, clap::Subcommand)]
enum Show {
    /// Show a stored plan
    Show {
        /// Its id, or the beginning of it
        #[arg(value_name = "PLAN")]
        plan: String,
        /// Show each target with each step
        #[arg(long)]
        full: bool,
    },
}

/// Plans, or shows a plan.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let client = app.client()?;
    let (view, full) = match &args.show {
        Some(Show::Show { plan, full }) => (client.stored_plan(plan).await?, *full),
        None => {
            let request = args.input.request(&client).await?;
            let view = client.plan(&request, |step| app.planning(&step)).await;
            app.printer.clear_frame();
            (view?, args.full)
        }
    };
    finish(app, &view, full);
    if !refusals(&view).is_empty() {
        return Ok(Exit::Refused);
    }
    if args.detailed_exitcode && has_changes(&view.plan) {
        return Ok(Exit::Changes);
    }
    Ok(Exit::Ok)
}

/// Prints a plan, and what can be typed next.
pub fn finish(app: &App, view: &PlanView, full: bool) {
    show(app, view, full);
    if app.printer.output == Output::Human {
        app.tell(next(view));
    }
}

/// Prints a plan in the form that was asked for.
pub fn show(app: &App, view: &PlanView, full: bool) {
    match app.printer.output {
        Output::Human => {
            let drawing = Drawing {
                view,
                now: time::now(),
                columns: app.printer.columns(),
                detail: if full { Detail::Full } else { Detail::Folded },
            };
            app.tell(drawing.lines());
        }
        Output::Json => app.printer.json(view),
        Output::Name => app.printer.data([view.plan.id.as_str()]),
    }
}

fn next(view: &PlanView) -> Vec<Line> {
    let plan = view.plan.id.short();
    let details = format!("Details: aldis plan show {plan} --full");
    if view.expired {
        let text = "This plan is no longer valid: plan again to submit.";
        return vec![Line::new(), Line::of(Tone::Bad, text)];
    }
    if !refusals(view).is_empty() {
        let text = "This plan is refused: nothing can be submitted until every target agrees.";
        return vec![Line::new(), Line::of(Tone::Bad, text), details.into()];
    }
    vec![
        Line::new(),
        Line::of(
            Tone::Strong,
            format!("Submit this plan: aldis submit --plan {plan}"),
        ),
        details.into(),
    ]
}
