//! Parameters of a job, held against the runbook's JSON Schema before anything is planned.
//!
//! All mistakes come at once, each with its parameter, as with the file itself. Defaults are filled
//! in at the top level only: a parameter is what the schema's `properties` names, and what lies
//! inside one is the operator's.

use serde::Serialize;
use serde_json::{Map, Value};

use super::diagnostics::nearest;

/// One thing wrong with the parameters.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, thiserror::Error)]
#[serde(rename_all = "camelCase")]
#[error("{message}")]
pub struct ParamError {
    /// Which parameter; empty where it is about all of them.
    pub param: String,
    /// What is wrong, in one sentence without a full stop.
    pub message: String,
    /// A parameter that may have been meant.
    pub did_you_mean: Option<String>,
    /// The schema's own description of the parameter.
    pub about: Option<String>,
}

/// Holds `given` against `schema` and fills in defaults.
pub fn validate(schema: &Value, given: &Value) -> Result<Value, Vec<ParamError>> {
    let given = match given {
        Value::Null => Map::new(),
        Value::Object(given) => given.clone(),
        _ => {
            return Err(vec![about_all(
                "parameters are a mapping of names to values",
            )]);
        }
    };
    let given = Value::Object(with_defaults(schema, given));
    let validator = jsonschema::draft202012::new(schema)
        .map_err(|error| vec![about_all(&format!("the runbook's `params`: {error}"))])?;
    let errors: Vec<_> = validator
        .iter_errors(&given)
        .flat_map(|error| explain(schema, &error))
        .collect();
    if errors.is_empty() {
        Ok(given)
    } else {
        Err(errors)
    }
}

/// The value that a `KEY=TEXT` of the command line stands for, by the type its schema names. Text
/// that is no such value stays text, so that [`validate`] can say what is wrong with it.
pub fn coerce(schema: &Value, key: &str, text: &str) -> Value {
    let declared = property(schema, key).and_then(|property| property.get("type"));
    let types: Vec<&str> = match declared {
        Some(Value::String(one)) => vec![one],
        Some(Value::Array(several)) => several.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    };
    let as_text = Value::String(text.to_owned());
    if types.is_empty() || types.contains(&"string") {
        return as_text;
    }
    match serde_json::from_str::<Value>(text) {
        Ok(value) if types.iter().any(|name| is_of_type(&value, name)) => value,
        _ => as_text,
    }
}

/// The names that the schema declares.
pub fn declared(schema: &Value) -> impl Iterator<Item = &str> {
    let properties = schema.get("properties").and_then(Value::as_object);
    properties
        .into_iter()
        .flat_map(|properties| properties.keys().map(String::as_str))
}

fn property<'a>(schema: &'a Value, name: &str) -> Option<&'a Value> {
    schema.get("properties")?.get(name)
}

fn is_of_type(value: &Value, name: &str) -> bool {
    match name {
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        _ => false,
    }
}

fn with_defaults(schema: &Value, mut given: Map<String, Value>) -> Map<String, Value> {
    let properties = schema.get("properties").and_then(Value::as_object);
    for (name, property) in properties.into_iter().flatten() {
        if let Some(default) = property.get("default") {
            given.entry(name.clone()).or_insert_with(|| default.clone());
        }
    }
    given
}

/// One error of the validator in words that name the parameter.
fn explain(schema: &Value, error: &jsonschema::ValidationError<'_>) -> Vec<ParamError> {
    use jsonschema::error::ValidationErrorKind as Kind;
    let path = error.instance_path().as_str();
    let top = path.split('/').nth(1).unwrap_or_default();
    match error.kind() {
        Kind::AdditionalProperties { unexpected } | Kind::UnevaluatedProperties { unexpected }
            if top.is_empty() =>
        {
            let unknown = unexpected.iter().map(|name| unknown(schema, name));
            unknown.collect()
        }
        Kind::Required { property } if top.is_empty() => {
            let name = property.as_str().unwrap_or_default();
            vec![about(
                schema,
                name,
                format!("parameter `{name}` is missing"),
            )]
        }
        _ if top.is_empty() => vec![about_all(&error.to_string())],
        _ => {
            let inner = path.get(top.len() + 1..).unwrap_or_default();
            let place = if inner.is_empty() {
                format!("`{top}`")
            } else {
                format!("`{top}` at `{inner}`")
            };
            let message = format!("parameter {place}: {}", words(schema, top, error));
            vec![about(schema, top, message)]
        }
    }
}

/// What is wrong with one value. A secret is not repeated.
fn words(schema: &Value, name: &str, error: &jsonschema::ValidationError<'_>) -> String {
    let secret = property(schema, name).and_then(|property| property.get("writeOnly"));
    if secret == Some(&Value::Bool(true)) {
        return error.masked().to_string();
    }
    error.to_string()
}

fn unknown(schema: &Value, name: &str) -> ParamError {
    let near = nearest(name, declared(schema)).map(str::to_owned);
    ParamError {
        param: name.to_owned(),
        message: format!("the runbook has no parameter `{name}`"),
        did_you_mean: near,
        about: None,
    }
}

fn about(schema: &Value, name: &str, message: String) -> ParamError {
    let described = property(schema, name)
        .and_then(|property| property.get("description"))
        .and_then(Value::as_str);
    ParamError {
        param: name.to_owned(),
        message,
        did_you_mean: None,
        about: described.map(str::to_owned),
    }
}

fn about_all(message: &str) -> ParamError {
    ParamError {
        param: String::new(),
        message: message.to_owned(),
        did_you_mean: None,
        about: None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn schema() -> Value {
        json!({
            "type": "object",
            "required": ["service", "namespace"],
            "additionalProperties": false,
            "properties": {
                "service": {"type": "string", "pattern": "^[a-z0-9-]{1,63}$", "description": "Name of the Deployment"},
                "namespace": {"type": "string"},
                "port": {"type": "integer", "default": 8080, "minimum": 1},
                "share": {"type": ["number", "null"]},
                "dry": {"type": "boolean"},
                "password": {"type": "string", "writeOnly": true, "minLength": 12}
            }
        })
    }

    #[test]
    fn defaults_are_filled_in() {
        let given = json!({"service": "shop", "namespace": "web"});
        let expected = json!({"service": "shop", "namespace": "web", "port": 8080});
        assert_eq!(validate(&schema(), &given), Ok(expected));
    }

    #[test]
    fn every_mistake_is_named_at_once() {
        let given =
            json!({"servise": "shop", "service": "Shop!", "port": 0, "password": "hunter2"});
        let errors = validate(&schema(), &given).unwrap_err();
        let mut said: Vec<_> = errors.iter().map(ToString::to_string).collect();
        said.sort_unstable();
        insta::assert_snapshot!(said.join("\n"), @r#"
        parameter `namespace` is missing
        parameter `password`: value is shorter than 12 characters
        parameter `port`: 0 is less than the minimum of 1
        parameter `service`: "Shop!" does not match "^[a-z0-9-]{1,63}$"
        the runbook has no parameter `servise`
        "#);
        let near = errors.iter().find(|e| e.param == "servise").unwrap();
        assert_eq!(near.did_you_mean.as_deref(), Some("service"));
        assert_eq!(errors.iter().filter(|e| e.about.is_some()).count(), 1);
    }

    #[test]
    fn text_becomes_what_the_schema_says_and_stays_text_otherwise() {
        let schema = schema();
        assert_eq!(coerce(&schema, "port", "80"), json!(80));
        assert_eq!(coerce(&schema, "port", "eighty"), json!("eighty"));
        assert_eq!(coerce(&schema, "port", "8.5"), json!("8.5"));
        assert_eq!(coerce(&schema, "share", "0.5"), json!(0.5));
        assert_eq!(coerce(&schema, "share", "null"), json!(null));
        assert_eq!(coerce(&schema, "dry", "true"), json!(true));
        assert_eq!(coerce(&schema, "service", "80"), json!("80"));
        assert_eq!(coerce(&schema, "unheard", "80"), json!("80"));
    }

    #[test]
    fn what_is_no_mapping_is_refused_and_nothing_is_an_empty_one() {
        assert!(validate(&schema(), &json!([1])).is_err());
        assert_eq!(
            validate(&json!({"type": "object"}), &Value::Null),
            Ok(json!({}))
        );
    }
}
