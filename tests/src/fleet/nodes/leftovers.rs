//! What a fleet that was killed has left of its nodes: found by the notes in its folder, removed, and said.
//!
//! Its programs end with it, since the kernel kills them. Links and mounts end with their namespaces. What
//! is left for certain are routes, cgroups and images. A number that another fleet has been given since was
//! cleaned by that one, and is left alone.

use std::path::Path;

use anyhow::Context;

use super::images;
use super::network::Plan;
use crate::fleet::folder::Folder;

/// Removes what bears the name of a network that was noted in a fleet's folder, and folders elsewhere that were. A
/// line for each. Another's folder is left alone.
pub fn sweep(folder: &Path) -> anyhow::Result<Vec<String>> {
    let Ok(Some(folder)) = Folder::find(folder) else {
        return Ok(Vec::new());
    };
    let mut said = folder.sweep_elsewhere()?;
    for note in folder.path("networks").read_dir().into_iter().flatten() {
        let note = note.context("read the notes of a fleet")?.path();
        let Some(mut found) = sweep_noted(&note)? else {
            continue;
        };
        let cluster = folder.path(note.file_name().unwrap_or_default());
        let images = cluster.join("node").join(images::FOLDER);
        if images.is_dir() {
            std::fs::remove_dir_all(&images)
                .with_context(|| format!("remove {}", images.display()))?;
            found.push("images");
        }
        std::fs::remove_file(&note).with_context(|| format!("remove {}", note.display()))?;
        if !found.is_empty() {
            said.push(format!(
                "removed {} of the node of {}, which a killed fleet had left",
                found.join(", "),
                note.file_name().unwrap_or_default().to_string_lossy()
            ));
        }
    }
    Ok(said)
}

/// `None` while somebody has the number: a fleet that is not quite gone, or another that was given it.
fn sweep_noted(note: &Path) -> anyhow::Result<Option<Vec<&'static str>>> {
    let text = std::fs::read_to_string(note).with_context(|| format!("read {}", note.display()))?;
    let Some(plan) = Plan::read(&text) else {
        return Ok(Some(Vec::new()));
    };
    match plan.claim()? {
        Some(_claim) => plan.remove().map(Some),
        None => Ok(None),
    }
}
