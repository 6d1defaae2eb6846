//! Whether an image is the one that somebody named: by full reference, by tag, or by digest.
//!
//! Operators write what they see: `registry.example/shop/checkout:v2.18.0`, `v2.18.0`, `sha256:…`. A name that could mean
//! two things matches neither: a rollback that leaves a good cluster alone is safe, one that moves it is not.

use serde_json::Value;

/// An image reference in its parts.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Reference<'a> {
    repository: String,
    tag: Option<&'a str>,
    digest: Option<&'a str>,
}

impl<'a> Reference<'a> {
    fn parse(text: &'a str) -> Self {
        let (name, digest) = match text.split_once('@') {
            Some((name, digest)) => (name, Some(digest)),
            None => (text, None),
        };
        // A colon before the last slash belongs to the registry's port.
        let (repository, tag) = match name.rsplit_once(':') {
            Some((repository, tag)) if !tag.contains('/') => (repository, Some(tag)),
            _ => (name, None),
        };
        Self {
            repository: whole(repository),
            tag,
            digest,
        }
    }

    /// The tag that runs when none is written. A digest needs none.
    fn tag_or_default(&self) -> Option<&str> {
        self.tag.or(match self.digest {
            Some(_) => None,
            None => Some("latest"),
        })
    }
}

/// `nginx` and `docker.io/library/nginx` are one repository.
fn whole(repository: &str) -> String {
    match repository.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => {
            repository.to_owned()
        }
        Some(_) => format!("docker.io/{repository}"),
        None => format!("docker.io/library/{repository}"),
    }
}

/// Whether `image`, as a container has it, is what `named` names.
pub(super) fn is(named: &str, image: &str) -> bool {
    if named == image {
        return true;
    }
    let runs = Reference::parse(image);
    if named.starts_with("sha256:") {
        return runs.digest == Some(named);
    }
    if !named.contains(['/', ':', '@']) {
        return runs.tag == Some(named);
    }
    let wanted = Reference::parse(named);
    if wanted.repository != runs.repository {
        return false;
    }
    match (wanted.digest, runs.digest) {
        (Some(wanted), Some(runs)) => wanted == runs,
        (Some(_), None) => false,
        (None, _) => {
            wanted.tag_or_default() == runs.tag_or_default() && wanted.tag_or_default().is_some()
        }
    }
}

/// Images of a pod template, init containers last.
pub(super) fn of_template(template: &Value) -> Vec<String> {
    ["containers", "initContainers"]
        .iter()
        .filter_map(|list| template.pointer(&format!("/spec/{list}"))?.as_array())
        .flatten()
        .filter_map(|container| container.get("image")?.as_str().map(str::to_owned))
        .collect()
}

/// Whether a pod template runs what `named` names, in any of its containers.
pub(super) fn runs(named: &str, template: &Value) -> bool {
    of_template(template).iter().any(|image| is(named, image))
}

/// The image of the first container: what people call the image of a Deployment.
pub(super) fn first(template: &Value) -> String {
    of_template(template).into_iter().next().unwrap_or_default()
}

/// What people call an image in a sentence: its tag where it has one, else all of it.
pub(super) fn short(image: &str) -> &str {
    Reference::parse(image).tag.unwrap_or(image)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    const RUNS: &str = "registry.example:5000/shop/checkout:v2.18.0";

    #[test]
    fn an_image_is_named_by_reference_tag_or_digest() {
        let pinned = format!("{RUNS}@sha256:ab");
        for (named, image) in [
            (RUNS, RUNS),
            ("v2.18.0", RUNS),
            (RUNS, &pinned),
            ("sha256:ab", &pinned),
            ("registry.example:5000/shop/checkout@sha256:ab", &pinned),
            ("nginx:1.29", "docker.io/library/nginx:1.29"),
            ("nginx:latest", "nginx"),
        ] {
            assert!(is(named, image), "{named} names {image}");
        }
    }

    #[test]
    fn what_could_mean_another_image_names_none() {
        for (named, image) in [
            ("v2.18", RUNS),
            ("checkout:v2.18.0", RUNS),
            ("registry.example:5000/shop/checkout", RUNS),
            ("registry.example:5000/shop/other:v2.18.0", RUNS),
            ("sha256:ab", RUNS),
            ("registry.example:5000/shop/checkout@sha256:ab", RUNS),
            ("5000", "registry.example:5000/shop"),
        ] {
            assert!(!is(named, image), "{named} does not name {image}");
        }
    }

    #[test]
    fn every_container_of_a_template_counts() {
        let template = json!({"spec": {
            "containers": [{"name": "proxy", "image": "envoy:1"}, {"name": "shop", "image": "shop:v2"}],
            "initContainers": [{"name": "migrate", "image": "shop:v1"}],
        }});
        assert!(runs("shop:v1", &template));
        assert!(runs("v2", &template));
        assert!(!runs("v3", &template));
        assert_eq!(first(&template), "envoy:1");
    }
}
