//! Addresses and names of one node on this machine, drawn so that no other fleet has them.
//!
//! All follows from one number, which is claimed as ports are and noted in the fleet's folder. So whoever
//! finds the folder of a fleet that was killed knows what to remove, and whoever is given a number removes
//! what bears it: it can only be left over.
//!
//! | of number N | is |
//! |---|---|
//! | `aldisN` | the machine's end of the link, and the node's cgroups |
//! | `10.220.x.y/30` | the link: the machine's end, the node's |
//! | `10.200.x.0/24` and on | pods |
//! | `10.210.x.0/24` and on | services; the first is the API server's |
//!
//! A blackhole route under each keeps what is meant for the node from leaving by the machine's own way
//! while the link is down.

use std::fs::File;
use std::net::Ipv4Addr;
use std::path::PathBuf;

use anyhow::{Context, bail};
use rand::RngExt;

use super::{cgroups, commands};
use crate::fleet::claims;
use crate::fleet::folder::Folder;

/// How many there can be.
const NUMBERS: std::ops::Range<u16> = 0..2560;

/// More tries than this do not help: something else is wrong.
const TRIES: usize = 100;

/// Of all routes the last resort.
const BLACKHOLE_METRIC: &str = "4000";

/// What a node is called and reached by. Links, routes and cgroups of its name go with it.
pub struct Network {
    plan: Plan,
    note: PathBuf,
    _claim: File,
}

/// All that follows from the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    number: u16,
}

impl Network {
    /// Draws one, and notes it in the folder of its fleet.
    pub(in crate::fleet) fn draw(folder: &Folder, cluster: &str) -> anyhow::Result<Self> {
        for _ in 0..TRIES {
            let number = rand::rng().random_range(NUMBERS);
            let Some(claim) = claims::claim(&claims::folder("networks"), number)? else {
                continue;
            };
            let plan = Plan { number };
            plan.remove()?;
            if plan.is_free()? {
                let note = folder.write(format!("networks/{cluster}"), number.to_string())?;
                let network = Self {
                    plan,
                    note,
                    _claim: claim,
                };
                plan.add_blackholes()?;
                return Ok(network);
            }
        }
        bail!("find a network of 10.200.0.0/10 that this machine does not use")
    }

    /// Its names and addresses.
    pub fn plan(&self) -> Plan {
        self.plan
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        match self.plan.remove() {
            Ok(_) => drop(std::fs::remove_file(&self.note)),
            // The note stays: the next fleet in this folder tries again.
            Err(error) => tracing::warn!("{error:#}"),
        }
    }
}

impl Plan {
    /// The plan of a note that a fleet left.
    pub(super) fn read(note: &str) -> Option<Self> {
        let number = note.trim().parse().ok()?;
        NUMBERS.contains(&number).then_some(Self { number })
    }

    /// Name of the link and of the cgroups.
    pub fn name(self) -> String {
        format!("aldis{}", self.number)
    }

    /// The machine's end of the link.
    pub fn outside(self) -> Ipv4Addr {
        self.link(1)
    }

    /// The node's.
    pub fn inside(self) -> Ipv4Addr {
        self.link(2)
    }

    /// Where pods find the API server.
    pub fn service(self) -> Ipv4Addr {
        self.of(210, 1)
    }

    /// The range of services.
    pub fn services(self) -> String {
        format!("{}/24", self.of(210, 0))
    }

    /// The range of pods.
    pub fn pods(self) -> String {
        format!("{}/24", self.of(200, 0))
    }

    fn of(self, second: u8, last: u8) -> Ipv4Addr {
        let [high, low] = self.number.to_be_bytes();
        Ipv4Addr::new(10, second + high, low, last)
    }

    fn link(self, which: u16) -> Ipv4Addr {
        let [high, low] = (self.number * 4 + which).to_be_bytes();
        Ipv4Addr::new(10, 220, high, low)
    }

    fn ranges(self) -> [String; 3] {
        let link = format!("{}/30", self.link(0));
        [self.pods(), self.services(), link]
    }

    /// Claims it for as long as the value lives, where nobody has it.
    pub(super) fn claim(self) -> anyhow::Result<Option<File>> {
        claims::claim(&claims::folder("networks"), self.number)
    }

    /// Whether this machine has no other way to any of it.
    fn is_free(self) -> anyhow::Result<bool> {
        let routes = commands::run("ip", &["-4", "route", "show", "table", "all"])?;
        let ours: Vec<Range> = self
            .ranges()
            .iter()
            .filter_map(|r| Range::read(r))
            .collect();
        let taken = |range: &Range| ours.iter().any(|our| our.meets(range));
        Ok(!routes.lines().filter_map(destination).any(|r| taken(&r)))
    }

    fn add_blackholes(self) -> anyhow::Result<()> {
        for range in self.ranges() {
            let words = [
                "route",
                "replace",
                "blackhole",
                &range,
                "metric",
                BLACKHOLE_METRIC,
            ];
            commands::run("ip", &words).context("keep the node's traffic on this machine")?;
        }
        Ok(())
    }

    /// Removes all that bears its name. Says what it found.
    pub(super) fn remove(self) -> anyhow::Result<Vec<&'static str>> {
        let mut found = Vec::new();
        if commands::run("ip", &["link", "delete", &self.name()]).is_ok() {
            found.push("link");
        }
        let mut routes = false;
        for range in self.ranges() {
            let words = [
                "route",
                "delete",
                "blackhole",
                &range,
                "metric",
                BLACKHOLE_METRIC,
            ];
            routes |= commands::run("ip", &words).is_ok();
        }
        if routes {
            found.push("routes");
        }
        if cgroups::remove(&self.name())? {
            found.push("cgroups");
        }
        Ok(found)
    }
}

/// A range of addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Range {
    address: u32,
    length: u32,
}

impl Range {
    fn read(text: &str) -> Option<Self> {
        let (address, length) = text.split_once('/').unwrap_or((text, "32"));
        let address: Ipv4Addr = address.parse().ok()?;
        Some(Self {
            address: address.to_bits(),
            length: length.parse().ok()?,
        })
    }

    fn meets(&self, other: &Self) -> bool {
        let shorter = self.length.min(other.length);
        let mask = u32::MAX.checked_shl(32 - shorter).unwrap_or_default();
        self.address & mask == other.address & mask
    }
}

/// Where a route leads, unless it is the default one.
fn destination(route: &str) -> Option<Range> {
    let mut words = route.split_whitespace();
    let first = words.next()?;
    Range::read(first).or_else(|| Range::read(words.next()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_numbers_share_no_address() {
        let plan = |number| Plan { number };
        assert_eq!(plan(0).pods(), "10.200.0.0/24");
        assert_eq!(plan(2559).pods(), "10.209.255.0/24");
        assert_eq!(plan(2559).service().to_string(), "10.219.255.1");
        assert_eq!(plan(2559).inside().to_string(), "10.220.39.254");
        let ranges = |number| {
            plan(number)
                .ranges()
                .map(|range| Range::read(&range).unwrap())
        };
        for other in ranges(256) {
            assert!(!ranges(255).iter().any(|range| range.meets(&other)));
        }
    }

    #[test]
    fn a_range_meets_what_holds_it_and_what_it_holds() {
        let range = |text| Range::read(text).unwrap();
        assert!(range("10.200.1.0/24").meets(&range("10.200.0.0/16")));
        assert!(range("10.200.1.0/24").meets(&range("10.200.1.7")));
        assert!(!range("10.200.1.0/24").meets(&range("10.200.2.0/24")));
    }

    #[test]
    fn the_destination_of_a_route_is_read_and_the_default_passed_over() {
        let read = |text| destination(text).map(|range| range.length);
        assert_eq!(read("192.0.2.0/24 dev eth0 proto kernel"), Some(24));
        assert_eq!(read("local 127.0.0.1 dev lo table local"), Some(32));
        assert_eq!(read("blackhole 10.200.7.0/24 metric 4000"), Some(24));
        assert_eq!(read("default via 192.0.2.1 dev eth0"), None);
    }
}
