//! As whom Postgres runs. It refuses to run as root, so root runs it as `postgres`, the user that its package
//! makes; anybody else runs it as himself.

use std::ffi::OsString;
use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, ensure};

use crate::fleet::process::Program;

/// The user that the package makes.
const NAME: &str = "postgres";

/// As whom.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Account {
    /// Whoever runs this.
    Ourselves,
    /// Another, which only root can become.
    Another {
        /// Its number.
        user: u32,
        /// The number of its group.
        group: u32,
        /// Whether it is given shared memory of its own, see [`Account::command`].
        apart: bool,
    },
}

impl Account {
    pub(super) fn find() -> anyhow::Result<Self> {
        if !rustix::process::geteuid().is_root() {
            return Ok(Self::Ourselves);
        }
        let users =
            std::fs::read_to_string("/etc/passwd").context("read the users of this machine")?;
        let (user, group) = numbers(&users).with_context(|| {
            format!("Postgres does not run as root, and there is no user `{NAME}`\n\nhint: the package postgresql makes it: `make prerequisites`")
        })?;
        let apart = may_unshare();
        Ok(Self::Another { user, group, apart })
    }

    /// Gives it a file or a folder.
    pub(super) fn give(self, path: &Path) -> anyhow::Result<()> {
        let Self::Another { user, group, .. } = self else {
            return Ok(());
        };
        chown(path, Some(user), Some(group))
            .with_context(|| format!("give {} to the user `{NAME}`", path.display()))
    }

    /// Whether it can come to a folder. A checkout in a home that is closed to others it can not.
    pub(super) fn reaches(self, folder: &Path) -> bool {
        let Self::Another { user, group, .. } = self else {
            return true;
        };
        folder.ancestors().all(|above| {
            above.metadata().is_ok_and(|about| {
                let entry = match () {
                    () if about.uid() == user => 0o100,
                    () if about.gid() == group => 0o010,
                    () => 0o001,
                };
                about.mode() & entry != 0
            })
        })
    }

    /// A program as that user, supervised. Its home is its own: libpq looks for certificates in one, and cannot
    /// enter root's.
    pub(super) fn program(self, name: &str, path: &Path, home: &Path) -> Program {
        let (path, first) = self.command(path);
        Program::new(name, path)
            .arguments(first)
            .environment("HOME", home)
    }

    /// Runs a tool as that user to its end.
    pub(super) async fn run(
        self,
        tool: &Path,
        arguments: Vec<OsString>,
        home: &Path,
        environment: &[(&str, &Path)],
    ) -> anyhow::Result<()> {
        let (path, first) = self.command(tool);
        let output = tokio::process::Command::new(path)
            .args(first)
            .args(arguments)
            .env_clear()
            .env("LC_ALL", "C.UTF-8")
            .env("HOME", home)
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .envs(environment.iter().copied())
            // Tools look at the folder they are started in, which may be closed to that user.
            .current_dir("/")
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output()
            .await
            .with_context(|| format!("run {}", tool.display()))?;
        ensure!(
            output.status.success(),
            "{} failed: {}",
            tool.display(),
            String::from_utf8_lossy(&output.stderr).trim()
        );
        Ok(())
    }

    /// What to run for a program, and the arguments before its own. The kernel forgets at a change of user that
    /// a program is to die with its parent, so that is said again. A server that is killed leaves a segment
    /// of shared memory to the machine for ever, unless it had a namespace for it, which ends with it.
    fn command(self, program: &Path) -> (PathBuf, Vec<OsString>) {
        let Self::Another { user, group, apart } = self else {
            return (program.to_owned(), Vec::new());
        };
        let as_user = [
            format!("--reuid={user}"),
            format!("--regid={group}"),
            "--init-groups".to_owned(),
            "--pdeathsig=KILL".to_owned(),
            "--".to_owned(),
        ];
        let mut words: Vec<OsString> = vec!["setpriv".into()];
        if apart {
            words.splice(0..0, ["unshare", "--ipc", "--"].map(OsString::from));
        }
        words.extend(as_user.map(OsString::from));
        words.push(program.into());
        (words.remove(0).into(), words)
    }
}

/// Whether root may give a program a namespace here; in some containers it may not.
fn may_unshare() -> bool {
    std::process::Command::new("unshare")
        .args(["--ipc", "--", "true"])
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

/// User and group of `postgres` in a file of users.
fn numbers(users: &str) -> Option<(u32, u32)> {
    let line = users
        .lines()
        .find_map(|line| line.strip_prefix("postgres:"))?;
    let mut fields = line.split(':').skip(1);
    Some((fields.next()?.parse().ok()?, fields.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn the_user_is_read_from_the_file_of_users() {
        let users =
            "root:x:0:0:root:/root:/bin/bash\npostgres:x:101:104::/var/lib/postgresql:/bin/bash\n";
        assert_eq!(numbers(users), Some((101, 104)));
        assert_eq!(numbers("postgresql:x:1:1::/:/bin/sh\n"), None);
    }

    #[test]
    fn a_folder_in_a_closed_one_is_out_of_reach_of_another() {
        let closed = tempfile::tempdir().unwrap();
        let inside = closed.path().join("inside");
        std::fs::create_dir(&inside).unwrap();
        let another = Account::Another {
            user: 54_321,
            group: 54_321,
            apart: false,
        };
        let mode = |mode| std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(mode));
        mode(0o700).unwrap();
        assert!(!another.reaches(&inside));
        assert!(Account::Ourselves.reaches(&inside));
        mode(0o711).unwrap();
        assert!(another.reaches(&inside));
    }
}
