//! Writes tar files: regular files with short names, and nothing of who made them and when.
//!
//! Forty lines for want of a crate: equal contents must give equal bytes, which is a matter of what is left out.

use anyhow::ensure;

const BLOCK: usize = 512;

/// Longest name that fits the oldest form of the header.
const LONGEST_NAME: usize = 99;

/// A tar file on its way.
#[derive(Default)]
pub(super) struct Tar {
    bytes: Vec<u8>,
}

impl Tar {
    /// Adds a file, owned by root.
    pub(super) fn add(&mut self, path: &str, mode: u32, contents: &[u8]) -> anyhow::Result<()> {
        let name = path.trim_start_matches('/');
        ensure!(
            !name.is_empty() && name.len() <= LONGEST_NAME,
            "the name of a file in an archive has 1 to {LONGEST_NAME} bytes, `{name}` has {}",
            name.len()
        );
        self.bytes.extend(header(name, mode, contents.len()));
        self.bytes.extend(contents);
        self.fill(BLOCK);
        Ok(())
    }

    /// The whole file.
    pub(super) fn finish(mut self) -> Vec<u8> {
        self.bytes.extend([0; 2 * BLOCK]);
        self.bytes
    }

    fn fill(&mut self, unit: usize) {
        let whole = self.bytes.len().next_multiple_of(unit);
        self.bytes.resize(whole, 0);
    }
}

fn header(name: &str, mode: u32, size: usize) -> [u8; BLOCK] {
    let mut header = [0; BLOCK];
    let mut put =
        |at: usize, text: &str| header[at..at + text.len()].copy_from_slice(text.as_bytes());
    put(0, name);
    put(100, &format!("{mode:07o}"));
    put(108, "0000000");
    put(116, "0000000");
    put(124, &format!("{size:011o}"));
    put(136, "00000000000");
    // The sum is taken with blanks in its own place.
    put(148, "        ");
    put(156, "0");
    put(257, "ustar\x0000");
    let sum: u32 = header.iter().copied().map(u32::from).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    header
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn the_machines_own_tar_reads_it() {
        let mut tar = Tar::default();
        tar.add("/bin/shop", 0o755, &[7; 1000]).unwrap();
        tar.add("etc/shop.conf", 0o600, b"port = 1\n").unwrap();
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("made.tar");
        std::fs::write(&file, tar.finish()).unwrap();
        let read = |arguments: &[&str]| {
            let output = Command::new("tar")
                .arg(arguments[0])
                .arg(&file)
                .args(&arguments[1..])
                .output();
            let output = output.unwrap();
            assert!(
                output.status.success(),
                "{}",
                String::from_utf8_lossy(&output.stderr)
            );
            String::from_utf8(output.stdout).unwrap()
        };
        assert_eq!(read(&["-tf"]), "bin/shop\netc/shop.conf\n");
        assert!(read(&["-tvf"]).starts_with("-rwxr-xr-x 0/0            1000 1970-01-01"));
        assert_eq!(read(&["-xOf", "etc/shop.conf"]), "port = 1\n");
    }

    #[test]
    fn a_name_that_does_not_fit_is_refused() {
        let error = Tar::default()
            .add(&"x".repeat(100), 0o644, b"")
            .unwrap_err();
        assert!(error.to_string().contains("has 100"), "{error}");
    }
}
