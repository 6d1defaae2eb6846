//! `aldis context`: which control planes there are, and which one is used.

use std::path::{Path, PathBuf};

use crate::app::App;
use crate::context::{self, Auth, Context, Server};
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::table::Table;
use crate::render::text::{Line, Tone, quoted};

/// `aldis context`.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// List contexts
    List,
    /// Choose a context for this shell (`eval "$(aldis context use NAME)"`), or with --global everywhere
    Use {
        /// Its name
        #[arg(value_name = "NAME")]
        name: String,
        /// Write it into the file
        #[arg(long)]
        global: bool,
    },
    /// Add a context, or replace one of the same name
    Add(AddArgs),
    /// Show a context, without secrets
    Show {
        /// Its name; without it, the one in use
        #[arg(value_name = "NAME")]
        name: Option<String>,
    },
}

/// `aldis context add`.
#[derive(Debug, clap::Args)]
pub struct AddArgs {
    /// Its name
    #[arg(value_name = "NAME")]
    name: String,
    /// CA that signs the servers' certificates, PEM
    #[arg(long, value_name = "FILE")]
    ca: PathBuf,
    /// Your certificate, PEM
    #[arg(long, value_name = "FILE", requires = "key")]
    cert: Option<PathBuf>,
    /// Its key, PEM
    #[arg(long, value_name = "FILE", requires = "cert")]
    key: Option<PathBuf>,
    /// Changes want the name of the context typed
    #[arg(long)]
    protected: bool,
    /// Use it from now on where nothing else is said
    #[arg(long = "use")]
    used: bool,
}

/// Runs one of them.
pub fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let path = context::path()?;
    match args {
        Args::List => list(app, &path),
        Args::Use { name, global } => choose(app, &path, name, *global),
        Args::Add(args) => add(app, &path, args),
        Args::Show { name } => show(app, &path, name.as_deref()),
    }
}

fn list(app: &App, path: &Path) -> Result<Exit, Error> {
    let config = context::load(path)?;
    match app.printer.output {
        Output::Json => app.printer.json(&config),
        Output::Name => app.printer.data(config.names()),
        Output::Human if config.contexts.is_empty() => {
            let text = format!("no contexts in `{}`", path.display());
            app.printer.note([Line::of(Tone::Dim, text)]);
        }
        Output::Human => {
            let current = app.context().ok().map(|context| context.name);
            let mut table = Table::new(["", "NAME", "SERVER", "IDENTITY", ""]);
            for context in &config.contexts {
                let used = Some(&context.name) == current.as_ref();
                let auth = context.auth.as_ref();
                table.row([
                    if used { "*" } else { "" }.into(),
                    context.name.as_str().into(),
                    servers(context).into(),
                    auth.map_or("none".to_owned(), |auth| auth.cert.display().to_string())
                        .into(),
                    if context.protected { "protected" } else { "" }.into(),
                ]);
            }
            app.printer.data(table.lines());
        }
    }
    Ok(Exit::Ok)
}

fn choose(app: &App, path: &Path, name: &str, global: bool) -> Result<Exit, Error> {
    let mut config = context::load(path)?;
    config.choose(Some(name), path)?;
    if global {
        config.current_context = Some(name.to_owned());
        context::save(path, &config)?;
        app.printer
            .note([format!("context {name} is used where nothing else is said")]);
        return Ok(Exit::Ok);
    }
    app.printer
        .data([format!("export ALDIS_CONTEXT={}", quoted(name))]);
    if app.printer.is_out_terminal() {
        app.printer.note([Line::of(
            Tone::Dim,
            format!("# run it: eval \"$(aldis context use {name})\"; or for every shell: aldis context use {name} --global"),
        )]);
    }
    Ok(Exit::Ok)
}

fn add(app: &App, path: &Path, args: &AddArgs) -> Result<Exit, Error> {
    let servers: Vec<String> = app.global.server.iter().map(Server::to_string).collect();
    if servers.is_empty() {
        return Err(Error::usage(
            "where is the control plane? name it with --server https://HOST:PORT",
        ));
    }
    let auth = match (&args.cert, &args.key) {
        (Some(cert), Some(key)) => Some(Auth {
            cert: absolute(cert)?,
            key: absolute(key)?,
        }),
        _ => None,
    };
    let (server, servers) = match servers.as_slice() {
        [one] => (Some(one.clone()), Vec::new()),
        _ => (None, servers),
    };
    let mut config = context::load(path)?;
    let first = config.contexts.is_empty();
    config.put(Context {
        name: args.name.clone(),
        server,
        servers,
        ca: absolute(&args.ca)?,
        auth,
        protected: args.protected,
    });
    if args.used || first {
        config.current_context = Some(args.name.clone());
    }
    context::save(path, &config)?;
    app.printer
        .note([format!("context {} is in `{}`", args.name, path.display())]);
    Ok(Exit::Ok)
}

/// A path that means the same from everywhere, and a file that is there.
fn absolute(path: &Path) -> Result<PathBuf, Error> {
    std::fs::canonicalize(path)
        .map_err(|error| Error::usage(format!("cannot read `{}`: {error}", path.display())))
}

fn show(app: &App, path: &Path, name: Option<&str>) -> Result<Exit, Error> {
    let context = match name {
        Some(name) => context::load(path)?.choose(Some(name), path)?,
        None => app.context()?,
    };
    match app.printer.output {
        Output::Json => app.printer.json(&context),
        Output::Name => app.printer.data([context.name.as_str()]),
        Output::Human => {
            let auth = context.auth.as_ref();
            let file = |file: fn(&Auth) -> &PathBuf| {
                auth.map_or("none".to_owned(), |auth| file(auth).display().to_string())
            };
            let facts = [
                ("name", context.name.clone()),
                ("server", servers(&context)),
                ("ca", context.ca.display().to_string()),
                ("cert", file(|auth| &auth.cert)),
                ("key", file(|auth| &auth.key)),
                (
                    "protected",
                    if context.protected { "yes" } else { "no" }.to_owned(),
                ),
                ("from", path.display().to_string()),
            ];
            app.printer.data(facts.map(|(name, value)| {
                let mut line = Line::of(Tone::Dim, name);
                line.pad(11);
                line.push(Tone::Plain, value);
                line
            }));
        }
    }
    Ok(Exit::Ok)
}

fn servers(context: &Context) -> String {
    let all: Vec<&str> = context
        .server
        .iter()
        .chain(&context.servers)
        .map(String::as_str)
        .collect();
    all.join(", ")
}
