//! The whole of Aldis over containers that run: real nodes where the machine has them, simulated ones elsewhere. One
//! fleet for all tests of this program; each test works in namespaces of its own.
//!
//! | file | tells of |
//! |---|---|
//! | `deployments`, `rollbacks` | releases by what their pods do: pull failures, crashes, probes, logs |
//! | `traffic` | what the shop's customers notice of a change (real nodes only) |
//! | `nodes` | faults that only real nodes have |
//! | `agents` | the agent that is a pod of its cluster: its rights, and its end in the middle of a job (real nodes only) |
//! | `services` | the database, Prometheus and metrics-server, as pods meet them (real nodes only) |

mod agents;
mod deployments;
mod nodes;
mod rollbacks;
mod services;
mod traffic;

use std::io::Write;
use std::path::Path;

use aldis_tests::fleet::nodes::{Nodes, Wanted};
use aldis_tests::fleet::services::{Service, Wanted as Services};
use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use aldis_tests::fleet::{Fleet, Options};
use aldis_tests::stage::Stage;
use tokio::sync::OnceCell;

static FLEET: OnceCell<Fleet> = OnceCell::const_new();

/// The fleet of all tests. Its files stay in `target/tmp/pods-fleet` until the next run.
async fn fleet() -> &'static Fleet {
    FLEET
        .get_or_init(|| async {
            let folder = Path::new(env!("CARGO_TARGET_TMPDIR")).join("pods-fleet");
            let nodes = Wanted::from_environment().unwrap_or_else(|error| panic!("{error:#}"));
            let options = Options {
                system: Some(system::Options {
                    source: Source::BuiltWithCrashPoints,
                    store: Store::Etcd,
                    times: Times::Short,
                }),
                services: beside(nodes, &folder),
                nodes,
                tell,
                ..Options::default()
            };
            Fleet::start(&folder, options)
                .await
                .unwrap_or_else(|error| panic!("start the fleet: {error:?}"))
        })
        .await
}

/// What the stories of `services` need. Nobody would ask them over simulated nodes.
fn beside(nodes: Wanted, folder: &Path) -> Services {
    match nodes.choose(folder) {
        Ok(chosen) if chosen.nodes == Nodes::Real => {
            Services::from_iter([Service::Postgres, Service::Prometheus, Service::Metrics])
        }
        // Why they cannot be real is said by the fleet.
        _ => Services::none(),
    }
}

/// The same, for what cannot be told over simulated nodes: `None`, and said so, where there are no others.
async fn real_nodes(what: &str) -> Option<&'static Fleet> {
    let fleet = fleet().await;
    if fleet.nodes().nodes == Nodes::Simulated {
        tell(&format!("not shown: {what}; {}", fleet.nodes()));
        return None;
    }
    Some(fleet)
}

/// A story that has real nodes alone.
async fn alone_on_real_nodes(namespace: &str) -> Option<Stage> {
    let fleet = real_nodes(namespace).await?;
    Some(Stage::alone(fleet, namespace).await)
}

/// Past the capture of tests that pass: a run that showed nothing must not look like one that did.
fn tell(text: &str) {
    let _ = writeln!(std::io::stderr(), "pods: {text}");
}
