//! `aldis agents`: the fleet as the control plane sees it.

use std::collections::BTreeMap;
use std::time::Duration;

use aldis_core::ids::TargetName;

use crate::app::{App, Stage};
use crate::cli::pair;
use crate::client::Agent;
use crate::error::Error;
use crate::exit::Exit;
use crate::printer::Output;
use crate::render::agents;
use crate::render::standing::named;
use crate::render::text::{Line, Tone};

/// `aldis agents`.
#[derive(Debug, clap::Subcommand)]
pub enum Args {
    /// List agents
    List(ListArgs),
    /// Show everything about one agent
    Show {
        /// Its cluster
        #[arg(value_name = "REGION/CLUSTER")]
        target: TargetName,
    },
    /// Accept another cluster behind a target's name
    Repin(RepinArgs),
}

/// `aldis agents list`.
#[derive(Debug, clap::Args)]
pub struct ListArgs {
    /// Only agents with this label
    #[arg(short = 'l', long = "selector", value_parser = pair, value_delimiter = ',', value_name = "KEY=VALUE")]
    selector: Vec<(String, String)>,
    /// Only agents of this region
    #[arg(
        long,
        value_name = "REGION",
        default_value = "",
        hide_default_value = true
    )]
    region: String,
    /// Only agents that were not heard of for so long
    #[arg(long, value_name = "TIME", value_parser = crate::cli::duration)]
    stale: Option<Duration>,
}

/// `aldis agents repin`.
#[derive(Debug, clap::Args)]
pub struct RepinArgs {
    /// The target
    #[arg(value_name = "REGION/CLUSTER")]
    target: TargetName,
    /// UID of the cluster to accept: `kubectl get namespace kube-system -o jsonpath={.metadata.uid}`
    #[arg(long, value_name = "UID")]
    cluster_uid: Option<String>,
    /// Why; kept in the record
    #[arg(long, value_name = "TEXT")]
    reason: String,
}

/// Runs one of them.
pub async fn run(app: &App, args: &Args) -> Result<Exit, Error> {
    match args {
        Args::List(args) => list(app, args).await,
        Args::Show { target } => show(app, target).await,
        Args::Repin(args) => repin(app, args).await,
    }
}

async fn list(app: &App, args: &ListArgs) -> Result<Exit, Error> {
    let selector: BTreeMap<_, _> = args.selector.iter().cloned().collect();
    let mut agents = app.client()?.agents(&selector, &args.region).await?;
    if let Some(stale) = args.stale {
        agents.retain(|agent| is_stale(agent, stale));
    }
    match app.printer.output {
        Output::Json => app.printer.json(&agents),
        Output::Name => app
            .printer
            .data(agents.iter().map(|agent| agent.target.as_str())),
        Output::Human if agents.is_empty() => {
            app.printer.note([Line::of(Tone::Dim, "no agents")]);
        }
        Output::Human => app.printer.data(agents::table(&agents)),
    }
    Ok(Exit::Ok)
}

/// Who is lost and was never heard of was not heard of for so long either.
fn is_stale(agent: &Agent, for_so_long: Duration) -> bool {
    match agent.last_seen_ms {
        Some(age) => Duration::from_millis(age) >= for_so_long,
        None => agent.state == "lost",
    }
}

async fn show(app: &App, target: &TargetName) -> Result<Exit, Error> {
    let agent = app.client()?.agent(target).await?;
    match app.printer.output {
        Output::Json => app.printer.json(&agent),
        Output::Name => app.printer.data([agent.target.as_str()]),
        Output::Human => app.printer.data(agents::whole(&agent)),
    }
    Ok(Exit::Ok)
}

/// Shows the two clusters, and accepts only the one that the operator names.
async fn repin(app: &App, args: &RepinArgs) -> Result<Exit, Error> {
    let client = app.client()?;
    let agent = client.agent(&args.target).await?;
    let uid = accepted(&agent, args)?;
    let name = named(&agent.target, agent.simulated);
    app.printer.note([
        Line::from(format!(
            "{name}  is pinned to   {}",
            shown(&agent.cluster_uid)
        )),
        Line::from(format!("{name}  would become   {uid}")),
    ]);
    app.confirm(&format!("Accept another cluster behind {name}?"))
        .await?;
    let look = format!("aldis agents show {}", agent.target);
    app.reach(Stage::Changing { look: look.clone() });
    let pinned = client.repin(&args.target, uid, &args.reason).await;
    let find_out = format!("`{look}` says which cluster is pinned");
    pinned.map_err(|error| error.of_a_change("the cluster was accepted", find_out))?;
    app.reach(Stage::Reading);
    let text = format!("{name} is pinned to cluster {uid}");
    match app.printer.output {
        Output::Human => app.printer.data([text]),
        Output::Json => app
            .printer
            .json(&serde_json::json!({"target": agent.target, "clusterUid": uid})),
        Output::Name => app.printer.data([agent.target.as_str()]),
    }
    Ok(Exit::Ok)
}

fn accepted<'a>(agent: &'a Agent, args: &'a RepinArgs) -> Result<&'a str, Error> {
    if let Some(uid) = &args.cluster_uid {
        return Ok(uid);
    }
    let offered = &agent.offered_cluster_uid;
    let message = format!(
        "name the cluster that {} may become with --cluster-uid",
        agent.target
    );
    let hint = if offered.is_empty() {
        "its agent has offered no other cluster".to_owned()
    } else {
        format!(
            "its agent offers {offered}; compare it with the cluster's own: \
            kubectl get namespace kube-system -o jsonpath='{{.metadata.uid}}'"
        )
    };
    Err(Error::usage(message).hint(hint))
}

fn shown(uid: &str) -> &str {
    if uid.is_empty() {
        "no cluster yet"
    } else {
        uid
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_agent_is_stale_also_where_nobody_knows_since_when() {
        let agent = |state: &str, last_seen_ms| Agent {
            state: state.into(),
            last_seen_ms,
            ..Agent::default()
        };
        let minute = Duration::from_secs(60);
        assert!(is_stale(&agent("lost", None), minute));
        assert!(is_stale(&agent("lost", Some(61_000)), minute));
        assert!(!is_stale(&agent("live", Some(1_000)), minute));
        assert!(
            !is_stale(&agent("live", None), minute),
            "on another replica"
        );
    }
}
