//! Reads the resolved input of a call as the type that its action declares.

use aldis_core::action::{Action, Effect, inputs};
use aldis_core::outcome::Failure;
use aldis_core::plan::ObjectRef;
use serde::de::DeserializeOwned;
use serde_json::{Value, json};

use super::{Call, Trouble};

/// The typed input of `call`.
pub(super) fn read<T: DeserializeOwned>(call: &Call) -> Result<T, Trouble> {
    T::deserialize(&call.with).map_err(|error| {
        let cause = format!("the input of {} is not valid: {error}", call.action.name());
        Trouble::refused(Failure::new("invalid", cause))
    })
}

/// Whether `call` may change the cluster.
pub(super) fn writes(call: &Call) -> bool {
    call.action.effect() != Effect::Read
}

/// Namespace and name of the Deployment that `call` writes.
pub(super) fn written(call: &Call) -> Result<(String, String), Trouble> {
    match call.action {
        Action::KubeRolloutUndo => {
            let with: inputs::KubeRolloutUndo = read(call)?;
            Ok((with.namespace, with.deployment))
        }
        Action::KubeSetImage => {
            let with: inputs::KubeSetImage = read(call)?;
            Ok((with.namespace, with.deployment))
        }
        Action::KubeGet | Action::KubeResolveTemplate | Action::KubeWait | Action::HttpProbe => {
            Err(Trouble::refused(reads_only(call)))
        }
    }
}

/// The Deployment whose template a call writes or waits for; none for other calls.
pub(crate) fn deployment(call: &Call) -> Option<ObjectRef> {
    let (namespace, name) = match call.action {
        Action::KubeWait => {
            let with: inputs::KubeWait = read(call).ok()?;
            (with.namespace, with.deployment)
        }
        Action::KubeRolloutUndo | Action::KubeSetImage => written(call).ok()?,
        Action::KubeGet | Action::KubeResolveTemplate | Action::HttpProbe => return None,
    };
    Some(ObjectRef {
        kind: "Deployment".to_owned(),
        namespace,
        name,
    })
}

/// A write was asked of an action that has none: a bug of the caller.
pub(super) fn reads_only(call: &Call) -> Failure {
    Failure::new("invalid", format!("{} changes nothing", call.action.name()))
}

/// What `kube.get` says of an object that is not there.
pub(super) fn absent() -> Value {
    json!({"found": false, "images": [], "replicas": 0, "ready": 0, "revision": 0, "paused": false})
}
