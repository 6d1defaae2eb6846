//! Every field of the format is either supported or refused with a code of its own; none is ignored.
//!
//! The format knows more than this build does. Whoever writes such a field has been promised something by it (an approval,
//! a lock, a secret that stays sealed), and a runbook that runs without keeping that promise is worse than one that is
//! refused. So the fields still to come stand in the table of [`super::fields`] by name, and this file holds each of them
//! against the loader.

use super::codes::Code;
use super::fields::{
    BARRIER, METADATA, PICK, RETRY, ROLLOUT, RUNBOOK, SELECTOR, SOAK, SPEC, STEP, Shape, TARGETS,
    UNDO, WAVE,
};
use super::load::load;

/// A runbook that holds every kind of mapping, each with a line where a field more can stand.
const EVERY_MAPPING: &str = "apiVersion: aldis.dev/v1alpha1
kind: Runbook
#RUNBOOK
metadata:
  name: all
  #METADATA
spec:
  owner: refuse
  targets:
    select:
      matchLabels: {env: prod}
      #SELECTOR
    #TARGETS
  rollout:
    waves:
      - pick:
          percent: 100
          #PICK
        soak:
          for: 1m
          #SOAK
        #WAVE
    #ROLLOUT
  steps:
    - id: set
      use: kube.set-image@v1
      with: {deployment: shop, namespace: shop, image: 'shop:2'}
      retry:
        max: 3
        #RETRY
      barrier:
        timeout: 5m
        #BARRIER
      undo:
        with: {image: 'shop:1'}
        #UNDO
      #STEP
  #SPEC
";

/// Every kind of mapping: its line above, and what the format says may stand there.
const FORMAT: [(&str, &Shape, &[&str]); 13] = [
    (
        "#RUNBOOK",
        &RUNBOOK,
        &["apiVersion", "kind", "metadata", "spec"],
    ),
    (
        "#METADATA",
        &METADATA,
        &["name", "version", "title", "labels"],
    ),
    (
        "#SPEC",
        &SPEC,
        &[
            "approvals",
            "concurrency",
            "direction",
            "drift",
            "finally",
            "owner",
            "params",
            "phases",
            "preflight",
            "rollout",
            "secrets",
            "steps",
            "targets",
            "verify",
        ],
    ),
    (
        "#TARGETS",
        &TARGETS,
        &["select", "min", "max", "whenUnreachable", "deferFor"],
    ),
    ("#SELECTOR", &SELECTOR, &["matchLabels", "matchExpressions"]),
    (
        "#ROLLOUT",
        &ROLLOUT,
        &["waves", "profiles", "maxFailures", "onFailure"],
    ),
    (
        "#WAVE",
        &WAVE,
        &[
            "name",
            "pick",
            "maxParallel",
            "maxParallelPerRegion",
            "soak",
        ],
    ),
    ("#PICK", &PICK, &["perRegion", "max", "count", "percent"]),
    (
        "#SOAK",
        &SOAK,
        &["for", "settle", "every", "require", "minSamples"],
    ),
    (
        "#STEP",
        &STEP,
        &[
            "barrier",
            "env",
            "forEach",
            "id",
            "if",
            "message",
            "progress",
            "reason",
            "require",
            "retry",
            "run",
            "safePoint",
            "sensitive",
            "timeout",
            "undo",
            "until",
            "use",
            "with",
        ],
    ),
    (
        "#RETRY",
        &RETRY,
        &["max", "delay", "backoff", "maxDelay", "unsafe", "within"],
    ),
    ("#BARRIER", &BARRIER, &["timeout"]),
    ("#UNDO", &UNDO, &["use", "with"]),
];

/// What the loader says of the runbook with one piece of it replaced: code, line, message.
fn said(piece: &str, by: &str) -> Vec<(Code, usize, String)> {
    assert!(EVERY_MAPPING.contains(piece), "{piece}");
    match load("all.yaml", &EVERY_MAPPING.replacen(piece, by, 1)) {
        Ok(_) => Vec::new(),
        Err(found) => found
            .iter()
            .map(|found| (found.code, found.line, found.message.clone()))
            .collect(),
    }
}

fn line_of(piece: &str) -> usize {
    let before = EVERY_MAPPING.split(piece).next().unwrap_or_default();
    before.lines().count()
}

#[test]
fn without_a_field_more_the_runbook_is_one() {
    assert_eq!(said("#RUNBOOK", ""), []);
}

#[test]
fn every_field_that_is_still_to_come_is_refused_by_name_where_it_stands() {
    let mut refused = 0;
    for (place, shape, _) in FORMAT {
        for field in shape.later {
            let found = said(place, &format!("{field}: 1"));
            let message = format!("`{field}` is not supported yet");
            assert_eq!(found, [(Code::NotSupported, line_of(place), message)]);
            refused += 1;
        }
    }
    assert!(refused >= 25, "only {refused} fields were tried");
}

#[test]
fn every_field_of_the_format_is_supported_or_still_to_come() {
    for (_, shape, fields) in FORMAT {
        for field in fields {
            let known = shape.field(field).is_some() || shape.later.contains(field);
            assert!(known, "{} does not know `{field}`", shape.name);
        }
    }
}

#[test]
fn a_field_that_nobody_knows_is_refused_in_every_mapping() {
    for (place, shape, _) in FORMAT {
        let codes: Vec<Code> = said(place, "surprise: 1").iter().map(|f| f.0).collect();
        assert_eq!(codes, [Code::UnknownField], "{}", shape.name);
    }
}

#[test]
fn values_and_names_that_are_still_to_come_are_refused() {
    for (piece, by, code) in [
        ("owner: refuse", "owner: hold", Code::NotSupported),
        (
            "#SPEC",
            "params: {type: object, properties: {pin: {type: string, writeOnly: true}}}",
            Code::NotSupported,
        ),
        ("'shop:2'", "'${secrets.image}'", Code::NotSupported),
        (
            "'shop:2'",
            "'${phases.main.outputs.set}'",
            Code::NotSupported,
        ),
        ("'shop:2'", "'${targets[0].name}'", Code::NotSupported),
        ("'shop:2'", "'${target.facts.version}'", Code::NotSupported),
        (
            "'shop:1'",
            "'${steps.set.before.image}'",
            Code::NotSupported,
        ),
        ("#STEP", "require: steps.set.live.done", Code::NotSupported),
        ("#STEP", "require: '${true}'", Code::MisplacedTemplate),
    ] {
        let found = said(piece, by);
        assert!(found.iter().any(|(is, ..)| *is == code), "{by}: {found:?}");
    }
}
