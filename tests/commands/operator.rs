//! Somebody with a folder, a context, and a fleet of two practice clusters.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::process::Stdio;

use aldis_control_plane::store::keys;
use aldis_tests::pki::Request;
use aldis_tests::practice::Practice;
use anyhow::Context;
use tempfile::TempDir;
use tokio::process::Command;

use crate::case::Case;

const FLEET: [&str; 2] = ["eu-west/prod-1", "us-east/prod-1"];

/// Where what a person may write is kept.
const WRITTEN: [(&str, &str); 5] = [
    (keys::PLANS, "plan"),
    (keys::JOBS, "job"),
    (keys::ENDED, "ended job"),
    (keys::LOCKS, "lock"),
    (keys::RUNBOOKS, "runbook"),
];

pub(crate) struct Operator<'a> {
    practice: &'a Practice,
    folder: TempDir,
    /// What was written before.
    before: BTreeMap<&'static str, u64>,
}

/// What a command answered.
pub(crate) struct Said {
    typed: String,
    pub(crate) exit: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl<'a> Operator<'a> {
    /// Gives somebody of this system the files of a case.
    pub(crate) async fn of(practice: &'a Practice, case: &Case) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir()?;
        for (name, content) in &case.files {
            std::fs::write(folder.path().join(name), content.text())?;
        }
        Ok(Self {
            before: written(practice).await?,
            practice,
            folder,
        })
    }

    /// Runs one command line in the operator's folder, without a terminal.
    pub(crate) async fn types(&self, typed: &str) -> anyhow::Result<Said> {
        let home = self.practice.plane.folder();
        let run = Command::new(env!("CARGO_BIN_EXE_aldis-in-tests"))
            .arg0("aldis")
            .args(typed.split_whitespace())
            .current_dir(self.folder.path())
            .env_clear()
            .env("ALDIS_CONFIG", home.join("config.yaml"))
            .env("TZ", "UTC")
            .stdin(Stdio::null())
            .output()
            .await
            .context("run the command line")?;
        let steady = |text: Vec<u8>| -> anyhow::Result<String> {
            let text = String::from_utf8(text)?;
            Ok(steady(&text.replace(&home.display().to_string(), "~")))
        };
        Ok(Said {
            typed: typed.to_owned(),
            exit: run.status.code().context("the command was killed")?,
            out: steady(run.stdout)?,
            err: steady(run.stderr)?,
        })
    }

    /// What the commands left behind: in the store, and in the clusters.
    pub(crate) async fn left(&self) -> anyhow::Result<String> {
        let after = written(self.practice).await?;
        let left: Vec<String> = after
            .iter()
            .map(|(what, number)| (what, number - self.before.get(what).unwrap_or(&0)))
            .filter(|(_, number)| *number > 0)
            .map(|(what, number)| format!("{what} × {number}"))
            .collect();
        let left = if left.is_empty() {
            "nothing".to_owned()
        } else {
            left.join(", ")
        };
        Ok(format!("\nWritten: {left}\n"))
    }
}

/// A system with a context for its operators.
pub(crate) async fn system() -> anyhow::Result<Practice> {
    let practice = Practice::start(&FLEET).await?;
    let plane = &practice.plane;
    let mei = plane.authority().issue(&Request::user("mei"))?;
    mei.write(&plane.folder(), "mei")?;
    let port = plane.addresses()[0].port();
    let text = format!(
        "currentContext: practice
contexts:
  - name: practice
    servers: ['https://localhost:{port}']
    ca: ca.pem
    auth: {{cert: mei.crt, key: mei.key}}
"
    );
    std::fs::write(plane.folder().join("config.yaml"), text).context("write the context")?;
    Ok(practice)
}

/// How much is there now of whatever a command may write.
async fn written(practice: &Practice) -> anyhow::Result<BTreeMap<&'static str, u64>> {
    let kept = practice.plane.kept().await?;
    let mut found = BTreeMap::new();
    for (prefix, what) in WRITTEN {
        let names: BTreeSet<&str> = kept
            .iter()
            .filter_map(|key| key.strip_prefix(prefix)?.split('/').next())
            .collect();
        found.insert(what, names.len() as u64);
    }
    let changes = practice.images().iter().map(|(_, writes)| writes).sum();
    found.insert("change of a cluster", changes);
    Ok(found)
}

/// Without what differs from run to run: ids, digests, ports, minutes that are left.
fn steady(text: &str) -> String {
    let lines = text.lines().map(|line| {
        // How long a plan is still valid stands last in its title, or before the mark of simulated targets.
        let line = match line.split_once(" · valid ") {
            Some((title, rest)) => {
                let mark = rest.find(" · ").map_or("", |at| &rest[at..]);
                format!("{title} · valid [time]{mark}")
            }
            None => line.to_owned(),
        };
        let words = line.split_inclusive([' ', '`', ',']).map(|word| {
            let bare = word.trim_end_matches([' ', '`', ',']);
            let rest = &word[bare.len()..];
            match bare.split_at_checked(2) {
                Some((kind @ ("p-" | "j-"), id)) if is_hex(id) => format!("{kind}…{rest}"),
                _ if bare.len() >= 12 && is_hex(bare) => format!("[hex]{rest}"),
                _ => word.to_owned(),
            }
        });
        words.collect::<String>() + "\n"
    });
    lines.collect()
}

fn is_hex(text: &str) -> bool {
    text.len() >= 8 && text.bytes().all(|byte| byte.is_ascii_hexdigit())
}

impl fmt::Display for Said {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\n$ aldis {}\n", self.typed)?;
        for text in [&self.out, &self.err] {
            f.write_str(text)?;
        }
        writeln!(f, "[exit {}]", self.exit)
    }
}
