//! The cluster's identity as it was read last, kept beside the journal.
//!
//! For one thing only: an agent that is started while its cluster's API server is away registers as what it was, and so
//! reports what its journal holds and hears what is wanted. It proves nothing: every effect reads the identity again.

use std::io::Write;
use std::path::Path;

use aldis_core::plan::ClusterIdentity;

const NAME: &str = "identity.json";

/// None where none was kept, or what was kept cannot be read: then the cluster must be asked.
pub(crate) fn read(data: &Path) -> Option<ClusterIdentity> {
    let text = std::fs::read(data.join(NAME)).ok()?;
    serde_json::from_slice(&text).ok()
}

/// Under another name first, so that a crash leaves no half of it. Nothing is written where nothing changed.
pub(crate) fn write(data: &Path, identity: &ClusterIdentity) -> std::io::Result<()> {
    if read(data).as_ref() == Some(identity) {
        return Ok(());
    }
    let path = data.join(NAME);
    let making = path.with_extension("making");
    let mut file = std::fs::File::create(&making)?;
    file.write_all(&serde_json::to_vec(identity)?)?;
    file.sync_all()?;
    std::fs::rename(&making, path)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_kept_is_read_and_half_of_it_is_none() {
        let data = tempfile::tempdir().unwrap();
        let identity = ClusterIdentity {
            cluster_uid: "u-1".into(),
            ca_fingerprint: "f".into(),
        };
        assert_eq!(read(data.path()), None);
        write(data.path(), &identity).unwrap();
        assert_eq!(read(data.path()), Some(identity));
        std::fs::write(data.path().join(NAME), "{\"clusterUid\":").unwrap();
        assert_eq!(read(data.path()), None);
    }
}
