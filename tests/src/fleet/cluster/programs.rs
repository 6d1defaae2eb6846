//! The programs of one cluster with all their flags. Pure: nothing is started here.
//!
//! What is left out is left out on purpose: over simulated nodes no node-lifecycle controller (they send no
//! heartbeats), hence no `TaintNodesByCondition` (nobody would take the first taint away); no API group is
//! turned off (informers would wait for the missing ones and `/readyz` stay red). Controllers run as the
//! administrator: as their own user, without service account credentials, they may do next to nothing.

use std::ffi::OsString;
use std::path::Path;

use super::certificates::Certificates;
use crate::binaries;
use crate::fleet::nodes::network::Plan;
use crate::fleet::process::Program;

/// Controllers that work with any nodes and without volumes.
const CONTROLLERS: [&str; 19] = [
    "deployment-controller",
    "replicaset-controller",
    "statefulset-controller",
    "daemonset-controller",
    "job-controller",
    "cronjob-controller",
    "horizontal-pod-autoscaler-controller",
    "disruption-controller",
    "endpointslice-controller",
    "endpoints-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "namespace-controller",
    "garbage-collector-controller",
    "replicationcontroller-controller",
    "pod-garbage-collector-controller",
    "ttl-after-finished-controller",
    "resourcequota-controller",
    "root-ca-certificate-publisher-controller",
];

/// Those that tell a node that died, and take its pods away after a while.
const CONTROLLERS_OF_REAL_NODES: [&str; 2] =
    ["node-lifecycle-controller", "taint-eviction-controller"];

/// Ports of one cluster, all on loopback.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ports {
    /// The API server.
    pub(super) api: u16,
    /// Health of the controllers.
    pub(super) controllers: u16,
    /// Health of the scheduler.
    pub(super) scheduler: u16,
    /// kwok's server, behind our kubelet.
    pub(super) kwok: u16,
    /// What the nodes give as their kubelet.
    pub(super) kubelet: u16,
}

/// What the programs of one cluster are told.
#[derive(Clone, Debug)]
pub(super) struct Settings<'a> {
    /// `region-cluster`, first part of each program's name.
    pub(super) name: &'a str,
    /// Where the cluster's objects are kept, `http://…`.
    pub(super) store: &'a str,
    /// Ports.
    pub(super) ports: Ports,
    /// Certificates.
    pub(super) certificates: &'a Certificates,
    /// Of its real node, where it has one.
    pub(super) network: Option<Plan>,
}

impl Settings<'_> {
    /// The API server.
    pub(super) fn api_server(&self) -> anyhow::Result<Program> {
        let files = self.certificates;
        Ok(
            Program::new(self.program("apiserver"), binaries::kube_apiserver()?)
                .arguments([
                    format!("--etcd-servers={}", self.store),
                    format!("--etcd-prefix=/{}", self.name),
                    "--bind-address=127.0.0.1".to_owned(),
                    "--advertise-address=127.0.0.1".to_owned(),
                    format!("--secure-port={}", self.ports.api),
                    "--anonymous-auth=false".to_owned(),
                    "--authorization-mode=Node,RBAC".to_owned(),
                    "--allow-privileged=true".to_owned(),
                    "--service-account-issuer=https://kubernetes.default.svc".to_owned(),
                    "--endpoint-reconciler-type=none".to_owned(),
                    "--profiling=false".to_owned(),
                    "--kubelet-preferred-address-types=InternalIP".to_owned(),
                    "--requestheader-allowed-names=front-proxy".to_owned(),
                    "--requestheader-username-headers=X-Remote-User".to_owned(),
                    "--requestheader-group-headers=X-Remote-Group".to_owned(),
                    "--requestheader-extra-headers-prefix=X-Remote-Extra-".to_owned(),
                ])
                .arguments(self.nodes())
                .arguments([
                    flag("tls-cert-file", &files.certificate("apiserver")),
                    flag("tls-private-key-file", &files.key("apiserver")),
                    flag("client-ca-file", &files.ca()),
                    flag("service-account-key-file", &files.accounts_public()),
                    flag("service-account-signing-key-file", &files.key("accounts")),
                    flag(
                        "kubelet-client-certificate",
                        &files.certificate("kubelet-client"),
                    ),
                    flag("kubelet-client-key", &files.key("kubelet-client")),
                    flag("kubelet-certificate-authority", &files.ca()),
                    flag("requestheader-client-ca-file", &files.ca()),
                    flag("proxy-client-cert-file", &files.certificate("front-proxy")),
                    flag("proxy-client-key-file", &files.key("front-proxy")),
                ]),
        )
    }

    /// What the API server is told of the nodes.
    fn nodes(&self) -> [String; 2] {
        match self.network {
            Some(network) => [
                format!("--service-cluster-ip-range={}", network.services()),
                "--enable-admission-plugins=NodeRestriction".to_owned(),
            ],
            None => [
                "--service-cluster-ip-range=10.96.0.0/16".to_owned(),
                "--disable-admission-plugins=TaintNodesByCondition".to_owned(),
            ],
        }
    }

    /// The controllers.
    pub(super) fn controllers(&self, kubeconfig: &Path) -> anyhow::Result<Program> {
        let program = binaries::kube_controller_manager()?;
        let mut controllers = CONTROLLERS.to_vec();
        if self.network.is_some() {
            controllers.extend(CONTROLLERS_OF_REAL_NODES);
        }
        Ok(Program::new(self.program("controllers"), program)
            .arguments(self.beside_the_api(kubeconfig, self.ports.controllers))
            .arguments([
                format!("--controllers={}", controllers.join(",")),
                "--use-service-account-credentials=false".to_owned(),
            ])
            .arguments([
                flag(
                    "service-account-private-key-file",
                    &self.certificates.key("accounts"),
                ),
                flag("root-ca-file", &self.certificates.ca()),
            ]))
    }

    /// The scheduler.
    pub(super) fn scheduler(&self, kubeconfig: &Path) -> anyhow::Result<Program> {
        let program = binaries::kube_scheduler()?;
        Ok(Program::new(self.program("scheduler"), program)
            .arguments(self.beside_the_api(kubeconfig, self.ports.scheduler)))
    }

    /// kwok. Its server is bound to loopback: with `--node-port` alone it would listen everywhere.
    /// Without leases, or a restarted kwok would wait for its old ones to run out.
    pub(super) fn kwok(&self, kubeconfig: &Path, config: &Path) -> anyhow::Result<Program> {
        Ok(Program::new(self.program("kwok"), binaries::kwok()?)
            .arguments([
                "--manage-all-nodes=true".to_owned(),
                "--node-lease-duration-seconds=0".to_owned(),
                "--node-ip=127.0.0.1".to_owned(),
                format!("--node-port={}", self.ports.kubelet),
                format!("--server-address=127.0.0.1:{}", self.ports.kwok),
            ])
            .arguments([flag("kubeconfig", kubeconfig), flag("config", config)]))
    }

    fn beside_the_api(&self, kubeconfig: &Path, port: u16) -> Vec<OsString> {
        vec![
            flag("kubeconfig", kubeconfig),
            "--leader-elect=false".into(),
            "--bind-address=127.0.0.1".into(),
            format!("--secure-port={port}").into(),
            "--profiling=false".into(),
        ]
    }

    fn program(&self, which: &str) -> String {
        format!("{}-{which}", self.name)
    }
}

fn flag(name: &str, path: &Path) -> OsString {
    let mut text = OsString::from(format!("--{name}="));
    text.push(path);
    text
}
