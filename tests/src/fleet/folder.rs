//! Where one fleet keeps its files.
//!
//! ```text
//! FOLDER/log/NAME.log      what each program wrote
//! FOLDER/pids/NAME         process id of each program that runs: `kill -9 $(cat pids/NAME)`
//! FOLDER/started/NAME      the same with the moment it started, see [`Running`]
//! FOLDER/down/NAME         while it exists, that program stays down once it has ended
//! FOLDER/elsewhere/NAME    where a folder of this fleet is that is not below this one
//! FOLDER/<anything else>   data, certificates and configuration of each part
//! ```

use std::path::{Path, PathBuf};

use anyhow::{Context, bail, ensure};
use rustix::process::Pid;

use super::running::Running;

const LOGS: &str = "log";

/// Its parts. A folder that has all of them is a fleet's.
const PARTS: [&str; 4] = [LOGS, "pids", "started", "down"];

/// How the name of a folder begins that is not below its fleet's.
pub(super) const ELSEWHERE: &str = "aldis-";

/// Lines of a log that an error shows.
const LAST_LINES: usize = 12;

/// The folder of a fleet.
#[derive(Clone, Debug)]
pub struct Folder {
    root: PathBuf,
}

impl Folder {
    /// Empties a folder and lays it out. Refuses one that holds what no fleet made.
    pub fn make(root: &Path) -> anyhow::Result<Self> {
        let root = std::path::absolute(root).context("find the folder of the fleet")?;
        if is_a_fleets(&root) {
            empty(&root).with_context(|| format!("empty {}", root.display()))?;
        }
        if !is_nothing(&root) {
            bail!(
                "{} holds something that is no fleet's\n\nhint: name another folder by `--folder`, or empty this one",
                root.display()
            );
        }
        let folder = Self { root };
        for part in PARTS {
            folder.make_below(part)?;
        }
        Ok(folder)
    }

    /// The folder of a fleet that ran, if there is anything. Refuses one that holds what no fleet made.
    pub fn find(root: &Path) -> anyhow::Result<Option<Self>> {
        let folder = Self::open(root)?;
        if is_nothing(folder.root()) {
            return Ok(None);
        }
        ensure!(
            is_a_fleets(folder.root()),
            "{} is no fleet's folder, so nothing in it was touched\n\nhint: name a fleet's folder by `--folder`, or an empty one to start one in",
            root.display()
        );
        Ok(Some(folder))
    }

    /// A folder that a fleet has laid out already.
    pub fn open(root: &Path) -> anyhow::Result<Self> {
        Ok(Self {
            root: std::path::absolute(root).context("find the folder of the fleet")?,
        })
    }

    /// The folder itself.
    pub fn root(&self) -> &Path {
        &self.root
    }

    /// A path below it.
    pub fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.root.join(below)
    }

    /// Makes a folder below it.
    pub fn make_below(&self, below: impl AsRef<Path>) -> anyhow::Result<PathBuf> {
        let path = self.path(below);
        std::fs::create_dir_all(&path).with_context(|| format!("create {}", path.display()))?;
        Ok(path)
    }

    /// Writes a file below it, readable by its owner only: many hold keys.
    pub fn write(
        &self,
        below: impl AsRef<Path>,
        contents: impl AsRef<[u8]>,
    ) -> anyhow::Result<PathBuf> {
        use std::io::Write;
        use std::os::unix::fs::OpenOptionsExt;
        let path = self.path(below);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent)
                .with_context(|| format!("create {}", parent.display()))?;
        }
        std::fs::OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .mode(0o600)
            .open(&path)
            .and_then(|mut file| file.write_all(contents.as_ref()))
            .with_context(|| format!("write {}", path.display()))?;
        Ok(path)
    }

    /// Where each program's log is.
    pub fn logs(&self) -> PathBuf {
        self.path(LOGS)
    }

    /// The log of a program.
    pub fn log(&self, name: &str) -> PathBuf {
        self.logs().join(format!("{name}.log"))
    }

    /// The file with the process id of a program.
    pub fn pid(&self, name: &str) -> PathBuf {
        self.root.join("pids").join(name)
    }

    /// The end of a log and where the rest is.
    pub fn last_words(&self, name: &str) -> String {
        end_of(&self.log(name))
    }

    /// Whether an outsider keeps a program down.
    pub(super) fn is_kept_down(&self, name: &str) -> bool {
        self.root.join("down").join(name).exists()
    }

    /// Notes a running process. Losing the note loses a convenience, so an error is not passed on.
    pub fn note_process(&self, name: &str, pid: Pid) {
        if let Some(running) = Running::note(pid) {
            let _ = std::fs::write(self.started(name), format!("{running}\n"));
        }
        let _ = std::fs::write(self.pid(name), format!("{}\n", pid.as_raw_nonzero()));
    }

    /// Forgets a process that has ended.
    pub fn forget_process(&self, name: &str) {
        let _ = std::fs::remove_file(self.pid(name));
        let _ = std::fs::remove_file(self.started(name));
    }

    /// Notes a folder of this fleet that is not below its own: whoever takes it down must be told. Its name begins
    /// with [`ELSEWHERE`].
    pub(super) fn note_elsewhere(&self, name: &str, path: &Path) -> anyhow::Result<()> {
        let note = Path::new("elsewhere").join(name);
        self.write(note, path.as_os_str().as_encoded_bytes())
            .map(drop)
    }

    /// Removes those that were noted and that are still there. A line for each.
    pub(super) fn sweep_elsewhere(&self) -> anyhow::Result<Vec<String>> {
        let mut said = Vec::new();
        for note in self.path("elsewhere").read_dir().into_iter().flatten() {
            let note = note.context("read the notes of a fleet")?.path();
            let path = std::fs::read_to_string(&note).context("read where a folder is")?;
            let path = Path::new(&path);
            let name = path.file_name().unwrap_or_default().to_string_lossy();
            // It is removed with all that is in it: nothing is that is not called as ours are.
            if name.starts_with(ELSEWHERE) && path.is_dir() {
                std::fs::remove_dir_all(path)
                    .with_context(|| format!("remove {}", path.display()))?;
                said.push(format!(
                    "removed {}, which a killed fleet had left",
                    path.display()
                ));
            }
        }
        Ok(said)
    }

    /// All that were noted, with their names.
    pub fn processes(&self) -> Vec<(String, Running)> {
        let noted = std::fs::read_dir(self.path("started"))
            .into_iter()
            .flatten();
        noted
            .filter_map(|entry| {
                let entry = entry.ok()?;
                let name = entry.file_name().into_string().ok()?;
                Some((name, Running::read(&entry.path())?))
            })
            .collect()
    }

    fn started(&self, name: &str) -> PathBuf {
        self.root.join("started").join(name)
    }
}

fn is_a_fleets(root: &Path) -> bool {
    PARTS.iter().all(|part| root.join(part).is_dir())
}

/// Whether there is no folder, or nothing in it.
fn is_nothing(root: &Path) -> bool {
    root.read_dir()
        .map_or(true, |mut found| found.next().is_none())
}

/// The parts last: whoever is killed here leaves a folder that is still known for a fleet's.
fn empty(root: &Path) -> std::io::Result<()> {
    for entry in root.read_dir()? {
        let entry = entry?;
        match entry.file_type()? {
            _ if PARTS.iter().any(|part| entry.file_name() == *part) => {}
            kind if kind.is_dir() => std::fs::remove_dir_all(entry.path())?,
            _ => std::fs::remove_file(entry.path())?,
        }
    }
    std::fs::remove_dir_all(root)
}

/// The last lines of a log, under its name.
pub(super) fn end_of(log: &Path) -> String {
    let text = std::fs::read(log).unwrap_or_default();
    let text = String::from_utf8_lossy(&text);
    let lines: Vec<&str> = text.lines().collect();
    let last = lines[lines.len().saturating_sub(LAST_LINES)..].join("\n  ");
    format!("{}:\n  {last}", log.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_folder_elsewhere_is_removed_once_and_nothing_that_is_called_otherwise() {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(&dir.path().join("fleet")).unwrap();
        let [ours, other] = ["aldis-postgres-1", "precious"].map(|name| dir.path().join(name));
        for (name, path) in [("postgres", &ours), ("mistake", &other)] {
            std::fs::create_dir(path).unwrap();
            folder.note_elsewhere(name, path).unwrap();
        }
        let said = folder.sweep_elsewhere().unwrap();
        assert!(
            said.len() == 1 && said[0].contains("aldis-postgres-1"),
            "{said:?}"
        );
        assert!(!ours.exists() && other.exists());
        assert!(folder.sweep_elsewhere().unwrap().is_empty());
    }

    #[test]
    fn a_folder_that_a_fleet_laid_out_is_emptied_for_the_next() {
        let root = tempfile::tempdir().unwrap();
        let folder = Folder::make(root.path()).unwrap();
        folder.write("data/old", "old").unwrap();
        folder.write("env", "old").unwrap();
        Folder::make(root.path()).unwrap();
        assert!(!folder.path("data").exists());
        assert!(!folder.path("env").exists());
        assert!(Folder::find(root.path()).unwrap().is_some());
    }

    #[test]
    fn a_folder_that_looks_like_a_fleets_in_part_is_left_alone() {
        let root = tempfile::tempdir().unwrap();
        std::fs::create_dir(root.path().join("started")).unwrap();
        for refused in [
            Folder::make(root.path()).err(),
            Folder::find(root.path()).err(),
        ] {
            let said = refused.unwrap().to_string();
            assert!(said.contains("no fleet's"), "{said}");
        }
        assert!(root.path().join("started").is_dir());
    }
}
