//! `aldis runbook`: writing runbooks, and those that the control plane knows.

use aldis_core::runbook::diagnostics::Diagnostics;
use aldis_core::runbook::load::{Loaded, load};
use aldis_core::runbook::published;
use serde_json::{Value, json};

use crate::app::{App, Stage};
use crate::client::{RunbookEntry, Source};
use crate::error::Error;
use crate::exit::Exit;
use crate::input;
use crate::printer::Output;
use crate::render::table::Table;
use crate::render::text::{Line, Tone, count};

/// `aldis runbook`.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// Check runbook files, without a control plane
    Validate {
        /// The files
        #[arg(value_name = "FILE", required = true)]
        files: Vec<String>,
        /// Form of what is found; the same as -o
        #[arg(long, value_name = "FORM")]
        format: Option<Format>,
    },
    /// List the runbooks that the control plane knows
    List,
    /// Show the text of a runbook
    Show {
        /// NAME or NAME@VERSION
        #[arg(value_name = "NAME")]
        name: String,
    },
    /// Print the format as JSON Schema for editors; with a runbook, the schema of its parameters
    Schema {
        /// NAME, NAME@VERSION or a file
        #[arg(value_name = "RUNBOOK")]
        runbook: Option<String>,
    },
    /// Store a runbook; another content under the same version is refused
    Push {
        /// The file
        #[arg(value_name = "FILE")]
        file: String,
    },
}

/// Form of what is found.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// With the lines of the file
    Human,
    /// One JSON document
    Json,
}

/// Runs one of them.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    match args {
        Args::Validate { files, format } => validate(app, files, *format),
        Args::List => list(app).await,
        Args::Show { name } => show(app, name).await,
        Args::Schema { runbook } => schema(app, runbook.as_deref()).await,
        Args::Push { file } => push(app, file).await,
    }
}

fn validate(app: &App, files: &[String], format: Option<Format>) -> Result<Exit, Error> {
    let json = format.map_or(app.printer.output == Output::Json, |form| {
        form == Format::Json
    });
    let mut documents = Vec::new();
    let mut invalid = false;
    for file in files {
        let checked = load(file, &input::read(file)?);
        invalid |= checked.is_err();
        if json {
            documents.push(document(file, &checked));
            continue;
        }
        match &checked {
            Ok(loaded) => {
                let metadata = &loaded.runbook.metadata;
                let line = Line::of(Tone::Good, "✔ ").and(format!(
                    "{file}: {}@{} is valid, {}",
                    metadata.name,
                    metadata.version,
                    count(loaded.runbook.steps().count(), "step", "steps"),
                ));
                app.printer.data([line]);
            }
            Err(found) => app.printer.text(&format!("{found}\n")),
        }
    }
    if json {
        app.printer.json(&documents);
    }
    Ok(if invalid { Exit::Invalid } else { Exit::Ok })
}

fn document(file: &str, checked: &Result<Loaded, Diagnostics>) -> Value {
    match checked {
        Ok(loaded) => json!({
            "file": file,
            "valid": true,
            "name": loaded.runbook.metadata.name,
            "version": loaded.runbook.metadata.version,
            "digest": loaded.digest,
            "diagnostics": [],
        }),
        Err(found) => json!({
            "file": file,
            "valid": false,
            "diagnostics": found.iter().collect::<Vec<_>>(),
        }),
    }
}

async fn list(app: &App) -> Result<Exit, Error> {
    let entries = app.client()?.runbooks().await?;
    match app.printer.output {
        Output::Json => app.printer.json(&entries),
        Output::Name => app.printer.data(entries.iter().map(full_name)),
        Output::Human if entries.is_empty() => {
            app.printer.note([Line::of(Tone::Dim, "no runbooks")]);
        }
        Output::Human => app.printer.data(table(&entries)),
    }
    Ok(Exit::Ok)
}

fn full_name(entry: &RunbookEntry) -> String {
    format!("{}@{}", entry.name, entry.version)
}

fn table(entries: &[RunbookEntry]) -> Vec<Line> {
    let mut table = Table::new(["RUNBOOK", "ORIGIN", "TITLE"]);
    for entry in entries {
        table.row([
            full_name(entry).into(),
            entry.origin.as_str().into(),
            entry.title.as_str().into(),
        ]);
    }
    table.lines()
}

async fn show(app: &App, name: &str) -> Result<Exit, Error> {
    let (entry, text) = app.client()?.runbook(name).await?;
    match app.printer.output {
        Output::Json => app.printer.json(&json!({"runbook": entry, "text": text})),
        Output::Name => app.printer.data([full_name(&entry)]),
        Output::Human => {
            let note = format!(
                "{}  {}  sha256 {}",
                full_name(&entry),
                entry.origin,
                entry.digest
            );
            app.printer.note([Line::of(Tone::Dim, note)]);
            app.printer.text(&text);
        }
    }
    Ok(Exit::Ok)
}

async fn schema(app: &App, runbook: Option<&str>) -> Result<Exit, Error> {
    let Some(runbook) = runbook else {
        app.printer.json(&published::schema());
        return Ok(Exit::Ok);
    };
    let (name, text) = match input::source(runbook)? {
        Source::File { file, text } => (file, text),
        Source::Name(name) => {
            let (entry, text) = app.client()?.runbook(&name).await?;
            (full_name(&entry), text)
        }
    };
    let loaded = input::check(&name, &text)?;
    app.printer.json(&loaded.runbook.spec.params);
    Ok(Exit::Ok)
}

/// Checks first: what the file holds is told with its lines, which the wire would not carry whole.
async fn push(app: &App, file: &str) -> Result<Exit, Error> {
    let text = input::read(file)?;
    input::check(file, &text)?;
    app.confirm_if_protected(&format!("Store `{file}`?"))
        .await?;
    let look = "aldis runbook list".to_owned();
    app.reach(Stage::Changing { look });
    let pushed = app.client()?.push_runbook(file, &text).await;
    let find_out = "push it again: the same content is stored once";
    let pushed = pushed.map_err(|error| error.of_a_change("the runbook was stored", find_out))?;
    let (entry, existed) = pushed;
    match app.printer.output {
        Output::Json => app
            .printer
            .json(&json!({"runbook": entry, "existed": existed})),
        Output::Name => app.printer.data([full_name(&entry)]),
        Output::Human => {
            let did = if existed {
                "was stored before, with the same content"
            } else {
                "is stored"
            };
            app.printer.data([format!("{} {did}", full_name(&entry))]);
        }
    }
    Ok(Exit::Ok)
}
