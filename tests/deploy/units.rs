//! The systemd units. `systemd-analyze verify` reads them where it is installed, without systemd running; where it is
//! not, the test says so, and the others still hold.

use std::io::Write;
use std::path::Path;
use std::process::Command;

use crate::deploy;

const UNITS: [&str; 2] = ["aldis-control-plane", "aldis-agent"];

fn unit(name: &str) -> String {
    std::fs::read_to_string(deploy().join(format!("systemd/{name}.service"))).unwrap()
}

/// What `systemd-analyze` says of a unit, and whether it is content; none where it is not installed.
fn analyzed(name: &str, arguments: &[&str]) -> Option<(bool, String)> {
    let folder = tempfile::tempdir().unwrap();
    // It looks for the program, which is not installed here.
    let program = folder.path().join(name);
    std::fs::write(&program, "").unwrap();
    executable(&program);
    let text = unit(name).replace(&format!("/usr/bin/{name}"), &program.display().to_string());
    let file = folder.path().join(format!("{name}.service"));
    std::fs::write(&file, text).unwrap();
    match Command::new("systemd-analyze")
        .args(arguments)
        .arg(&file)
        .output()
    {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            // Past the capture of tests that pass.
            let _ = writeln!(
                std::io::stderr(),
                "deploy: systemd-analyze is not installed, so {name}.service is not analyzed"
            );
            None
        }
        run => {
            let run = run.unwrap();
            let said = [run.stdout, run.stderr].concat();
            Some((
                run.status.success(),
                String::from_utf8_lossy(&said).into_owned(),
            ))
        }
    }
}

#[test]
fn systemd_finds_nothing_wrong() {
    for name in UNITS {
        let Some((content, said)) = analyzed(name, &["verify", "--man=no"]) else {
            return;
        };
        // A directive that it does not know is only a line of its output.
        let ours = said.lines().any(|line| line.contains(name));
        assert!(content && !ours, "{name}: {said}");
    }
}

#[test]
fn systemd_takes_the_units_for_well_confined() {
    for name in UNITS {
        // On its scale of 0 to 10, times ten. An unconfined service has 96; ours have 12.
        let arguments = ["security", "--offline=true", "--no-pager", "--threshold=15"];
        let Some((content, said)) = analyzed(name, &arguments) else {
            return;
        };
        let summary = said.lines().last().unwrap_or_default();
        assert!(content, "{name}: {summary}");
    }
}

fn executable(file: &Path) {
    use std::os::unix::fs::PermissionsExt;
    std::fs::set_permissions(file, std::fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_unit_starts_its_program_with_the_file_that_the_examples_name() {
    for name in UNITS {
        let file = name.trim_start_matches("aldis-");
        let start = format!("ExecStart=/usr/bin/{name} --config /etc/aldis/{file}.yaml\n");
        assert!(unit(name).contains(&start), "{name}: {start}");
        let example =
            std::fs::read_to_string(deploy().join(format!("{file}.example.yaml"))).unwrap();
        assert!(
            example.contains(&format!("/etc/aldis/{file}.yaml")),
            "{file}"
        );
    }
}

#[test]
fn a_unit_is_restarted_always_and_confined() {
    let lines = [
        "Restart=always",
        "User=aldis",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "CapabilityBoundingSet=",
        "PrivateTmp=yes",
        "SystemCallFilter=@system-service",
    ];
    for name in UNITS {
        let text = unit(name);
        for line in lines {
            assert!(text.lines().any(|found| found == line), "{name}: {line}");
        }
    }
}

#[test]
fn the_agent_may_write_where_its_example_keeps_the_journal() {
    let example = std::fs::read_to_string(deploy().join("agent.example.yaml")).unwrap();
    assert!(example.contains("\ndata: /var/lib/aldis-agent\n"));
    assert!(unit("aldis-agent").contains("\nStateDirectory=aldis-agent\n"));
}
