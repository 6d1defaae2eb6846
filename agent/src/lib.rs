//! The per-cluster agent: it journals what it is given, acts on its one cluster, and reports.

pub mod actions;
pub mod clock;
pub mod journal;
pub mod permit;
pub mod policy;
