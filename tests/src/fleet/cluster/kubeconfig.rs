//! Kubeconfig files. Written as JSON, which every reader of YAML reads.

use std::path::Path;

use anyhow::Context;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde_json::{Value, json};

use super::certificates::Certificates;

/// One cluster as one user.
#[derive(Clone, Debug)]
pub struct Entry<'a> {
    /// Name of the context, `region/cluster`.
    pub context: String,
    /// `https://…` of the API server.
    pub server: String,
    /// Where the certificates are.
    pub certificates: &'a Certificates,
    /// Whose certificate is used, by its name there.
    pub user: &'a str,
}

/// A file with one context per entry. The first is current only if it is the only one: with several
/// clusters nobody should act on one by accident.
pub fn render(entries: &[Entry<'_>]) -> String {
    let current = match entries {
        [only] => only.context.as_str(),
        _ => "",
    };
    let file = json!({
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": entries.iter().map(Entry::cluster).collect::<Vec<_>>(),
        "users": entries.iter().map(Entry::login).collect::<Vec<_>>(),
        "contexts": entries.iter().map(Entry::as_context).collect::<Vec<_>>(),
        "current-context": current,
    });
    format!("{file:#}\n")
}

impl Entry<'_> {
    fn cluster(&self) -> Value {
        json!({"name": self.context, "cluster": {
            "server": self.server,
            "certificate-authority": self.certificates.ca(),
        }})
    }

    fn login(&self) -> Value {
        json!({"name": self.user_name(), "user": {
            "client-certificate": self.certificates.certificate(self.user),
            "client-key": self.certificates.key(self.user),
        }})
    }

    fn as_context(&self) -> Value {
        json!({"name": self.context, "context": {"cluster": self.context, "user": self.user_name()}})
    }

    fn user_name(&self) -> String {
        format!("{}@{}", self.user, self.context)
    }
}

/// A client by a context of a file. It lives on the runtime that made it.
pub async fn client(file: &Path, context: &str) -> anyhow::Result<kube::Client> {
    let kubeconfig = Kubeconfig::read_from(file)
        .with_context(|| format!("read the kubeconfig {}", file.display()))?;
    let options = KubeConfigOptions {
        context: Some(context.to_owned()),
        ..KubeConfigOptions::default()
    };
    let config = kube::Config::from_custom_kubeconfig(kubeconfig, &options)
        .await
        .with_context(|| format!("use the kubeconfig {}", file.display()))?;
    kube::Client::try_from(config).context("make a Kubernetes client")
}
