//! The clusters of a trial: contexts of a kubeconfig, and practice clusters.

use std::path::{Path, PathBuf};

use aldis_core::ids::TargetName;

use super::Error;

/// Where a context is put that has no region in its name.
const REGION: &str = "local";

/// The practice clusters where none were asked for: two regions, so that waves mean something.
const PRACTICE: [&str; 3] = ["eu-west/dev-1", "us-east/dev-1", "us-east/dev-2"];

/// One cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Target {
    /// Its name.
    pub name: TargetName,
    /// How it is reached.
    pub cluster: Cluster,
}

/// How a cluster is reached.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Cluster {
    /// By a context of a file.
    Kubeconfig {
        /// The file.
        file: PathBuf,
        /// The context.
        context: String,
    },
    /// It is only in memory.
    Simulated,
}

/// A context of a kubeconfig, `CONTEXT` or `CONTEXT=REGION/CLUSTER`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KubeContext {
    context: String,
    name: TargetName,
}

impl std::str::FromStr for KubeContext {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some((context, name)) = text.rsplit_once('=') {
            let name = name.parse().map_err(|error| format!("{error}"))?;
            return Ok(Self {
                context: context.to_owned(),
                name,
            });
        }
        let name = text.parse().or_else(|_| {
            TargetName::new(REGION, &slug(text)).map_err(|_| {
                format!("`{text}` gives no name for a target; write `{text}=REGION/CLUSTER`")
            })
        })?;
        Ok(Self {
            context: text.to_owned(),
            name,
        })
    }
}

/// Lower-case letters, digits and hyphens.
fn slug(text: &str) -> String {
    let plain: String = text
        .to_lowercase()
        .chars()
        .map(|c| if c.is_ascii_alphanumeric() { c } else { '-' })
        .collect();
    plain.trim_matches('-').chars().take(63).collect()
}

/// Every cluster that was asked for, each name once.
pub fn all(
    contexts: &[KubeContext],
    kubeconfig: Option<&Path>,
    simulated: &[TargetName],
) -> Result<Vec<Target>, Error> {
    let mut targets = Vec::new();
    for context in contexts {
        let file = kubeconfig.map_or_else(default_kubeconfig, |path| Ok(path.to_owned()))?;
        let file =
            std::fs::canonicalize(&file).map_err(|source| Error::File { path: file, source })?;
        targets.push(Target {
            name: context.name.clone(),
            cluster: Cluster::Kubeconfig {
                file,
                context: context.context.clone(),
            },
        });
    }
    let practice = |name: TargetName| Target {
        name,
        cluster: Cluster::Simulated,
    };
    targets.extend(simulated.iter().cloned().map(practice));
    if targets.is_empty() {
        let names = PRACTICE.iter().filter_map(|name| name.parse().ok());
        targets.extend(names.map(practice));
    }
    for (index, target) in targets.iter().enumerate() {
        let again = targets
            .iter()
            .take(index)
            .any(|other| other.name == target.name);
        if again {
            return Err(Error::Twice {
                name: target.name.clone(),
            });
        }
    }
    Ok(targets)
}

/// The first file of `KUBECONFIG`, else `~/.kube/config`.
fn default_kubeconfig() -> Result<PathBuf, Error> {
    let listed = std::env::var_os("KUBECONFIG").unwrap_or_default();
    let first = std::env::split_paths(&listed).find(|path| !path.as_os_str().is_empty());
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".kube/config"));
    first.or_else(home).ok_or(Error::NoKubeconfig)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_context_becomes_a_target() {
        let name = |text: &str| {
            text.parse::<KubeContext>()
                .map(|c| (c.context, c.name.to_string()))
        };
        let pair = |a: &str, b: &str| Ok((a.to_owned(), b.to_owned()));
        assert_eq!(
            name("eu-west/prod-1"),
            pair("eu-west/prod-1", "eu-west/prod-1")
        );
        assert_eq!(name("kind-dev"), pair("kind-dev", "local/kind-dev"));
        assert_eq!(name("GKE_x_Y=us/y"), pair("GKE_x_Y", "us/y"));
        assert_eq!(
            name("arn:aws:eks"),
            pair("arn:aws:eks", "local/arn-aws-eks")
        );
        assert!(name("___").is_err());
    }

    #[test]
    fn without_a_word_there_are_three_practice_clusters_and_no_name_twice() {
        let targets = all(&[], None, &[]).unwrap();
        assert_eq!(targets.len(), 3);
        assert!(
            targets
                .iter()
                .all(|target| target.cluster == Cluster::Simulated)
        );
        let name: TargetName = "eu/a".parse().unwrap();
        let twice = all(&[], None, &[name.clone(), name]);
        assert!(matches!(twice, Err(Error::Twice { .. })));
    }
}
