//! The difference of two pod templates, without what may be secret.
//!
//! An allow-list of fields (images and names) is shown in clear; of every other changed leaf only a keyed hash leaves the
//! agent, so that an approver sees that and where something changes, and a reader of the store cannot try out values. A
//! deny-list would be shorter to look at and wrong the first time somebody puts a password into an argument.

use std::collections::BTreeMap;

use aldis_core::canonical;
use aldis_core::ids::Digest;
use aldis_core::plan::part::DiffLine;
use serde_json::Value;

/// More lines than a person reads; the last one then says how many were left out.
const MOST_LINES: usize = 40;

/// Longer than any image reference.
const LONGEST_VALUE: usize = 300;

/// Fields that are shown, by the last part of their path.
const CLEAR: [&str; 6] = [
    "image",
    "name",
    "secretName",
    "claimName",
    "serviceAccountName",
    "serviceAccount",
];

/// Secret of one agent, under which values are hashed.
#[derive(Clone)]
pub struct Key([u8; 32]);

impl Key {
    /// A key that its owner drew at random and keeps: plans made under another key show other hashes.
    pub fn new(key: [u8; 32]) -> Self {
        Self(key)
    }

    /// The key goes first and has a fixed length, and half of the digest is cut off: nothing can be appended to it.
    fn hash(&self, path: &str, value: &Value) -> String {
        let parts = [&self.0[..], path.as_bytes(), &canonical::encode(value)];
        let digest = canonical::hash_parts(&parts);
        format!("hash:{}", digest.short())
    }

    /// A digest of a pod template, as it may leave the agent. Of a template whose one secret has few possible values
    /// the plain digest would tell which it is. Only this agent compares them. Every part has one length, so nothing
    /// can be appended here either.
    pub fn sealed(&self, digest: &Digest) -> Digest {
        canonical::hash_parts(&[&self.0, b"template", digest.as_str().as_bytes()])
    }
}

impl std::fmt::Debug for Key {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Key(…)")
    }
}

/// What changes from one pod template to another: lines in clear first, each group by path.
pub fn diff(from: &Value, to: &Value, key: &Key) -> Vec<DiffLine> {
    let (from, to) = (leaves(from), leaves(to));
    let mut paths: Vec<_> = from.keys().chain(to.keys()).collect();
    paths.sort_by_key(|path| (!is_clear(path), (*path).clone()));
    paths.dedup();
    let changed: Vec<_> = paths
        .into_iter()
        .filter(|path| from.get(*path) != to.get(*path))
        .collect();
    let mut lines: Vec<_> = changed
        .iter()
        .take(MOST_LINES)
        .map(|path| DiffLine {
            field: (*path).clone(),
            from: from.get(*path).map(|value| shown(path, value, key)),
            to: to.get(*path).map(|value| shown(path, value, key)),
        })
        .collect();
    if let left @ 1.. = changed.len().saturating_sub(MOST_LINES) {
        lines.push(DiffLine {
            field: format!("… and {left} more fields"),
            from: None,
            to: None,
        });
    }
    lines
}

fn shown(path: &str, value: &Value, key: &Key) -> String {
    match value.as_str() {
        Some(text) if is_clear(path) => text.chars().take(LONGEST_VALUE).collect(),
        _ => key.hash(path, value),
    }
}

/// Labels and annotations are free text under free keys, so none of them is shown.
fn is_clear(path: &str) -> bool {
    let last = path.rsplit('.').next().unwrap_or(path);
    !path.starts_with("metadata") && CLEAR.contains(&last)
}

/// Every leaf by its path: `containers[app].image`, not `spec.containers[0].image`.
fn leaves(template: &Value) -> BTreeMap<String, Value> {
    let mut found = BTreeMap::new();
    for (part, prefix) in [("spec", ""), ("metadata", "metadata")] {
        if let Some(value) = template.get(part) {
            collect(value, prefix, &mut found);
        }
    }
    found
}

fn collect(value: &Value, path: &str, found: &mut BTreeMap<String, Value>) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            for (name, field) in fields {
                let dot = if path.is_empty() { "" } else { "." };
                // A dot in a label's key must not look like a step of the path.
                let name = name.replace('.', "·");
                collect(field, &format!("{path}{dot}{name}"), found);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let names = names(items);
            for (index, item) in items.iter().enumerate() {
                let label = names
                    .as_ref()
                    .map_or_else(|| index.to_string(), |names| names[index].to_owned());
                collect(item, &format!("{path}[{label}]"), found);
            }
        }
        leaf => {
            found.insert(path.to_owned(), leaf.clone());
        }
    }
}

/// Names of a list's items, where each has one and no two are the same.
fn names(items: &[Value]) -> Option<Vec<&str>> {
    let names: Vec<_> = items
        .iter()
        .map(|item| item.get("name")?.as_str())
        .collect::<Option<_>>()?;
    let distinct: std::collections::BTreeSet<_> = names.iter().collect();
    (distinct.len() == names.len()).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn key() -> Key {
        Key::new([7; 32])
    }

    fn template(image: &str, password: &str) -> Value {
        json!({
            "metadata": {"labels": {"app.kubernetes.io/name": "checkout"}, "annotations": {"name": password}},
            "spec": {"containers": [
                {"name": "proxy", "image": "envoy:1"},
                {"name": "app", "image": image, "args": ["--token", password],
                 "env": [{"name": "PASSWORD", "value": password}]},
            ]},
        })
    }

    #[test]
    fn an_image_is_shown_under_the_name_of_its_container() {
        let lines = diff(&template("app:1", "x"), &template("app:2", "x"), &key());
        assert_eq!(
            lines,
            [DiffLine {
                field: "containers[app].image".into(),
                from: Some("app:1".into()),
                to: Some("app:2".into()),
            }]
        );
    }

    #[test]
    fn no_other_value_is_ever_shown() {
        let lines = diff(
            &template("app:1", "hunter2"),
            &template("app:1", "correct horse"),
            &key(),
        );
        let text = format!("{lines:?}");
        assert!(
            !text.contains("hunter2") && !text.contains("correct horse"),
            "{text}"
        );
        let fields: Vec<_> = lines.iter().map(|line| line.field.as_str()).collect();
        assert_eq!(
            fields,
            [
                "containers[app].args[1]",
                "containers[app].env[PASSWORD].value",
                "metadata.annotations.name"
            ]
        );
        assert!(lines[0].from.as_ref().unwrap().starts_with("hash:"));
        assert_ne!(lines[0].from, lines[0].to);
    }

    #[test]
    fn another_key_hashes_otherwise() {
        let (from, to) = (template("a", "x"), template("a", "y"));
        let other = Key::new([8; 32]);
        assert_ne!(diff(&from, &to, &key()), diff(&from, &to, &other));
    }

    #[test]
    fn a_digest_that_leaves_the_agent_is_another_under_each_key() {
        let digest = crate::actions::revisions::hash(&template("a", "x"));
        let sealed = key().sealed(&digest);
        assert_eq!(sealed, key().sealed(&digest));
        assert_ne!(sealed, digest);
        assert_ne!(sealed, Key::new([8; 32]).sealed(&digest));
    }

    #[test]
    fn what_is_added_or_removed_has_one_side() {
        let mut to = template("app:1", "x");
        to["spec"]["serviceAccountName"] = json!("shop");
        let lines = diff(&template("app:1", "x"), &to, &key());
        assert_eq!(
            (lines[0].from.clone(), lines[0].to.as_deref()),
            (None, Some("shop"))
        );
    }

    #[test]
    fn lists_with_repeated_names_are_counted() {
        let mounts = |path: &str| {
            json!({"spec": {"volumeMounts": [
                {"name": "data", "mountPath": "/a"},
                {"name": "data", "mountPath": path},
            ]}})
        };
        let lines = diff(&mounts("/b"), &mounts("/c"), &key());
        assert_eq!(lines.len(), 1);
        assert_eq!(lines[0].field, "volumeMounts[1].mountPath");
    }

    #[test]
    fn a_long_difference_says_what_it_leaves_out() {
        let many = |value: i64| {
            let env: Vec<_> = (0..50)
                .map(|n| json!({"name": format!("E{n}"), "value": value}))
                .collect();
            json!({"spec": {"env": env}})
        };
        let lines = diff(&many(1), &many(2), &key());
        assert_eq!(lines.len(), MOST_LINES + 1);
        assert_eq!(lines[MOST_LINES].field, "… and 10 more fields");
    }
}
