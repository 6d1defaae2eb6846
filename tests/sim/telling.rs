//! One story, one process: a runtime draws its own seed once per process, so that only a process of its
//! own repeats.
//!
//! A test starts its own binary again with the story's name and seed in the environment; the only test
//! that this one runs ([`super::story`]) then tells the story on its thread.

use std::process::Command;

const SEED: &str = "ALDIS_SIM_SEED";
const STORY: &str = "ALDIS_SIM_STORY";
const SEEDS: &str = "ALDIS_SIM_SEEDS";

/// Seeds of a usual run.
const USUAL: u64 = 200;

/// Lines of the history that a failure shows.
const SHOWN: usize = 80;

/// The story that this process is to tell, where it was started for one.
pub(crate) fn story() -> Option<String> {
    std::env::var(STORY).ok()
}

/// The seed of that story.
pub(crate) fn seed() -> Option<u64> {
    story()?;
    asked_for()
}

/// The seed that a person asks for.
pub(crate) fn asked_for() -> Option<u64> {
    std::env::var(SEED).ok()?.parse().ok()
}

/// How many seeds are told.
pub(crate) fn seeds() -> u64 {
    let asked = std::env::var(SEEDS).ok().and_then(|text| text.parse().ok());
    asked.unwrap_or(USUAL)
}

/// What a process told.
pub(crate) struct Told {
    pub(crate) seed: u64,
    pub(crate) kept: bool,
    pub(crate) text: String,
}

/// Tells a story in a process of its own.
pub(crate) fn tell(story: &str, seed: u64) -> Told {
    let program = std::env::current_exe().expect("the name of this program");
    let output = Command::new(program)
        .args(["story", "--exact", "--nocapture", "--test-threads=1"])
        .env(STORY, story)
        .env(SEED, seed.to_string())
        .output()
        .expect("start this program again");
    let said = [output.stdout, output.stderr].concat();
    Told {
        seed,
        kept: output.status.success(),
        text: String::from_utf8_lossy(&said).into_owned(),
    }
}

impl Told {
    /// The end of what was told, with the command that tells it again.
    pub(crate) fn failure(&self) -> String {
        let lines: Vec<&str> = self.text.lines().collect();
        let shown = lines[lines.len().saturating_sub(SHOWN)..].join("\n");
        format!(
            "seed {seed} broke a promise\n{shown}\n\nhint: {SEED}={seed} cargo test -p aldis-tests --test sim story -- --exact --nocapture",
            seed = self.seed
        )
    }

    /// The line that holds the digest of the whole history.
    pub(crate) fn digest(&self) -> &str {
        let last = self.text.lines().rfind(|line| line.starts_with("history "));
        last.expect("a story ends with its digest")
    }
}
