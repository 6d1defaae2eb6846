//! The charts by their goldens, and what no golden shows: that they lint, that their notes warn, that what they configure
//! is a configuration.

use std::path::Path;

use aldis_tests::goldens::Goldens;
use serde::Deserialize;
use serde_json::{Value, json};

use crate::helm::{self, Rendered};
use crate::objects;

/// A case.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    /// One sentence, which heads the golden.
    about: String,
    chart: String,
    /// Set over the chart's `ci/example-values.yaml`; null takes a value away.
    #[serde(default)]
    values: Value,
}

pub(crate) fn example(chart: &str) -> Value {
    let file = helm::chart(chart).join("ci/example-values.yaml");
    serde_saphyr::from_str(&std::fs::read_to_string(file).unwrap()).unwrap()
}

/// The example values with others over them, as a merge patch.
pub(crate) fn example_with(chart: &str, over: Value) -> Value {
    let mut values = example(chart);
    merge(&mut values, over);
    values
}

fn merge(into: &mut Value, over: Value) {
    match (into, over) {
        (Value::Object(into), Value::Object(over)) => {
            for (key, value) in over {
                if value.is_null() {
                    into.remove(&key);
                } else {
                    merge(into.entry(key).or_insert(Value::Null), value);
                }
            }
        }
        (_, Value::Null) => {}
        (into, over) => *into = over,
    }
}

fn answer(text: &str) -> anyhow::Result<String> {
    let case: Case = serde_saphyr::from_str(text)?;
    let values = example_with(&case.chart, case.values);
    Ok(match helm::template(&case.chart, &values)? {
        Rendered::Manifests(text) => {
            objects::read(&text)?;
            format!("# {}\n{text}", case.about)
        }
        Rendered::Refused(why) => {
            // Where the chart is on this machine.
            let why = why.replace(&helm::chart(&case.chart).display().to_string(), "CHART");
            format!("# {}\nrefused\n{}\n", case.about, in_order(&why))
        }
    })
}

/// Helm gives the reasons in any order.
fn in_order(why: &str) -> String {
    let lines = why.trim().lines();
    let (mut reasons, mut lines): (Vec<_>, Vec<_>) = lines.partition(|line| line.starts_with("- "));
    reasons.sort_unstable();
    lines.extend(reasons);
    lines.join("\n")
}

#[tokio::test]
async fn every_case_is_rendered_as_its_golden_says() {
    let goldens = Goldens::find(&Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy/charts"));
    goldens
        .unwrap()
        .hold_all(|text| async move { answer(&text) })
        .await;
}

#[test]
fn both_charts_lint() {
    for chart in ["aldis-agent", "aldis-control-plane"] {
        if let Rendered::Refused(why) = helm::lint(chart).unwrap() {
            panic!("{chart}: {why}");
        }
    }
}

#[test]
fn the_notes_say_what_would_surprise_later() {
    let notes =
        |over: Value| helm::notes("aldis-agent", &example_with("aldis-agent", over)).unwrap();
    let usual = notes(json!({}));
    assert!(
        usual.contains("The agent of eu-west/prod-1 dials control-plane.example:7600"),
        "{usual}"
    );
    assert!(!usual.contains("NOTHING IS ALLOWED"), "{usual}");
    let nothing = notes(json!({"policy": {"actions": []}}));
    assert!(nothing.contains("NOTHING IS ALLOWED YET"), "{nothing}");
    let patterns = notes(json!({"policy": {"namespaces": ["team-*"]}}));
    assert!(patterns.contains("RBAC knows no patterns"), "{patterns}");
    let lost = notes(json!({"storage": {"kind": "emptyDir"}}));
    assert!(
        lost.contains("THE JOURNAL DOES NOT OUTLIVE THE POD"),
        "{lost}"
    );
}

#[test]
fn each_value_is_explained_and_known_to_the_schema() {
    for chart in ["aldis-agent", "aldis-control-plane"] {
        let read = |name: &str| std::fs::read_to_string(helm::chart(chart).join(name)).unwrap();
        let schema: Value = serde_json::from_str(&read("values.schema.json")).unwrap();
        let values: Value = serde_saphyr::from_str(&read("values.yaml")).unwrap();
        let known = schema["properties"].as_object().unwrap();
        let set = values.as_object().unwrap();
        for key in set.keys() {
            assert!(
                known.contains_key(key),
                "{chart}: the schema does not know `{key}`"
            );
        }
        // What must be given stands in the file as a comment.
        for key in known
            .keys()
            .filter(|key| *key != "global" && !set.contains_key(*key))
        {
            let written = read("values.yaml").contains(&format!("\n# {key}:"));
            assert!(written, "{chart}: values.yaml does not explain `{key}`");
        }
    }
}
