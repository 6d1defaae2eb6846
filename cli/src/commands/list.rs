//! `aldis list`: jobs, newest first.

use aldis_core::ids::Timestamp;

use super::wait::STATES;
use crate::app::App;
use crate::client::{JobFilter, Listed};
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::job::{state_words, tone};
use crate::render::table::Table;
use crate::render::text::{Line, Tone};
use crate::render::time::{self, ago, span};

/// `aldis list`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Only jobs in this state; may be repeated
    #[arg(long, value_delimiter = ',', value_name = "STATE",
        value_parser = clap::builder::PossibleValuesParser::new(STATES))]
    state: Vec<String>,
    /// Only jobs of this runbook
    #[arg(
        long,
        value_name = "NAME",
        default_value = "",
        hide_default_value = true
    )]
    runbook: String,
    /// Only jobs that this identity submitted, such as user/mei
    #[arg(
        long,
        value_name = "IDENTITY",
        default_value = "",
        hide_default_value = true
    )]
    user: String,
    /// At most so many
    #[arg(long, value_name = "NUMBER", default_value_t = 50)]
    limit: u32,
}

/// Lists.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let filter = JobFilter {
        states: args.state.clone(),
        runbook: args.runbook.clone(),
        submitted_by: args.user.clone(),
        limit: args.limit,
    };
    let jobs = app.client()?.list_jobs(&filter).await?;
    match app.printer.output {
        Output::Json => app.printer.json(&jobs),
        Output::Name => app
            .printer
            .data(jobs.iter().map(|job| job.header.id.as_str())),
        Output::Human if jobs.is_empty() => {
            app.printer.note([Line::of(Tone::Dim, "no jobs")]);
        }
        Output::Human => app.printer.data(table(&jobs, time::now())),
    }
    Ok(Exit::Ok)
}

fn table(jobs: &[Listed], now: Timestamp) -> Vec<Line> {
    let mut table = Table::new([
        "JOB", "RUNBOOK", "BY", "TARGETS", "STATE", "WHEN", "TOOK", "",
    ]);
    for Listed {
        header: job,
        waiting,
    } in jobs
    {
        let simulated = if job.simulated { " (simulated)" } else { "" };
        let took = job.started_at.map(|from| {
            let until = job.ended_at.unwrap_or(now);
            span(until.since(from))
        });
        table.row([
            job.id.short().into(),
            job.runbook.to_string().into(),
            job.submitted_by.as_str().into(),
            format!("{}{simulated}", job.selected).into(),
            Line::of(tone(&job.state), state_words(&job.state)),
            ago(now.since(job.submitted_at)).into(),
            took.unwrap_or_else(|| "-".to_owned()).into(),
            waiting
                .as_ref()
                .map_or_else(String::new, |waiting| format!("waits for {waiting}"))
                .into(),
        ]);
    }
    table.lines()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::render::sample::{self, NOW, plan};
    use crate::render::text::plain;
    use aldis_core::job::JobState;

    #[test]
    fn a_list_says_what_when_and_how_long() {
        let mut first = sample::job(plan(&["eu-west/prod-1", "us-east/prod-1"])).header;
        first.ended_at = Some(Timestamp(NOW.0 + 511_000));
        first.state = JobState::Succeeded;
        let mut second = sample::job(plan(&["eu-west/prod-1"])).header;
        second.started_at = None;
        second.state = JobState::Queued;
        second.simulated = true;
        let now = Timestamp(NOW.0 + 900_000);
        let waiting = "its turn: 8 jobs run, as many as may".to_owned();
        let listed = [(first, None), (second, Some(waiting))];
        let listed = listed.map(|(header, waiting)| Listed { header, waiting });
        insta::assert_snapshot!(plain(&table(&listed, now)), @r"
        JOB             RUNBOOK             BY        TARGETS        STATE      WHEN     TOOK
        j-01c9d4aabbcc  rollback-service@1  user/mei  2              succeeded  15m ago  8m31s
        j-01c9d4aabbcc  rollback-service@1  user/mei  1 (simulated)  queued     15m ago  -      waits for its turn: 8 jobs run, as many as may
        ");
    }
}
