//! The log of one container, in the form in which a kubelet keeps it and kwok reads it: each line begins
//! with its time, `stdout` and `F`. One line of another form makes the whole file unreadable to kwok.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::path::{Path, PathBuf};

use aldis_shop::release::Release;
use anyhow::Context;
use jiff::Timestamp;

/// A file that exists and has its first lines.
#[derive(Clone, Debug)]
pub(super) struct Log {
    file: PathBuf,
}

impl Log {
    /// Opens the log of a container. When it is looked at for the first time, what the container said when it
    /// started is written.
    pub(super) fn open(file: &Path, image: &str) -> anyhow::Result<Self> {
        let log = Self {
            file: file.to_owned(),
        };
        match File::create_new(file) {
            Ok(_) => {
                let release = Release::of_image(image);
                log.say(&format!("starting {}", release.tag()));
                log.say(release.behaviour().first_words());
                Ok(log)
            }
            Err(error) if error.kind() == std::io::ErrorKind::AlreadyExists => Ok(log),
            Err(error) => Err(error).with_context(|| format!("create {}", file.display())),
        }
    }

    /// The file.
    pub(super) fn file(&self) -> &Path {
        &self.file
    }

    /// Writes a line, in one piece. A full disk loses it, as it would on a node.
    pub(super) fn say(&self, text: &str) {
        let line = format!("{:.9} stdout F {text}\n", Timestamp::now());
        let written = OpenOptions::new()
            .append(true)
            .open(&self.file)
            .and_then(|mut file| file.write_all(line.as_bytes()));
        if let Err(error) = written {
            tracing::warn!("write {}: {error}", self.file.display());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn first_lines_are_written_once_and_every_line_is_a_kubelets() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("log");
        Log::open(&file, "a:v1").unwrap();
        Log::open(&file, "a:v1").unwrap().say("GET /healthz 200");
        let text = std::fs::read_to_string(&file).unwrap();
        let said: Vec<&str> = text
            .lines()
            .map(|line| {
                let (time, said) = line.split_once(" stdout F ").unwrap();
                assert_eq!(time.len(), "2026-11-23T10:00:00.000000000Z".len());
                said
            })
            .collect();
        assert_eq!(said, ["starting v1", "listening", "GET /healthz 200"]);
    }
}
