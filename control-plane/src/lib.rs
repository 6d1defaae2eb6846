//! The control plane of Aldis: store, leadership, queue and dispatch, behind mutual TLS.
//!
//! Dependencies inside go one way: `clock` and `store` know nothing of the rest; `leadership` and
//! `view` stand on them.

pub mod agents;
pub mod authorization;
pub mod clock;
pub mod commit;
pub mod config;
pub mod grpc;
pub mod identity;
pub mod jobs;
mod kept;
pub mod lasting;
pub mod leader;
pub mod leadership;
pub mod membership;
pub mod monitoring;
pub mod presence;
pub mod records;
pub mod run;
pub mod services;
pub mod sessions;
pub mod store;
pub mod telemetry;
pub mod tls;
pub mod trace;
pub mod turns;
pub mod view;
