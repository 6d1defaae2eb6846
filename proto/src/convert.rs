//! Core documents to wire documents and back. Errors name the field.

use aldis_core::ids::{Fence, NotATarget, TargetName};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::v1;

/// A message that cannot be taken as it came.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A field that must be there is not.
    #[error("invalid message: `{field}` is missing")]
    Missing {
        /// Its path.
        field: &'static str,
    },
    /// A document that is no such document.
    #[error("invalid message: `{field}` is not a valid document: {problem}")]
    Document {
        /// Its path.
        field: &'static str,
        /// Where and what.
        problem: String,
    },
    /// A name that names no target.
    #[error("invalid message: `{field}`: {source}")]
    Target {
        /// Its path.
        field: &'static str,
        /// What was there.
        #[source]
        source: NotATarget,
    },
}

/// Packs a core document.
pub fn document<T: Serialize>(value: &T) -> v1::Document {
    v1::Document {
        json: aldis_core::canonical::encode(value),
    }
}

/// Unpacks a core document, strictly.
pub fn parse<T: DeserializeOwned>(
    document: Option<&v1::Document>,
    field: &'static str,
) -> Result<T, Error> {
    let document = document.ok_or(Error::Missing { field })?;
    serde_json::from_slice(&document.json).map_err(|error| Error::Document {
        field,
        problem: error.to_string(),
    })
}

/// Reads a target's name.
pub fn target(text: &str, field: &'static str) -> Result<TargetName, Error> {
    text.parse()
        .map_err(|source| Error::Target { field, source })
}

/// A fence as it travels.
pub fn fence(fence: Fence) -> v1::Fence {
    v1::Fence {
        incarnation: fence.incarnation,
        epoch: fence.epoch,
    }
}

/// A fence as it arrived; none = never seen one.
pub fn fence_from(fence: Option<&v1::Fence>) -> Fence {
    fence.map_or(Fence::default(), |fence| Fence {
        incarnation: fence.incarnation,
        epoch: fence.epoch,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_unreadable_document_names_its_field() {
        let broken = v1::Document {
            json: b"{\"incarnation\": \"x\"}".to_vec(),
        };
        let error = parse::<Fence>(Some(&broken), "order.fence")
            .unwrap_err()
            .to_string();
        assert!(error.contains("`order.fence`"), "{error}");
        let error = parse::<Fence>(None, "order.fence").unwrap_err().to_string();
        assert_eq!(error, "invalid message: `order.fence` is missing");
    }

    #[test]
    fn a_document_comes_back_as_it_went() {
        let sent = Fence {
            incarnation: 2,
            epoch: 7,
        };
        assert_eq!(
            parse::<Fence>(Some(&document(&sent)), "fence").unwrap(),
            sent
        );
    }
}
