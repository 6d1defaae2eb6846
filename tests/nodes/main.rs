//! Real nodes: what only they show, and that they leave nothing behind.
//!
//! One fleet of one cluster without Aldis for all tests but those of start and stop, which start and kill a
//! launcher. Where the machine cannot run real nodes there is nothing to test here; each test then says why
//! on the terminal, and with `ALDIS_NODES=real`, as in CI, fails with the check that failed.

mod containers;
mod failures;
mod images;
mod launcher;
mod stage;
mod traces;
mod users;
