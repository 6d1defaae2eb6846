//! The control plane's services as a caller meets them: real mutual TLS, no cluster.

mod doors;
mod refusals;
