//! Free ports on loopback that stay ours until this process ends.
//!
//! A server that is restarted must come back on its old address, and another fleet may start at the same
//! moment on this machine. So a port is claimed (see [`claims`]), below the range from which the kernel
//! takes the ports of outgoing connections: one of those would otherwise sit on it one day.

use std::fs::File;
use std::net::TcpListener;
use std::sync::{LazyLock, Mutex, PoisonError};

use anyhow::bail;
use rand::RngExt;

use super::claims;

/// Above the well-known ports, below the kernel's (32768 by default).
const RANGE: std::ops::Range<u16> = 15_000..32_000;

/// More tries than this do not help: something else is wrong.
const TRIES: usize = 200;

/// The locks of all that was given out. Held until the process ends.
static CLAIMS: LazyLock<Mutex<Vec<File>>> = LazyLock::new(Mutex::default);

/// A port that nobody listens on and that no other fleet will be given.
pub fn free() -> anyhow::Result<u16> {
    for _ in 0..TRIES {
        let port = rand::rng().random_range(RANGE);
        if let Some(claim) = claim(port)? {
            keep(claim);
            return Ok(port);
        }
    }
    bail!(
        "no free port was found between {} and {}, of {TRIES} that were tried\n\nhint: `ss -ltn` shows who listens; `make fleet-down` stops a fleet that nobody needs",
        RANGE.start,
        RANGE.end - 1
    )
}

fn claim(port: u16) -> anyhow::Result<Option<File>> {
    let claim = claims::claim(&claims::folder("ports"), port)?;
    let unused = TcpListener::bind(("127.0.0.1", port)).is_ok();
    Ok(claim.filter(|_| unused))
}

fn keep(claim: File) {
    CLAIMS
        .lock()
        .unwrap_or_else(PoisonError::into_inner)
        .push(claim);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_is_given_once() {
        let first = free().unwrap();
        assert!(RANGE.contains(&first));
        assert!(claim(first).unwrap().is_none(), "the lock is held");
    }

    #[test]
    fn a_port_in_use_is_passed_over() {
        let server = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = server.local_addr().unwrap().port();
        assert!(claim(port).unwrap().is_none());
    }
}
