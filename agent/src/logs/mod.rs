//! What people read while and after a job runs: lines by job, in files, with numbers that show a loss.
//!
//! One job has one pair of files here (`ID.log`, and `ID.log.1` before it), bounded together: the oldest half goes when
//! the newest is full, and a reader sees by the numbers that lines are missing. Lines are written without sync: losing
//! some in a power cut costs an explanation, never an effect. Actions put no secrets into lines; a line's length is
//! bounded and control characters are taken out, so that it cannot paint a terminal.

mod file;
mod reader;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use aldis_core::ids::{JobId, StepId};
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tracing::warn;

use crate::clock::Clock;
use file::JobFile;
pub use reader::Reader;

/// The longest text of a line: some twenty lines of a stack trace.
const TEXT: usize = 4096;

/// Jobs whose files are kept in mind. More than ever run at once.
const KEPT: usize = 64;

/// How long lines are kept after the last one of a job: as long as its attempts.
const RETENTION: Duration = crate::journal::RETENTION;

/// Bytes of all jobs together.
const ALL_JOBS: u64 = 256 << 20;

/// One line.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Line {
    /// From 1 within the job. A gap is a loss.
    #[serde(rename = "n")]
    pub number: u64,
    /// Wall-clock milliseconds.
    pub at: u64,
    /// Which step says it; empty for the job as a whole.
    pub step: String,
    /// What it says.
    pub text: String,
}

/// The lines of all jobs. Clones are the same.
#[derive(Clone)]
pub struct Logs(Arc<Shared>);

struct Shared {
    dir: PathBuf,
    clock: Arc<dyn Clock>,
    jobs: Mutex<BTreeMap<JobId, Job>>,
}

struct Job {
    file: JobFile,
    /// Number of the newest line.
    newest: watch::Sender<u64>,
    used_at: u64,
}

impl Logs {
    /// Lines in files of `dir`, which is made if it is missing.
    pub fn open(dir: &Path, clock: Arc<dyn Clock>) -> std::io::Result<Self> {
        use std::os::unix::fs::DirBuilderExt;
        std::fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(dir)?;
        Ok(Self(Arc::new(Shared {
            dir: dir.to_owned(),
            clock,
            jobs: Mutex::default(),
        })))
    }

    /// Adds a line. One that cannot be written leaves its number behind.
    pub fn say(&self, job: &JobId, step: &StepId, text: String) {
        let at = self.0.clock.wall_now_ms();
        let mut jobs = self.jobs();
        let kept = kept(&mut jobs, &self.0.dir, job);
        kept.used_at = at;
        let line = Line {
            number: *kept.newest.borrow() + 1,
            at,
            step: step.to_string(),
            text: clean(text),
        };
        if let Err(error) = kept.file.append(&line) {
            warn!(%job, %error, "a line of the job's log is lost");
        }
        kept.newest.send_replace(line.number);
    }

    /// Reads a job's lines after one number, and those to come.
    pub fn reader(&self, job: &JobId, after: u64) -> Reader {
        let mut jobs = self.jobs();
        let kept = kept(&mut jobs, &self.0.dir, job);
        Reader::new(kept.file.paths(), after, kept.newest.subscribe())
    }

    /// Removes what is too old, and the oldest of what is too much.
    pub fn sweep(&self) {
        let mut found: Vec<(SystemTime, u64, PathBuf)> = Vec::new();
        let Ok(entries) = std::fs::read_dir(&self.0.dir) else {
            return;
        };
        for entry in entries.flatten() {
            if let Ok(about) = entry.metadata()
                && let Ok(modified) = about.modified()
            {
                found.push((modified, about.len(), entry.path()));
            }
        }
        found.sort();
        let mut total: u64 = found.iter().map(|(_, length, _)| length).sum();
        for (modified, length, path) in found {
            let age = modified.elapsed().unwrap_or_default();
            if age <= RETENTION && total <= ALL_JOBS {
                break;
            }
            if std::fs::remove_file(&path).is_ok() {
                total -= length;
            }
        }
    }

    fn jobs(&self) -> MutexGuard<'_, BTreeMap<JobId, Job>> {
        self.0.jobs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn kept<'a>(jobs: &'a mut BTreeMap<JobId, Job>, dir: &Path, job: &JobId) -> &'a mut Job {
    if jobs.len() >= KEPT && !jobs.contains_key(job) {
        let unread = jobs.iter().filter(|(_, job)| job.newest.is_closed());
        let oldest = unread.min_by_key(|(_, job)| job.used_at);
        if let Some(oldest) = oldest.map(|(job, _)| job.clone()) {
            jobs.remove(&oldest);
        }
    }
    jobs.entry(job.clone()).or_insert_with(|| {
        let file = JobFile::of(dir, job);
        Job {
            newest: watch::Sender::new(file.last_number()),
            file,
            used_at: 0,
        }
    })
}

fn clean(mut text: String) -> String {
    if text.len() > TEXT {
        let mut end = TEXT;
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        text.truncate(end);
        text.push('…');
    }
    text.chars()
        .map(|c| {
            if c.is_control() && c != '\n' && c != '\t' {
                '\u{fffd}'
            } else {
                c
            }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn logs(dir: &Path) -> Logs {
        let clock = Arc::new(ManualClock::new(Duration::ZERO, 5));
        Logs::open(dir, clock).unwrap()
    }

    fn job() -> JobId {
        "j-0123".into()
    }

    async fn numbers(logs: &Logs, after: u64) -> Vec<u64> {
        let mut reader = logs.reader(&job(), after);
        let mut numbers = Vec::new();
        loop {
            let lines = reader.read().unwrap();
            if lines.is_empty() {
                return numbers;
            }
            numbers.extend(lines.iter().map(|line| line.number));
        }
    }

    #[tokio::test]
    async fn numbers_go_on_after_a_restart_and_a_torn_line_is_a_gap() {
        let dir = tempfile::tempdir().unwrap();
        let first = logs(dir.path());
        for _ in 0..3 {
            first.say(&job(), &"a".into(), "line".into());
        }
        drop(first);
        let path = dir.path().join("j-0123.log");
        let whole = std::fs::read(&path).unwrap();
        std::fs::write(&path, &whole[..whole.len() - 4]).unwrap();
        let second = logs(dir.path());
        second.say(&job(), &"a".into(), "after".into());
        assert_eq!(numbers(&second, 0).await, [1, 2, 4]);
        assert_eq!(numbers(&second, 2).await, [4]);
    }

    #[tokio::test]
    async fn a_job_keeps_its_newest_lines_and_shows_that_older_ones_are_gone() {
        let dir = tempfile::tempdir().unwrap();
        let logs = logs(dir.path());
        let count = 3 * file::HALF / TEXT as u64;
        for _ in 0..count {
            logs.say(&job(), &"a".into(), "x".repeat(TEXT));
        }
        let numbers = numbers(&logs, 0).await;
        assert_eq!(numbers.last(), Some(&count));
        assert!(numbers[0] > 1, "the oldest are gone");
        let without_gaps: Vec<u64> = (numbers[0]..=count).collect();
        assert_eq!(numbers, without_gaps);
        let bytes: u64 = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().metadata().unwrap().len())
            .sum();
        assert!(bytes <= 2 * (file::HALF + 2 * TEXT as u64), "{bytes}");
    }

    #[tokio::test]
    async fn who_follows_hears_of_each_line_also_when_files_change() {
        let dir = tempfile::tempdir().unwrap();
        let logs = logs(dir.path());
        let mut reader = logs.reader(&job(), 0);
        let writer = logs.clone();
        let count = 2 * file::HALF / TEXT as u64;
        let writing = tokio::spawn(async move {
            for _ in 0..count {
                writer.say(&job(), &"a".into(), "x".repeat(TEXT));
                tokio::task::yield_now().await;
            }
        });
        let mut next = 1;
        while next <= count {
            reader.wait().await;
            for line in reader.read().unwrap() {
                assert_eq!(line.number, next);
                next += 1;
            }
        }
        writing.await.unwrap();
    }

    #[test]
    fn a_name_that_could_leave_the_folder_does_not() {
        let dir = tempfile::tempdir().unwrap();
        let logs = logs(&dir.path().join("logs"));
        logs.say(&"../../evil".into(), &"a".into(), "x".into());
        let names: Vec<_> = std::fs::read_dir(dir.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name())
            .collect();
        assert_eq!(names, ["logs"]);
        assert_eq!(
            std::fs::read_dir(dir.path().join("logs")).unwrap().count(),
            1
        );
    }

    #[test]
    fn a_line_cannot_paint_a_terminal() {
        assert_eq!(clean("a\u{1b}[31m\tb\n".into()), "a\u{fffd}[31m\tb\n");
        assert!(clean("ü".repeat(TEXT)).len() <= TEXT + '…'.len_utf8());
    }
}
