//! Reads Deployments and what belongs to them.

use aldis_core::outcome::Failure;
use kube::api::ListParams;
use serde_json::Value;

use super::super::Trouble;
use super::Cluster;
use super::deployment::{Live, ReplicaSet};
use super::paths::{DEPLOYMENT, NAMESPACE, REPLICA_SET};
use super::rights::{Right, Use, right};
use super::server::{Deadline, Shape};

/// Names shown to somebody who gave a wrong one.
const MOST_NAMES: u32 = 12;

const ALL: &[Use] = &[Use::Plan, Use::Observe, Use::Apply, Use::Undo];

/// What [`Cluster::existing`] needs.
pub(super) const RIGHTS: [Right; 3] = deployments(ALL);

/// The same for an action that reads Deployments in some of its parts only.
pub(super) const fn deployments(uses: &'static [Use]) -> [Right; 3] {
    [
        right("get", DEPLOYMENT, uses, "to read the Deployment"),
        right(
            "list",
            DEPLOYMENT,
            uses,
            "to say which Deployments there are where a name is wrong",
        ),
        right(
            "get",
            NAMESPACE,
            uses,
            "to say that a namespace does not exist",
        ),
    ]
}

impl Cluster {
    /// A Deployment; none where there is none.
    pub(super) async fn find(
        &self,
        namespace: &str,
        name: &str,
        deadline: Deadline,
    ) -> Result<Option<Live>, Trouble> {
        let path = DEPLOYMENT
            .one(Some(namespace), name)
            .map_err(Trouble::refused)?;
        let what = format!("read Deployment {namespace}/{name}");
        let found = self.server.find(&path, Shape::Whole, deadline).await;
        match found.map_err(|error| error.reading(&what))? {
            None => Ok(None),
            Some(object) => match Live::read(&object) {
                Some(live) => Ok(Some(live)),
                None => Err(Trouble::refused(Failure::new(
                    "invalid",
                    format!("cannot {what}: the answer is no Deployment"),
                ))),
            },
        }
    }

    /// A Deployment that must be there. Where it is not, the answer says which are.
    pub(super) async fn existing(
        &self,
        namespace: &str,
        name: &str,
        deadline: Deadline,
    ) -> Result<Live, Trouble> {
        match self.find(namespace, name, deadline).await? {
            Some(live) => Ok(live),
            None => Err(Trouble::refused(
                self.missing(namespace, name, deadline).await,
            )),
        }
    }

    /// The revisions of a Deployment.
    pub(super) async fn revisions(
        &self,
        live: &Live,
        deadline: Deadline,
    ) -> Result<Vec<ReplicaSet>, Trouble> {
        let path = REPLICA_SET
            .all(Some(&live.namespace))
            .map_err(Trouble::refused)?;
        let params = ListParams::default().labels(&live.selector);
        let found = self.server.list(&path, &params, Shape::Whole, deadline);
        let found = found.await.map_err(|error| {
            error.reading(&format!("list the ReplicaSets of {}", live.object()))
        })?;
        Ok(live.revisions(&found))
    }

    async fn missing(&self, namespace: &str, name: &str, deadline: Deadline) -> Failure {
        let failure = Failure::new(
            "notFound",
            format!("Deployment {namespace}/{name} does not exist"),
        );
        let names = self.names(namespace, deadline).await.unwrap_or_default();
        if !names.is_empty() {
            let evidence = format!("namespace {namespace} has {}", names.join(", "));
            return failure.with_evidence(vec![evidence]);
        }
        match self.namespace_exists(namespace, deadline).await {
            Some(false) => {
                failure.with_evidence(vec![format!("there is no namespace {namespace}")])
            }
            Some(true) | None => failure,
        }
    }

    async fn names(&self, namespace: &str, deadline: Deadline) -> Option<Vec<String>> {
        let path = DEPLOYMENT.all(Some(namespace)).ok()?;
        let params = ListParams::default().limit(MOST_NAMES);
        let page = self
            .server
            .page(&path, &params, Shape::Metadata, deadline)
            .await
            .ok()?;
        let items = page.get("items")?.as_array()?.iter();
        let name = |item: &Value| Some(item.pointer("/metadata/name")?.as_str()?.to_owned());
        Some(items.filter_map(name).collect())
    }

    async fn namespace_exists(&self, namespace: &str, deadline: Deadline) -> Option<bool> {
        let path = NAMESPACE.one(None, namespace).ok()?;
        let found = self.server.find(&path, Shape::Metadata, deadline).await;
        found.ok().map(|found| found.is_some())
    }
}
