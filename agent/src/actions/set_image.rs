//! `kube.set-image`: give one container of a Deployment another image.
//!
//! | | |
//! |---|---|
//! | effect, class | write, guarded by the template that was planned from |
//! | undo | puts the captured template back, only where ours still stands |
//! | not ours | waiting for the rollout (`kube.wait`) |
//!
//! Pure: what the change is. [`super::template`] says what follows later; real and practice clusters send it.

use aldis_core::action::inputs::KubeSetImage;
use aldis_core::outcome::Failure;
use serde_json::{Value, json};

use super::template::Change;

/// What would be sent, or why nothing.
pub(super) fn change(template: &Value, with: &KubeSetImage) -> Result<Change, Failure> {
    // A Deployment takes any text that is not empty; its pods would not start.
    if with.image.is_empty() || with.image.contains(char::is_whitespace) {
        let cause = format!("`{}` is not an image", with.image);
        return Err(Failure::new("invalid", cause));
    }
    let containers = template.pointer("/spec/containers");
    let containers = containers
        .and_then(Value::as_array)
        .map_or(&[][..], |list| list);
    let index = index(containers, with)?;
    let previous = containers[index]["image"].as_str().unwrap_or_default();
    let outputs = json!({
        "changed": previous != with.image,
        "image": with.image,
        "previousImage": previous,
    });
    if previous == with.image {
        return Ok(Change {
            template: Value::Null,
            outputs,
            unchanged: Some(format!("runs {previous} already")),
        });
    }
    let mut changed = template.clone();
    changed["spec"]["containers"][index]["image"] = json!(with.image);
    Ok(Change {
        template: changed,
        outputs,
        unchanged: None,
    })
}

/// The container that is meant. A wrong name is answered with the right ones.
fn index(containers: &[Value], with: &KubeSetImage) -> Result<usize, Failure> {
    let object = format!("Deployment {}/{}", with.namespace, with.deployment);
    let name = |container: &Value| container["name"].as_str().unwrap_or_default().to_owned();
    let present: Vec<_> = containers.iter().map(name).collect();
    let wanted = with.container.as_deref().filter(|name| !name.is_empty());
    match (wanted, present.as_slice()) {
        (Some(wanted), present) => {
            let found = present.iter().position(|name| name == wanted);
            found.ok_or_else(|| {
                let cause = format!("{object} has no container `{wanted}`");
                Failure::new("notFound", cause)
                    .with_evidence(vec![format!("it has {}", present.join(", "))])
            })
        }
        (None, [_]) => Ok(0),
        (None, present) => {
            let cause = format!("{object} has {} containers", present.len());
            Err(Failure::new("invalid", cause)
                .with_evidence(vec![format!("they are {}", present.join(", "))])
                .with_hint("say which one is meant by `container`"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn template() -> Value {
        json!({"spec": {"containers": [
            {"name": "proxy", "image": "envoy:1"},
            {"name": "shop", "image": "shop:v1", "args": ["-x"]},
        ]}})
    }

    fn with(container: &str, image: &str) -> KubeSetImage {
        KubeSetImage {
            deployment: "shop".into(),
            namespace: "web".into(),
            container: Some(container.into()),
            image: image.into(),
        }
    }

    #[test]
    fn one_image_changes_and_nothing_else() {
        let change = change(&template(), &with("shop", "shop:v2")).unwrap();
        let mut wanted = template();
        wanted["spec"]["containers"][1]["image"] = json!("shop:v2");
        assert_eq!(change.template, wanted);
        assert_eq!(change.outputs["previousImage"], "shop:v1");
    }

    #[test]
    fn the_image_that_runs_is_not_set_again() {
        let change = change(&template(), &with("shop", "shop:v1")).unwrap();
        assert_eq!(change.unchanged.as_deref(), Some("runs shop:v1 already"));
        assert_eq!(change.outputs["changed"], false);
    }

    #[test]
    fn what_is_no_image_is_refused() {
        for image in ["", " ", "shop: v2"] {
            let failure = change(&template(), &with("shop", image)).unwrap_err();
            assert_eq!(failure.kind, "invalid", "{image}");
        }
    }

    #[test]
    fn a_wrong_container_name_is_answered_with_the_right_ones() {
        let failure = change(&template(), &with("shpo", "shop:v2")).unwrap_err();
        assert_eq!(failure.cause, "Deployment web/shop has no container `shpo`");
        assert_eq!(failure.evidence, ["it has proxy, shop"]);
    }

    #[test]
    fn without_a_name_there_must_be_one_container() {
        assert_eq!(
            change(&template(), &with("", "shop:v2")).unwrap_err().kind,
            "invalid"
        );
        let single = json!({"spec": {"containers": [{"name": "shop", "image": "shop:v1"}]}});
        assert!(change(&single, &with("", "shop:v2")).is_ok());
    }
}
