//! Named places where a test build can be killed or held up, so that every crash point is a test.
//!
//! `ALDIS_FAILPOINTS="after-commit=kill;before-send=sleep:500"` in the environment arms them, in builds
//! with feature `failpoints` only; in others [`hit`] is empty. A point that is armed with `kill` ends
//! the process by SIGKILL, as a power cut would: no destructor runs, nothing is flushed. With
//! `kill-once:FILE` it does so only if it can create FILE, so that a restarted process gets past.
//!
//! `ALDIS_FAILPOINTS=@FILE` names a file with the same text, read anew at each point: so a program that runs already
//! can be armed at the right moment.

/// Passes a named point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

#[cfg(feature = "failpoints")]
pub use armed::hit;

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::LazyLock;
    use std::time::Duration;

    static GIVEN: LazyLock<String> =
        LazyLock::new(|| std::env::var("ALDIS_FAILPOINTS").unwrap_or_default());

    /// Passes a named point, and does there what the environment says.
    pub fn hit(name: &str) {
        match armed()
            .get(name)
            .map(|action| action.split_once(':').unwrap_or((action, "")))
        {
            None => {}
            Some(("kill", _)) => die(),
            Some(("kill-once", marker)) => die_once(marker),
            Some(("sleep", ms)) => sleep(ms.parse().unwrap_or(0)),
            // A misspelt failpoint would make a test pass for no reason.
            Some((other, _)) => panic!("failpoint {name}: unknown action `{other}`"),
        }
    }

    /// What is armed at this moment. A file that is not there arms nothing.
    fn armed() -> BTreeMap<String, String> {
        match GIVEN.strip_prefix('@') {
            Some(file) => parse(&std::fs::read_to_string(file).unwrap_or_default()),
            None => parse(&GIVEN),
        }
    }

    fn parse(text: &str) -> BTreeMap<String, String> {
        text.split(';')
            .filter_map(|item| item.split_once('='))
            .map(|(name, action)| (name.trim().to_owned(), action.trim().to_owned()))
            .collect()
    }

    #[expect(
        clippy::disallowed_methods,
        reason = "holding up the thread is what a failpoint is for"
    )]
    fn sleep(ms: u64) {
        std::thread::sleep(Duration::from_millis(ms));
    }

    fn die_once(marker: &str) {
        if std::fs::File::create_new(marker).is_ok() {
            die();
        }
    }

    fn die() -> ! {
        let me = rustix::process::getpid();
        // SIGKILL cannot fail for oneself; the loop is for the type only.
        loop {
            let _ = rustix::process::kill_process(me, rustix::process::Signal::KILL);
        }
    }
}
