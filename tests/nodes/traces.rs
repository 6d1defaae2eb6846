//! What a fleet has on this machine beside its files. Read by other means than those that remove it.

use std::path::{Path, PathBuf};
use std::process::Command;

/// The names of the networks that a fleet has noted: `aldisN`.
pub(crate) fn names(fleet: &Path) -> Vec<String> {
    let notes = fleet.join("networks").read_dir().into_iter().flatten();
    notes
        .map(|note| std::fs::read_to_string(note.unwrap().path()).unwrap())
        .map(|number| format!("aldis{}", number.trim()))
        .collect()
}

/// Links, routes, cgroups, images, mounts and processes of a fleet, a line each.
pub(crate) fn of(fleet: &Path, names: &[String]) -> Vec<String> {
    let mut found = of_networks(names);
    found.extend(images(fleet));
    found.extend(processes_and_mounts(fleet));
    found
}

/// What ends with the namespaces of a node, a line each.
pub(crate) fn processes_and_mounts(fleet: &Path) -> Vec<String> {
    let folder = fleet.display().to_string();
    let mounts = std::fs::read_to_string("/proc/self/mountinfo").unwrap();
    let mut found = lines_with(&mounts, &folder);
    found.extend(processes(&folder));
    found
}

/// Links, routes and cgroups of these names.
pub(crate) fn of_networks(names: &[String]) -> Vec<String> {
    let mut found = Vec::new();
    for name in names {
        found.extend(lines_with(
            &said("ip", &["-o", "link"]),
            &format!(" {name}@"),
        ));
        found.extend(groups(name).map(|group| group.display().to_string()));
        found.extend(routes(name));
    }
    found
}

/// To pods, to services, over the link.
fn routes(name: &str) -> Vec<String> {
    let number: u16 = name.trim_start_matches("aldis").parse().unwrap();
    let (high, low) = (number / 256, number % 256);
    let link = number * 4;
    let ranges = [
        format!("10.{}.{low}.0/24", 200 + high),
        format!("10.{}.{low}.0/24", 210 + high),
        format!("10.220.{}.{}/30", link / 256, link % 256),
    ];
    let all = said("ip", &["-4", "route"]);
    ranges
        .iter()
        .flat_map(|range| lines_with(&all, range))
        .collect()
}

/// Where containerds keep what they imported.
fn images(fleet: &Path) -> Vec<String> {
    let clusters = fleet.read_dir().into_iter().flatten().flatten();
    clusters
        .map(|cluster| cluster.path().join("node/containerd"))
        .filter(|folder| folder.is_dir())
        .map(|folder| folder.display().to_string())
        .collect()
}

fn groups(name: &str) -> impl Iterator<Item = PathBuf> {
    let folders = Path::new("/sys/fs/cgroup").read_dir().unwrap();
    let version_1: Vec<PathBuf> = folders
        .flatten()
        .map(|folder| folder.path().join(name))
        .collect();
    let version_2 = Path::new("/sys/fs/cgroup").join(name);
    version_1
        .into_iter()
        .chain([version_2])
        .filter(|group| group.is_dir())
}

fn processes(folder: &str) -> Vec<String> {
    let listed = said("ps", &["-eo", "pid,args"]);
    let me = std::process::id().to_string();
    let mine = |line: &String| line.trim_start().starts_with(&me);
    let mut found = lines_with(&listed, folder);
    found.retain(|line| !mine(line));
    found
}

fn lines_with(text: &str, part: &str) -> Vec<String> {
    text.lines()
        .filter(|line| line.contains(part))
        .map(str::to_owned)
        .collect()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output().unwrap();
    assert!(
        output.status.success(),
        "{program}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}
