//! Random plans, random fleets, random bad luck: what [`crate::check`] forbids must never happen, and
//! once the bad luck ends, so must every job.
//!
//! | file | what |
//! |---|---|
//! | `plans.rs` | plans of 1 to 12 targets, with waves, barriers, budgets and policies |
//! | `world.rs` | a leader's memory, agents that answer or do not, operators |
//! | `acts.rs` | what may happen next, and how it is done to the world |

mod acts;
mod plans;
mod world;

use proptest::prelude::*;

use crate::inventory::Turn;
use world::World;

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn no_promise_is_broken_and_every_job_ends(
        sketch in plans::sketch(),
        acts in prop::collection::vec(acts::act(), 0..80),
    ) {
        let mut world = lived(&sketch, &acts);
        world.calm_down();
    }

    #[test]
    fn a_cancel_without_undo_ends_every_job_though_no_agent_returns(
        sketch in plans::sketch(),
        acts in prop::collection::vec(acts::act(), 0..80),
    ) {
        let mut world = lived(&sketch, &acts);
        world.close();
    }
}

/// A world in which all this has happened.
fn lived(sketch: &plans::Sketch, acts: &[acts::Act]) -> World {
    let mut world = World::new(sketch.job());
    if sketch.queued {
        world.inventory.turn = Turn::NotYet;
    }
    world.settle();
    for act in acts {
        act.happen(&mut world);
        world.settle();
    }
    world
}
