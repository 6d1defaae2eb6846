//! This replica's own record: leased, so that it is gone soon after the replica is.
//!
//! Others read the address of a hop from it, and the leader ends the sessions of replicas without one.
//! Put before the first agent is served; put again should the lease have ended meanwhile (a store that
//! was away for longer than its life).

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use tracing::{info, warn};

use crate::lasting;
use crate::records::{self, Replica};
use crate::store::{self, Commit, Lease, Store, Write, keys};
use crate::telemetry::chain;

/// Life of the record without renewal: a replica that is gone for so long has lost its agents anyway.
const TTL: Duration = Duration::from_secs(10);

/// Renewals in one life, so that one may fail.
const RENEWALS: u32 = 3;

/// Before trying again when the store has no answer.
const AGAIN_AFTER: Duration = Duration::from_millis(500);

/// A record that is kept alive.
pub struct Membership {
    leave: oneshot::Sender<()>,
    running: JoinHandle<()>,
}

impl Membership {
    /// Puts the record, and keeps it. Returns once it is there.
    pub async fn join(store: Arc<dyn Store>, replica: Replica) -> Self {
        let lease = loop {
            match put(&*store, &replica).await {
                Ok(lease) => break lease,
                Err(error) => warn!(error = chain(&error), "replica not recorded yet"),
            }
            tokio::time::sleep(AGAIN_AFTER).await;
        };
        info!(
            replica = replica.id,
            address = replica.address,
            "replica recorded"
        );
        let (leave, left) = oneshot::channel();
        let kept = keep(store, replica, lease, left);
        let running = lasting::spawn("keeping the replica's record", kept);
        Self { leave, running }
    }

    /// Deletes the record.
    pub async fn leave(self) {
        // Where nobody listens it has stopped already.
        let _ = self.leave.send(());
        if let Err(stopped) = self.running.await {
            warn!(%stopped, "replica's record was not kept to the end");
        }
    }
}

async fn put(store: &dyn Store, replica: &Replica) -> Result<Lease, store::Error> {
    let lease = store.grant(TTL).await?;
    // A process of the same name that was here before is gone, or soon will be: the newest counts.
    let commit = Commit {
        preconditions: vec![],
        writes: vec![Write::Put {
            key: keys::replica(&replica.id),
            value: records::write(replica),
            lease: Some(lease),
        }],
    };
    store.commit(commit).await?;
    Ok(lease)
}

async fn keep(
    store: Arc<dyn Store>,
    replica: Replica,
    mut lease: Lease,
    mut left: oneshot::Receiver<()>,
) {
    loop {
        tokio::select! {
            _ = &mut left => break,
            () = tokio::time::sleep(TTL / RENEWALS) => {}
        }
        let gone = match store.keep_alive(lease).await {
            Ok(left) => left.is_zero(),
            Err(error) => {
                warn!(error = chain(&error), "replica's record not renewed");
                false
            }
        };
        if gone {
            match put(&*store, &replica).await {
                Ok(new) => lease = new,
                Err(error) => warn!(error = chain(&error), "replica not recorded again"),
            }
        }
    }
    if let Err(error) = store.revoke(lease).await {
        warn!(error = chain(&error), "replica's record ends by itself");
    }
}
