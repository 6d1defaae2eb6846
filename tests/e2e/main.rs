//! The whole of Aldis on real API servers. One fleet for all tests of this program; each test works in
//! namespaces of its own.

mod agents;
mod clusters;
mod drift;
mod identity;
mod inputs;
mod leaders;
mod links;
mod operators;
mod stores;

use aldis_tests::fleet::system::programs::Source;
use aldis_tests::fleet::system::{self, Store, Times};
use aldis_tests::fleet::{Fleet, Options};
use tokio::sync::OnceCell;

static FLEET: OnceCell<Fleet> = OnceCell::const_new();

/// The fleet of all tests. Its files stay in `target/tmp/e2e-fleet` until the next run.
async fn fleet() -> &'static Fleet {
    FLEET
        .get_or_init(|| async {
            let folder = std::path::Path::new(env!("CARGO_TARGET_TMPDIR")).join("e2e-fleet");
            let options = Options {
                system: Some(system::Options {
                    source: Source::BuiltWithCrashPoints,
                    store: Store::Etcd,
                    times: Times::Short,
                }),
                ..Options::default()
            };
            Fleet::start(&folder, options)
                .await
                .unwrap_or_else(|error| panic!("start the fleet: {error:?}"))
        })
        .await
}
