//! One byte sequence for one meaning: what digests are taken over.
//!
//! Canonical JSON: object keys sorted by bytes, no spaces, numbers as `serde_json` prints them. It
//! does not rely on the map type behind [`serde_json::Value`], which a feature of any crate in the
//! build could change. Signatures, when they come, are made over these same bytes and travel beside
//! the document, never inside it.

use serde::Serialize;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::ids::Digest;

/// The canonical bytes of `document`.
///
/// # Panics
/// Never for our own document types: they hold text keys and finite numbers only.
pub fn encode<T: Serialize + ?Sized>(document: &T) -> Vec<u8> {
    let value = serde_json::to_value(document).expect("our documents have text keys");
    let mut out = Vec::new();
    write(&value, &mut out);
    out
}

/// SHA-256 over the canonical bytes of `document`.
pub fn digest<T: Serialize + ?Sized>(document: &T) -> Digest {
    hash(&encode(document))
}

/// SHA-256 of bytes.
pub fn hash(bytes: &[u8]) -> Digest {
    Digest::new(hex::encode(Sha256::digest(bytes)))
}

/// SHA-256 over several parts, each preceded by its length, so that no two lists collide.
pub fn hash_parts(parts: &[&[u8]]) -> Digest {
    let mut hasher = Sha256::new();
    for part in parts {
        hasher.update((part.len() as u64).to_be_bytes());
        hasher.update(part);
    }
    Digest::new(hex::encode(hasher.finalize()))
}

fn write(value: &Value, out: &mut Vec<u8>) {
    match value {
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by(|a, b| a.0.cmp(b.0));
            out.push(b'{');
            for (index, (key, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(&Value::String(key.clone()), out);
                out.push(b':');
                write(field, out);
            }
            out.push(b'}');
        }
        Value::Array(items) => {
            out.push(b'[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    out.push(b',');
                }
                write(item, out);
            }
            out.push(b']');
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {
            out.extend_from_slice(value.to_string().as_bytes());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn keys_are_sorted_at_every_depth() {
        let bytes = encode(&json!({"b": [{"z": 1, "a": null}], "a": "ü\n"}));
        assert_eq!(
            String::from_utf8(bytes).unwrap(),
            r#"{"a":"ü\n","b":[{"a":null,"z":1}]}"#
        );
    }

    #[test]
    fn parts_cannot_be_shifted_into_one_another() {
        assert_ne!(hash_parts(&[b"ab", b"c"]), hash_parts(&[b"a", b"bc"]));
    }
}
