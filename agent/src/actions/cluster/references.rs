//! Everything that a pod template refers to and cannot start without. Pure.
//!
//! A template of last month may name a ConfigMap that was pruned since (hash-named ones are, before the health of the
//! release that replaced them is known). What is marked optional may be missing; what no reading can tell is listed as
//! unknown rather than passed over.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use super::super::images;
use super::deployment::text;
use super::paths::{Resource, resource};
use super::rights::{Choice, Right, Use, right};

pub(super) const CONFIG_MAP: Resource = resource("ConfigMap", "/api/v1", "configmaps");
pub(super) const SECRET: Resource = resource("Secret", "/api/v1", "secrets");
pub(super) const SERVICE_ACCOUNT: Resource =
    resource("ServiceAccount", "/api/v1", "serviceaccounts");
pub(super) const CLAIM: Resource =
    resource("PersistentVolumeClaim", "/api/v1", "persistentvolumeclaims");
const STORAGE_CLASS: Resource =
    resource("StorageClass", "/apis/storage.k8s.io/v1", "storageclasses");
const DRIVER: Resource = resource("CSIDriver", "/apis/storage.k8s.io/v1", "csidrivers");
const PRIORITY_CLASS: Resource = resource(
    "PriorityClass",
    "/apis/scheduling.k8s.io/v1",
    "priorityclasses",
);
const RUNTIME_CLASS: Resource = resource("RuntimeClass", "/apis/node.k8s.io/v1", "runtimeclasses");
const RESOURCE_CLAIM: Resource = resource(
    "ResourceClaim",
    "/apis/resource.k8s.io/v1",
    "resourceclaims",
);
const CLAIM_TEMPLATE: Resource = resource(
    "ResourceClaimTemplate",
    "/apis/resource.k8s.io/v1",
    "resourceclaimtemplates",
);

const READ: &[Use] = &[Use::Plan, Use::Apply];
const NEEDED: &str = "to know whether all that a release names is still there";

/// What looking for them needs. Kubernetes knows no right to see that a Secret is there without the right to read it, so
/// an operator may leave that one out: what cannot be read is then said to be unknown.
pub(super) const RIGHTS: [Right; 10] = [
    right("get", CONFIG_MAP, READ, NEEDED),
    right("get", SERVICE_ACCOUNT, READ, NEEDED),
    right("get", CLAIM, READ, NEEDED),
    right("get", RESOURCE_CLAIM, READ, NEEDED),
    right("get", CLAIM_TEMPLATE, READ, NEEDED),
    right("get", SECRET, READ, NEEDED).by_choice(Choice::Secrets),
    right("get", PRIORITY_CLASS, READ, NEEDED).cluster_wide(),
    right("get", STORAGE_CLASS, READ, NEEDED).cluster_wide(),
    right("get", DRIVER, READ, NEEDED).cluster_wide(),
    right("get", RUNTIME_CLASS, READ, NEEDED).cluster_wide(),
];

/// Kinds that are in no namespace.
const CLUSTER_WIDE: [&str; 4] = ["StorageClass", "CSIDriver", "PriorityClass", "RuntimeClass"];

/// An object that a template refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Reference {
    /// Its kind.
    pub(super) resource: Resource,
    /// Its name.
    pub(super) name: String,
    /// Keys that it must have; empty where any will do.
    pub(super) keys: BTreeSet<String>,
    /// What uses it first, for the message.
    pub(super) by: String,
    /// Whether pods cannot start without it. Else they may: a pull secret of an image that is public.
    pub(super) needed: bool,
}

impl Reference {
    /// Whether it is to be looked for in the template's namespace.
    pub(super) fn namespaced(&self) -> bool {
        !CLUSTER_WIDE.contains(&self.resource.kind)
    }

    /// For messages.
    pub(super) fn object(&self) -> String {
        format!("{} {} ({})", self.resource.kind, self.name, self.by)
    }
}

/// What a template needs.
#[derive(Clone, Debug, Default)]
pub(super) struct References {
    found: BTreeMap<(&'static str, String), Reference>,
    /// What no reading of objects can tell, but for images.
    pub(super) unknown: Vec<String>,
    /// The same of images: whether they can be pulled.
    pub(super) images: Vec<String>,
}

impl References {
    /// Of a pod template.
    pub(super) fn of(template: &Value) -> Self {
        let mut all = Self::default();
        let spec = template.get("spec").unwrap_or(&Value::Null);
        all.pod(spec);
        for list in ["initContainers", "containers"] {
            for container in items(spec, list) {
                all.container(container);
            }
        }
        for volume in items(spec, "volumes") {
            all.volume(volume);
        }
        let mut images = images::of_template(template);
        images.sort();
        images.dedup();
        all.images = images
            .iter()
            .map(|image| format!("whether image {image} can be pulled"))
            .collect();
        all
    }

    /// By kind, then by name.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Reference> {
        self.found.values()
    }

    fn pod(&mut self, spec: &Value) {
        let account = match text(spec, "serviceAccountName") {
            name if name.is_empty() => "default".to_owned(),
            name => name,
        };
        self.need(SERVICE_ACCOUNT, &account, None, "serviceAccountName");
        for (field, kind) in [
            ("priorityClassName", PRIORITY_CLASS),
            ("runtimeClassName", RUNTIME_CLASS),
        ] {
            self.need(kind, &text(spec, field), None, field);
        }
        for secret in items(spec, "imagePullSecrets") {
            self.add(
                SECRET,
                &text(secret, "name"),
                None,
                "imagePullSecrets",
                false,
            );
        }
        for claim in items(spec, "resourceClaims") {
            self.need(
                RESOURCE_CLAIM,
                &text(claim, "resourceClaimName"),
                None,
                "resourceClaims",
            );
            let template = text(claim, "resourceClaimTemplateName");
            self.need(CLAIM_TEMPLATE, &template, None, "resourceClaims");
        }
        let scheduler = text(spec, "schedulerName");
        if !scheduler.is_empty() && scheduler != "default-scheduler" {
            self.unknown
                .push(format!("whether scheduler {scheduler} runs"));
        }
    }

    fn container(&mut self, container: &Value) {
        let by = format!("env of container {}", text(container, "name"));
        for from in items(container, "envFrom") {
            self.config(&from["configMapRef"], CONFIG_MAP, "name", &by);
            self.config(&from["secretRef"], SECRET, "name", &by);
        }
        for variable in items(container, "env") {
            let from = &variable["valueFrom"];
            self.config(&from["configMapKeyRef"], CONFIG_MAP, "name", &by);
            self.config(&from["secretKeyRef"], SECRET, "name", &by);
        }
    }

    fn volume(&mut self, volume: &Value) {
        let by = format!("volume {}", text(volume, "name"));
        self.config(&volume["configMap"], CONFIG_MAP, "name", &by);
        self.config(&volume["secret"], SECRET, "secretName", &by);
        for source in items(&volume["projected"], "sources") {
            self.config(&source["configMap"], CONFIG_MAP, "name", &by);
            self.config(&source["secret"], SECRET, "name", &by);
            self.trust_bundle(&source["clusterTrustBundle"], &by);
        }
        let claim = text(&volume["persistentVolumeClaim"], "claimName");
        self.need(CLAIM, &claim, None, &by);
        let class = volume.pointer("/ephemeral/volumeClaimTemplate/spec/storageClassName");
        let class = class.and_then(Value::as_str).unwrap_or_default();
        self.need(STORAGE_CLASS, class, None, &by);
        let csi = &volume["csi"];
        self.need(DRIVER, &text(csi, "driver"), None, &by);
        let secret = text(&csi["nodePublishSecretRef"], "name");
        self.need(SECRET, &secret, None, &by);
        let class = text(&csi["volumeAttributes"], "secretProviderClass");
        if !class.is_empty() {
            let unknown =
                format!("whether SecretProviderClass {class} ({by}), and what it names, is there");
            self.unknown.push(unknown);
        }
        self.other_volume(volume, &by);
    }

    /// Its kind is still served under changing versions, and rights to it are rarely given.
    fn trust_bundle(&mut self, bundle: &Value, by: &str) {
        if bundle.is_null() || bundle["optional"] == true {
            return;
        }
        let which = match (text(bundle, "name"), text(bundle, "signerName")) {
            (name, _) if !name.is_empty() => name,
            (_, signer) => format!("of {signer}"),
        };
        self.unknown.push(format!(
            "whether ClusterTrustBundle {which} ({by}) is there"
        ));
    }

    /// Volumes that are not made of objects of the cluster.
    fn other_volume(&mut self, volume: &Value, by: &str) {
        const CHECKED: [&str; 9] = [
            "name",
            "configMap",
            "secret",
            "projected",
            "persistentVolumeClaim",
            "ephemeral",
            "csi",
            "emptyDir",
            "downwardAPI",
        ];
        let fields = volume.as_object().into_iter().flatten();
        for (kind, source) in fields.filter(|(kind, _)| !CHECKED.contains(&kind.as_str())) {
            let secret = text(&source["secretRef"], "name");
            self.need(SECRET, &secret, None, by);
            if kind == "image" {
                let image = text(source, "reference");
                self.unknown
                    .push(format!("whether image {image} can be pulled"));
            } else {
                self.unknown
                    .push(format!("whether {by} ({kind}) is there on the nodes"));
            }
        }
    }

    /// A ConfigMap or Secret reference, with the keys that it names.
    fn config(&mut self, reference: &Value, resource: Resource, field: &str, by: &str) {
        if reference["optional"] == true {
            return;
        }
        let name = text(reference, field);
        self.need(resource, &name, reference["key"].as_str(), by);
        for item in items(reference, "items") {
            self.need(resource, &name, item["key"].as_str(), by);
        }
    }

    fn need(&mut self, resource: Resource, name: &str, key: Option<&str>, by: &str) {
        self.add(resource, name, key, by, true);
    }

    fn add(&mut self, resource: Resource, name: &str, key: Option<&str>, by: &str, needed: bool) {
        if name.is_empty() {
            return;
        }
        let entry = self
            .found
            .entry((resource.kind, name.to_owned()))
            .or_insert_with(|| Reference {
                resource,
                name: name.to_owned(),
                keys: BTreeSet::new(),
                by: by.to_owned(),
                needed,
            });
        entry.keys.extend(key.map(str::to_owned));
        entry.needed |= needed;
    }
}

fn items<'a>(of: &'a Value, name: &str) -> impl Iterator<Item = &'a Value> {
    of.get(name).and_then(Value::as_array).into_iter().flatten()
}

/// Pull secrets that a service account adds to the pods that name none of their own.
pub(super) fn pull_secrets(account: &Value, template: &Value) -> Vec<Reference> {
    let spec = template.get("spec").unwrap_or(&Value::Null);
    if items(spec, "imagePullSecrets").next().is_some() {
        return Vec::new();
    }
    let by = format!("imagePullSecrets of ServiceAccount {}", {
        text(&account["metadata"], "name")
    });
    let names = items(account, "imagePullSecrets").map(|secret| text(secret, "name"));
    names
        .filter(|name| !name.is_empty())
        .map(|name| Reference {
            resource: SECRET,
            name,
            keys: BTreeSet::new(),
            by: by.clone(),
            needed: false,
        })
        .collect()
}

/// Whether the metadata alone shows that an object has every key that is referred to: whoever wrote a key owns its
/// field. What it does not show may be there all the same.
pub(super) fn shows_keys(reference: &Reference, object: &Value) -> bool {
    let entries = object.pointer("/metadata/managedFields");
    let entries: Vec<_> = entries
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .collect();
    let owned = |key: &String| {
        let field = format!("f:{key}");
        let mut parts = entries.iter().map(|entry| &entry["fieldsV1"]);
        parts.any(|fields| {
            ["f:data", "f:binaryData"]
                .iter()
                .any(|part| fields[*part].get(&field).is_some())
        })
    };
    reference.keys.iter().all(owned)
}

/// Keys that an object lacks, of those that are referred to.
pub(super) fn lacking(reference: &Reference, object: &Value) -> Vec<String> {
    let has = |key: &String| {
        ["data", "binaryData"]
            .iter()
            .any(|part| object.get(part).is_some_and(|data| data.get(key).is_some()))
    };
    reference
        .keys
        .iter()
        .filter(|key| !has(key))
        .cloned()
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn template() -> Value {
        json!({"spec": {
            "serviceAccountName": "shop",
            "priorityClassName": "high",
            "imagePullSecrets": [{"name": "registry"}],
            "initContainers": [{"name": "migrate", "image": "shop:v1", "envFrom": [{"secretRef": {"name": "db"}}]}],
            "containers": [{"name": "app", "image": "shop:v1", "env": [
                {"name": "A", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "a"}}},
                {"name": "B", "valueFrom": {"secretKeyRef": {"name": "db", "key": "password"}}},
                {"name": "C", "valueFrom": {"configMapKeyRef": {"name": "maybe", "key": "c", "optional": true}}},
                {"name": "D", "value": "plain"},
            ]}],
            "volumes": [
                {"name": "conf", "configMap": {"name": "conf", "items": [{"key": "b", "path": "b"}]}},
                {"name": "tls", "projected": {"sources": [{"secret": {"name": "tls"}}, {"serviceAccountToken": {}}]}},
                {"name": "data", "persistentVolumeClaim": {"claimName": "data"}},
                {"name": "tmp", "emptyDir": {}},
                {"name": "host", "hostPath": {"path": "/x"}},
                {"name": "vault", "csi": {"driver": "secrets-store.csi.k8s.io",
                    "volumeAttributes": {"secretProviderClass": "shop-db"}}},
                {"name": "roots", "projected": {"sources": [
                    {"clusterTrustBundle": {"name": "example.com:roots", "path": "ca.pem"}},
                    {"clusterTrustBundle": {"signerName": "maybe", "optional": true, "path": "b.pem"}},
                ]}},
            ],
        }})
    }

    #[test]
    fn every_reference_is_found_once() {
        let references = References::of(&template());
        let found: Vec<_> = references
            .iter()
            .map(|r| format!("{} {}", r.resource.kind, r.name))
            .collect();
        assert_eq!(
            found,
            [
                "CSIDriver secrets-store.csi.k8s.io",
                "ConfigMap conf",
                "PersistentVolumeClaim data",
                "PriorityClass high",
                "Secret db",
                "Secret registry",
                "Secret tls",
                "ServiceAccount shop",
            ]
        );
    }

    #[test]
    fn keys_of_all_uses_are_needed_together() {
        let references = References::of(&template());
        let conf = references.iter().find(|r| r.name == "conf").unwrap();
        let keys: Vec<_> = conf.keys.iter().map(String::as_str).collect();
        assert_eq!(keys, ["a", "b"]);
        assert_eq!(
            lacking(conf, &json!({"data": {"a": "1"}, "binaryData": {}})),
            ["b"]
        );
    }

    #[test]
    fn a_pull_secret_may_be_missing() {
        let references = References::of(&template());
        let needed = |name: &str| references.iter().find(|r| r.name == name).unwrap().needed;
        assert!(!needed("registry"));
        assert!(needed("db"));
    }

    #[test]
    fn what_no_reading_can_tell_is_unknown() {
        let references = References::of(&template());
        assert_eq!(
            references.unknown,
            [
                "whether volume host (hostPath) is there on the nodes",
                "whether SecretProviderClass shop-db (volume vault), and what it names, is there",
                "whether ClusterTrustBundle example.com:roots (volume roots) is there",
            ]
        );
        assert_eq!(references.images, ["whether image shop:v1 can be pulled"]);
    }

    #[test]
    fn pull_secrets_of_the_account_count_where_the_pod_names_none() {
        let account =
            json!({"metadata": {"name": "shop"}, "imagePullSecrets": [{"name": "registry"}]});
        let found = pull_secrets(&account, &json!({"spec": {}}));
        assert_eq!(
            found[0].object(),
            "Secret registry (imagePullSecrets of ServiceAccount shop)"
        );
        assert!(!found[0].needed);
        assert!(pull_secrets(&account, &template()).is_empty());
    }

    #[test]
    fn metadata_shows_a_key_where_somebody_owns_its_field() {
        let references = References::of(&template());
        let db = references.iter().find(|r| r.name == "db").unwrap();
        let owned = |key: &str| {
            json!({"metadata": {"managedFields": [
                {"manager": "helm", "fieldsV1": {"f:data": {".": {}, format!("f:{key}"): {}}}},
            ]}})
        };
        assert!(shows_keys(db, &owned("password")));
        assert!(!shows_keys(db, &owned("user")));
        assert!(!shows_keys(db, &json!({"metadata": {}})));
    }

    #[test]
    fn without_an_account_the_default_one_is_used() {
        let references = References::of(&json!({"spec": {"containers": []}}));
        let found: Vec<_> = references.iter().map(|r| r.name.as_str()).collect();
        assert_eq!(found, ["default"]);
    }
}
