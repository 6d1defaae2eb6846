//! A practice cluster in a file. Written under another name and renamed: a killed agent leaves the old one or the new.
//! There is no sync: a power cut may take the practice cluster back, which no journal would survive; nothing real does.

use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::{Deployment, Deployments};

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Kept {
    format: u32,
    deployments: Vec<Named>,
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct Named {
    namespace: String,
    name: String,
    deployment: Deployment,
}

/// What the file holds; none where there is no file.
pub(super) fn read(file: &Path) -> io::Result<Option<Deployments>> {
    let text = match std::fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kept: Kept = serde_json::from_slice(&text)?;
    let named = kept.deployments.into_iter();
    Ok(Some(
        named
            .map(|one| ((one.namespace, one.name), one.deployment))
            .collect(),
    ))
}

pub(super) fn write(file: &Path, deployments: &Deployments) -> io::Result<()> {
    let named = deployments.iter();
    let kept = Kept {
        format: 1,
        deployments: named
            .map(|((namespace, name), deployment)| Named {
                namespace: namespace.clone(),
                name: name.clone(),
                deployment: deployment.clone(),
            })
            .collect(),
    };
    let making = file.with_extension("making");
    std::fs::write(&making, serde_json::to_vec(&kept)?)?;
    std::fs::rename(&making, file)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Simulated;

    #[test]
    fn it_outlives_its_process() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("cluster.json");
        let target = || "eu-west/prod-1".parse().unwrap();
        let kept = || Simulated::kept_in(target(), Duration::ZERO, &file).unwrap();
        let first = kept();
        first.interfere("shop", "checkout", "checkout:v3", "somebody");
        first.create("shop", "cart", &["cart:1"]);
        let second = kept();
        assert_eq!(second.image("shop", "checkout").unwrap(), "checkout:v3");
        assert_eq!(second.writes("shop", "checkout"), Some(1));
        assert_eq!(second.image("shop", "cart").unwrap(), "cart:1");
        std::fs::write(&file, "{").unwrap();
        assert!(Simulated::kept_in(target(), Duration::ZERO, &file).is_err());
    }
}
