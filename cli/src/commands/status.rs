//! `aldis status`: a job as it stands, once.

use aldis_core::view::JobView;

use crate::app::App;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::job::{Drawing, Seen};
use crate::render::standing::{self, Class, name_in};
use crate::render::table::Table;
use crate::render::text::{Line, Tone};
use crate::render::verdict;

/// Rows of the tree; beyond that regions are counted, and `--targets` names each.
const ROWS: usize = 60;

/// `aldis status`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its id, or the beginning of it
    #[arg(value_name = "JOB")]
    job: String,
    /// One line for each target
    #[arg(long)]
    targets: bool,
    /// One line for each target that failed or is unknown
    #[arg(long)]
    failed: bool,
}

/// Shows it.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let view = app.client()?.job(&args.job).await?;
    match app.printer.output {
        Output::Json => app.printer.json(&view),
        Output::Name if args.targets || args.failed => {
            app.printer
                .data(chosen(&view, args.failed).map(|name| name.to_string()));
        }
        Output::Name => app.printer.data([view.header.id.as_str()]),
        Output::Human if args.targets || args.failed => {
            app.printer.data(table(&view, args.failed));
        }
        Output::Human => app.printer.data(whole(&view)),
    }
    Ok(Exit::Ok)
}

fn whole(view: &JobView) -> Vec<Line> {
    let drawing = Drawing {
        view,
        seen: &Seen::default(),
        now: view.now,
        rows: ROWS,
        footer: "",
    };
    let mut lines = drawing.lines();
    lines.push(Line::new());
    if view.exit_code.is_some() {
        lines.extend(verdict::lines(view));
    } else {
        lines.extend(verdict::so_far(view));
        let watch = format!("Follow it: aldis watch {}", view.header.id.short());
        lines.push(Line::of(Tone::Dim, watch));
    }
    lines
}

fn chosen(view: &JobView, failed: bool) -> impl Iterator<Item = &aldis_core::ids::TargetName> {
    let of_interest = move |class: Class| !failed || class <= Class::Failed;
    view.targets
        .iter()
        .filter(move |(name, target)| of_interest(standing::of(view, name, target).class))
        .map(|(name, _)| name)
}

fn table(view: &JobView, failed: bool) -> Vec<Line> {
    let mut table = Table::new(["TARGET", "WAVE", "STATE", "DETAIL"]);
    for name in chosen(view, failed) {
        let Some(target) = view.targets.get(name) else {
            continue;
        };
        let at = standing::of(view, name, target);
        let wave = view
            .waves
            .iter()
            .position(|wave| wave.targets.contains(name));
        table.row([
            Line::from(name_in(view, name)),
            Line::from(wave.map_or("-".to_owned(), |wave| (wave + 1).to_string())),
            Line::of(at.tone, format!("{} {}", at.glyph, at.word)),
            Line::from(at.detail),
        ]);
    }
    if table.is_empty() {
        return vec![Line::of(Tone::Dim, "no such target")];
    }
    table.lines()
}
