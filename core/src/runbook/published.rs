//! The format as JSON Schema 2020-12, for editors: they complete fields and underline slips while a
//! runbook is written. It is drawn from the same table as the checks, which remain the judge: what
//! several fields mean together no schema says.

use serde_json::{Map, Value, json};

use super::fields::{Field, RUNBOOK, Shape, Takes};
use crate::action::Action;

/// The schema of a runbook file.
pub fn schema() -> Value {
    let mut schema = shape(&RUNBOOK);
    if let Some(fields) = schema.as_object_mut() {
        let dialect = json!("https://json-schema.org/draft/2020-12/schema");
        fields.insert("$schema".to_owned(), dialect);
        fields.insert("title".to_owned(), json!("Aldis runbook"));
    }
    schema
}

fn shape(shape: &Shape) -> Value {
    let properties: Map<String, Value> = shape
        .fields
        .iter()
        .map(|field| (field.name.to_owned(), property(field)))
        .collect();
    let required: Vec<&str> = shape
        .fields
        .iter()
        .filter(|field| field.required)
        .map(|field| field.name)
        .collect();
    json!({
        "type": "object",
        "additionalProperties": false,
        "required": required,
        "properties": properties,
    })
}

fn property(field: &Field) -> Value {
    let mut property = takes(&field.takes);
    if let Some(fields) = property.as_object_mut() {
        fields.insert("description".to_owned(), json!(field.about));
    }
    property
}

fn takes(wanted: &Takes) -> Value {
    match wanted {
        Takes::Text => json!({"type": "string"}),
        Takes::Exactly(text) => json!({"const": text}),
        Takes::RunbookName => {
            json!({"type": "string", "pattern": "^[a-z0-9]([a-z0-9-]*[a-z0-9])?$"})
        }
        Takes::Identifier => json!({"type": "string", "pattern": "^[a-z][a-zA-Z0-9_]*$"}),
        Takes::Action => {
            let each = Action::ALL.iter();
            let names: Vec<String> = each
                .flat_map(|action| [action.to_string(), action.name().to_owned()])
                .collect();
            json!({"enum": names})
        }
        Takes::Bool => json!({"type": "boolean"}),
        Takes::Whole { least, most } => {
            json!({"type": "integer", "minimum": least, "maximum": most})
        }
        Takes::Number { least, most } => {
            json!({"type": "number", "minimum": least, "maximum": most})
        }
        Takes::Duration { .. } => json!({"type": "string", "pattern": "^[0-9]+(ms|s|m|h|d)$"}),
        Takes::Share => json!({"type": "string", "pattern": "^(100|[0-9]{1,2})%$"}),
        Takes::OneOf { now, .. } => json!({"enum": now}),
        Takes::Condition => json!({"type": "string", "minLength": 1}),
        Takes::Texts => json!({"type": "object", "additionalProperties": {"type": "string"}}),
        Takes::Schema | Takes::With => json!({"type": "object"}),
        Takes::Object(inner) => shape(inner),
        Takes::List(inner) => json!({"type": "array", "items": shape(inner)}),
        Takes::Either(several) => {
            let each: Vec<Value> = several.iter().map(takes).collect();
            json!({"anyOf": each})
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runbook::builtin;

    #[test]
    fn the_library_is_valid_by_it_and_a_slip_is_not() {
        let validator = jsonschema::draft202012::new(&schema()).unwrap();
        for (name, text) in builtin::ALL {
            let file: Value = serde_saphyr::from_str(text).unwrap();
            let errors: Vec<String> = validator
                .iter_errors(&file)
                .map(|e| e.to_string())
                .collect();
            assert!(errors.is_empty(), "{name}: {errors:?}");
            let mut slipped = file.clone();
            slipped["spec"]["stepz"] = json!([]);
            assert!(!validator.is_valid(&slipped), "{name}");
        }
    }
}
