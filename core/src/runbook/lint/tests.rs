//! One small mistake for each code of these rules, and files without any.

use super::Catalogue;
use crate::action::{Action, Class, Effect, UndoKind};
use crate::runbook::load::load_by;

/// A runbook with one step in each part, without a mistake.
const GOOD: &str = r#"apiVersion: aldis.dev/v1alpha1
kind: Runbook
metadata: {name: r}
spec:
  direction: remedy
  params: {type: object, required: [image], properties: {image: {type: string}}}
  targets: {select: {matchLabels: {env: prod}}, min: 1}
  rollout:
    onFailure: halt
    waves:
      - {name: all, pick: {percent: 100}, soak: {for: 1m, require: steps.health.outputs.ok}}
  preflight:
    - {id: now, use: kube.get@v1, with: {kind: Deployment, name: shop, namespace: shop}}
  steps:
    - id: act
      use: kube.set-image@v1
      with: {deployment: shop, namespace: shop, image: "${params.image}"}
    - {id: wait, use: kube.wait@v1, with: {deployment: shop, namespace: shop, for: rolledOut}}
  verify:
    - {id: health, use: http.probe@v1, with: {service: shop, namespace: shop, port: 80, path: /}}
"#;

/// As if `kube.set-image` destroyed, must not begin twice, and could put nothing back.
fn once_and_for_all() -> Catalogue {
    Catalogue {
        effect: |action| match action {
            Action::KubeSetImage => Effect::Destructive,
            other => other.effect(),
        },
        class: |action| match action {
            Action::KubeSetImage => Class::Once,
            other => other.class(),
        },
        undo: |action| match action {
            Action::KubeSetImage => UndoKind::Runbook,
            other => other.undo(),
        },
    }
}

fn codes(text: &str, catalogue: Catalogue) -> Vec<&'static str> {
    match load_by("r.yaml", text, catalogue) {
        Ok(_) => vec![],
        Err(found) => found.iter().map(|found| found.code.id()).collect(),
    }
}

/// The codes of the good file with one piece of it written in another way.
fn said(piece: &str, instead: &str) -> Vec<&'static str> {
    assert!(GOOD.contains(piece), "{piece}");
    codes(&GOOD.replacen(piece, instead, 1), Catalogue::default())
}

#[test]
fn each_mistake_has_its_code() {
    assert!(codes(GOOD, Catalogue::default()).is_empty());
    let set = "use: kube.set-image@v1";
    for (code, piece, instead) in [
        ("AL0013", "id: wait", "id: act"),
        ("AL0015", "path: /}", "path: /, pth: /}"),
        ("AL0016", "name: shop, ", ""),
        ("AL0017", "port: 80", "port: eighty"),
        ("AL0017", "for: rolledOut", "for: rolledout"),
        ("AL0020", "required: [image]", "required: [imgae]"),
        (
            "AL0024",
            "use: kube.get@v1, with: {kind: Deployment, name: shop, namespace: shop}",
            "use: kube.set-image, with: {deployment: shop, namespace: shop, image: v1}",
        ),
        (
            "AL0026",
            set,
            "use: kube.set-image\n      undo: {use: kube.get, with: {kind: Deployment, name: shop}}",
        ),
        ("AL0027", set, "use: kube.set-image\n      undo: none"),
        ("AL0029", "percent: 100", "percent: 50"),
        ("AL0031", "type: object, ", "type: array, "),
        ("AL0031", "{type: string}", "{type: text}"),
        ("AL0031", "{type: string}", "{type: string, default: 1}"),
        (
            "AL0033",
            "require: steps.health.outputs.ok",
            "minSamples: 5",
        ),
        ("AL0033", "for: rolledOut}", "for: rolledOut}, message: no"),
        ("AL0033", "for: rolledOut}", "for: rolledOut}, reason: no"),
        ("AL0034", "min: 1", "min: 3, max: 2"),
        ("AL0034", "onFailure: halt", "onFailure: undo"),
        (
            "AL0034",
            "for: rolledOut}",
            "for: rolledOut}, safePoint: false, barrier: true",
        ),
        ("AL0034", "for: 1m", "for: 1m, settle: 2m"),
    ] {
        assert_eq!(said(piece, instead), [code], "{instead}");
    }
}

#[test]
fn what_must_not_begin_twice_or_cannot_be_put_back_says_so() {
    let destroys = |more: &str| {
        let set = "use: kube.set-image@v1";
        codes(
            &GOOD.replacen(set, &format!("{set}{more}"), 1),
            once_and_for_all(),
        )
    };
    assert_eq!(destroys(""), ["AL0026"]);
    let never = "\n      undo: never\n      reason: it is gone";
    assert!(destroys(never).is_empty());
    assert_eq!(
        destroys(&format!("{never}\n      retry: {{max: 2}}")),
        ["AL0025"]
    );
    let on_purpose = format!("{never}\n      retry: {{max: 2, unsafe: true}}");
    assert!(destroys(&on_purpose).is_empty());
}

#[test]
fn more_than_200_steps_are_too_many() {
    let wait = "    - {id: wait, use: kube.wait@v1, with: {deployment: shop, namespace: shop, for: rolledOut}}\n";
    let of = |count: usize| {
        let step = |at: usize| wait.replace("id: wait", &format!("id: wait{at}"));
        let many: String = (0..count).map(step).collect();
        codes(&GOOD.replacen(wait, &many, 1), Catalogue::default())
    };
    assert!(of(197).is_empty());
    assert_eq!(of(198), ["AL0032"]);
}

#[test]
fn another_action_as_undo_is_given_what_it_takes_of_the_step_and_must_have_the_rest() {
    let undone_by = |with: &str| {
        let set = "use: kube.set-image@v1";
        let undo = format!("{set}\n      undo: {{use: kube.rollout-undo, with: {with}}}");
        said(set, &undo)
    };
    assert!(undone_by("{to: previous}").is_empty());
    assert_eq!(undone_by("{}"), ["AL0016"], "`to` is nobody's");
    assert_eq!(undone_by("{to: previous, image: v1}"), ["AL0015"]);
    assert_eq!(undone_by("{to: 3}"), ["AL0017"]);
}

#[test]
fn a_secret_parameter_is_refused_however_deep_it_stands() {
    let secret = "{type: object, properties: {pin: {type: string, writeOnly: true}}}";
    assert_eq!(said("{type: string}", secret), ["AL0006"]);
    let in_list = "{type: array, items: {anyOf: [{type: string, writeOnly: true}]}}";
    assert_eq!(said("{type: string}", in_list), ["AL0006"]);
}

#[test]
fn a_soak_without_a_condition_holds_what_the_checks_require() {
    let soak = "soak: {for: 1m, require: steps.health.outputs.ok}";
    let settles = "soak: {for: 1m, settle: 5s}";
    assert_eq!(said(soak, settles), ["AL0033"], "nothing is judged");
    let required = GOOD.replacen("path: /}", "path: /}, require: steps.health.outputs.ok", 1);
    let both = required.replacen(soak, settles, 1);
    assert!(codes(&both, Catalogue::default()).is_empty());
}

#[test]
fn a_check_that_a_soak_runs_again_needs_nothing_that_only_ran_before() {
    let path = "path: \"/${steps.act.outputs.image}\"}";
    assert_eq!(said("path: /}", path), ["AL0030"]);
    let without = GOOD.replacen(", soak: {for: 1m, require: steps.health.outputs.ok}", "", 1);
    let without = without.replacen("path: /}", path, 1);
    assert!(codes(&without, Catalogue::default()).is_empty());
}
