//! `aldis dev`: starts a control plane and agents on this machine, and stops them again.

use std::net::{Ipv4Addr, TcpListener};
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_core::ids::TargetName;
use futures::FutureExt;
use futures::future::select_all;
use tokio::signal::unix::{SignalKind, signal};
use tokio::time::Instant;

use crate::app::App;
use crate::cli::pair;
use crate::client::Client;
use crate::context::{self, Context};
use crate::dev::Error as DevError;
use crate::dev::children::{Death, Program, Running, find};
use crate::dev::files::{self, Layout, Wanted};
use crate::dev::folder::{self, Folder};
use crate::dev::targets::{self, Cluster, KubeContext, Target};
use crate::error::Error;
use crate::exit::Exit;
use crate::input;
use crate::printer::Output;
use crate::render::standing::named;
use crate::render::text::{Line, Tone, count};

/// For the control plane to answer. It needs some 100 ms.
const SERVER_UP: Duration = Duration::from_secs(15);

/// For every agent to be live. A cluster that cannot be reached is named after it, and tried further.
const AGENTS_UP: Duration = Duration::from_secs(20);

/// Between two looks.
const LOOK: Duration = Duration::from_millis(100);

/// `aldis dev`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// A context of the kubeconfig, with another name for the target if wanted; may be repeated
    #[arg(long = "kube-context", value_name = "CONTEXT[=REGION/CLUSTER]")]
    contexts: Vec<KubeContext>,
    /// The kubeconfig [default: the first of KUBECONFIG, else ~/.kube/config]
    #[arg(long, value_name = "FILE")]
    kubeconfig: Option<PathBuf>,
    /// A practice cluster without Kubernetes; may be repeated [default, without any cluster: three]
    #[arg(long, value_name = "REGION/CLUSTER", num_args = 1..)]
    simulate: Vec<TargetName>,
    /// A label of every cluster, which runbooks select by
    #[arg(long = "label", value_parser = pair, value_name = "KEY=VALUE", default_value = "env=prod")]
    labels: Vec<(String, String)>,
    /// Keep everything in this folder; without it, all is thrown away at exit
    #[arg(long, value_name = "DIR")]
    data: Option<PathBuf>,
    /// Store the runbooks of this folder in it
    #[arg(long, value_name = "DIR")]
    runbooks: Option<PathBuf>,
    /// Port of the control plane on loopback
    #[arg(long, value_name = "PORT", default_value_t = context::DEFAULT_PORT)]
    port: u16,
    /// Name of the context that is written
    #[arg(long, value_name = "NAME", default_value = "dev")]
    name: String,
}

/// Starts everything, and stays until Ctrl-C, SIGTERM or `--timeout`.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let path = context::path()?;
    clean_up(&path)?;
    let folder = Folder::new(args.data.as_deref())?;
    let targets = targets::all(&args.contexts, args.kubeconfig.as_deref(), &args.simulate)?;
    let (server, agent) = (find("aldis-control-plane")?, find("aldis-agent")?);
    check_port(args.port)?;
    check_context(&path, &args.name, &folder)?;
    let runbooks = args.runbooks.as_deref().map(runbooks).transpose()?;
    let runbooks = runbooks.unwrap_or_default();
    let user = user();
    let layout = files::write(&Wanted {
        folder: folder.path(),
        port: args.port,
        targets: &targets,
        labels: &args.labels,
        context: &args.name,
        user: &user,
    })?;
    let stop = stopped(app.global.timeout);
    tokio::pin!(stop);
    let mut trial = Trial {
        app,
        folder,
        targets,
        children: Vec::new(),
        client: Client::new(&layout.context, &[], app.trace.clone())?,
    };
    let ended = tokio::select! {
        ended = trial.live(&layout, server, agent, &path, &runbooks) => ended,
        () = &mut stop => Ok(Exit::Ok),
    };
    trial.end(&path).await;
    ended
}

struct Trial<'a> {
    app: &'a App,
    folder: Folder,
    targets: Vec<Target>,
    /// The control plane first.
    children: Vec<Running>,
    client: Client,
}

impl Trial<'_> {
    /// Runs until something cannot be helped.
    async fn live(
        &mut self,
        layout: &Layout,
        server: PathBuf,
        agent: PathBuf,
        path: &Path,
        runbooks: &[(String, String)],
    ) -> Result<Exit, Error> {
        self.start(
            "control plane",
            server,
            &layout.control_plane,
            layout,
            "control-plane",
        )?;
        self.server_up().await?;
        for (target, config) in self.targets.clone().iter().zip(&layout.agents) {
            let name = format!("agent of {}", target.name);
            let log = files::file_name(target);
            self.start(&name, agent.clone(), config, layout, &log)?;
        }
        for (file, text) in runbooks {
            self.client.push_runbook(file, text).await?;
        }
        write_context(path, &layout.context)?;
        let missing = self.agents_up().await?;
        self.announce(layout);
        self.tell_missing(&missing);
        loop {
            let (death, index) = self.next_death().await;
            self.tell_death(&death);
            let Some(child) = self.children.get_mut(index) else {
                continue;
            };
            if !child.restart()? {
                return Err(died_often(&death));
            }
        }
    }

    fn start(
        &mut self,
        name: &str,
        binary: PathBuf,
        config: &Path,
        layout: &Layout,
        log: &str,
    ) -> Result<(), Error> {
        self.children.push(Running::start(Program {
            name: name.to_owned(),
            binary,
            config: config.to_owned(),
            log: layout.logs.join(format!("{log}.log")),
        })?);
        Ok(())
    }

    async fn server_up(&mut self) -> Result<(), Error> {
        let until = Instant::now() + SERVER_UP;
        loop {
            let asked = async {
                // A call of its own each time: it would wait longer between tries by itself.
                tokio::time::sleep(LOOK).await;
                self.client.whoami().await
            };
            let error = match self.children.first_mut() {
                Some(server) => tokio::select! {
                    asked = asked => match asked {
                        Ok(_) => return Ok(()),
                        Err(error) => error,
                    },
                    death = server.died() => return Err(did_not_start(&death)),
                },
                None => return Ok(()),
            };
            if Instant::now() > until || error.exit == Exit::NotAllowed {
                return Err(error);
            }
        }
    }

    /// Waits until all are live; those that are not in time are returned.
    async fn agents_up(&mut self) -> Result<Vec<TargetName>, Error> {
        let until = Instant::now() + AGENTS_UP;
        loop {
            let missing = self.missing().await;
            if missing.is_empty() || Instant::now() > until {
                return Ok(missing);
            }
            tokio::select! {
                (death, _) = self.next_death() => return Err(did_not_start(&death)),
                () = tokio::time::sleep(LOOK) => {}
            }
        }
    }

    async fn missing(&self) -> Vec<TargetName> {
        let agents = self.client.agents(&Default::default(), "").await;
        let agents = agents.unwrap_or_default();
        let is_live = |name: &TargetName| {
            let name = name.to_string();
            agents
                .iter()
                .any(|agent| agent.target == name && agent.state == "live")
        };
        let names = self.targets.iter().map(|target| target.name.clone());
        names.filter(|name| !is_live(name)).collect()
    }

    async fn next_death(&mut self) -> (Death, usize) {
        let all = self.children.iter_mut().map(|child| child.died().boxed());
        let (death, index, _) = select_all(all).await;
        (death, index)
    }

    fn announce(&self, layout: &Layout) {
        let printer = &self.app.printer;
        let context = &layout.context;
        let server = context.server.as_deref().unwrap_or_default();
        let version = env!("CARGO_PKG_VERSION");
        match printer.output {
            Output::Human => {
                let names: Vec<String> = self.targets.iter().map(shown).collect();
                let agents = count(names.len(), "agent", "agents");
                let export = format!("export ALDIS_CONTEXT={}", context.name);
                printer.data([
                    Line::of(Tone::Strong, format!("aldis dev {version}")).and(format!(
                        "   server {server}   data: {}",
                        self.folder.about()
                    )),
                    Line::from(format!("{agents}: {}", names.join("  ")))
                        .with(Tone::Bad, "      NOT FOR PRODUCTION"),
                    Line::from("In another shell:  ").with(Tone::Strong, export),
                    Line::from(
                        "Try:  aldis plan rollback-service -p service=checkout -p namespace=shop",
                    ),
                    Line::of(
                        Tone::Dim,
                        format!("Logs: {}   Ctrl-C stops everything", layout.logs.display()),
                    ),
                ]);
            }
            Output::Json => printer.json_line(&serde_json::json!({
                "version": version,
                "server": server,
                "context": context.name,
                "data": self.folder.path(),
                "logs": layout.logs,
                "targets": self.targets.iter().map(|target| serde_json::json!({
                    "name": target.name,
                    "simulated": target.cluster == Cluster::Simulated,
                })).collect::<Vec<_>>(),
                "processes": self.children.iter().map(|child| serde_json::json!({
                    "name": child.program.name,
                    "pid": child.pid(),
                })).collect::<Vec<_>>(),
            })),
            Output::Name => printer.data([context.name.as_str()]),
        }
    }

    fn tell_missing(&self, missing: &[TargetName]) {
        for name in missing {
            let wanted = format!("agent of {name}");
            let child = self
                .children
                .iter()
                .find(|child| child.program.name == wanted);
            let mut lines = vec![Line::of(Tone::Warn, "! ").and(format!(
                "the {wanted} is not live after {} s; it goes on trying. Its last lines:",
                AGENTS_UP.as_secs()
            ))];
            let said = child.map(Running::last_lines).unwrap_or_default();
            lines.extend(
                said.into_iter()
                    .map(|line| Line::from(format!("    {line}"))),
            );
            self.app.printer.note(lines);
        }
    }

    fn tell_death(&self, death: &Death) {
        let mut lines = vec![Line::of(Tone::Bad, "! ").and(format!(
            "the {} died ({}) and is started again. Its last lines:",
            death.name, death.how
        ))];
        lines.extend(
            death
                .lines
                .iter()
                .map(|line| Line::from(format!("    {line}"))),
        );
        self.app.printer.note(lines);
    }

    /// Stops agents first, so that they say goodbye to somebody, then the control plane.
    async fn end(mut self, path: &Path) {
        self.app.printer.note(["stopping"]);
        let agents = self.children.iter_mut().skip(1).map(Running::stop);
        futures::future::join_all(agents).await;
        if let Some(server) = self.children.first_mut() {
            server.stop().await;
        }
        if self.folder.is_thrown_away() {
            let _ = forget_contexts(path, |context| self.folder.owns(context));
        }
    }
}

fn shown(target: &Target) -> String {
    named(&target.name, target.cluster == Cluster::Simulated)
}

fn did_not_start(death: &Death) -> Error {
    Error::new(
        Exit::Other,
        format!("the {} did not start ({})", death.name, death.how),
    )
    .details(death.lines.clone())
    .hint(format!(
        "all of its output is in `{}`; --data keeps it",
        death.log.display()
    ))
}

fn died_often(death: &Death) -> Error {
    Error::new(
        Exit::Other,
        format!("the {} dies again and again ({})", death.name, death.how),
    )
    .details(death.lines.clone())
}

/// Ctrl-C, SIGTERM, SIGHUP (a closed terminal), or the end of the time that was given.
async fn stopped(timeout: Option<Duration>) {
    let on = |kind| async move {
        match signal(kind) {
            Ok(mut signal) => {
                signal.recv().await;
            }
            Err(_) => std::future::pending().await,
        }
    };
    let time = async {
        match timeout {
            Some(after) => tokio::time::sleep(after).await,
            None => std::future::pending().await,
        }
    };
    tokio::select! {
        () = on(SignalKind::interrupt()) => {}
        () = on(SignalKind::terminate()) => {}
        () = on(SignalKind::hangup()) => {}
        () = time => {}
    }
}

fn check_port(port: u16) -> Result<(), DevError> {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port))
        .map(drop)
        .map_err(|source| DevError::Port { port, source })
}

/// A context that leads elsewhere is somebody's own, also where that is a trial that goes on.
fn check_context(path: &Path, name: &str, folder: &Folder) -> Result<(), Error> {
    let config = context::load(path)?;
    let found = config.contexts.iter().find(|context| context.name == name);
    let Some(found) = found else {
        return Ok(());
    };
    if folder.owns(found) || folder::is_left_over(found) {
        return Ok(());
    }
    let server = found.server.clone().unwrap_or_default();
    let name = name.to_owned();
    Err(DevError::ContextTaken { name, server }.into())
}

fn write_context(path: &Path, context: &Context) -> Result<(), Error> {
    let mut config = context::load(path)?;
    config.put(context.clone());
    Ok(context::save(path, &config)?)
}

/// Takes away what trials left that were killed: folders with keys, and the contexts that lead there.
fn clean_up(path: &Path) -> Result<(), Error> {
    let gone = folder::sweep();
    if gone.is_empty() {
        return Ok(());
    }
    forget_contexts(path, |context| {
        gone.iter().any(|folder| context.ca.starts_with(folder))
    })
}

fn forget_contexts(path: &Path, which: impl Fn(&Context) -> bool) -> Result<(), Error> {
    let mut config = context::load(path)?;
    let before = config.clone();
    config.contexts.retain(|context| !which(context));
    let names = config.names();
    config.current_context = config.current_context.filter(|name| names.contains(name));
    if config == before {
        return Ok(());
    }
    Ok(context::save(path, &config)?)
}

/// The runbooks of a folder, each checked: a trial that would refuse one does not begin.
fn runbooks(folder: &Path) -> Result<Vec<(String, String)>, Error> {
    let failed = |source| DevError::File {
        path: folder.to_owned(),
        source,
    };
    let entries = std::fs::read_dir(folder).map_err(failed)?;
    let mut files: Vec<PathBuf> = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<_, _>>()
        .map_err(failed)?;
    files.retain(|file| {
        file.extension()
            .is_some_and(|end| end == "yaml" || end == "yml")
    });
    files.sort();
    let mut runbooks = Vec::with_capacity(files.len());
    for file in files {
        let name = file.display().to_string();
        let text = input::read(&name)?;
        input::check(&name, &text)?;
        runbooks.push((name, text));
    }
    Ok(runbooks)
}

/// Who is at the keyboard, as an identity may be written.
fn user() -> String {
    let name = std::env::var("USER").unwrap_or_default();
    let allowed = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    let name: String = name.chars().filter(|c| allowed(*c)).take(64).collect();
    if name.is_empty() {
        "dev".to_owned()
    } else {
        name
    }
}
