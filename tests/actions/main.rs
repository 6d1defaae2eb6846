//! Every action on a real API server, as the agent's own user and with the rights that users install: plan, effect,
//! repeat, crash, drift, conflict, undo, and what somebody else does in between. One fleet for all tests of this
//! program; each test works in a namespace of its own.

mod accounts;
mod effects;
mod plans;
mod probes;
mod rights;
mod support;
mod templates;
mod undos;
mod waits;
