//! A fixed number of listeners and log files, each lent to one connection at a time.
//!
//! kwok's rules cannot name a pod that does not exist yet; they can name a slot. Whoever holds a slot is
//! its tenant: what connects to its listener is answered as that container, and its log file leads to the
//! container's.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::task::AbortOnDropHandle;

use super::app::{self, Tenant};
use crate::fleet::folder::Folder;

/// Connections into pods of one cluster at the same time: an agent uses a handful, people some more.
const SLOTS: usize = 48;

/// The slots of one cluster.
pub struct Slots {
    folder: PathBuf,
    slots: Vec<Slot>,
    free: Arc<Mutex<Vec<usize>>>,
    _tasks: Vec<AbortOnDropHandle<()>>,
}

/// One of them.
#[derive(Clone)]
pub struct Slot {
    name: String,
    address: SocketAddr,
    log: PathBuf,
    tenant: Arc<Mutex<Option<Tenant>>>,
}

/// A slot that is ours until this is dropped.
pub(super) struct Taken {
    slot: Slot,
    index: usize,
    free: Arc<Mutex<Vec<usize>>>,
}

impl Slots {
    /// Opens all listeners. Logs are kept in a folder below that of the fleet.
    pub async fn open(folder: &Folder, below: &Path) -> anyhow::Result<Self> {
        let folder = folder.make_below(below)?;
        let mut slots = Vec::new();
        let mut tasks = Vec::new();
        for index in 0..SLOTS {
            let (slot, task) = Slot::open(index, &folder).await?;
            slots.push(slot);
            tasks.push(task);
        }
        Ok(Self {
            folder,
            slots,
            free: Arc::new(Mutex::new((0..SLOTS).collect())),
            _tasks: tasks,
        })
    }

    /// All, for kwok's rules.
    pub fn all(&self) -> &[Slot] {
        &self.slots
    }

    /// Where logs of containers are kept.
    pub(super) fn folder(&self) -> &Path {
        &self.folder
    }

    /// Lends a slot. `None` when none is free.
    pub(super) fn take(&self, tenant: Tenant) -> anyhow::Result<Option<Taken>> {
        let Some(index) = lock(&self.free).pop() else {
            return Ok(None);
        };
        let taken = Taken {
            slot: self.slots[index].clone(),
            index,
            free: Arc::clone(&self.free),
        };
        taken.slot.lead_to(tenant.log.file())?;
        *lock(&taken.slot.tenant) = Some(tenant);
        Ok(Some(taken))
    }
}

impl Slot {
    /// Its name in kwok's rules.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its listener.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Its log file.
    pub fn log(&self) -> &Path {
        &self.log
    }

    async fn open(index: usize, folder: &Path) -> anyhow::Result<(Self, AbortOnDropHandle<()>)> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))
            .await
            .context("listen for connections into pods")?;
        let name = format!("slot-{index}");
        let slot = Self {
            address: listener.local_addr()?,
            log: folder.join(&name),
            name,
            tenant: Arc::default(),
        };
        let task = tokio::spawn(slot.clone().accept(listener));
        Ok((slot, AbortOnDropHandle::new(task)))
    }

    async fn accept(self, listener: TcpListener) {
        while let Ok((stream, _)) = listener.accept().await {
            let tenant = lock(&self.tenant).clone();
            if let Some(tenant) = tenant {
                tokio::spawn(app::serve(stream, tenant));
            }
        }
    }

    fn lead_to(&self, log: &Path) -> anyhow::Result<()> {
        let _ = std::fs::remove_file(&self.log);
        std::os::unix::fs::symlink(log, &self.log)
            .with_context(|| format!("link {}", self.log.display()))
    }
}

impl Taken {
    /// The slot's name.
    pub(super) fn name(&self) -> &str {
        self.slot.name()
    }
}

impl Drop for Taken {
    fn drop(&mut self) {
        *lock(&self.slot.tenant) = None;
        lock(&self.free).push(self.index);
    }
}

fn lock<T>(of: &Mutex<T>) -> MutexGuard<'_, T> {
    of.lock().unwrap_or_else(PoisonError::into_inner)
}
