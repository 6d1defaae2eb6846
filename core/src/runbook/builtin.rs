//! The library that every build carries, one file a procedure under `runbooks/`.

/// Name and text of each, in the order of their names.
pub const ALL: [(&str, &str); 2] = [
    (
        "deploy-image",
        include_str!("../../../runbooks/deploy-image.yaml"),
    ),
    (
        "rollback-service",
        include_str!("../../../runbooks/rollback-service.yaml"),
    ),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use serde_json::{Map, Value, json};

    use super::*;
    use crate::action::Kind;
    use crate::assignments::scope;
    use crate::runbook::expression::{Expression, Scope, Template};
    use crate::runbook::{Runbook, Step};

    fn runbooks() -> impl Iterator<Item = (&'static str, Runbook)> {
        ALL.iter()
            .map(|(name, text)| (*name, serde_saphyr::from_str(text).unwrap()))
    }

    /// Parameters as an operator would give them, with the schema's defaults.
    fn params(runbook: &Runbook) -> Value {
        let mut params =
            json!({"service": "checkout", "namespace": "shop", "image": "checkout:v2"});
        let properties = runbook.spec.params["properties"].as_object().unwrap();
        let given = params.as_object_mut().unwrap();
        given.retain(|name, _| properties.contains_key(name));
        for (name, schema) in properties {
            if let Some(default) = schema.get("default") {
                given.entry(name.clone()).or_insert(default.clone());
            }
        }
        params
    }

    /// Outputs that let every condition hold, of the types that the catalogue declares.
    fn outputs(step: &Step) -> Value {
        let of_kind = |kind: Kind, name: &str| match kind {
            Kind::Text | Kind::Duration => json!("text"),
            Kind::Integer => json!(1),
            Kind::Number => json!(0.0),
            Kind::Bool => json!(name != "paused"),
            Kind::TextList => json!([]),
            Kind::Any => Value::Null,
        };
        let declared = step.uses.outputs();
        declared
            .iter()
            .map(|o| (o.name.to_owned(), of_kind(o.kind, o.name)))
            .collect::<Map<_, _>>()
            .into()
    }

    fn scope_of(runbook: &Runbook) -> Scope {
        let steps = runbook
            .steps()
            .map(|step| (step.id.to_string(), json!({"outputs": outputs(step)})))
            .collect();
        let target = "eu-west/prod-1".parse().unwrap();
        scope(&params(runbook), &target, &BTreeMap::new(), None, steps)
    }

    #[test]
    fn each_is_called_as_its_file_is() {
        for (name, runbook) in runbooks() {
            assert_eq!(runbook.metadata.name, name);
        }
    }

    #[test]
    fn every_condition_evaluates_to_true_where_all_is_well() {
        for (name, runbook) in runbooks() {
            let scope = scope_of(&runbook);
            let of_steps = runbook
                .steps()
                .flat_map(|s| [&s.condition, &s.require, &s.until]);
            let soaks = runbook
                .spec
                .rollout
                .waves
                .iter()
                .filter_map(|wave| wave.soak.as_ref());
            let conditions = of_steps
                .flatten()
                .chain(soaks.filter_map(|s| s.require.as_ref()));
            let held: Vec<_> = conditions
                .map(|text| {
                    Expression::parse(text)
                        .unwrap()
                        .evaluate_bool(&scope)
                        .unwrap()
                })
                .collect();
            assert!(
                !held.is_empty() && held.iter().all(|held| *held),
                "{name}: {held:?}"
            );
        }
    }

    #[test]
    fn every_input_resolves_to_what_its_action_takes() {
        for (name, runbook) in runbooks() {
            let scope = scope_of(&runbook);
            for step in runbook.steps() {
                let with = Template::parse(&step.with)
                    .unwrap()
                    .resolve(&scope)
                    .unwrap();
                let typed = step.uses.check_input(&with);
                assert_eq!(typed, Ok(()), "{name}: step {}", step.id);
            }
        }
    }
}
