//! The pure core of Aldis: the runbook format, plans, jobs, and every decision about them.
//!
//! It decides and cannot do anything else: no network, files, clock, environment or logging. Time,
//! randomness and ids come in by argument; what is to happen goes out as a value.
//!
//! | module | says |
//! |---|---|
//! | [`runbook`], [`action`] | what may be written, and what an agent can do |
//! | [`plan`] | who, in which order, from which state |
//! | [`job`], [`outcome`] | what is known, and which moves exist |
//! | [`decide`], [`queue`], [`soak`] | what happens next, as the leader sees it |
//! | [`assignments`], [`segment`] | what an agent should hold, and what it does next with it |
//! | [`reconcile`] | what an agent's list of attempts proves |
//! | [`check`] | what must never happen, for tests |
//! | [`question`], [`view`] | what is asked of agents, and shown to people |

#![deny(missing_docs)]

pub mod action;
pub mod assignments;
pub mod canonical;
pub mod check;
pub mod decide;
pub mod ids;
pub mod inventory;
pub mod job;
pub mod outcome;
pub mod plan;
pub mod question;
pub mod queue;
pub mod reconcile;
pub mod runbook;
pub mod segment;
pub mod soak;
pub mod view;
