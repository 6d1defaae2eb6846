//! The per-cluster agent: it journals what it is given, acts on its one cluster, and reports.
//!
//! ```text
//! control plane ◀─▶ session ─orders─▶ desk ─▶ runner ─▶ actions ─▶ the cluster
//!                    │  ▲               │        │
//!                    │  └── reports ◀───┴─ ledger (journal, fsync) ─ logs
//!                    └── questions ─▶ planner ─▶ actions, dry
//! ```

pub mod actions;
pub mod clock;
pub mod config;
pub mod desk;
pub mod journal;
mod kept_identity;
pub mod ledger;
pub mod logs;
pub mod parts;
pub mod permit;
pub mod planner;
pub mod policy;
pub mod redaction_key;
pub mod reports;
pub mod rights;
pub mod run;
pub mod runner;
pub mod session;
pub mod telemetry;
#[cfg(test)]
mod testing;
pub mod tls;

pub use parts::Parts;
