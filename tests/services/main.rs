//! The control plane's services as a caller meets them: real mutual TLS, no cluster.

mod by_hand;
mod doors;
mod lines;
mod orders;
mod refusals;
mod requests;
mod sessions;
