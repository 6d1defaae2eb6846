//! Stands where the kubelet of a cluster's nodes would: between its API server and kwok.
//!
//! ```text
//! kubectl, agent ─▶ API server ─TLS─▶ here ─▶ kwok ─▶ slot: answers HTTP as that pod
//!                                       │
//!                                       └─ which pod, its image, its state: asked of the API server
//! ```
//!
//! kwok speaks the protocols of port-forward and logs but knows nothing of pods when it does; here each
//! request is given the pod it is about (see [`slots`]). What only a kubelet would know is said as it
//! would: a container that waits has no log, a pod that does not run forwards no port, and a port that the
//! pod does not declare is refused where the request names it. There is no exec.

mod app;
mod head;
mod log;
pub mod slots;

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Container, Pod};
use kube::{Api, Client};
use rustls::RootCertStore;
use rustls::server::WebPkiClientVerifier;
use rustls_pki_types::pem::PemObject;
use rustls_pki_types::{CertificateDer, PrivateKeyDer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_util::task::AbortOnDropHandle;

use self::app::Tenant;
use self::head::{Head, Route};
use self::log::Log;
use self::slots::Slots;
use super::cluster::certificates::Certificates;

/// Until a connection has said what it wants. The API server says it at once.
const PATIENCE: Duration = Duration::from_secs(10);

/// Headers of the API server are some hundred bytes long.
const LONGEST_HEAD: usize = 16 * 1024;

/// A running server. Ends, with all it carries, when dropped.
pub struct Kubelet {
    _task: AbortOnDropHandle<()>,
}

struct Shared {
    client: Client,
    slots: Slots,
    kwok: SocketAddr,
    acceptor: TlsAcceptor,
}

impl Kubelet {
    /// Starts it on the port that the nodes name.
    pub async fn start(
        port: u16,
        kwok: u16,
        certificates: &Certificates,
        client: Client,
        slots: Slots,
    ) -> anyhow::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port))
            .await
            .context("listen as the kubelet")?;
        let shared = Arc::new(Shared {
            client,
            slots,
            kwok: SocketAddr::from((Ipv4Addr::LOCALHOST, kwok)),
            acceptor: acceptor(certificates)?,
        });
        Ok(Self {
            _task: AbortOnDropHandle::new(tokio::spawn(accept(listener, shared))),
        })
    }
}

fn acceptor(certificates: &Certificates) -> anyhow::Result<TlsAcceptor> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(certificates.ca())?)?;
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let clients =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(&provider))
            .build()?;
    let config = rustls::ServerConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(clients)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(
                certificates.certificate("kubelet"),
            )?],
            PrivateKeyDer::from_pem_file(certificates.key("kubelet"))?,
        )?;
    Ok(TlsAcceptor::from(Arc::new(config)))
}

/// Connections live in the set, so they end when the server does.
async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    loop {
        tokio::select! {
            accepted = listener.accept() => {
                if let Ok((stream, _)) = accepted {
                    let shared = Arc::clone(&shared);
                    connections.spawn(async move {
                        if let Err(error) = shared.connection(stream).await {
                            tracing::debug!("kubelet: {error:#}");
                        }
                    });
                }
            }
            Some(_) = connections.join_next() => {}
        }
    }
}

/// What becomes of a request.
enum Answer {
    /// kwok is asked for a slot in place of the pod. `None`: as it came.
    Pass(Option<(String, Option<slots::Taken>)>),
    /// Said here.
    Refuse(&'static str, String),
}

impl Shared {
    async fn connection(&self, stream: TcpStream) -> anyhow::Result<()> {
        let accepting = async {
            let mut stream = self.acceptor.accept(stream).await?;
            let head = read_head(&mut stream).await?;
            anyhow::Ok((stream, head))
        };
        let (mut stream, head) = tokio::time::timeout(PATIENCE, accepting).await??;
        match self.answer(head.route()).await? {
            Answer::Pass(slot) => {
                let (path, _taken) = slot.unzip();
                let mut kwok = TcpStream::connect(self.kwok).await.context("reach kwok")?;
                kwok.write_all(&head.once(path.as_deref())).await?;
                tokio::io::copy_bidirectional(&mut stream, &mut kwok).await?;
            }
            Answer::Refuse(status, why) => {
                let length = why.len();
                let text = format!(
                    "HTTP/1.1 {status}\r\ncontent-type: text/plain\r\ncontent-length: {length}\r\nconnection: close\r\n\r\n{why}"
                );
                stream.write_all(text.as_bytes()).await?;
                stream.shutdown().await?;
            }
        }
        Ok(())
    }

    async fn answer(&self, route: Route<'_>) -> anyhow::Result<Answer> {
        match route {
            Route::PortForward {
                namespace,
                pod,
                port,
            } => self.port_forward(namespace, pod, port).await,
            Route::Logs {
                namespace,
                pod,
                container,
            } => self.logs(namespace, pod, container).await,
            Route::Other => Ok(Answer::Pass(None)),
        }
    }

    async fn port_forward(
        &self,
        namespace: &str,
        name: &str,
        port: Option<u16>,
    ) -> anyhow::Result<Answer> {
        let Some(pod) = self.pod(namespace, name).await? else {
            return Ok(no_pod(name));
        };
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        if phase != Some("Running") {
            let why = format!(
                "unable to do port forwarding: pod {name} is not running, but {}",
                phase.unwrap_or("unknown")
            );
            return Ok(Answer::Refuse("500 Internal Server Error", why));
        }
        let path = |of: &str| format!("/portForward/{namespace}/{of}");
        let Some(container) = listening(&pod, port) else {
            // kwok says in the stream that there is nothing, where a kubelet says that it was refused.
            return Ok(Answer::Pass(Some((path("nobody-listens"), None))));
        };
        self.with_slot(namespace, name, container, path)
    }

    async fn logs(&self, namespace: &str, name: &str, container: &str) -> anyhow::Result<Answer> {
        let Some(pod) = self.pod(namespace, name).await? else {
            return Ok(no_pod(name));
        };
        if let Some(why) = waiting(&pod, container) {
            let why =
                format!("container \"{container}\" in pod \"{name}\" is waiting to start: {why}");
            return Ok(Answer::Refuse("400 Bad Request", why));
        }
        let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
        match containers.into_iter().find(|c| c.name == container) {
            Some(found) => self.with_slot(namespace, name, found, |of| {
                format!("/containerLogs/{namespace}/{of}/{container}")
            }),
            None => Ok(Answer::Pass(None)),
        }
    }

    fn with_slot(
        &self,
        namespace: &str,
        pod: &str,
        container: &Container,
        path: impl FnOnce(&str) -> String,
    ) -> anyhow::Result<Answer> {
        let image = container.image.clone().unwrap_or_default();
        let file = format!("{namespace}_{pod}_{}.log", container.name);
        let tenant = Tenant {
            pod: pod.to_owned(),
            log: Log::open(&self.slots.folder().join(file), &image)?,
            image,
        };
        match self.slots.take(tenant)? {
            Some(taken) => {
                let path = path(taken.name());
                Ok(Answer::Pass(Some((path, Some(taken)))))
            }
            None => Ok(Answer::Refuse(
                "503 Service Unavailable",
                "too many connections into pods of this cluster at once".to_owned(),
            )),
        }
    }

    async fn pod(&self, namespace: &str, name: &str) -> anyhow::Result<Option<Pod>> {
        Api::<Pod>::namespaced(self.client.clone(), namespace)
            .get_opt(name)
            .await
            .with_context(|| format!("read pod {namespace}/{name}"))
    }
}

fn no_pod(name: &str) -> Answer {
    Answer::Refuse("404 Not Found", format!("pod \"{name}\" not found"))
}

/// The container behind a port: the one that declares it, or the first when none declares any.
fn listening(pod: &Pod, port: Option<u16>) -> Option<&Container> {
    let containers = &pod.spec.as_ref()?.containers;
    let ports = |c: &Container| -> Vec<i32> {
        let declared = c.ports.iter().flatten();
        declared.map(|p| p.container_port).collect()
    };
    let any_declared = containers.iter().any(|c| !ports(c).is_empty());
    match port {
        Some(port) if any_declared => containers
            .iter()
            .find(|c| ports(c).contains(&i32::from(port))),
        _ => containers.first(),
    }
}

/// Why a container that never ran has no log, in a kubelet's words.
fn waiting(pod: &Pod, container: &str) -> Option<String> {
    let all = pod.status.as_ref()?.container_statuses.as_ref()?;
    let status = all.iter().find(|status| status.name == container)?;
    let reason = status.state.as_ref()?.waiting.as_ref()?.reason.clone()?;
    match reason.as_str() {
        "ErrImagePull" => Some("image can't be pulled".to_owned()),
        "ImagePullBackOff" => Some("trying and failing to pull image".to_owned()),
        _ if status.restart_count > 0 => None,
        _ => Some(reason),
    }
}

async fn read_head(stream: &mut TlsStream<TcpStream>) -> anyhow::Result<Head> {
    let mut read = Vec::with_capacity(1024);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            bail!("closed before it said anything");
        }
        if let Some(head) = Head::parse(&read)? {
            return Ok(head);
        }
        if read.len() > LONGEST_HEAD {
            bail!("a request's head is longer than {LONGEST_HEAD} bytes");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn pod(containers: Value, statuses: Value) -> Pod {
        serde_json::from_value(json!({
            "metadata": {"name": "p"},
            "spec": {"containers": containers},
            "status": {"phase": "Running", "containerStatuses": statuses},
        }))
        .unwrap()
    }

    #[test]
    fn a_port_leads_to_the_container_that_declares_it() {
        let pod = pod(
            json!([
                {"name": "app", "ports": [{"containerPort": 8080}]},
                {"name": "proxy", "ports": [{"containerPort": 9000}]},
            ]),
            json!([]),
        );
        let name = |port| listening(&pod, port).map(|c| c.name.as_str());
        assert_eq!(name(Some(8080)), Some("app"));
        assert_eq!(name(Some(9000)), Some("proxy"));
        assert_eq!(name(Some(80)), None, "nobody listens there");
        assert_eq!(name(None), Some("app"), "the request does not say");
    }

    #[test]
    fn where_no_port_is_declared_every_port_is_the_first_containers() {
        let pod = pod(json!([{"name": "app"}]), json!([]));
        assert!(listening(&pod, Some(1234)).is_some());
    }

    #[test]
    fn only_a_container_that_never_ran_has_no_log() {
        let waits = |reason: &str, restarts: i32| {
            let status = json!([{
                "name": "app", "image": "", "imageID": "", "ready": false, "restartCount": restarts,
                "state": {"waiting": {"reason": reason}},
            }]);
            waiting(&pod(json!([{"name": "app"}]), status), "app")
        };
        assert!(waits("ImagePullBackOff", 0).is_some());
        assert!(waits("ContainerCreating", 0).is_some());
        assert_eq!(waits("CrashLoopBackOff", 2), None);
    }
}
