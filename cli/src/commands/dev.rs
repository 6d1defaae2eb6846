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
use crate::dev::targets::{self, Cluster, KubeContext, Target};
use crate::error::Error;
use crate::exit::Exit;
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
    /// Port of the control plane on loopback
    #[arg(long, value_name = "PORT", default_value_t = context::DEFAULT_PORT)]
    port: u16,
    /// Name of the context that is written
    #[arg(long, value_name = "NAME", default_value = "dev")]
    name: String,
}

/// Starts everything, and stays until Ctrl-C, SIGTERM or `--timeout`.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    let folder = Folder::new(args.data.as_deref())?;
    let targets = targets::all(&args.contexts, args.kubeconfig.as_deref(), &args.simulate)?;
    let (server, agent) = (find("aldis-control-plane")?, find("aldis-agent")?);
    check_port(args.port)?;
    let path = context::path()?;
    check_context(&path, &args.name)?;
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
        args,
        folder,
        targets,
        children: Vec::new(),
        client: Client::new(&layout.context, &[], app.trace.clone())?,
    };
    let ended = tokio::select! {
        ended = trial.live(&layout, server, agent, &path) => ended,
        () = &mut stop => Ok(Exit::Ok),
    };
    trial.end(&path).await;
    ended
}

/// Where everything is kept.
enum Folder {
    Kept(PathBuf),
    ThrownAway(tempfile::TempDir),
}

impl Folder {
    fn new(data: Option<&Path>) -> Result<Self, Error> {
        let failed = |path: PathBuf| move |source| DevError::File { path, source };
        let Some(data) = data else {
            let folder = tempfile::Builder::new().prefix("aldis-dev-").tempdir();
            return Ok(Self::ThrownAway(
                folder.map_err(failed(std::env::temp_dir()))?,
            ));
        };
        std::fs::create_dir_all(data).map_err(failed(data.to_owned()))?;
        let whole = std::fs::canonicalize(data).map_err(failed(data.to_owned()))?;
        Ok(Self::Kept(whole))
    }

    fn path(&self) -> &Path {
        match self {
            Self::Kept(path) => path,
            Self::ThrownAway(folder) => folder.path(),
        }
    }

    fn about(&self) -> String {
        match self {
            Self::Kept(path) => path.display().to_string(),
            Self::ThrownAway(_) => "thrown away at exit (use --data to keep)".to_owned(),
        }
    }
}

struct Trial<'a> {
    app: &'a App,
    args: &'a Args,
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
        if matches!(self.folder, Folder::ThrownAway(_)) {
            let _ = forget_context(path, &self.args.name);
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

/// A context that leads elsewhere is somebody's own.
fn check_context(path: &Path, name: &str) -> Result<(), Error> {
    let config = context::load(path)?;
    let found = config.contexts.iter().find(|context| context.name == name);
    let Some(found) = found else {
        return Ok(());
    };
    let server = found.server.clone().unwrap_or_default();
    if server.starts_with("https://localhost:") && found.servers.is_empty() {
        return Ok(());
    }
    let name = name.to_owned();
    Err(DevError::ContextTaken { name, server }.into())
}

fn write_context(path: &Path, context: &Context) -> Result<(), Error> {
    let mut config = context::load(path)?;
    config.put(context.clone());
    Ok(context::save(path, &config)?)
}

fn forget_context(path: &Path, name: &str) -> Result<(), Error> {
    let mut config = context::load(path)?;
    config.contexts.retain(|context| context.name != name);
    if config.current_context.as_deref() == Some(name) {
        config.current_context = None;
    }
    Ok(context::save(path, &config)?)
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
