//! Named places where a test build can be killed or held up, so that every crash point is a test.
//!
//! `ALDIS_FAILPOINTS="after-commit=kill;before-send=sleep:500"` in the environment arms them, in builds
//! with feature `failpoints` only; in others [`hit`] is empty. A point that is armed with `kill` ends
//! the process by SIGKILL, as a power cut would: no destructor runs, nothing is flushed. With
//! `kill-once:FILE` it does so only if it can create FILE, so that a restarted process gets past.

/// Passes a named point.
#[cfg(not(feature = "failpoints"))]
#[inline(always)]
pub fn hit(_name: &str) {}

#[cfg(feature = "failpoints")]
pub use armed::hit;

#[cfg(feature = "failpoints")]
mod armed {
    use std::collections::BTreeMap;
    use std::sync::OnceLock;
    use std::time::Duration;

    static ARMED: OnceLock<BTreeMap<String, String>> = OnceLock::new();

    /// Passes a named point, and does there what the environment says.
    pub fn hit(name: &str) {
        let armed =
            ARMED.get_or_init(|| parse(&std::env::var("ALDIS_FAILPOINTS").unwrap_or_default()));
        match armed
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
