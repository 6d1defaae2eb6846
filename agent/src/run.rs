//! Where the parts of the agent are joined, and nowhere else.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use aldis_core::plan::ClusterIdentity;
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::actions::cluster::{self, Cluster as Kubernetes};
use crate::actions::simulated::Simulated;
use crate::actions::{Actions, Trouble};
use crate::clock::{Clock, SystemClock};
use crate::config::{Cluster, Config};
use crate::desk::Desk;
use crate::journal;
use crate::kept_identity;
use crate::ledger::Ledger;
use crate::logs::Logs;
use crate::parts::Parts;
use crate::permit::Permits;
use crate::redaction_key;
use crate::reports::Reports;
use crate::session::{self, Session, Settings};

/// For running segments to reach a safe point when the process is told to end. Below the 30 s that Kubernetes and
/// systemd give before they kill.
const CLOSE_WITHIN: Duration = Duration::from_secs(20);

/// For the goodbye, after that.
const FAREWELL_WITHIN: Duration = Duration::from_secs(3);

/// How long a rollout of a practice cluster takes: long enough to be watched.
const PACE: Duration = Duration::from_millis(300);

/// How long the cluster is waited for before the agent registers as that of before. Longer than an API server takes that
/// is there, shorter than anybody waits for an agent.
const FIRST_ANSWER: Duration = Duration::from_secs(3);

/// Between two looks at a cluster that does not answer when the agent begins.
const LOOK_AGAIN: Duration = Duration::from_secs(2);

/// Between two rounds of tidying up.
const TIDY_EVERY: Duration = Duration::from_secs(60 * 60);

/// Why the agent ended by itself.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The journal cannot be opened.
    #[error("open the journal")]
    Journal(#[from] journal::Error),
    /// The files beside it cannot be made.
    #[error("prepare the data directory")]
    Data(#[source] std::io::Error),
    /// The journal failed while it was open. A restarted agent opens it to what is on the disk.
    #[error("the journal failed: {0}")]
    JournalFailed(String),
    /// The cluster cannot be reached as configured.
    #[error("reach the cluster: {0}")]
    Cluster(String),
    /// Another cluster than the pinned one.
    #[error(
        "the cluster behind `cluster` is not the one that `pin` names: pinned uid {} CA {}, found uid {} CA {}",
        pinned.cluster_uid, pinned.ca_fingerprint, found.cluster_uid, found.ca_fingerprint
    )]
    AnotherCluster {
        /// By the configuration.
        pinned: Box<ClusterIdentity>,
        /// As read.
        found: Box<ClusterIdentity>,
    },
}

/// Runs until `ending` is cancelled, then ends in order.
pub async fn run(config: Config, ending: CancellationToken) -> Result<(), Error> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let journal = config.data.join("journal");
    let ledger = Ledger::open(&journal)?;
    if let Some(damage) = ledger.damage() {
        warn!(
            damage,
            "earlier records of the journal are missing; what they held will be observed"
        );
    }
    let logs = Logs::open(&config.data.join("logs"), clock.clone()).map_err(Error::Data)?;
    let actions = actions(&config).await?;
    let Some(first) = first_identity(&*actions, &config, &ending).await? else {
        return Ok(());
    };
    let identity = first.identity.clone();
    info!(
        target_name = %config.target, cluster = identity.cluster_uid, journal = %ledger.id(),
        simulated = config.cluster.is_simulated(), "agent begins"
    );
    let parts = Parts {
        target: config.target,
        simulated: config.cluster.is_simulated(),
        pin: config.pin,
        actions,
        policy: Arc::new(config.policy),
        ledger,
        reports: Reports::new(),
        logs,
        permits: Permits::new(clock.clone()),
        clock,
    };
    let late = late_identity(
        parts.actions.clone(),
        parts.pin.clone(),
        config.data.clone(),
        first,
        ending.clone(),
    );
    let settings = Settings {
        endpoints: config.endpoints,
        trust_domain: config.trust_domain,
        tls: config.tls,
        labels: config.labels,
        process: format!("{:032x}", rand::random::<u128>()),
        machine: session::machine(&journal).map_err(Error::Data)?,
    };
    tokio::select! {
        served = serve(parts, settings, identity, ending) => served,
        error = late => Err(error),
    }
}

/// Which cluster the agent begins with.
struct First {
    identity: ClusterIdentity,
    /// Whether it was read by this process, rather than by one before it.
    is_read: bool,
}

/// As the cluster says. Where it does not answer soon, as it was when an agent of this directory read it last: what is
/// journalled can be reported, and a cancel be heard, without it. Every effect reads it again.
async fn first_identity(
    actions: &dyn Actions,
    config: &Config,
    ending: &CancellationToken,
) -> Result<Option<First>, Error> {
    let pin = config.pin.as_ref();
    let kept = kept_identity::read(&config.data);
    let kept = kept.filter(|kept| pin.is_none_or(|pin| pin == kept));
    let asked = identity(actions, pin, ending);
    let found = match kept {
        None => asked.await?,
        Some(kept) => match tokio::time::timeout(FIRST_ANSWER, asked).await {
            Ok(found) => found?,
            Err(_) => {
                warn!("the cluster does not answer; registering as the one of before");
                return Ok(Some(First {
                    identity: kept,
                    is_read: false,
                }));
            }
        },
    };
    if let Some(found) = &found {
        kept_identity::write(&config.data, found).map_err(Error::Data)?;
    }
    Ok(found.map(|identity| First {
        identity,
        is_read: true,
    }))
}

/// Goes on asking where nobody answered at first, and returns only what the agent must not live on with.
async fn late_identity(
    actions: Arc<dyn Actions>,
    pin: Option<ClusterIdentity>,
    data: PathBuf,
    first: First,
    ending: CancellationToken,
) -> Error {
    if !first.is_read {
        match identity(&*actions, pin.as_ref(), &ending).await {
            Ok(Some(found)) => {
                if found != first.identity {
                    warn!(
                        found = found.cluster_uid,
                        before = first.identity.cluster_uid,
                        "another cluster than before; the next registration says so"
                    );
                }
                if let Err(error) = kept_identity::write(&data, &found) {
                    return Error::Data(error);
                }
            }
            Ok(None) => {}
            Err(error) => return error,
        }
    }
    std::future::pending().await
}

/// The running agent, from its parts.
pub async fn serve(
    parts: Parts,
    settings: Settings,
    identity: ClusterIdentity,
    ending: CancellationToken,
) -> Result<(), Error> {
    let mut failed = parts.ledger.failed();
    let desk = Desk::start(parts.clone());
    let (closing, closed) = watch::channel(false);
    let session = Session::new(parts.clone(), desk.clone(), settings, identity);
    let mut session = tokio::spawn(session.run(closed));
    let tidying = tokio::spawn(tidy(parts));
    let result = tokio::select! {
        () = ending.cancelled() => Ok(()),
        why = journal_failed(&mut failed) => Err(Error::JournalFailed(why)),
    };
    tidying.abort();
    if result.is_ok() {
        info!("told to end: running segments go to their safe points");
        desk.close(CLOSE_WITHIN).await;
        closing.send_replace(true);
        // What was not said is said by the next process.
        let _ = tokio::time::timeout(FAREWELL_WITHIN, &mut session).await;
        info!("agent ends");
    }
    session.abort();
    result
}

async fn journal_failed(failed: &mut watch::Receiver<Option<String>>) -> String {
    let why = failed.wait_for(Option::is_some).await;
    match why.map(|why| why.clone().unwrap_or_default()) {
        Ok(why) => why,
        // The ledger lives as long as its readers.
        Err(_) => std::future::pending().await,
    }
}

async fn actions(config: &Config) -> Result<Arc<dyn Actions>, Error> {
    let key = || redaction_key::of(&config.data).map_err(Error::Data);
    let unreachable = |error: cluster::Error| Error::Cluster(error.to_string());
    Ok(match &config.cluster {
        Cluster::Simulated { file: None } => Arc::new(Simulated::new(config.target.clone(), PACE)),
        Cluster::Simulated { file: Some(file) } => {
            let kept = Simulated::kept_in(config.target.clone(), PACE, file);
            Arc::new(kept.map_err(|error| Error::Cluster(format!("{}: {error}", file.display())))?)
        }
        Cluster::Kubeconfig { file, context } => {
            let cluster = Kubernetes::from_kubeconfig(file, context, key()?).await;
            Arc::new(cluster.map_err(unreachable)?)
        }
        Cluster::InCluster {} => Arc::new(Kubernetes::in_cluster(key()?).map_err(unreachable)?),
    })
}

/// Which cluster this is. Asked until it answers: an agent often starts with its cluster. None when told to end first.
async fn identity(
    actions: &dyn Actions,
    pin: Option<&ClusterIdentity>,
    ending: &CancellationToken,
) -> Result<Option<ClusterIdentity>, Error> {
    loop {
        let why = match actions.identity().await {
            Ok(found) => {
                return match pin {
                    Some(pinned) if *pinned != found => Err(Error::AnotherCluster {
                        pinned: Box::new(pinned.clone()),
                        found: Box::new(found),
                    }),
                    Some(_) | None => Ok(Some(found)),
                };
            }
            Err(Trouble::Failed { failure, .. }) => {
                return Err(Error::Cluster(failure.to_string()));
            }
            Err(Trouble::Retriable { failure }) => failure.to_string(),
            Err(Trouble::Unknown { evidence }) => evidence.join("; "),
        };
        warn!(why, "the cluster does not answer yet");
        tokio::select! {
            () = tokio::time::sleep(LOOK_AGAIN) => {}
            () = ending.cancelled() => return Ok(None),
        }
    }
}

async fn tidy(parts: Parts) {
    let mut every = tokio::time::interval(TIDY_EVERY);
    loop {
        every.tick().await;
        parts.logs.sweep();
        if let Err(error) = parts.ledger.compact(parts.clock.wall_now_ms()).await {
            warn!(%error, "journal not compacted");
        }
    }
}
