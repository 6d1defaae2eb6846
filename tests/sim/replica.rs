//! One process of one control-plane replica: joined as in `aldis_control_plane::run`, without its servers.

use std::sync::Arc;
use std::time::Duration;

use aldis_control_plane::agents::Agents;
use aldis_control_plane::clock::Clock;
use aldis_control_plane::jobs::Plans;
use aldis_control_plane::leadership::{Leader, Leadership, Role};
use aldis_control_plane::membership::Membership;
use aldis_control_plane::records;
use aldis_control_plane::services::{self, Services};
use aldis_control_plane::sessions::{self, Directory, Sessions};
use aldis_control_plane::store::Store;
use aldis_control_plane::turns::Turns;
use aldis_control_plane::view::View;
use aldis_control_plane::{leader, leadership};
use aldis_core::inventory::Limits;
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use crate::clock::StoryClock;
use crate::link::{Link, Way};
use crate::network::{Bridge, Network};

/// Shorter than in a data centre, in proportion, so that a story sees many of each.
pub(crate) const LIMITS: Limits = Limits {
    permit: Duration::from_secs(10),
    unreachable_after: Duration::from_secs(8),
    defer_for: Duration::from_secs(120),
};

/// A process.
pub(crate) struct Replica {
    /// What people ask it.
    pub(crate) services: Services,
    pub(crate) clock: StoryClock,
    pub(crate) way: watch::Sender<Way>,
    life: CancellationToken,
    role: watch::Receiver<Role>,
    _leadership: Leadership,
    leading: JoinHandle<()>,
}

impl Replica {
    /// Starts one. Ends by itself when it loses leadership.
    pub(crate) fn start(link: Link, clock: StoryClock, network: &Network) -> Self {
        let (way, life) = (link.way.clone(), link.life.clone());
        let (name, boot_id) = (link.writer.replica.clone(), link.writer.boot_id.clone());
        let store: Arc<dyn Store> = Arc::new(link);
        let hands: Arc<dyn Clock> = Arc::new(clock.clone());
        let view = View::start(store.clone(), hands.clone());
        let plans = Arc::new(Plans::new(store.clone()));
        let sessions = Sessions::start(sessions::Parts {
            store: store.clone(),
            view: view.clone(),
            clock: hands.clone(),
            plans: plans.clone(),
            replica: name.clone(),
            boot_id: boot_id.clone(),
            permit: LIMITS.permit,
            retention: leader::Settings::default().retention,
        });
        let turns = Arc::new(Turns::new(view.clone(), plans.clone(), 4));
        let bridge = Bridge(network.clone());
        let agents: Arc<dyn Agents> = Arc::new(Directory::new(sessions.clone(), bridge));
        let record = records::Replica {
            format: 1,
            id: name.clone(),
            boot_id: boot_id.clone(),
            address: name.clone(),
        };
        let joining = tokio::spawn(Membership::join(store.clone(), record));
        let leader = Leader {
            replica: name.clone(),
            boot_id,
            address: name.clone(),
        };
        let settings = leadership::Settings::new(leader);
        let leadership = Leadership::start(store.clone(), hands.clone(), settings);
        let role = leadership.role();
        let parts = leader::Parts {
            store: store.clone(),
            view: view.clone(),
            clock: hands.clone(),
            plans: plans.clone(),
            turns: turns.clone(),
            agents: agents.clone(),
            settings: leader::Settings {
                limits: LIMITS,
                ..leader::Settings::default()
            },
        };
        let leading = tokio::spawn(leader::run(parts, role.clone()));
        let services = Services::new(services::Parts {
            store,
            view,
            clock: hands,
            plans,
            agents,
            turns,
            limits: LIMITS,
            open_jobs: 100,
            draw: rand::random::<u128>,
            plan_expiry: Duration::from_secs(3600),
        });
        network.listen(&name, sessions, life.clone());
        tokio::spawn(async move {
            // Kept for as long as the process: what it holds renews the replica's record.
            let _membership = joining.await;
            std::future::pending::<()>().await
        });
        Self {
            services,
            clock,
            way,
            life,
            role,
            _leadership: leadership,
            leading,
        }
    }

    pub(crate) fn leads(&self) -> bool {
        matches!(&*self.role.borrow(), Role::Leading(_))
    }

    /// Whether something must start it again.
    pub(crate) fn has_ended(&self) -> bool {
        let lost = matches!(&*self.role.borrow(), Role::Lost { .. });
        self.life.is_cancelled() || lost
    }
}

impl Drop for Replica {
    /// `kill -9`.
    fn drop(&mut self) {
        self.life.cancel();
        self.leading.abort();
    }
}
