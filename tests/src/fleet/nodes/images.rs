//! Container images made of files of this machine, without a registry and without a container engine.
//!
//! ```text
//! LAYER/layer.tar     the files; images with the same files share it
//! CONFIG.json         how to run them, and the digest of the layer
//! manifest.json       the names
//! ```
//!
//! Such an archive is what `docker save` writes. A static program alone makes a whole image; of one that is linked
//! dynamically the libraries of this machine are put beside it.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::Context;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use self::tar::Tar;

mod libraries;
mod tar;

/// Where containerd keeps them, below the folder of a node.
pub(super) const FOLDER: &str = "containerd";

/// What holds a pod's namespaces: a program that waits.
pub(super) const PAUSE: &str = "aldis.dev/pause:1";

/// An image to be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Image {
    /// As pods name it, with a tag.
    pub name: String,
    /// What is in it.
    pub files: Vec<File>,
    /// The program and its first arguments.
    pub entrypoint: Vec<String>,
    /// Its environment.
    pub environment: BTreeMap<String, String>,
}

/// A file of an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct File {
    /// Where it is in the image, absolute.
    pub path: String,
    /// Where it is on this machine.
    pub from: PathBuf,
    /// Its permissions.
    pub mode: u32,
}

impl File {
    fn executable(path: String, from: PathBuf) -> Self {
        Self {
            path,
            from,
            mode: 0o755,
        }
    }
}

impl Image {
    /// An image of one static program, at `/NAME-OF-THE-PROGRAM`.
    pub fn program(name: &str, from: impl Into<PathBuf>) -> Self {
        let from = from.into();
        let file = from.file_name().unwrap_or_default().to_string_lossy();
        let path = format!("/{file}");
        Self {
            name: name.to_owned(),
            entrypoint: vec![path.clone()],
            files: vec![File::executable(path, from)],
            environment: BTreeMap::new(),
        }
    }

    /// An image of one program with all that it is linked against here, each where this machine has it.
    pub fn dynamic(name: &str, from: &Path) -> anyhow::Result<Self> {
        let mut image = Self::program(name, from);
        for library in libraries::of(from)? {
            let path = library.display().to_string();
            image.files.push(File::executable(path, library));
        }
        Ok(image)
    }

    /// With more arguments.
    pub fn arguments(mut self, more: impl IntoIterator<Item = impl Into<String>>) -> Self {
        self.entrypoint.extend(more.into_iter().map(Into::into));
        self
    }

    /// With a variable of its environment.
    pub fn environment(mut self, name: &str, value: impl Into<String>) -> Self {
        self.environment.insert(name.to_owned(), value.into());
        self
    }

    fn layer(&self) -> anyhow::Result<Layer> {
        let mut tar = Tar::default();
        for file in &self.files {
            let contents = std::fs::read(&file.from)
                .with_context(|| format!("read {} for {}", file.from.display(), self.name))?;
            tar.add(&file.path, file.mode, &contents)
                .with_context(|| format!("put {} into {}", file.path, self.name))?;
        }
        let bytes = tar.finish();
        let digest = digest(&bytes);
        Ok(Layer { digest, bytes })
    }

    fn config(&self, layer: &Layer) -> Value {
        let environment: Vec<String> = self
            .environment
            .iter()
            .map(|(name, value)| format!("{name}={value}"))
            .collect();
        json!({
            "architecture": architecture(),
            "os": "linux",
            "config": {"Entrypoint": self.entrypoint, "Env": environment},
            "rootfs": {"type": "layers", "diff_ids": [format!("sha256:{}", layer.digest)]},
        })
    }
}

struct Layer {
    digest: String,
    bytes: Vec<u8>,
}

/// An archive of some images. The same images give the same bytes.
pub fn archive(images: &[Image]) -> anyhow::Result<Vec<u8>> {
    let mut tar = Tar::default();
    let mut manifest = Vec::new();
    let mut layers: Vec<(&[File], Layer)> = Vec::new();
    for image in images {
        let known = layers.iter().position(|(files, _)| *files == image.files);
        let index = match known {
            Some(index) => index,
            None => {
                let layer = image.layer()?;
                tar.add(&layer_file(&layer), 0o644, &layer.bytes)?;
                layers.push((image.files.as_slice(), layer));
                layers.len() - 1
            }
        };
        let layer = &layers[index].1;
        let config = image.config(layer).to_string();
        let file = format!("{}.json", digest(config.as_bytes()));
        tar.add(&file, 0o644, config.as_bytes())?;
        manifest.push(json!({
            "Config": file, "RepoTags": [image.name], "Layers": [layer_file(layer)],
        }));
    }
    tar.add(
        "manifest.json",
        0o644,
        Value::from(manifest).to_string().as_bytes(),
    )?;
    Ok(tar.finish())
}

fn layer_file(layer: &Layer) -> String {
    format!("{}/layer.tar", layer.digest)
}

fn digest(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

/// As container engines call it.
fn architecture() -> &'static str {
    match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(contents: &str) -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("shop");
        std::fs::write(&path, contents).unwrap();
        (dir, path)
    }

    fn count(haystack: &[u8], needle: &[u8]) -> usize {
        haystack
            .windows(needle.len())
            .filter(|window| *window == needle)
            .count()
    }

    #[test]
    fn many_names_of_one_program_share_a_layer() {
        let (_dir, path) = program("what the program is");
        let images = ["good", "bad"].map(|how| Image::program(how, &path).arguments([how]));
        let archive = archive(&images).unwrap();
        assert_eq!(count(&archive, b"what the program is"), 1);
        assert_eq!(count(&archive, b"\"RepoTags\":[\"good\"]"), 1);
        assert_eq!(count(&archive, b"\"Entrypoint\":[\"/shop\",\"bad\"]"), 1);
    }

    #[test]
    fn the_layer_is_named_by_what_is_in_it() {
        let (_dir, path) = program("what the program is");
        let image = Image::program("good", &path);
        let layer = image.layer().unwrap();
        let said = image.config(&layer)["rootfs"]["diff_ids"][0].clone();
        assert_eq!(said, format!("sha256:{}", digest(&layer.bytes)));
        let (_dir, other) = program("something else");
        assert_ne!(
            Image::program("good", other).layer().unwrap().digest,
            layer.digest
        );
    }

    #[test]
    fn a_missing_file_is_named() {
        let error = archive(&[Image::program("good", "/does/not/exist")]).unwrap_err();
        assert!(
            format!("{error:#}").contains("/does/not/exist for good"),
            "{error:#}"
        );
    }
}
