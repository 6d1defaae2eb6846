//! Who may do what in the object store: each region has a key for its own bucket, as a company would give an
//! application one. The store's own key makes the buckets and is for the hand at the keyboard.
//!
//! | user | may |
//! |---|---|
//! | `fleet` | everything: the store's own key |
//! | `aldis-REGION` | read, write, list and delete objects of the region's bucket; older versions it can read, not delete, so that a backup outlives whoever has the key |
//!
//! Users are in a file that the store reads (`--iam-dir`), rights in the policy of each bucket: the store knows no
//! policies of users without a second server.

use serde_json::{Value, json};

use crate::fleet::services::place::Place;
use crate::fleet::services::secret::Secret;

/// The store's own key.
const OWN: &str = "fleet";

/// What a region's key may do with its bucket.
const ON_BUCKET: [&str; 5] = [
    "s3:GetBucketLocation",
    "s3:GetBucketVersioning",
    "s3:ListBucket",
    "s3:ListBucketMultipartUploads",
    "s3:ListBucketVersions",
];

/// And with the objects in it.
const ON_OBJECTS: [&str; 6] = [
    "s3:AbortMultipartUpload",
    "s3:DeleteObject",
    "s3:GetObject",
    "s3:GetObjectVersion",
    "s3:ListMultipartUploadParts",
    "s3:PutObject",
];

/// A user of the store.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum User<'a> {
    /// Who may do everything.
    Fleet,
    /// An agent of this region.
    Aldis(&'a str),
}

/// The two halves of a key.
#[derive(Clone, Debug)]
pub(super) struct Key {
    pub(super) id: String,
    pub(super) secret: Secret,
}

impl User<'_> {
    /// The name of its key.
    fn id(self) -> String {
        match self {
            Self::Fleet => OWN.to_owned(),
            Self::Aldis(region) => format!("aldis-{region}"),
        }
    }

    /// Draws a key for it.
    pub(super) fn draw(self, place: &Place) -> anyhow::Result<Key> {
        let id = self.id();
        let secret = place.password(&format!("s3-{id}"))?;
        Ok(Key { id, secret })
    }
}

/// The store's file of users, but for its own key, which it is given apart.
pub(super) fn accounts<'a>(keys: impl IntoIterator<Item = &'a Key>) -> String {
    let account = |key: &Key| {
        let user = json!({"access": key.id, "secret": key.secret.expose(), "role": "user"});
        (key.id.clone(), user)
    };
    let accounts: serde_json::Map<String, Value> = keys.into_iter().map(account).collect();
    json!({"accessAccounts": accounts}).to_string()
}

/// The policy of a bucket that a key is for.
pub(super) fn policy(bucket: &str, key: &Key) -> String {
    let allow = |actions: &[&str], resource: String| {
        json!({
            "Effect": "Allow", "Principal": {"AWS": [key.id]},
            "Action": actions, "Resource": format!("arn:aws:s3:::{resource}"),
        })
    };
    let statements = [
        allow(&ON_BUCKET, bucket.to_owned()),
        allow(&ON_OBJECTS, format!("{bucket}/*")),
    ];
    json!({"Version": "2012-10-17", "Statement": statements}).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_policy_names_one_key_and_one_bucket() {
        let key = Key {
            id: User::Aldis("eu-west").id(),
            secret: Secret::draw(),
        };
        let policy: Value = serde_json::from_str(&policy("backups-eu-west", &key)).unwrap();
        for statement in policy["Statement"].as_array().unwrap() {
            assert_eq!(statement["Principal"], json!({"AWS": ["aldis-eu-west"]}));
            let resource = statement["Resource"].as_str().unwrap();
            assert!(resource.starts_with("arn:aws:s3:::backups-eu-west"));
        }
    }
}
