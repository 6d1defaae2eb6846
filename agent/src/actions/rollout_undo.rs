//! `kube.rollout-undo`: put an older pod template of a Deployment back, only where the bad one runs.
//!
//! | | |
//! |---|---|
//! | effect, class | write, guarded by the template that was planned from |
//! | undo | puts the captured template back, only where the older one still stands |
//! | not ours | `replicas` (an autoscaler's), waiting for the rollout (`kube.wait`) |
//!
//! Pure: what the change is. [`super::template`] says what follows later; real and practice clusters send it.

use aldis_core::action::inputs::KubeRolloutUndo;
use aldis_core::outcome::Failure;
use serde_json::{Value, json};

use super::images;
use super::revisions::{History, hash};
use super::template::Change;

/// What would be sent, or why nothing.
pub(super) fn change(history: &History, with: &KubeRolloutUndo) -> Result<Change, Failure> {
    let from = with.from.as_deref().filter(|from| !from.is_empty());
    let Some(from) = from else {
        return Err(left_out(history));
    };
    if !images::runs(from, &history.current) {
        return Ok(unchanged(history, does_not_run(from, &history.current)));
    }
    let chosen = history.choose(&with.to)?;
    if hash(&chosen.template) == hash(&history.current) {
        let why = format!(
            "runs revision {} ({}) already",
            chosen.number,
            running(&chosen.template)
        );
        return Ok(unchanged(history, why));
    }
    if images::runs(from, &chosen.template) {
        let cause = format!(
            "revision {} of Deployment {} runs {} too",
            chosen.number,
            history.of,
            images::short(from)
        );
        return Err(Failure::new("refused", cause)
            .with_hint("say which template is good: `to` takes `revision:N`, an image or a tag"));
    }
    Ok(Change {
        template: chosen.template.clone(),
        outputs: json!({
            "changed": true,
            "revision": chosen.number,
            "image": images::first(&chosen.template),
            "previousImage": images::first(&history.current),
        }),
        unchanged: None,
    })
}

/// Whoever names no bad image is told what there is: to take every cluster back, the good ones too, is nobody's wish.
fn left_out(history: &History) -> Failure {
    let cause = format!(
        "`from` is left out: which image of Deployment {} is the bad one?",
        history.of
    );
    let runs = images::of_template(&history.current).join(", ");
    Failure::new("refused", cause)
        .with_evidence(vec![format!("runs {runs}")])
        .with_hint("name the bad image in `from`, by reference, tag or digest: only clusters that run it change")
}

/// By tags, or by whole references where a tag alone would say the same of both.
fn does_not_run(from: &str, current: &Value) -> String {
    let runs = images::of_template(current);
    let same = runs
        .iter()
        .any(|image| images::short(image) == images::short(from));
    if same {
        format!("does not run {from} (runs {})", runs.join(", "))
    } else {
        format!(
            "does not run {} (runs {})",
            images::short(from),
            running(current)
        )
    }
}

fn unchanged(history: &History, why: String) -> Change {
    let image = images::first(&history.current);
    Change {
        template: Value::Null,
        outputs: json!({
            "changed": false,
            "revision": history.current_number(),
            "image": image,
            "previousImage": image,
        }),
        unchanged: Some(why),
    }
}

/// Tags in use, for one sentence.
fn running(template: &Value) -> String {
    let images = images::of_template(template);
    let short: Vec<_> = images.iter().map(|image| images::short(image)).collect();
    short.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::actions::revisions::Revision;

    fn template(image: &str) -> Value {
        json!({"spec": {"containers": [{"name": "checkout", "image": image}]}})
    }

    fn history() -> History {
        let revision = |number, image: &str| Revision {
            number,
            template: template(image),
            created: None,
        };
        History {
            of: "shop/checkout".into(),
            current: template("checkout:v2.18.0"),
            revisions: vec![
                revision(1, "checkout:v2.17.4"),
                revision(2, "checkout:v2.18.0"),
            ],
        }
    }

    fn with(from: &str, to: &str) -> KubeRolloutUndo {
        KubeRolloutUndo {
            deployment: "checkout".into(),
            namespace: "shop".into(),
            from: Some(from.into()),
            to: to.into(),
        }
    }

    #[test]
    fn the_older_template_goes_back_whole() {
        let change = change(&history(), &with("v2.18.0", "previous")).unwrap();
        assert_eq!(change.template, template("checkout:v2.17.4"));
        assert_eq!(change.outputs["revision"], 1);
        assert_eq!(change.outputs["previousImage"], "checkout:v2.18.0");
        assert_eq!(change.unchanged, None);
    }

    #[test]
    fn a_cluster_that_does_not_run_the_bad_image_is_left_alone() {
        let change = change(&history(), &with("v2.19.0", "previous")).unwrap();
        assert_eq!(
            change.unchanged.as_deref(),
            Some("does not run v2.19.0 (runs v2.18.0)")
        );
        assert_eq!(change.outputs["changed"], false);
    }

    #[test]
    fn the_same_tag_of_another_registry_is_told_apart() {
        let change = change(
            &history(),
            &with("mirror.example/checkout:v2.18.0", "previous"),
        );
        assert_eq!(
            change.unwrap().unchanged.as_deref(),
            Some("does not run mirror.example/checkout:v2.18.0 (runs checkout:v2.18.0)")
        );
    }

    #[test]
    fn without_a_bad_image_nothing_changes_and_what_runs_is_listed() {
        let mut none = with("", "previous");
        for from in [Some(String::new()), None] {
            none.from = from;
            let failure = change(&history(), &none).unwrap_err();
            assert_eq!(failure.kind, "refused");
            assert_eq!(failure.evidence, ["runs checkout:v2.18.0"]);
        }
    }

    #[test]
    fn what_runs_already_is_not_sent_again() {
        let change = change(&history(), &with("v2.18.0", "revision:2")).unwrap();
        assert_eq!(
            change.unchanged.as_deref(),
            Some("runs revision 2 (v2.18.0) already")
        );
    }

    #[test]
    fn an_older_revision_of_the_bad_image_is_not_a_way_out() {
        let mut history = history();
        history.current["spec"]["replicas"] = json!(4);
        history.revisions[1].template["spec"]["config"] = json!("older");
        history.revisions.push(Revision {
            number: 3,
            template: history.current.clone(),
            created: None,
        });
        let failure = change(&history, &with("v2.18.0", "previous")).unwrap_err();
        assert_eq!(failure.kind, "refused");
        assert_eq!(
            failure.cause,
            "revision 2 of Deployment shop/checkout runs v2.18.0 too"
        );
    }
}
