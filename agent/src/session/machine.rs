//! What proves that a later process took over from an earlier one on the same machine.

use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use aldis_core::canonical;

/// The running kernel's boot id with a digest of the locked journal directory's device and inode. A cloned disk boots
/// another kernel; a copied directory is another inode; so whoever has both equal and holds the lock is the only one.
pub fn machine(journal: &Path) -> io::Result<String> {
    let boot = std::fs::read_to_string("/proc/sys/kernel/random/boot_id")?;
    let about = std::fs::metadata(journal)?;
    let place = format!("{} {}", about.dev(), about.ino());
    let digest = canonical::hash(place.as_bytes());
    Ok(format!("{} {}", boot.trim(), digest.short()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copied_directory_is_another_machine() {
        let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
        let first = machine(one.path()).unwrap();
        assert_eq!(first, machine(one.path()).unwrap());
        assert_ne!(first, machine(two.path()).unwrap());
    }
}
