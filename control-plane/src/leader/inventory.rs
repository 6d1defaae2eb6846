//! What a decision depends on, gathered from the view and the leader's memory.

use std::collections::BTreeMap;

use aldis_core::ids::{Fence, JobId, TargetName};
use aldis_core::inventory::{Inventory, Limits, Presence, Turn};
use aldis_core::job::JobState;
use aldis_core::plan::ObjectRef;

use super::{Error, Term, locks};
use crate::jobs::{self, Loaded};
use crate::presence;
use crate::records::RefusedOrder;
use crate::turns::Turns;
use crate::view::View;

impl Term<'_> {
    pub(super) async fn inventory(&self, loaded: &Loaded) -> Result<Inventory, Error> {
        let id = &loaded.job.header.id;
        let parts = self.parts;
        let seen = observe(&parts.view, &parts.turns, loaded, parts.settings.limits);
        Ok(Inventory {
            fence: self.fence,
            led_since: self.led_since,
            withheld: self.memory.withheld.clone(),
            late_locks: self.late_locks(id)?,
            drift: self.memory.drift.get(id).cloned().unwrap_or_default(),
            soak: self
                .memory
                .soak
                .get(id)
                .map(|soaking| soaking.progress.clone()),
            ..seen.await?
        })
    }

    /// What other jobs hold still, of what deferred targets would write.
    fn late_locks(&self, id: &JobId) -> Result<BTreeMap<TargetName, (ObjectRef, JobId)>, Error> {
        let mut held = BTreeMap::new();
        for (target, (lock, by)) in self.memory.late_locks.get(id).into_iter().flatten() {
            if locks::holder(&self.parts.view, lock)?.as_ref() == Some(by) {
                held.insert(target.clone(), (lock.object.clone(), by.clone()));
            }
        }
        Ok(held)
    }
}

/// What any replica sees of it: all but what only the leader remembers.
pub(crate) async fn observe(
    view: &View,
    turns: &Turns,
    loaded: &Loaded,
    limits: Limits,
) -> Result<Inventory, jobs::Error> {
    let fence: Fence = view.read(presence::fence);
    let (known, halted) = view.read(|all| (presence::fleet(all), presence::halted(all)));
    let refused = known.iter().filter_map(|(name, known)| {
        let (session, _) = known.as_ref().ok()?.session.as_ref()?;
        let attempt = loaded.job.targets.get(name)?.attempt;
        let ours = |refused: &&RefusedOrder| {
            refused.job == loaded.job.header.id && refused.attempt == attempt
        };
        let refused = session.refused.iter().find(ours)?;
        Some((name.clone(), refused.why.clone()))
    });
    let refused = refused.collect();
    let agents: BTreeMap<TargetName, Presence> = known
        .iter()
        .map(|(name, known)| (name.clone(), presence::of(known, fence)))
        .collect();
    let turn = match loaded.job.header.state {
        JobState::Queued => {
            let turns = turns.all().await?;
            turns
                .get(&loaded.job.header.id)
                .cloned()
                .unwrap_or_default()
        }
        JobState::NeedsOperator { .. } => locks::turn_to_go_on(view, &loaded.job),
        _ => Turn::Yes,
    };
    Ok(Inventory {
        fence,
        halted,
        refused,
        agents,
        requests: loaded.requests.clone(),
        turn,
        limits,
        ..Inventory::default()
    })
}
