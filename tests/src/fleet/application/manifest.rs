//! What an application is to Kubernetes: building of its objects, without sending them.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Application;

/// How the container of an application is run, beside its image. Simulated nodes look at none of it.
#[derive(Clone, Debug)]
pub struct Container {
    /// Arguments after those of its image.
    pub arguments: Vec<String>,
    /// Variables that come out of Secrets.
    pub environment: Vec<FromSecret>,
    /// Secrets of others, by the folder in which they are found. A folder is empty where there is none.
    pub optional_secrets: BTreeMap<String, String>,
    /// How the kubelet asks it how it is.
    pub probes: Option<Probes>,
    /// What it is given.
    pub resources: Option<Resources>,
    /// How long it may take to end. One second for one that keeps nothing.
    pub grace: Duration,
}

/// A variable of the environment.
#[derive(Clone, Debug)]
pub struct FromSecret {
    /// Its name.
    pub variable: String,
    /// The Secret. The container starts without the variable where there is none.
    pub secret: String,
    /// The key in it.
    pub key: String,
}

/// Paths that answer whether it is ready and whether it lives.
#[derive(Clone, Debug)]
pub struct Probes {
    /// Failing, it is given no requests.
    pub ready: String,
    /// Failing, it is restarted.
    pub alive: String,
    /// Between two looks.
    pub every: Duration,
}

/// What it asks for, and what it may not exceed.
#[derive(Clone, Debug)]
pub struct Resources {
    /// In Kubernetes' words, such as `20m`. No limit is set on it: a throttled server is slow for no reason that a
    /// test means.
    pub cpu: String,
    /// Asked for.
    pub memory: String,
    /// Beyond it is killed.
    pub memory_limit: String,
}

/// A Secret of an application, made before its pods.
#[derive(Clone, Debug)]
pub struct Secret {
    /// Its name.
    pub name: String,
    /// What is in it.
    pub data: BTreeMap<String, String>,
    /// The folder in which the container finds it, if it does.
    pub mounted_at: Option<String>,
}

impl Default for Container {
    fn default() -> Self {
        Self {
            arguments: Vec::new(),
            environment: Vec::new(),
            optional_secrets: BTreeMap::new(),
            probes: None,
            resources: None,
            grace: Duration::from_secs(1),
        }
    }
}

impl Application {
    /// The Deployment of a release.
    pub(super) fn deployment(&self, image: &str, config_map: Option<&str>) -> Value {
        let app = json!({"app": self.name});
        let mut labels = self.pod_labels.clone();
        labels.insert("app".to_owned(), self.name.clone());
        let mut deployment = json!({
            "apiVersion": "apps/v1",
            "kind": "Deployment",
            "metadata": {
                "name": self.name, "labels": self.labels, "annotations": self.annotations,
            },
            "spec": {
                "replicas": self.replicas,
                "minReadySeconds": self.min_ready.as_secs(),
                "progressDeadlineSeconds": self.progress_deadline.as_secs(),
                "selector": {"matchLabels": app},
                "template": {
                    "metadata": {"labels": labels, "annotations": self.pod_annotations},
                    "spec": {
                        "terminationGracePeriodSeconds": self.container.grace.as_secs(),
                        "containers": [self.container(image, config_map)],
                        "volumes": self.volumes(),
                    },
                },
            },
        });
        if let Some(most) = self.max_unavailable {
            deployment["spec"]["strategy"] = json!({"rollingUpdate": {"maxUnavailable": most}});
        }
        deployment
    }

    fn container(&self, image: &str, config_map: Option<&str>) -> Value {
        let from = config_map
            .iter()
            .map(|name| json!({"configMapRef": {"name": name}}));
        let from: Vec<Value> = from.collect();
        let mut container = json!({
            "name": "app", "image": image, "envFrom": from,
            "ports": [{"name": "http", "containerPort": self.port}],
            "args": self.container.arguments,
            "env": self.container.environment.iter().map(variable).collect::<Vec<_>>(),
            "volumeMounts": self.mounts(),
        });
        if let Some(probes) = &self.container.probes {
            container["readinessProbe"] = self.probe(&probes.ready, probes.every, 2);
            container["livenessProbe"] = self.probe(&probes.alive, probes.every * 3, 3);
        }
        if let Some(resources) = &self.container.resources {
            container["resources"] = json!({
                "requests": {"cpu": resources.cpu, "memory": resources.memory},
                "limits": {"memory": resources.memory_limit},
            });
        }
        container
    }

    fn probe(&self, path: &str, every: Duration, failures: u32) -> Value {
        json!({
            "httpGet": {"path": path, "port": self.port},
            "periodSeconds": every.as_secs().max(1),
            "timeoutSeconds": 2,
            "failureThreshold": failures,
        })
    }

    fn volumes(&self) -> Vec<Value> {
        let volume = |name: &str, optional: bool| json!({"name": name, "secret": {"secretName": name, "optional": optional}});
        let own = self.mounted().map(|(name, _)| volume(name, false));
        let others = self.container.optional_secrets.values();
        own.chain(others.map(|name| volume(name, true))).collect()
    }

    fn mounts(&self) -> Vec<Value> {
        let mount =
            |name: &str, folder: &str| json!({"name": name, "mountPath": folder, "readOnly": true});
        let own = self.mounted().map(|(name, folder)| mount(name, folder));
        let others = self.container.optional_secrets.iter();
        own.chain(others.map(|(folder, name)| mount(name, folder)))
            .collect()
    }

    /// Its own Secrets that are mounted, and where.
    fn mounted(&self) -> impl Iterator<Item = (&str, &str)> {
        let secrets = self.secrets.iter();
        secrets.filter_map(|secret| Some((secret.name.as_str(), secret.mounted_at.as_deref()?)))
    }

    /// Its Service.
    pub(super) fn service(&self) -> Value {
        json!({
            "apiVersion": "v1",
            "kind": "Service",
            "metadata": {"name": self.name},
            "spec": {
                "selector": {"app": self.name},
                "ports": [{"name": "http", "port": self.port, "targetPort": self.port}],
            },
        })
    }
}

impl Secret {
    pub(super) fn manifest(&self) -> Value {
        json!({
            "apiVersion": "v1", "kind": "Secret",
            "metadata": {"name": self.name}, "stringData": self.data,
        })
    }
}

fn variable(from: &FromSecret) -> Value {
    let reference = json!({"name": from.secret, "key": from.key, "optional": true});
    json!({"name": from.variable, "valueFrom": {"secretKeyRef": reference}})
}
