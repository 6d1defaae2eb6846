//! `aldis dev`: a whole system on this machine in one command, for trying and for learning.
//!
//! It differs from production in its store (one file), in where certificates come from (an authority
//! that lives as long as the command), and in nothing else: mutual TLS, identities, journals and
//! permits are the real ones, because what dev mode skips breaks first in production.

pub mod authority;
pub mod children;
pub mod files;
pub mod folder;
pub mod targets;

use std::path::PathBuf;

use aldis_core::ids::TargetName;

use crate::exit::Exit;

/// A trial that cannot be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file or folder cannot be read or written.
    #[error("`{}`: {source}", path.display())]
    File {
        /// Which.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A certificate cannot be made.
    #[error("make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// A target is named twice.
    #[error("target {name} is named twice")]
    Twice {
        /// Its name.
        name: TargetName,
    },
    /// There is no kubeconfig to take contexts from.
    #[error("no kubeconfig: name one with --kubeconfig")]
    NoKubeconfig,
    /// A program is neither beside this one nor on PATH.
    #[error("`{name}` is neither beside `aldis` nor on PATH")]
    NoProgram {
        /// Its name.
        name: String,
    },
    /// Another trial works in the folder.
    #[error("`{}` is in use by another `aldis dev`", folder.display())]
    InUse {
        /// Which.
        folder: PathBuf,
    },
    /// The port is taken.
    #[error("port {port} is taken: {source}")]
    Port {
        /// Which.
        port: u16,
        /// Why.
        source: std::io::Error,
    },
    /// The context belongs to somebody else.
    #[error("context `{name}` is in use, for {server}")]
    ContextTaken {
        /// Its name.
        name: String,
        /// Where it leads.
        server: String,
    },
}

impl From<Error> for crate::error::Error {
    fn from(error: Error) -> Self {
        let hint = match &error {
            Error::NoProgram { name } => Some(format!("build it: cargo build --release -p {name}")),
            Error::Port { .. } => {
                Some("is another `aldis dev` running? choose with --port".to_owned())
            }
            Error::InUse { .. } => Some("choose another folder with --data".to_owned()),
            Error::ContextTaken { .. } => Some("choose another name with --name".to_owned()),
            Error::Twice { .. } => {
                Some("name contexts apart with --kube-context CONTEXT=REGION/CLUSTER".to_owned())
            }
            Error::File { .. } | Error::Certificate(_) | Error::NoKubeconfig => None,
        };
        let converted = Self::new(Exit::Other, error.to_string());
        match hint {
            Some(hint) => converted.hint(hint),
            None => converted,
        }
    }
}
