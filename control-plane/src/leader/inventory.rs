//! What a decision depends on, gathered from the view and the leader's memory.

use std::collections::BTreeMap;

use aldis_core::ids::{Fence, TargetName};
use aldis_core::inventory::{Inventory, Limits, Presence, Turn};
use aldis_core::job::JobState;

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
        late_locks: locks::held_still(view, &loaded.job)?,
        ..Inventory::default()
    })
}
