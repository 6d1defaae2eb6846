//! Harness of the tests that need real components: finds their programs, starts and stops them.

pub mod binaries;
pub mod etcd;
pub mod fleet;
pub mod goldens;
pub mod helm;
pub mod load;
pub mod memory;
pub mod pki;
pub mod plane;
pub mod practice;
pub mod proxy;
pub mod requests;
pub mod runbooks;
pub mod stage;
