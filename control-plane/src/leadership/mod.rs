//! Who decides: at most one replica, and how it learns that it is no longer the one.
//!
//! ```text
//!            key gone            elected                   failed fence, lease ended, key gone
//!  Standby ───────────▶ campaign ────────▶ Leading ──────────────────────────────▶ Lost (exit)
//!     ▲  └───────── somebody else ◀──┘        │
//!     │                                       │ the store went back in time
//!     └───── incarnation raised ── Held ◀─────┘ (also from Standby)
//! ```
//!
//! Two replicas may believe that they lead: the one that was paused, cut off or has a slow clock does
//! not know better. What keeps that harmless is the fence in every [`FencedTxn`]; the deadline here
//! only stops useless work early. A replica that lost leadership exits, since nothing proves that no
//! half-finished decision of it is left in memory; something restarts it, and the other takes over.
//!
//! A store that went back is no reason to exit: a restarted process would have forgotten what it saw
//! and would go on as if nothing were wrong. It holds until an operator raises the incarnation, and says
//! so in `meta/halted`, which stops everybody's dispatch, also of a replica that is started later.

mod election;
mod fence;
mod tenure;

use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::clock::Clock;
use crate::lasting;
use crate::records::{self, Halted, Layout};
use crate::store::{self, Event, Revision, Store, keys};
use crate::telemetry::chain;

pub use election::{FORMAT, Incarnation, check_format, incarnation, raise_incarnation};
pub use fence::{Error, FencedTxn, Token};

use election::Campaign;

/// Pause before a store that failed is asked again: a tenth of a lease, so that a standby is not what
/// makes a change of leader slow.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// How this replica takes part.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Who this is, as others shall see it.
    pub leader: Leader,
    /// Life of the leader's lease without renewal.
    pub ttl: Duration,
    /// How long before the lease can end the replica stops by itself.
    pub margin: Duration,
}

impl Settings {
    /// A lease of 5 s: a killed leader is replaced soon, a slow fsync deposes nobody. A margin of
    /// 1 s: longer than any step between looking at the deadline and sending.
    pub fn new(leader: Leader) -> Self {
        Self {
            leader,
            ttl: Duration::from_secs(5),
            margin: Duration::from_secs(1),
        }
    }
}

/// The value of the leader key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Leader {
    /// Its configured name.
    pub replica: String,
    /// Which process of that name.
    pub boot_id: String,
    /// Where other replicas reach it.
    pub address: String,
}

/// What this replica is.
#[derive(Clone, Debug)]
pub enum Role {
    /// Decides nothing. The leader where there is one and its key could be read.
    Standby {
        /// Who leads.
        leader: Option<Leader>,
    },
    /// Decides, as long as its token lives.
    Leading(Token),
    /// The store went back in time. Nothing may be dispatched until the incarnation is raised.
    Held {
        /// For operators.
        why: String,
    },
    /// Led, and does not any more: hand the streams over and exit.
    Lost {
        /// For operators.
        why: String,
    },
}

/// A replica taking part. Dropping it stops it without stepping down, as a crash would.
#[derive(Debug)]
pub struct Leadership {
    role: watch::Receiver<Role>,
    step_down: Option<oneshot::Sender<()>>,
    running: JoinHandle<()>,
}

impl Leadership {
    /// Takes part from here on.
    pub fn start(store: Arc<dyn Store>, clock: Arc<dyn Clock>, settings: Settings) -> Self {
        let (sender, role) = watch::channel(Role::Standby { leader: None });
        let (step_down, asked) = oneshot::channel();
        let replica = Replica {
            store,
            clock,
            settings,
            role: sender,
            incarnation: 0,
        };
        Self {
            role,
            step_down: Some(step_down),
            running: lasting::spawn("taking part in elections", replica.take_part(asked)),
        }
    }

    /// What this replica is; changes wake the receiver.
    pub fn role(&self) -> watch::Receiver<Role> {
        self.role.clone()
    }

    /// Gives leadership back, if it is held, and takes no further part. Move the streams first.
    pub async fn step_down(mut self) {
        if let Some(ask) = self.step_down.take() {
            // Where nobody listens it has stopped already.
            let _ = ask.send(());
        }
        if let Err(stopped) = (&mut self.running).await {
            tracing::warn!(%stopped, "leadership ended before it could step down");
        }
    }
}

impl Drop for Leadership {
    fn drop(&mut self) {
        self.running.abort();
    }
}

struct Replica {
    store: Arc<dyn Store>,
    clock: Arc<dyn Clock>,
    settings: Settings,
    role: watch::Sender<Role>,
    /// The highest incarnation read.
    incarnation: u64,
}

/// What ends a wait.
enum Turn {
    /// The leader key is gone, or may be: look again.
    LookAgain,
    /// The store went back.
    Back(String),
}

impl Replica {
    async fn take_part(mut self, mut asked: oneshot::Receiver<()>) {
        loop {
            let turn = tokio::select! {
                // Dropping a campaign half way leaves at most a lease behind, which ends by itself.
                _ = &mut asked => return,
                turn = self.stand_by() => turn,
            };
            let turn = match turn {
                Turned::Elected(token) => match self.lead(token, &mut asked).await {
                    Some(turn) => turn,
                    None => return,
                },
                Turned::Other(turn) => turn,
            };
            if let Turn::Back(why) = turn {
                tokio::select! {
                    _ = &mut asked => return,
                    () = self.hold(why) => {}
                }
            }
        }
    }

    /// Looks who leads; campaigns where nobody does, and waits for the key's end where somebody does.
    async fn stand_by(&mut self) -> Turned {
        match self.look().await {
            Ok(turned) => turned,
            Err(store::Error::WentBack { .. }) => self.went_back().await,
            Err(error) => {
                tracing::warn!(error = chain(&error), "cannot take part in elections");
                tokio::time::sleep(AGAIN_AFTER).await;
                Turned::Other(Turn::LookAgain)
            }
        }
    }

    async fn look(&mut self) -> store::Result<Turned> {
        let seen = election::incarnation(&*self.store).await?;
        self.incarnation = self.incarnation.max(seen.number);
        let listing = self.store.list(keys::leader().as_str()).await?;
        let Some(record) = listing.records.first() else {
            return self.campaign().await;
        };
        let leader = serde_json::from_slice(&record.value).ok();
        self.role.send_replace(Role::Standby { leader });
        self.wait_for_end(listing.revision).await
    }

    async fn campaign(&mut self) -> store::Result<Turned> {
        let (store, clock) = (&*self.store, &*self.clock);
        match election::campaign(store, clock, &self.settings).await? {
            Campaign::Elected(token) => Ok(Turned::Elected(token)),
            Campaign::SomebodyElse => Ok(Turned::Other(Turn::LookAgain)),
        }
    }

    async fn wait_for_end(&self, after: Revision) -> store::Result<Turned> {
        let prefixes = vec![keys::leader().as_str().to_owned()];
        let mut watch = self.store.watch(prefixes, after).await?;
        while let Some(event) = watch.next().await {
            match event? {
                Event::Changed {
                    record: Some(_), ..
                }
                | Event::Progress { .. } => {}
                Event::Changed { record: None, .. } | Event::Reset { .. } => break,
            }
        }
        Ok(Turned::Other(Turn::LookAgain))
    }

    /// Leads until it does not. `None` where no further part is to be taken.
    async fn lead(&mut self, token: Token, asked: &mut oneshot::Receiver<()>) -> Option<Turn> {
        tracing::info!(
            epoch = token.epoch,
            incarnation = token.incarnation,
            "leading"
        );
        self.role.send_replace(Role::Leading(token.clone()));
        let ended = tokio::select! {
            _ = asked => tenure::Ended::SteppedDown,
            ended = tenure::hold(&*self.store, &*self.clock, &self.settings, &token) => ended,
        };
        token.end();
        match ended {
            tenure::Ended::SteppedDown => {
                self.resign(&token).await;
                None
            }
            tenure::Ended::WentBack(why) => Some(Turn::Back(why)),
            tenure::Ended::Lost(why) => {
                tracing::error!(why, epoch = token.epoch, "leadership lost");
                self.role.send_replace(Role::Lost { why });
                None
            }
        }
    }

    async fn resign(&self, token: &Token) {
        self.role.send_replace(Role::Standby { leader: None });
        if let Err(error) = self.store.revoke(token.lease).await {
            tracing::warn!(
                error = chain(&error),
                "cannot revoke the leader's lease; it ends by itself"
            );
        }
    }

    async fn went_back(&self) -> Turned {
        let why = match self.store.read_revision().await {
            Err(error) => error.to_string(),
            Ok(_) => "the store went back in time".to_owned(),
        };
        Turned::Other(Turn::Back(why))
    }

    /// Waits for an operator to raise the incarnation above all that this process has read; says in the
    /// store that it does, for those that are started meanwhile.
    async fn hold(&mut self, why: String) {
        tracing::error!(why, "holding until `raise-incarnation`");
        let halted = Halted {
            format: Halted::FORMAT,
            why: format!("{}: {why}", self.settings.leader.replica),
            incarnation: self.incarnation,
        };
        self.role.send_replace(Role::Held { why });
        let mut said = false;
        loop {
            if !said {
                said = self.say_halted(&halted).await;
            }
            tokio::time::sleep(AGAIN_AFTER).await;
            match election::incarnation_despite(&*self.store).await {
                Ok(raised) if raised.number > self.incarnation => break,
                Ok(_) => {}
                Err(error) => tracing::warn!(error = chain(&error), "cannot read the incarnation"),
            }
        }
        self.store.accept_restored();
        self.role.send_replace(Role::Standby { leader: None });
    }

    async fn say_halted(&self, halted: &Halted) -> bool {
        let value = records::write(halted);
        match self.store.put_despite(&keys::halted(), value).await {
            Ok(()) => true,
            Err(error) => {
                tracing::warn!(
                    error = chain(&error),
                    "cannot record that all dispatch stops"
                );
                false
            }
        }
    }
}

/// What standing by led to.
enum Turned {
    Elected(Token),
    Other(Turn),
}
