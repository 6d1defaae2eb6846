//! Real Kubernetes clusters on this machine, and all that runs beside them.

pub mod folder;
pub mod ports;
pub mod process;
pub mod ready;
pub mod running;
