//! The shop: a small server that runbooks are tried on, whose releases misbehave on purpose.
//!
//! One file, linked statically, is the whole of its container image. What a release does is told by its tag
//! (see [`release`]); the same reading serves the simulated nodes, which have only the tag, and the real ones,
//! where it becomes the arguments of this program.
//!
//! ```text
//! SIGTERM ─▶ not ready, serving ─nobody came for a while─▶ accepts nobody ─requests under way end─▶ exit 0
//! ```

pub mod arguments;
mod database;
mod faults;
mod logs;
mod metrics;
mod phase;
pub mod release;
pub mod requests;
pub mod run;
mod server;
mod session;
