//! Which nodes the clusters of a fleet have: real ones where the machine can run them, else simulated ones.
//!
//! | | real | simulated |
//! |---|---|---|
//! | runs | kubelet, containerd and runc in namespaces of their own, see [`node`] | kwok and our own kubelet |
//! | takes | root, 0.4 GiB a cluster | anyone, 0.3 GiB a cluster |
//! | images | made and imported by us, see [`images`] | any name, by our rules for names |
//! | pods | have addresses and are probed, crash, are killed for want of memory | say what they are told to |
//!
//! What a real node leaves when its launcher is killed (routes and cgroups: links and mounts end with their
//! namespaces) is noted in the fleet's folder and removed by the next who starts or stops a fleet there.

mod cgroups;
mod commands;
mod forward;
pub mod images;
pub mod leftovers;
pub mod network;
pub mod node;
mod preflight;
mod settings;

use std::fmt;
use std::path::Path;
use std::str::FromStr;

use anyhow::Context;

use self::cgroups::Hierarchies;

/// What was asked for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Wanted {
    /// Real ones, or an error that says why not.
    Real,
    /// Simulated ones.
    #[default]
    Simulated,
    /// Real ones where that is possible.
    Auto,
}

/// What a fleet has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Nodes {
    /// A kubelet that runs containers.
    Real,
    /// kwok.
    Simulated,
}

/// What a fleet has, and why it has not what it might.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chosen {
    /// What.
    pub nodes: Nodes,
    /// Of simulated ones the check that failed, where real ones were hoped for. Of real ones what nobody has
    /// tried of this machine.
    pub remark: Option<String>,
}

/// Variable that says which nodes tests have: `real`, `simulated` or `auto`.
pub const VARIABLE: &str = "ALDIS_NODES";

impl Wanted {
    /// What [`VARIABLE`] says, `auto` without it.
    pub fn from_environment() -> anyhow::Result<Self> {
        match std::env::var(VARIABLE) {
            Ok(said) => said.parse().with_context(|| format!("read ${VARIABLE}")),
            Err(_) => Ok(Self::Auto),
        }
    }

    /// Looks at the machine. `folder` is where the fleet will be.
    pub fn choose(self, folder: &Path) -> anyhow::Result<Chosen> {
        match self {
            Self::Simulated => Ok(Chosen::simulated()),
            Self::Real => match preflight::check(folder) {
                Ok(hierarchies) => Ok(Chosen::real(&hierarchies)),
                Err(error) => Err(refusal(&error)),
            },
            Self::Auto => Ok(match preflight::check(folder) {
                Ok(hierarchies) => Chosen::real(&hierarchies),
                Err(error) => Chosen {
                    nodes: Nodes::Simulated,
                    remark: Some(format!("{error:#}")),
                },
            }),
        }
    }
}

/// Says how to go on, unless the check that failed does.
fn refusal(error: &anyhow::Error) -> anyhow::Error {
    let why = format!("{error:#}");
    let hint = match why.contains("\n\nhint: ") {
        true => "",
        false => "\n\nhint: `NODES=simulated` takes simulated nodes",
    };
    anyhow::anyhow!("real nodes were asked for and this machine cannot run them: {why}{hint}")
}

impl Chosen {
    fn real(hierarchies: &Hierarchies) -> Self {
        Self {
            nodes: Nodes::Real,
            remark: hierarchies.untried().map(str::to_owned),
        }
    }

    fn simulated() -> Self {
        Self {
            nodes: Nodes::Simulated,
            remark: None,
        }
    }
}

impl fmt::Display for Chosen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (self.nodes, &self.remark) {
            (Nodes::Real, None) => write!(f, "nodes are real: kubelet, containerd, runc"),
            (Nodes::Real, Some(remark)) => {
                write!(f, "nodes are real: kubelet, containerd, runc ({remark})")
            }
            (Nodes::Simulated, None) => write!(f, "nodes are simulated"),
            (Nodes::Simulated, Some(why)) => {
                // On one line, and without what follows after a blank one: it is also a comment of a file.
                let why = why
                    .split("\n\n")
                    .next()
                    .unwrap_or_default()
                    .replace('\n', "; ");
                write!(
                    f,
                    "nodes are simulated, as real ones cannot run here: {why}"
                )
            }
        }
    }
}

impl fmt::Display for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Real => "real",
            Self::Simulated => "simulated",
            Self::Auto => "auto",
        })
    }
}

impl FromStr for Wanted {
    type Err = NoSuchNodes;

    fn from_str(text: &str) -> Result<Self, NoSuchNodes> {
        [Self::Real, Self::Simulated, Self::Auto]
            .into_iter()
            .find(|wanted| wanted.to_string() == text)
            .ok_or_else(|| NoSuchNodes(text.to_owned()))
    }
}

/// A word that names no kind of nodes.
#[derive(Debug, thiserror::Error)]
#[error("nodes are `real`, `simulated` or `auto`, not `{0}`")]
pub struct NoSuchNodes(String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fleet_says_which_nodes_it_has_and_why() {
        let [tried, untried] = [1, 2].map(|version| {
            let folders = Vec::new();
            Chosen::real(&Hierarchies { version, folders }).to_string()
        });
        assert_eq!(tried, "nodes are real: kubelet, containerd, runc");
        assert!(untried.contains("never tried"), "{untried}");
        let fallen_back = Chosen {
            nodes: Nodes::Simulated,
            remark: Some("it takes root, and this is user 7\n\nhint: none".to_owned()),
        };
        assert_eq!(
            fallen_back.to_string(),
            "nodes are simulated, as real ones cannot run here: it takes root, and this is user 7"
        );
    }

    #[test]
    fn a_refusal_names_the_check_that_failed_and_ends_with_one_way_forward() {
        let said = refusal(&anyhow::anyhow!("it takes root")).to_string();
        assert!(
            said.contains("cannot run them: it takes root\n\nhint: `NODES=simulated`"),
            "{said}"
        );
        let said = refusal(&anyhow::anyhow!("no kubelet\n\nhint: `make binaries`")).to_string();
        assert!(
            said.ends_with("no kubelet\n\nhint: `make binaries`"),
            "{said}"
        );
    }

    #[test]
    fn what_is_no_kind_of_nodes_is_refused() {
        assert_eq!("auto".parse::<Wanted>().unwrap(), Wanted::Auto);
        let error = "kwok".parse::<Wanted>().unwrap_err().to_string();
        assert!(error.contains("not `kwok`"), "{error}");
    }
}
