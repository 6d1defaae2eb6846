//! How a set of services ends, what it leaves, and what it says of itself.

use std::net::{IpAddr, Ipv4Addr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use aldis_tests::fleet::folder::Folder;
use aldis_tests::fleet::process::Process;
use aldis_tests::fleet::ready::eventually;
use aldis_tests::fleet::services::{Service, Services, http};
use anyhow::ensure;

use crate::{folder, only, services};

/// Command lines of every process that has a word in its own.
fn with_word(word: &str) -> Vec<String> {
    let numbers = std::fs::read_dir("/proc").unwrap().flatten();
    let lines = numbers.filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok());
    lines
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(word))
        .collect()
}

#[tokio::test]
async fn when_a_set_is_dropped_its_processes_and_ports_are_gone() {
    let folder = Folder::make(&folder("backing-ends")).unwrap();
    let here = folder.root().display().to_string();
    let options = only(Service::ALL);
    let services = Services::start(&folder, options).await.unwrap();
    let ports = services.ports();
    assert_eq!(
        ports.len(),
        7,
        "two of Postgres, one of each other: {ports:?}"
    );
    assert_eq!(folder.processes().len(), 5);
    assert!(!with_word(&here).is_empty());

    drop(services);

    assert!(folder.processes().is_empty(), "{:?}", folder.processes());
    // Children of a server that is gone end by themselves, a moment later.
    let look = || async {
        let left = with_word(&here);
        ensure!(left.is_empty(), "{left:?}");
        for port in &ports {
            TcpListener::bind((Ipv4Addr::LOCALHOST, *port))?;
        }
        Ok(())
    };
    let gone = eventually(Duration::from_secs(30), "all of it is gone", look).await;
    gone.unwrap();
}

/// A checkout in root's home is closed to the user that root's Postgres runs as.
#[tokio::test]
async fn postgres_starts_for_a_folder_that_its_user_cannot_enter_and_leaves_nothing_elsewhere() {
    let closed = tempfile::tempdir().unwrap();
    std::fs::set_permissions(closed.path(), PermissionsExt::from_mode(0o700)).unwrap();
    let folder = Folder::make(&closed.path().join("fleet")).unwrap();
    let options = only([Service::Postgres]);
    let services = Services::start(&folder, options).await.unwrap();
    let places: Vec<_> = services.programs().into_iter().map(data).collect();
    assert!(places.iter().all(|place| place.is_dir()), "{places:?}");

    drop(services);
    drop(closed);

    for place in places {
        let home = place.parent().unwrap();
        assert!(!home.exists(), "{} is left", home.display());
    }
}

/// Where a Postgres has its data, by its command line.
fn data(server: &Process) -> PathBuf {
    let line = command_line(server);
    let mut words = line.split('\0').skip_while(|word| *word != "-D");
    PathBuf::from(words.nth(1).unwrap())
}

/// The words of a command line, each with a zero byte after it.
fn command_line(program: &Process) -> String {
    let pid = program.pid().unwrap().as_raw_nonzero();
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    String::from_utf8(line).unwrap()
}

#[tokio::test]
async fn only_what_is_wanted_is_started() {
    let folder = Folder::make(&folder("backing-some")).unwrap();
    let services = Services::start(&folder, only([Service::Redis]))
        .await
        .unwrap();
    let names: Vec<&str> = services.programs().iter().map(|one| one.name()).collect();
    assert_eq!(names, ["redis"]);
    let missing = services.s3().err().unwrap().to_string();
    assert!(missing.contains("not wanted"), "{missing}");
}

#[tokio::test]
async fn no_password_is_in_a_log_or_in_a_command_line_or_in_a_file_for_others() {
    let services = services().await;
    let root = folder("backing");
    let secrets = root.join("services/secrets");
    let passwords: Vec<String> = std::fs::read_dir(&secrets)
        .unwrap()
        .map(|entry| std::fs::read_to_string(entry.unwrap().path()).unwrap())
        .collect();
    assert_eq!(
        passwords.len(),
        16,
        "8 of Postgres, 3 of Redis, 3 of the object store, 2 of others"
    );

    let programs = services.programs().into_iter();
    let mut lines: Vec<String> = programs.map(command_line).collect();
    assert!(!lines.iter().any(String::is_empty), "{lines:?}");
    lines.extend(with_word(&root.display().to_string()));
    for password in &passwords {
        assert!(!lines.iter().any(|line| line.contains(password)));
        for file in files(&root) {
            let found = std::fs::read(&file).unwrap_or_default();
            if contains(&found, password) {
                let mode = file.metadata().unwrap().permissions().mode();
                assert_eq!(mode & 0o077, 0, "{} can be read by others", file.display());
                assert!(!file.starts_with(root.join("log")), "{}", file.display());
            }
        }
    }
}

/// Without TLS each of these would ask for a token or a signature: 401 or 403. Go's servers name the mistake by a 400.
#[tokio::test]
async fn nobody_who_takes_a_secret_answers_in_clear_text() {
    let services = services().await;
    for port in [
        services.s3().unwrap().port(),
        services.github().unwrap().port(),
        services.sentry().unwrap().port(),
    ] {
        if let Ok(answer) = http::get(port, "/").await {
            assert_eq!(answer.status.as_u16(), 400, "{answer:?}");
        }
    }
}

#[tokio::test]
async fn every_variable_is_named_once_and_its_address_can_be_another() {
    let services = services().await;
    let pod_side: IpAddr = [10, 250, 1, 1].into();
    let variables = services.environment_at(pod_side);
    let mut names: Vec<&str> = variables.iter().map(|(name, _)| name.as_str()).collect();
    let count = names.len();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), count);
    for wanted in [
        "ALDIS_PG_EU_WEST_URL",
        "ALDIS_PG_EU_WEST_REPLICA_URL",
        "ALDIS_PG_US_EAST_ADMIN_URL",
        "ALDIS_S3_US_EAST_BUCKET",
        "ALDIS_REDIS_SHOP_URL",
        "ALDIS_SENTRY_FIXTURE_TOKEN",
    ] {
        assert!(names.contains(&wanted), "{wanted} is not among {names:?}");
    }
    let urls = variables.iter().filter(|(name, _)| name.ends_with("_URL"));
    for (name, url) in urls {
        assert!(url.contains("10.250.1.1"), "{name} says {url}");
    }
}

fn contains(bytes: &[u8], word: &str) -> bool {
    bytes
        .windows(word.len())
        .any(|window| window == word.as_bytes())
}

/// Every file below a folder but the servers' own data, which no other user can enter.
fn files(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    let found = entries.flat_map(|entry| {
        let path = entry.path();
        match () {
            () if path.ends_with("data") => Vec::new(),
            () if path.is_dir() => files(&path),
            () => vec![path],
        }
    });
    found.collect()
}
