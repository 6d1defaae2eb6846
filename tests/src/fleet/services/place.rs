//! What all services of a fleet have in common: a folder, an authority, and the addresses in its certificates.

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::Context;

use super::secret::Secret;
use crate::fleet::folder::Folder;
use crate::pki::{Authority, Request, Usage};

/// Where the services of one fleet live.
pub(super) struct Place {
    folder: Folder,
    authority: Authority,
    ca: PathBuf,
    addresses: Vec<IpAddr>,
}

/// A server's certificate and key, as files for the owner only.
#[derive(Clone, Debug)]
pub(super) struct Identity {
    pub(super) certificate: PathBuf,
    pub(super) key: PathBuf,
}

impl Place {
    /// Makes the authority. `addresses` are those beside loopback.
    pub(super) fn make(folder: &Folder, addresses: &[IpAddr]) -> anyhow::Result<Self> {
        let authority = Authority::new("services of the fleet")?;
        let below = folder.make_below("services")?;
        let ca = below.join("ca.crt");
        // Servers under another user read it as well, so it is not for its owner only.
        std::fs::write(&ca, authority.pem()).context("write the services' authority")?;
        Ok(Self {
            folder: folder.clone(),
            authority,
            ca,
            addresses: addresses.to_vec(),
        })
    }

    pub(super) fn folder(&self) -> &Folder {
        &self.folder
    }

    /// The authority's certificate.
    pub(super) fn authority(&self) -> &str {
        self.authority.pem()
    }

    /// File with it.
    pub(super) fn ca(&self) -> &Path {
        &self.ca
    }

    /// Addresses beside loopback that certificates are for.
    pub(super) fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Makes the folder of a service.
    pub(super) fn make_below(&self, name: &str) -> anyhow::Result<PathBuf> {
        self.folder.make_below(super::below(name))
    }

    /// Draws a password and leaves it in `secrets/WHO`.
    pub(super) fn password(&self, who: &str) -> anyhow::Result<Secret> {
        let secret = Secret::draw();
        let file = super::below("secrets").join(who);
        self.folder.write(file, secret.expose())?;
        Ok(secret)
    }

    /// A server's certificate, for loopback and the other addresses.
    pub(super) fn identity(&self, name: &str) -> anyhow::Result<Identity> {
        self.identity_as(name, Request::new(name, Usage::Server))
    }

    /// The same for one that has further names.
    pub(super) fn identity_as(&self, name: &str, request: Request) -> anyhow::Result<Identity> {
        let mut request = request.on_loopback();
        for address in &self.addresses {
            request = request.address(*address);
        }
        let leaf = self.authority.issue(&request)?;
        let write = |what: &str, pem: &str| {
            let file = super::below(name).join(what);
            self.folder.write(file, pem)
        };
        Ok(Identity {
            certificate: write("server.crt", &leaf.certificate)?,
            key: write("server.key", &leaf.key)?,
        })
    }
}
