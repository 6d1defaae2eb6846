//! The pair of files of one job: appended to, turned over when full, read from the end once.

use std::fs::{File, OpenOptions};
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use aldis_core::canonical;
use aldis_core::ids::JobId;

use super::Line;

/// Bytes of one file of the pair: two together hold some 40,000 lines.
pub(super) const HALF: u64 = 2 << 20;

/// Where a job's lines are.
#[derive(Clone, Debug)]
pub(super) struct Paths {
    pub(super) current: PathBuf,
    pub(super) before: PathBuf,
}

pub(super) struct JobFile {
    paths: Paths,
    bytes: u64,
}

impl JobFile {
    pub(super) fn of(dir: &Path, job: &JobId) -> Self {
        let name = file_name(job);
        let paths = Paths {
            current: dir.join(format!("{name}.log")),
            before: dir.join(format!("{name}.log.1")),
        };
        let bytes = std::fs::metadata(&paths.current).map_or(0, |about| about.len());
        Self { paths, bytes }
    }

    pub(super) fn paths(&self) -> Paths {
        self.paths.clone()
    }

    /// Number of the last line that can be read; a torn one counts as the one after it, and is ended.
    pub(super) fn last_number(&self) -> u64 {
        let last = |path: &Path| {
            let mut last = 0;
            let Ok(file) = File::open(path) else { return 0 };
            let mut reader = BufReader::new(file);
            let mut text = Vec::new();
            while let Ok(1..) = reader.read_until(b'\n', &mut text) {
                if text.ends_with(b"\n") {
                    last = number(&text).unwrap_or(last);
                } else {
                    last += 1;
                    // The next line begins on its own.
                    let _ = append(path, b"\n");
                }
                text.clear();
            }
            last
        };
        match last(&self.paths.current) {
            0 => last(&self.paths.before),
            found => found,
        }
    }

    pub(super) fn append(&mut self, line: &Line) -> io::Result<()> {
        let mut text = serde_json::to_vec(line)?;
        text.push(b'\n');
        if self.bytes > 0 && self.bytes + text.len() as u64 > HALF {
            std::fs::rename(&self.paths.current, &self.paths.before)?;
            self.bytes = 0;
        }
        append(&self.paths.current, &text)?;
        self.bytes += text.len() as u64;
        Ok(())
    }
}

fn append(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let mut file = OpenOptions::new()
        .create(true)
        .append(true)
        .mode(0o600)
        .open(path)?;
    file.write_all(bytes)
}

fn number(text: &[u8]) -> Option<u64> {
    let line: Line = serde_json::from_slice(text).ok()?;
    Some(line.number)
}

/// A job's id as the control plane gives it, unless that could be anything but a name of ours.
fn file_name(job: &JobId) -> String {
    let id = job.as_str();
    let plain = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if (1..=64).contains(&id.len()) && id.chars().all(plain) {
        id.to_owned()
    } else {
        canonical::hash(id.as_bytes()).to_string()
    }
}
