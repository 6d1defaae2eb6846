//! What a decision depends on, gathered from the view and the leader's memory.

use std::collections::BTreeMap;

use aldis_core::ids::{Fence, JobId, TargetName};
use aldis_core::inventory::{Inventory, Limits, Presence, Turn};
use aldis_core::job::JobState;
use aldis_core::queue::{self, LockKey, Queued};

use super::{Error, Term};
use crate::jobs::{self, Loaded, Plans};
use crate::presence;
use crate::records::{self, Lock};
use crate::store::keys;
use crate::view::{self, View};

/// Agents held on their own word from which on nobody is believed: with two, it is the store.
const WORDS_THAT_PROVE: usize = 2;

impl Term<'_> {
    pub(super) async fn inventory(&self, loaded: &Loaded) -> Result<Inventory, Error> {
        let id = &loaded.job.header.id;
        let parts = self.parts;
        let settings = parts.settings;
        let seen = observe(
            &parts.view,
            &parts.plans,
            loaded,
            settings.limits,
            settings.running_jobs,
        );
        Ok(Inventory {
            fence: self.fence,
            drift: self.memory.drift.get(id).cloned().unwrap_or_default(),
            soak: self
                .memory
                .soak
                .get(id)
                .map(|soaking| soaking.progress.clone()),
            ..seen.await?
        })
    }
}

/// What any replica sees of it: all but what only the leader remembers.
pub(crate) async fn observe(
    view: &View,
    plans: &Plans,
    loaded: &Loaded,
    limits: Limits,
    running_jobs: usize,
) -> Result<Inventory, jobs::Error> {
    let fence: Fence = view.read(presence::fence);
    let known = view.read(presence::fleet)?;
    let agents: BTreeMap<TargetName, Presence> = known
        .iter()
        .map(|(name, known)| (name.clone(), known.presence(fence)))
        .collect();
    let turn = match loaded.job.header.state {
        JobState::Queued => {
            let turns = turns(view, plans, running_jobs).await?;
            turns
                .get(&loaded.job.header.id)
                .cloned()
                .unwrap_or_default()
        }
        _ => Turn::Yes,
    };
    Ok(Inventory {
        fence,
        halted: halted(&known),
        agents,
        requests: loaded.requests.clone(),
        drift: BTreeMap::new(),
        soak: None,
        turn,
        limits,
    })
}

/// Whose turn it is, of all queued jobs.
async fn turns(
    view: &View,
    plans: &Plans,
    bound: usize,
) -> Result<BTreeMap<JobId, Turn>, jobs::Error> {
    let mut queued = Vec::new();
    let mut running = 0;
    for header in jobs::headers(view)? {
        if header.state != JobState::Queued {
            running += usize::from(!header.state.is_ended());
            continue;
        }
        if let Some(loaded) = jobs::load(view, plans, &header.id).await? {
            queued.push(Queued {
                locks: loaded.job.locks(),
                job: header.id,
                priority: header.priority,
                submitted_at: header.submitted_at,
            });
        }
    }
    Ok(queue::turns(&queued, running, bound, &held(view)?))
}

/// Who holds which object.
pub(crate) fn held(view: &View) -> Result<BTreeMap<LockKey, JobId>, records::Error> {
    let locks = view.read(|all| view::under(all, keys::LOCKS).cloned().collect::<Vec<_>>());
    let mut held = BTreeMap::new();
    for record in &locks {
        let lock: Lock = records::read(record)?;
        if let Some(keys::Name::Lock { cluster_uid, .. }) = record.key.name() {
            held.insert((cluster_uid, lock.object), lock.job);
        }
    }
    Ok(held)
}

/// On one agent's word alone only that agent is held; on two, all dispatch stops.
fn halted(known: &BTreeMap<TargetName, presence::Known>) -> Option<String> {
    let held: Vec<_> = known
        .iter()
        .filter_map(|(name, known)| Some(format!("{name}: {}", known.fleet.held.as_ref()?)))
        .collect();
    (held.len() >= WORDS_THAT_PROVE)
        .then(|| format!("the store went back in time ({})", held.join("; ")))
}
