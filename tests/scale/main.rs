//! One job over a thousand agents. The agents are the real ones, each with a journal of its own and mutual TLS; only their
//! clusters are in memory. The control plane is a process of its own on a real etcd, so that its memory can be
//! counted apart from that of its agents.
//!
//! A test binary of its own, so that nothing else runs beside it.

mod many;
mod plane;
