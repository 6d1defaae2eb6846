//! Reads one job's lines from a number on, and waits for more.

use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::unix::fs::MetadataExt;

use tokio::sync::watch;

use super::Line;
use super::file::Paths;

/// Lines of one reading: what is kept in memory for one follower.
const AT_ONCE: usize = 256;

/// One reader of one job's lines.
pub struct Reader {
    paths: Paths,
    /// The file that is being read, and its inode.
    open: Option<(BufReader<File>, u64)>,
    began: bool,
    /// The last number that was read.
    after: u64,
    newest: watch::Receiver<u64>,
    /// What was read of a line whose end is not written yet.
    part: Vec<u8>,
}

impl Reader {
    pub(super) fn new(paths: Paths, after: u64, newest: watch::Receiver<u64>) -> Self {
        Self {
            paths,
            open: None,
            began: false,
            after,
            newest,
            part: Vec::new(),
        }
    }

    /// The next lines; none when there are no more for now.
    pub fn read(&mut self) -> io::Result<Vec<Line>> {
        let newest = *self.newest.borrow_and_update();
        let mut lines = Vec::new();
        while lines.len() < AT_ONCE && self.after < newest {
            match self.next_line()? {
                Some(line) if line.number > self.after => {
                    self.after = line.number;
                    lines.push(line);
                }
                Some(_) => {}
                None if self.turn()? => {}
                // What is missing was never written.
                None => self.after = newest,
            }
        }
        Ok(lines)
    }

    /// Returns when there is more to read.
    pub async fn wait(&mut self) {
        let after = self.after;
        // Without a writer there is nothing to come; the caller's own end is what ends the waiting.
        if self
            .newest
            .wait_for(|newest| *newest > after)
            .await
            .is_err()
        {
            std::future::pending::<()>().await;
        }
    }

    fn next_line(&mut self) -> io::Result<Option<Line>> {
        let Some((file, _)) = &mut self.open else {
            return Ok(None);
        };
        loop {
            if file.read_until(b'\n', &mut self.part)? == 0 || !self.part.ends_with(b"\n") {
                return Ok(None);
            }
            let line = serde_json::from_slice(&self.part).ok();
            self.part.clear();
            // A torn line is skipped: its number shows as a gap.
            if line.is_some() {
                return Ok(line);
            }
        }
    }

    /// Goes on to the file after the one that is read to its end; false when that is the newest.
    fn turn(&mut self) -> io::Result<bool> {
        let first = !std::mem::replace(&mut self.began, true);
        let candidates = match &self.open {
            None if first => vec![&self.paths.before, &self.paths.current],
            None | Some(_) => vec![&self.paths.current],
        };
        for path in candidates {
            let file = match File::open(path) {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
                Err(error) => return Err(error),
            };
            let inode = file.metadata()?.ino();
            if self.open.as_ref().is_none_or(|(_, open)| *open != inode) {
                self.open = Some((BufReader::new(file), inode));
                self.part.clear();
                return Ok(true);
            }
        }
        Ok(false)
    }
}
