//! Programs that run under our eyes and never outlive us.
//!
//! Each has a thread of its own that starts it, waits for it, and starts it again where that is wanted.
//! The kernel kills it when that thread ends (`setpriv --pdeathsig`), so that a test run that is itself
//! killed leaves nothing behind; for the same reason the thread lives as long as the program. Each is the
//! leader of its own process group, so that a Ctrl-C meant for us does not reach it, and so that what it
//! started ends with it.
//!
//! Output goes to `log/NAME.log`, the process id to `pids/NAME` (see [`Folder`]). While a file `down/NAME` exists, a
//! program that ended is not started again: so an outsider can keep it down, and start it by removing the file.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{File, OpenOptions};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{
    Pid, Signal, WaitId, WaitIdOptions, kill_process, kill_process_group, waitid,
};

use super::folder::Folder;

/// How long to wait before a program that ended by itself is started again: long enough that one which
/// cannot start does not fill its log, short beside an election.
const RESTART_AFTER: Duration = Duration::from_millis(300);

/// A program that takes longer to end after SIGTERM is killed.
const GRACE: Duration = Duration::from_secs(10);

/// What to run.
#[derive(Clone, Debug)]
pub struct Program {
    /// Its name in logs and process files.
    pub name: String,
    /// The program.
    pub path: PathBuf,
    /// Its arguments.
    pub arguments: Vec<OsString>,
    /// Its whole environment: it inherits nothing but `PATH` and `HOME`.
    pub environment: BTreeMap<String, OsString>,
    /// What to do when it ends by itself.
    pub when_it_ends: WhenItEnds,
}

/// What follows when a program ends and nobody asked it to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WhenItEnds {
    /// It stays down.
    Leave,
    /// It is started again, as a service manager would.
    StartAgain,
}

impl Program {
    /// A program that stays down when it ends.
    pub fn new(name: impl Into<String>, path: impl Into<PathBuf>) -> Self {
        Self {
            name: name.into(),
            path: path.into(),
            arguments: Vec::new(),
            environment: BTreeMap::new(),
            when_it_ends: WhenItEnds::Leave,
        }
    }

    /// Adds arguments.
    pub fn arguments(mut self, more: impl IntoIterator<Item = impl Into<OsString>>) -> Self {
        self.arguments.extend(more.into_iter().map(Into::into));
        self
    }

    /// Sets a variable of its environment.
    pub fn environment(mut self, name: &str, value: impl Into<OsString>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    /// Says what to do when it ends by itself.
    pub fn when_it_ends(mut self, what: WhenItEnds) -> Self {
        self.when_it_ends = what;
        self
    }
}

/// A supervised program. Killed when dropped.
pub struct Process {
    shared: Arc<Shared>,
}

struct Shared {
    folder: Folder,
    name: String,
    state: Mutex<State>,
    changed: Condvar,
}

struct State {
    program: Program,
    wanted: Wanted,
    pid: Option<Pid>,
    starts: u32,
    exits: Vec<ExitStatus>,
    /// Why the last start did not come to a process.
    trouble: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Up,
    Down,
    /// The thread may end.
    Gone,
}

impl Process {
    /// Starts a program. Returns when the process exists, not when it is ready.
    pub fn start(folder: &Folder, program: Program) -> anyhow::Result<Self> {
        let shared = Arc::new(Shared {
            folder: folder.clone(),
            name: program.name.clone(),
            state: Mutex::new(State {
                program,
                wanted: Wanted::Up,
                pid: None,
                starts: 0,
                exits: Vec::new(),
                trouble: None,
            }),
            changed: Condvar::new(),
        });
        let theirs = Arc::clone(&shared);
        std::thread::Builder::new()
            .name(format!("supervise-{}", shared.name))
            .spawn(move || theirs.supervise())
            .context("start a thread")?;
        let process = Self { shared };
        process.is_started(0)?;
        Ok(process)
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.shared.name
    }

    /// Where it writes.
    pub fn log(&self) -> PathBuf {
        self.shared.folder.log(&self.shared.name)
    }

    /// The last lines it wrote, for an error message.
    pub fn last_words(&self) -> String {
        self.shared.folder.last_words(&self.shared.name)
    }

    /// Its process id while it runs.
    pub fn pid(&self) -> Option<Pid> {
        self.shared.lock().pid
    }

    /// Whether it ended and stays so.
    pub fn is_down(&self) -> bool {
        let state = self.shared.lock();
        state.pid.is_none() && state.wanted != Wanted::Up
    }

    /// How often it was started.
    pub fn starts(&self) -> u32 {
        self.shared.lock().starts
    }

    /// How it ended each time.
    pub fn exits(&self) -> Vec<ExitStatus> {
        self.shared.lock().exits.clone()
    }

    /// Sends it a signal. What follows if it ends by it is for [`WhenItEnds`] to say.
    pub fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let state = self.shared.lock();
        let pid = state
            .pid
            .with_context(|| format!("{} is not running", self.name()))?;
        kill_process(pid, signal).with_context(|| format!("send {signal:?} to {}", self.name()))
    }

    /// Kills it and leaves it down.
    pub fn kill(&self) {
        self.shared.want(Wanted::Down);
        self.shared.end_now();
    }

    /// Asks it to end, and kills it when it takes too long. Leaves it down.
    pub fn stop(&self) {
        self.stop_by(Signal::TERM);
    }

    /// The same for a program that takes another signal for a wish to end.
    pub fn stop_by(&self, signal: Signal) {
        self.shared.want(Wanted::Down);
        self.shared.end(signal, GRACE);
    }

    /// Starts it again after it ended or was stopped.
    pub fn start_again(&self) -> anyhow::Result<()> {
        let before = {
            let mut state = self.shared.lock();
            if state.pid.is_some() {
                bail!("{} runs already", self.name());
            }
            state.wanted = Wanted::Up;
            state.trouble = None;
            state.starts
        };
        self.shared.changed.notify_all();
        self.is_started(before)
    }

    /// Changes what the next start runs, such as a variable of the environment.
    pub fn change(&self, change: impl FnOnce(&mut Program)) {
        change(&mut self.shared.lock().program);
    }

    fn is_started(&self, before: u32) -> anyhow::Result<()> {
        let state = self.shared.lock();
        let (state, _) = self
            .shared
            .changed
            .wait_timeout_while(state, GRACE, |s| s.starts == before && s.trouble.is_none())
            .unwrap_or_else(PoisonError::into_inner);
        match &state.trouble {
            Some(trouble) => bail!("start {}: {trouble}", self.name()),
            None if state.starts == before => bail!("start {}: no process yet", self.name()),
            None => Ok(()),
        }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.shared.want(Wanted::Gone);
        self.shared.end_now();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn want(&self, wanted: Wanted) {
        self.lock().wanted = wanted;
        self.changed.notify_all();
    }

    /// Kills the whole group, and waits until the leader is reaped.
    fn end_now(&self) {
        let state = self.lock();
        if let Some(pid) = state.pid {
            // It may have ended this instant.
            let _ = kill_process_group(pid, Signal::KILL);
        }
        drop(self.wait_until_down(state, GRACE));
    }

    fn end(&self, signal: Signal, grace: Duration) {
        let state = self.lock();
        if let Some(pid) = state.pid {
            let _ = kill_process(pid, signal);
        }
        drop(self.wait_until_down(state, grace));
        self.end_now();
    }

    fn wait_until_down<'a>(
        &'a self,
        state: MutexGuard<'a, State>,
        limit: Duration,
    ) -> MutexGuard<'a, State> {
        self.changed
            .wait_timeout_while(state, limit, |s| s.pid.is_some())
            .unwrap_or_else(PoisonError::into_inner)
            .0
    }

    /// The life of the thread: one turn is one life of the program.
    fn supervise(&self) {
        while let Some(program) = self.next_wanted() {
            match self.spawn(&program) {
                Ok(child) => self.watch(child),
                Err(error) => self.could_not_start(&error),
            }
            self.pause_before_restart();
        }
    }

    fn next_wanted(&self) -> Option<Program> {
        let state = self
            .changed
            .wait_while(self.lock(), |s| s.wanted == Wanted::Down)
            .unwrap_or_else(PoisonError::into_inner);
        (state.wanted == Wanted::Up).then(|| state.program.clone())
    }

    fn spawn(&self, program: &Program) -> anyhow::Result<Child> {
        let log = self.folder.log(&self.name);
        let log = OpenOptions::new()
            .create(true)
            .append(true)
            .open(&log)
            .with_context(|| format!("open {}", log.display()))?;
        let mut state = self.lock();
        if state.wanted != Wanted::Up {
            bail!("stopped before it was started");
        }
        let child = command(program, log)?
            .spawn()
            .with_context(|| format!("run {}", program.path.display()))?;
        let pid = Pid::from_child(&child);
        state.pid = Some(pid);
        state.starts += 1;
        state.trouble = None;
        self.folder.note_process(&self.name, pid);
        drop(state);
        self.changed.notify_all();
        Ok(child)
    }

    /// Waits for the end of a process. It is reaped under the lock: a signal, sent under the same lock,
    /// can never reach another process that was given its number.
    fn watch(&self, mut child: Child) {
        let pid = Pid::from_child(&child);
        let options = WaitIdOptions::EXITED | WaitIdOptions::NOWAIT;
        while let Err(rustix::io::Errno::INTR) = waitid(WaitId::Pid(pid), options) {}
        let mut state = self.lock();
        // What it started goes with it.
        let _ = kill_process_group(pid, Signal::KILL);
        state.exits.extend(child.wait());
        state.pid = None;
        if state.wanted == Wanted::Up && state.program.when_it_ends == WhenItEnds::Leave {
            state.wanted = Wanted::Down;
        }
        self.folder.forget_process(&self.name);
        drop(state);
        self.changed.notify_all();
    }

    fn could_not_start(&self, error: &anyhow::Error) {
        let mut state = self.lock();
        state.trouble = Some(format!("{error:#}"));
        if state.wanted == Wanted::Up {
            state.wanted = Wanted::Down;
        }
        drop(state);
        self.changed.notify_all();
    }

    fn pause_before_restart(&self) {
        loop {
            let state = self.lock();
            let (state, _) = self
                .changed
                .wait_timeout_while(state, RESTART_AFTER, |s| s.wanted == Wanted::Up)
                .unwrap_or_else(PoisonError::into_inner);
            if state.wanted != Wanted::Up || !self.folder.is_kept_down(&self.name) {
                return;
            }
        }
    }
}

fn command(program: &Program, log: File) -> anyhow::Result<Command> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let setpriv = on_path("setpriv", &path)?;
    let errors = log.try_clone().context("share the log")?;
    let mut command = Command::new(setpriv);
    command
        .args(["--pdeathsig", "KILL", "--"])
        .arg(&program.path)
        .args(&program.arguments)
        .env_clear()
        .env("PATH", path)
        .envs(std::env::var_os("HOME").map(|home| ("HOME", home)))
        .envs(&program.environment)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .process_group(0);
    Ok(command)
}

fn on_path(name: &str, path: &OsString) -> anyhow::Result<PathBuf> {
    std::env::split_paths(path)
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .with_context(|| format!("`{name}` is not on $PATH\n\nhint: install util-linux"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn folder() -> (tempfile::TempDir, Folder) {
        let dir = tempfile::tempdir().unwrap();
        let folder = Folder::make(dir.path()).unwrap();
        (dir, folder)
    }

    fn shell(script: &str) -> Program {
        Program::new("shell", "/bin/sh").arguments(["-c", script])
    }

    fn until(what: &str, mut holds: impl FnMut() -> bool) {
        for _ in 0..500 {
            if holds() {
                return;
            }
            pause();
        }
        panic!("never happened: {what}");
    }

    #[expect(clippy::disallowed_methods, reason = "these tests have no runtime")]
    fn pause() {
        std::thread::sleep(Duration::from_millis(10));
    }

    #[test]
    fn a_dropped_process_and_what_it_started_are_gone() {
        let (_dir, folder) = folder();
        let child = folder.path("child");
        let script = format!("sleep 600 & echo $! >{}; wait", child.display());
        let process = Process::start(&folder, shell(&script)).unwrap();
        let read = || std::fs::read_to_string(&child).ok()?.trim().parse().ok();
        until("the child is noted", || read().is_some());
        let child = super::super::running::Running::note(Pid::from_raw(read().unwrap()).unwrap());
        let noted = folder.processes();
        assert!(noted[0].1.is_alive());
        drop(process);
        assert!(!noted[0].1.is_alive());
        until("the child is gone", || !child.unwrap().is_alive());
        assert!(!folder.pid("shell").exists());
    }

    #[test]
    fn one_that_ends_by_itself_is_started_again_where_wanted() {
        let (_dir, folder) = folder();
        let program = shell("exit 3").when_it_ends(WhenItEnds::StartAgain);
        let process = Process::start(&folder, program).unwrap();
        until("it was started three times", || process.starts() >= 3);
        assert_eq!(process.exits()[0].code(), Some(3));
    }

    #[test]
    fn one_that_an_outsider_keeps_down_is_started_when_he_lets_it() {
        let (_dir, folder) = folder();
        let program = shell("exec sleep 600").when_it_ends(WhenItEnds::StartAgain);
        let process = Process::start(&folder, program).unwrap();
        let mark = folder.write("down/shell", "").unwrap();
        process.signal(Signal::KILL).unwrap();
        until("it is down", || process.pid().is_none());
        for _ in 0..100 {
            assert_eq!(process.starts(), 1);
            pause();
        }
        std::fs::remove_file(mark).unwrap();
        until("it is up again", || process.pid().is_some());
    }

    #[test]
    fn one_that_ends_by_itself_stays_down_otherwise() {
        let (_dir, folder) = folder();
        let process = Process::start(&folder, shell("echo last words")).unwrap();
        until("it ended", || !process.exits().is_empty());
        assert_eq!(process.pid(), None);
        assert!(process.last_words().contains("last words"));
        process.start_again().unwrap();
        assert_eq!(process.starts(), 2);
    }

    #[test]
    fn a_killed_one_stays_down_until_started_again() {
        let (_dir, folder) = folder();
        let program = shell("exec sleep 600").when_it_ends(WhenItEnds::StartAgain);
        let process = Process::start(&folder, program).unwrap();
        process.kill();
        assert_eq!(process.pid(), None);
        process.change(|program| program.arguments = vec!["-c".into(), "sleep 601".into()]);
        process.start_again().unwrap();
        assert!(process.pid().is_some());
        assert_eq!(process.starts(), 2);
    }

    #[test]
    fn one_that_does_not_listen_to_sigterm_is_killed() {
        let (_dir, folder) = folder();
        let process = Process::start(&folder, shell("trap '' TERM; echo up; sleep 600")).unwrap();
        until("it is deaf", || process.last_words().contains("up"));
        process.shared.want(Wanted::Down);
        process.shared.end(Signal::TERM, Duration::from_millis(50));
        assert_eq!(process.pid(), None);
    }

    #[test]
    fn what_cannot_be_run_is_said() {
        let (_dir, folder) = folder();
        let process = Process::start(&folder, Program::new("none", "/does/not/exist")).unwrap();
        // `setpriv` runs first, so this is seen in the log and not at the start.
        until("it ended", || !process.exits().is_empty());
        assert!(process.last_words().contains("/does/not/exist"));
    }

    #[test]
    fn it_inherits_nothing_of_our_environment() {
        let (_dir, folder) = folder();
        let program = shell("env").environment("GIVEN", "value");
        let process = Process::start(&folder, program).unwrap();
        until("it ended", || !process.exits().is_empty());
        let said = process.last_words();
        assert!(said.contains("GIVEN=value"));
        assert!(!said.contains("CARGO"), "{said}");
    }
}
